"""`medrobust harden`: adversarial training of a classifier, and what it costs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medrobust.cli.audit import guesses
from medrobust.cli.choices import HARDENING
from medrobust.cli.doubts import warn
from medrobust.cli.measure import measure
from medrobust.cli.options import (
    MODEL,
    ComputeOptions,
    Device,
    ImageOptions,
    NetworkOptions,
    PrivacyOptions,
    Rate,
    RunOut,
    Seed,
)
from medrobust.cli.perturbations import Eps, Norm, one_size
from medrobust.cli.text import at_most, brief, guessed, say, table
from medrobust.errors import InputError

if TYPE_CHECKING:
    from medrobust.report.run import Run


def harden(
    *,
    model: Annotated[str, typer.Option(help=f"{MODEL}.")],
    images: ImageOptions,
    network: NetworkOptions,
    compute: ComputeOptions,
    privacy: PrivacyOptions,
    method: Annotated[
        str, typer.Option(help=f"With options after colons (trades:beta=3, pgd:awp=0.005): {HARDENING}.")
    ] = "pgd",
    norm: Norm = "linf",
    eps: Eps = "4/255",
    epochs: Annotated[int, typer.Option(help="Passes over the training images, at most.")] = 10,
    minutes: Annotated[
        float | None, typer.Option(help="Of training, on the clock: as many epochs are planned as fit.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many epochs that are no better under attack on validation images.")
    ] = None,
    limit: Annotated[int, typer.Option(help="How many test images are attacked before and after, 0 for all.")] = 200,
    lr: Rate = None,
    seed: Seed = 0,
    device: Device = None,
    out: RunOut = Path("runs/harden"),
) -> Path:
    """Train a classifier to withstand attacks, and attack it before and after; killed, the same command goes on."""
    from medrobust.experiments import ask
    from medrobust.experiments.hardening import HardeningConfig

    size, unit = one_size(eps)
    if size is None or unit != "fraction":
        raise InputError(f"--eps wants one size as a fraction of the pixel range (linf) or a length (l2), got {eps}")
    config = HardeningConfig(method=method, eps=size, epochs=epochs, minutes=minutes, lr=lr, patience=patience)
    spec = ask(model=model, **images.fields, **network.fields, train=False, further=True, seed=seed, norm=norm)
    spec = spec.model_copy(update={"limit": at_most(limit)})
    written = measure("harden", spec, dataclasses.asdict(config), out, compute, device, privacy, summary)
    say(f"model {out / 'model'}")
    return written


def summary(run: Run) -> None:
    """Clean and under attack, before and after; then the commands that say more."""
    from medrobust.report.hardening_words import epochs, verdict
    from medrobust.results import Kind, Row, find

    info, rows = run.conditions.hardening, run.rows
    assert info is not None
    warn(run.checks, run.conditions.class_notes)
    unit = run.conditions.grey_scale.text if run.conditions.norm == "Linf" else "{:.3g}".format

    def cell(row: Row | None) -> str:
        return "" if row is None else brief(row.estimate, 1) + ("" if row.ok else " ?")

    def line(name: str, metric: str, **columns: Any) -> list[str]:
        both = [find(rows, kind=Kind.DEFENCE, metric=metric, round=r, class_name=None, **columns) for r in (0, 1)]
        return [name, *map(cell, both)]

    right = "all findings right" if run.conditions.head == "multilabel" else "accuracy"
    lines = [line(right, "accuracy"), line("balanced", "balanced_accuracy")]
    lines += [line(f"attacked at {unit(e)}", "accuracy_attacked", eps=e) for e in info.sizes]
    clean = find(rows, kind=Kind.DEFENCE, metric="accuracy", round=0, class_name=None)
    n = 0 if clean is None else clean.n
    caption = f"{info.title}, in % with the 95 % interval; {n} test images, {run.conditions.n_attacked} attacked"
    table(["", "before", "after"], lines, caption)
    say(epochs(info))
    say(verdict(run))
    guessed(guesses(rows))
