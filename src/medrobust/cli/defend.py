"""`medrobust defend`: train a classifier against universal perturbations, and attack it afresh after every round."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medrobust.cli.bars import Bars
from medrobust.cli.choices import UNIVERSAL
from medrobust.cli.command_line import command_line
from medrobust.cli.doubts import warn
from medrobust.cli.options import MODEL, Device, ImageOptions, KeepNames, NetworkOptions, Rate, RunOut, Seed
from medrobust.cli.perturbations import (
    Eps,
    Norm,
    Target,
    Zeta,
    ball_of,
    check_size,
    goal_named,
    method_named,
    size_told,
)
from medrobust.cli.text import at_most, brief, guessed, percent, say, table
from medrobust.errors import InputError

if TYPE_CHECKING:
    from medrobust.universal.defence import Attacked, Hardened


def defend(
    *,
    model: Annotated[str, typer.Option(help=f"{MODEL}.")],
    images: ImageOptions,
    network: NetworkOptions,
    defence: Annotated[str, typer.Option(help="retrain or universal-training.")] = "retrain",
    rounds: Annotated[int, typer.Option(help="How often to train and attack afresh.")] = 5,
    epochs: Annotated[int, typer.Option(help="Passes over the training images a round.")] = 5,
    perturbations: Annotated[
        int | None, typer.Option(help="Made against the classifier after each round; 10 to retrain, else 3.")
    ] = None,
    method: Annotated[str, typer.Option(help=f"What makes the perturbations: one of {UNIVERSAL}.")] = "sga",
    target: Target = None,
    norm: Norm = "l2",
    zeta: Zeta = None,
    eps: Eps = None,
    limit: Annotated[int, typer.Option(help="Training images a perturbation is made from, 0 for all.")] = 300,
    judged: Annotated[int, typer.Option(help="How many test images judge every round, 0 for all.")] = 0,
    lr: Rate = None,
    seed: Seed = 0,
    device: Device = None,
    keep_names: KeepNames = False,
    out: RunOut = Path("runs/defend"),
) -> Path:
    """Train a classifier further, against universal perturbations; killed, the same command goes on."""
    from medrobust import guessing, training
    from medrobust.experiments import ask
    from medrobust.experiments.gradient_check import checked
    from medrobust.experiments.system import assemble, groups
    from medrobust.run_folder import RunFolder
    from medrobust.run_info import write
    from medrobust.universal.defence import DEFENCES

    check_size(norm, zeta, eps)
    if defence not in DEFENCES:
        raise InputError(f"--defence {defence!r} is not known; choose {' or '.join(DEFENCES)}")
    options: dict[str, Any] = {"rounds": rounds, "epochs": epochs, "limit": at_most(limit), "lr": lr}
    if perturbations is not None:
        options["perturbations"] = perturbations
    defending, maker = DEFENCES[defence](**options), method_named(method)
    judging = at_most(judged)
    spec = ask(model=model, **images.asked, **network.asked, train=False, seed=seed, norm=norm)
    with Bars() as bars, RunFolder(out, "defend") as run:
        subject = assemble(spec, run, bars, device)
        goal = goal_named(target, subject.data.classes)
        ball = ball_of(norm, zeta, eps, subject.data.split("train").sample(1000, seed))
        test = subject.data.split("test").sample(judging, seed)
        probability, truth = training.evaluate(subject.classifier, test)
        guesses = guessing.of(probability.argmax(1) == truth, truth, groups(test)).text
        hardened = defending(
            subject.classifier,
            subject.data,
            goal,
            ball,
            method=maker,
            test=test,
            seed=seed,
            folder=run.entry("rounds"),
            progress=bars,
        )
        hardened.classifier.save(run.entry("model"), keep_names)
        # training changes weights, not how the gradient is hidden; the last network is the one to be believed
        check = checked(hardened.classifier, subject.data.split("test"), seed) if maker.opens else None
        facts = {
            "format": 1,
            "data": spec.data,
            "model": model,
            "asked": spec.subject,
            "defence": defence,
            "settings": defending.settings,
            "method": method,
            "target": target,
            "size": size_told(ball, zeta, eps),
            "seed": seed,
            "rounds": [r.plain() for r in hardened.rounds],
            "verdict": hardened.verdict,
            "stopped": hardened.stopped,
            "guesses": guesses,
            "status": "inconclusive" if check is not None and check.passed is False else "ok",
            "checks": subject.checks(check),
            **subject.findings,
        }
        write(run, "defend.json", facts, command_line(), str(subject.classifier.device), keep_names=keep_names)
    warn(facts["checks"], subject.class_notes)
    title = f"{defending.title} against {maker.title}, {size_told(ball, zeta, eps)}"
    summary(hardened, title, doubtful=check is not None and check.passed is False)
    guessed(guesses)
    say(f"\nmodel   {out / 'model'}\nnumbers {out / 'defend.json'}")
    return out / "defend.json"


def summary(hardened: Hardened, title: str, *, doubtful: bool = False) -> None:
    """A row a round, then whether a fresh perturbation works again."""
    targeted = hardened.rounds[0].fresh.success is not None
    what = "Rs" if targeted else "Rf"
    head = ["round", "clean acc.", f"{what} fresh", "best", "acc. under it", f"{what} old", f"{what} first", "random"]
    rows = []
    for r in hardened.rounds:
        best = brief(r.fresh.strongest, 0), brief(r.fresh.accuracy, 0)
        others = map(_rate, (r.old, r.first, r.control))
        rows.append([str(r.number), brief(r.accuracy, 0), _rate(r.fresh), *best, *others])
    first = hardened.rounds[0]
    say(title)
    on = f"On {first.accuracy.n} test images, {first.fresh.pool} perturbations a round, in % with the 95 % interval"
    table(head, rows, on)
    say(
        f"fresh: mean {what} of perturbations made against the classifier of that round; best: of the one that did\n"
        "best where it was made; old: mean of those of the round before; first: of those of round 0"
    )
    if first.fresh.base is not None:
        say("base rate of Rs: " + ", ".join(percent(r.fresh.base) for r in hardened.rounds))
    for r in hardened.rounds:
        if r.fresh.zero:
            say(f"round {r.number}: {r.fresh.zero} of {r.fresh.pool} perturbations stayed zero: {r.fresh.why}")
    if hardened.stopped:
        say(f"stopped: {hardened.stopped}")
    say(f"inconclusive: {hardened.verdict}" if doubtful else hardened.verdict)


def _rate(pool: Attacked | None) -> str:
    if pool is None:
        return ""
    return brief(pool.rate, 0) + (" (inconclusive)" if pool.inconclusive else "")
