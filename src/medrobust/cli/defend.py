"""`medrobust defend`: train a classifier against universal perturbations, and attack it afresh after every round."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medrobust.cli.audit import guesses
from medrobust.cli.choices import UNIVERSAL
from medrobust.cli.doubts import MARK, warn
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
from medrobust.cli.perturbations import Eps, Norm, Target, Zeta, one_size
from medrobust.cli.text import at_most, brief, guessed, percent, say, table

if TYPE_CHECKING:
    from medrobust.report.run import Run


def defend(
    *,
    model: Annotated[str, typer.Option(help=f"{MODEL}.")],
    images: ImageOptions,
    network: NetworkOptions,
    compute: ComputeOptions,
    privacy: PrivacyOptions,
    defence: Annotated[str, typer.Option(help="retrain or universal-training.")] = "retrain",
    rounds: Annotated[int, typer.Option(help="How often to train and attack afresh.")] = 5,
    epochs: Annotated[int, typer.Option(help="Passes over the training images a round.")] = 5,
    perturbations: Annotated[
        int | None, typer.Option(help="Made against the classifier after each round; 10 to retrain, else 3.")
    ] = None,
    method: Annotated[str, typer.Option(help=f"What makes the perturbations: one of {UNIVERSAL}.")] = "sgd",
    target: Target = None,
    norm: Norm = "l2",
    zeta: Zeta = None,
    eps: Eps = None,
    limit: Annotated[int, typer.Option(help="Training images a perturbation is made from, 0 for all.")] = 300,
    judged: Annotated[int, typer.Option(help="How many test images judge every round, 0 for all.")] = 0,
    lr: Rate = None,
    seed: Seed = 0,
    device: Device = None,
    out: RunOut = Path("runs/defend"),
) -> Path:
    """Train a classifier further, against universal perturbations; killed, the same command goes on."""
    from medrobust.experiments import ask
    from medrobust.experiments.defence import DefenceConfig

    size, unit = one_size(eps)
    config = DefenceConfig(
        method=method,
        target=target,
        norm=norm,
        zeta=zeta,
        eps=size,
        unit=unit,
        defence=defence,
        rounds=rounds,
        epochs=epochs,
        perturbations=perturbations,
        limit=at_most(limit),
        lr=lr,
        judged=at_most(judged),
    )
    spec = ask(model=model, **images.fields, **network.fields, train=False, seed=seed, norm=norm)
    spec = spec.model_copy(update={"limit": config.judged})
    written = measure("defend", spec, dataclasses.asdict(config), out, compute, device, privacy, summary)
    say(f"model {out / 'model'}")
    return written


def summary(run: Run) -> None:
    """A row a round, then whether a fresh perturbation works again."""
    from medrobust.experiments.perturbation import size_words
    from medrobust.results import Kind, Row, find

    conditions, info, rows = run.conditions, run.conditions.defence, run.rows
    assert info is not None
    rate, symbol = ("fooling_rate", "Rf") if info.target is None else ("targeted_success", "Rs")
    warn(run.checks, conditions.class_notes)
    size = size_words(conditions.norm, info.eps, info.zeta, conditions.grey_scale)
    say(f"{info.title} against {info.method.title}, {size}")

    def row(number: int, metric: str, pool: str | None = None) -> Row | None:
        return find(rows, kind=Kind.DEFENCE, metric=metric, round=number, pool=pool, class_name=None)

    def cell(number: int, metric: str, pool: str | None = None) -> str:
        row_ = row(number, metric, pool)
        return "" if row_ is None else brief(row_.estimate, 0) + MARK * (not row_.ok)

    lines = []
    for number in info.rounds:
        fresh = [cell(number, metric, "fresh") for metric in (rate, "strongest", "accuracy_strongest")]
        others = [cell(number, rate, pool) for pool in ("old", "first", "random")]
        lines.append([str(number), cell(number, "accuracy"), *fresh, *others])
    pools = ["best", "acc. under it", f"{symbol} old", f"{symbol} first", "random"]
    right = "all right" if conditions.head == "multilabel" else "clean acc."
    head = ["round", right, f"{symbol} fresh", *pools]
    on = f"On {info.n_judged} test images, {info.pool} perturbations a round, in % with the 95 % interval"
    table(head, lines, on)
    say(
        f"fresh: mean {symbol} of perturbations made against the classifier of that round; best: of the one that did\n"
        "best where it was made; old: mean of those of the round before; first: of those of round 0"
    )
    bases = [row_ for n in info.rounds if (row_ := row(n, "targeted_base", "fresh")) is not None]
    if bases:
        say("base rate of Rs: " + ", ".join(percent(row_.estimate) for row_ in bases))
    for still in info.still:
        say(f"round {still.round}: {still.zero} of {info.pool} perturbations stayed zero: {still.why}")
    if info.stopped:
        say(f"stopped: {info.stopped}")
    say(info.verdict)
    guessed(guesses(rows))
