"""`medrobust certify`: what no attack can break, beside what attacks break."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medrobust.cli.audit import guesses
from medrobust.cli.choices import ATTACKS, BOUNDS
from medrobust.cli.doubts import warn
from medrobust.cli.measure import measure
from medrobust.cli.options import (
    MODEL,
    SIZES,
    ComputeOptions,
    Device,
    ImageOptions,
    NetworkOptions,
    Out,
    PrivacyOptions,
    Seed,
    TrainingOptions,
)
from medrobust.cli.text import at_most, brief, eps_fields, guessed, say, table, words

if TYPE_CHECKING:
    from medrobust.report.run import Run


def certify(
    *,
    images: ImageOptions,
    model: Annotated[str, typer.Option(help=f"{MODEL}; a timm architecture without weights is trained.")] = "small_cnn",
    network: NetworkOptions,
    training: TrainingOptions,
    compute: ComputeOptions,
    privacy: PrivacyOptions,
    bounds: Annotated[str, typer.Option(help=f"Bounds of a small network's outputs: {BOUNDS}; none.")] = "crown",
    smoothing: Annotated[
        float | None,
        typer.Option(help="Standard deviation of the noise of a smoothed classifier (0.1); none if not given."),
    ] = None,
    draws: Annotated[int, typer.Option(help="Noisy copies of an image that smoothing asks about.")] = 1000,
    attacks: Annotated[
        str, typer.Option(help=f"What stands beside it, with options after colons (pgd:steps=40), of {ATTACKS}.")
    ] = "pgd",
    eps: Annotated[str | None, typer.Option(help=SIZES)] = None,
    norm: Annotated[str, typer.Option(help="linf or l2.")] = "linf",
    limit: Annotated[int, typer.Option(help="How many test images, 0 for all.")] = 80,
    seed: Seed = 0,
    device: Device = None,
    out: Out = None,
) -> Path:
    """Prove at which sizes no change can turn an image, and attack the same images: the truth lies between."""
    from medrobust.experiments import ask
    from medrobust.experiments.certified import CertifyConfig
    from medrobust.store import key

    config = CertifyConfig("" if bounds == "none" else bounds, smoothing, draws)
    spec = ask(
        model=model,
        **images.fields,
        **network.fields,
        **training.fields,
        attacks=words(attacks),
        **eps_fields(eps),
        norm=norm,
        seed=seed,
    ).model_copy(update={"limit": at_most(limit)})
    options = dataclasses.asdict(config)
    name = key({"model": spec.model_dump(mode="json"), "options": options})[:8]
    folder = out or Path("runs") / "-".join(["certify", *spec.slug().split("-")[1:-1], name])
    return measure("certify", spec, options, folder, compute, device, privacy, summary)


def summary(run: Run) -> None:
    """A size a line: what is proved, what attacks leave, and what nobody knows."""
    from medrobust.results import Kind, Row, among, find

    rows, info = run.rows, run.conditions
    warn(run.checks, info.class_notes)

    def cell(row: Row | None) -> str:
        return "" if row is None else brief(row.estimate, 1) + ("" if row.ok else " ?")

    columns: dict[str, dict[float, Row]] = {}
    if info.certified is not None:
        of_all = {"kind": Kind.CERTIFIED, "bound": info.certified.method, "class_name": None}
        columns[f"proved ({info.certified.title})"] = {r.eps: r for r in among(rows, metric="accuracy", **of_all)}
        columns["neither"] = {r.eps: r for r in among(rows, metric="undecided", **of_all)}
    for name, attack in info.attacks.items():
        columns[f"left by {attack.title}"] = {
            r.eps: r for r in among(rows, kind=Kind.ATTACK, attack=name, metric="accuracy", class_name=None)
        }
    if info.smoothed is not None:
        smoothed = {"kind": Kind.CERTIFIED, "bound": "smoothing", "class_name": None}
        columns["smoothed, proved"] = {r.eps: r for r in among(rows, metric="accuracy", **smoothed)}
        if (abstained := find(rows, metric="abstained", **smoothed)) is not None:
            say(f"smoothed with noise of {info.smoothed.sigma:g}: abstains on {cell(abstained)} %")
    sizes = sorted({e for by_eps in columns.values() for e in by_eps})
    unit = info.grey_scale.text if info.norm == "Linf" else "{:.3g}".format
    lines = [[unit(e), *(cell(by_eps.get(e)) for by_eps in columns.values())] for e in sizes]
    table(["eps", *columns], lines, f"Accuracy in % with the 95 % interval, n = {info.n_attacked}")
    guessed(guesses(rows))
    for check in run.checks:
        if check.passed is False:
            say(f"failed: {check.name}: {check.detail}; {check.consequence}")
