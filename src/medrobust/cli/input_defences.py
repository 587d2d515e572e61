"""`medrobust input-defences`: filters, guards and hardened classifiers, attacked with and without knowledge of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medrobust.cli.audit import guesses
from medrobust.cli.choices import DETECTORS, INPUT_DEFENCES
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
from medrobust.cli.text import at_most, brief, eps_fields, guessed, say, say_left_out, table, words

if TYPE_CHECKING:
    from medrobust.report.run import Run
    from medrobust.stats import Estimate


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
    detectors: Annotated[
        str, typer.Option(help=f"Detectors as guards, which refer images to a person: {DETECTORS}; empty for none.")
    ] = "kd",
    referrals: Annotated[float, typer.Option(help="Share of the validation images that a guard refers.")] = 0.05,
    hardened: Annotated[
        list[str] | None,
        typer.Option(help="Folder of a classifier that medrobust harden saved, judged beside; may be repeated."),
    ] = None,
    surrogate: Annotated[
        str | None,
        typer.Option(
            help="Folder of a saved classifier that transferred images are made on; a small one is trained on the "
            "classifier's answers if not given."
        ),
    ] = None,
    norm: Annotated[str, typer.Option(help="linf or l2.")] = "linf",
    eps: Annotated[str, typer.Option(help=SIZES)] = "1/255,4/255",
    limit: Annotated[int, typer.Option(help="How many test images are attacked, 0 for all.")] = 80,
    seed: Seed = 0,
    device: Device = None,
    out: RunOut = Path("runs/input-defences"),
) -> Path:
    """Put defences around a classifier, and attack each: without knowing it, from another classifier, knowing it."""
    from medrobust.experiments import ask
    from medrobust.experiments.input_defences import InputDefencesConfig

    config = InputDefencesConfig(
        words(defences) or (), words(detectors) or (), referrals, tuple(hardened or ()), surrogate
    )
    spec = ask(model=model, **images.fields, **network.fields, train=False, seed=seed, norm=norm, **eps_fields(eps))
    spec = spec.model_copy(update={"limit": at_most(limit)})
    return measure("input-defences", spec, dataclasses.asdict(config), out, compute, device, privacy, summary)


def summary(run: Run) -> None:
    """What withstands each attacker, a defence a line; what each costs; which to take."""
    from medrobust.report import defence_advice_words
    from medrobust.report.input_defence_words import ANOTHER, ATTACKERS, NONE, of_run, titles, told, worth
    from medrobust.results import Kind, find

    info, rows = run.conditions.input_defences, run.rows
    assert info is not None
    warn(run.checks, run.conditions.class_notes)
    unit = run.conditions.grey_scale.text if run.conditions.norm == "Linf" else "{:.3g}".format
    named = {NONE: "No defence", **titles(run)}

    def cell(name: str, metric: str, **columns: Any) -> str:
        row = find(rows, kind=Kind.DEFENCE, metric=metric, defence=name, **columns)
        return "" if row is None else brief(row.estimate, 0) + ("" if row.ok else " ?")

    knows = [who for who in ATTACKERS if who != ANOTHER or info.surrogate]
    for e in info.eps:
        judged, lines = of_run(run, e), []
        for name, title in named.items():
            under = [cell(name, "accuracy_attacked", eps=e, knows=who) for who in knows]
            lines.append([title, *under, worth(judged[name]).value if name in judged else ""])
        caption = f"Withstand at {unit(e)}, % with the 95 % interval, n = {run.conditions.n_attacked}; ?: inconclusive"
        table(["attacker:", *(ATTACKERS[who] for who in knows), ""], lines, caption)
    lines = []
    for name, title in named.items():
        shares = [cell(name, m, eps=0.0) for m in ("accuracy", "balanced_accuracy", "sensitivity")]
        plain = [find(rows, kind=Kind.DEFENCE, metric=m, defence=name) for m in ("ece", "seconds_per_image")]
        ece, seconds = (None if row is None else row.value for row in plain)
        referred = find(rows, kind=Kind.DEFENCE, metric="referred", defence=name, eps=0.0)
        lines.append(
            [
                title,
                *shares,
                "" if ece is None else f"{ece:.3f}",
                "" if seconds is None else f"{1000 * seconds:.3g}",
                "0" if referred is None else _of_thousand(referred.estimate),
            ]
        )
    head = ["untouched", "accuracy", "balanced", "sensitivity", "ECE", "ms an image", "referred of 1,000"]
    table(head, lines, f"What each costs: {run.conditions.n_test} test images; sensitivity at the same specificity")
    say_left_out(run.left_out)
    for one in told(run):
        say(one)
    if (advice := defence_advice_words.recommendation(run)) is not None:
        say(f"\n{advice.title} {advice.text}")
    guessed(guesses(rows))


def _of_thousand(share: Estimate) -> str:
    """ "52 (36-74)"."""
    return f"{1000 * share.value:.0f} ({1000 * share.low:.0f}-{1000 * share.high:.0f})"
