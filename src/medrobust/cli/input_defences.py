"""`medrobust input-defences`: filters before a classifier, attacked by who knows them and by who does not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medrobust.cli.audit import guesses
from medrobust.cli.choices import INPUT_DEFENCES
from medrobust.cli.doubts import warn
from medrobust.cli.measure import measure
from medrobust.cli.options import (
    MODEL,
    SIZES,
    ComputeOptions,
    Device,
    ImageOptions,
    NetworkOptions,
    PrivacyOptions,
    RunOut,
    Seed,
)
from medrobust.cli.text import at_most, brief, eps_fields, guessed, say, table, words

if TYPE_CHECKING:
    from medrobust.report.run import Run


def input_defences(
    *,
    model: Annotated[str, typer.Option(help=f"{MODEL}.")],
    images: ImageOptions,
    network: NetworkOptions,
    compute: ComputeOptions,
    privacy: PrivacyOptions,
    defences: Annotated[
        str, typer.Option(help=f"With options after colons (jpeg:quality=50, noise:sigma=0.05): {INPUT_DEFENCES}.")
    ] = INPUT_DEFENCES,
    norm: Annotated[str, typer.Option(help="linf or l2.")] = "linf",
    eps: Annotated[str, typer.Option(help=SIZES)] = "1/255,4/255",
    limit: Annotated[int, typer.Option(help="How many test images are attacked, 0 for all.")] = 80,
    seed: Seed = 0,
    device: Device = None,
    out: RunOut = Path("runs/input-defences"),
) -> Path:
    """Put defences before a classifier, and attack each: without knowing it, and knowing it."""
    from medrobust.experiments import ask
    from medrobust.experiments.input_defences import InputDefencesConfig

    config = InputDefencesConfig(words(defences) or ())
    spec = ask(model=model, **images.fields, **network.fields, train=False, seed=seed, norm=norm, **eps_fields(eps))
    spec = spec.model_copy(update={"limit": at_most(limit)})
    options = {"defences": config.defences}
    return measure("input-defences", spec, options, out, compute, device, privacy, summary)


def summary(run: Run) -> None:
    """A defence a line: untouched, and at each size under the attack that does not know it and the one that does."""
    from medrobust.report.input_defence_words import told
    from medrobust.results import Kind, find

    info, rows = run.conditions.input_defences, run.rows
    assert info is not None
    warn(run.checks, run.conditions.class_notes)
    unit = run.conditions.grey_scale.text if run.conditions.norm == "Linf" else "{:.3g}".format

    def cell(name: str, metric: str, **columns: Any) -> str:
        row = find(rows, kind=Kind.DEFENCE, metric=metric, defence=name, **columns)
        return "" if row is None else brief(row.estimate, 0) + ("" if row.ok else " ?")

    knows = {"unaware": "the classifier", "knows it": "the classifier and the defence"}
    head = ["", "untouched", *(f"{unit(e)}, {who}" for e in info.eps for who in knows)]
    lines = []
    for name in ("none", *info.defences):
        under = [cell(name, "accuracy_attacked", eps=e, knows=what) for e in info.eps for what in knows.values()]
        lines.append([name, cell(name, "accuracy"), *under])
    table(head, lines, f"Accuracy in % with the 95 % interval, n = {run.conditions.n_attacked}; ?: inconclusive")
    for one in told(run):
        say(one)
    guessed(guesses(rows))
