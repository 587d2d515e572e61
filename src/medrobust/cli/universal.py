"""`medrobust universal`: one perturbation for every image, made, judged beside random ones, and kept."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medrobust.cli.bars import Bars
from medrobust.cli.choices import UNIVERSAL
from medrobust.cli.command_line import command_line
from medrobust.cli.doubts import MARK, warn
from medrobust.cli.options import MODEL, Device, ImageOptions, KeepNames, NetworkOptions, Out, Seed, TrainingOptions
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
from medrobust.cli.text import at_most, brief, guessed, listed, percent, say, table
from medrobust.errors import InputError

if TYPE_CHECKING:
    from medrobust.classifier import Classifier
    from medrobust.data import Dataset
    from medrobust.experiments.system import System
    from medrobust.images import Lazy
    from medrobust.universal import Universal, UniversalOutcome

UNFINISHED = "unfinished.safetensors"
"""Where the making stands, in the run folder: there after a kill only."""
MINE = "this perturbation"
SHOWN = 12
"""Rows of classes that a terminal takes."""


def universal(
    *,
    images: ImageOptions,
    model: Annotated[str, typer.Option(help=f"{MODEL}; a timm architecture without weights is trained.")] = "resnet18",
    network: NetworkOptions,
    training: TrainingOptions,
    method: Annotated[
        str, typer.Option(help=f"Name, with options after colons (sgd:passes=10), of {UNIVERSAL}.")
    ] = "sga",
    target: Target = None,
    norm: Norm = "l2",
    zeta: Zeta = None,
    eps: Eps = None,
    source: Annotated[
        str | None,
        typer.Option(help="Other images to make it from: noise, phantom:…, csv:…, folder:…; training images if none."),
    ] = None,
    vary: Annotated[
        bool, typer.Option("--vary", help="Crop, recolour, smooth and frame the other images: they get more answers.")
    ] = False,
    limit: Annotated[int, typer.Option(help="How many images it is made from, 0 for all.")] = 300,
    judged: Annotated[int, typer.Option(help="How many test images it is judged on, 0 for all.")] = 0,
    seed: Seed = 0,
    device: Device = None,
    keep_names: KeepNames = False,
    out: Out = None,
) -> Path:
    """One perturbation that fools a classifier on every image: made on training images, judged on test images."""
    from medrobust import private_names
    from medrobust.experiments import ask
    from medrobust.experiments.gradient_check import checked
    from medrobust.experiments.system import assemble
    from medrobust.run_folder import RunFolder
    from medrobust.run_info import write
    from medrobust.store import key

    check_size(norm, zeta, eps)
    way = method_named(method)
    making, judging = at_most(limit), at_most(judged)
    if vary and source in (None, images.data, "noise"):
        raise InputError("--vary is for images of another kind: give --source csv:… or folder:… with it")
    source = None if source == images.data else source  # its training images: the others are to judge
    spec = ask(model=model, **images.asked, **network.asked, **training.asked, norm=norm, seed=seed)
    asked = {
        "model": spec.model_dump(mode="json"),
        "method": method,
        "target": target,
        "zeta": zeta,
        "eps": eps,
        "source": source,
        "vary": vary,
        "limit": making,
        "judged": judging,
    }
    folder = out or Path("runs") / "-".join(["universal", *spec.slug().split("-")[1:-1], key(asked)[:8]])
    with Bars() as bars, RunFolder(folder, "universal") as run:
        subject = assemble(spec, run, bars, device)
        goal = goal_named(target, subject.data.classes)
        train = subject.data.split("train")
        pixels, told = _source(source, vary, train, making, seed, bars)
        ball = ball_of(norm, zeta, eps, train.sample(1000, seed))
        test = _test(subject, source).sample(judging, seed)
        bars.start(f"{way.title} on {len(pixels)} images", way.work(len(pixels)))
        v = way(
            subject.classifier,
            pixels,
            goal,
            ball,
            seed=seed,
            advance=bars.advance,
            watch=lambda rate: bars.advance(0, reached=f"{rate:.0%}"),
            checkpoint=run.entry(UNFINISHED),
        )
        bars.stop()
        outcomes = _judged(subject.classifier, test, v, seed, bars)
        guesses = guesses_of(outcomes[MINE])
        check = checked(subject.classifier, test, seed) if way.opens else None
        doubtful = check is not None and check.passed is False
        private = {subject.data.name, str(getattr(pixels, "name", subject.data.name)).removeprefix("varied ")}
        if not keep_names:
            v = dataclasses.replace(v, provenance=private_names.found(v.provenance, *private))
        v.save(run.entry("v.safetensors"))
        gain = v.picture(run.entry("v.png"))
        facts = {
            "format": 1,
            "asked": asked,
            "source": told,
            "size": size_told(ball, zeta, eps),
            "magnified": gain,
            "provenance": v.provenance,
            "history": v.history,
            "why": v.why,
            "status": "inconclusive" if doubtful or not v.moved else "ok",
            "checks": subject.checks(check),
            **subject.findings,
            "outcomes": {name: numbers(o) for name, o in outcomes.items()},
            "guesses": guesses,
        }
        write(
            run,
            "universal.json",
            facts,
            command_line(),
            str(subject.classifier.device),
            keep_names=keep_names,
            private=private,
        )
        run.remove(UNFINISHED)
    warn(facts["checks"], subject.class_notes)
    summary(outcomes, f"{way.title} made from {told}, {size_told(ball, zeta, eps)}", doubtful=doubtful)
    guessed(guesses)
    if v.why:
        say(f"{'note' if v.moved else 'inconclusive'}: {v.why}")
    say(f"\nperturbation {folder / 'v.safetensors'}\npicture      {folder / 'v.png'} (magnified {gain:.3g} x)")
    say(f"numbers      {folder / 'universal.json'}")
    return folder / "universal.json"


def _source(
    source: str | None, vary: bool, train: Dataset, limit: int | None, seed: int, bars: Bars
) -> tuple[Lazy, str]:
    """What the perturbation is made from, and what to call it."""
    from medrobust import data as data_room
    from medrobust.experiments.images import announce
    from medrobust.universal import Noise, Varied

    if source is None:
        part = train.sample(limit, seed)
        return part, f"{len(part)} training images of {train.name}"
    if source == "noise":
        n = limit or len(train)
        return Noise(n, (train.channels, train.size, train.size), seed), f"{n} images of noise"
    try:
        other = data_room.load(source, size=train.size, channels=train.channels, seed=seed)
        announce(other, bars)
    except InputError as error:
        raise InputError(f"--source {source}: {error}") from error
    if vary:
        n = limit or len(other)
        return Varied(other, n, seed), f"{n} variants of {len(other)} images of {other.name}"
    part = other.sample(limit, seed)
    return part, f"{len(part)} images of {other.name}"


def _test(subject: System, source: str | None) -> Dataset:
    """Images that neither the classifier was trained on nor the perturbation was made from."""
    return subject.data.split("test") if source is None else subject.test


def _judged(classifier: Classifier, test: Dataset, v: Universal, seed: int, bars: Bars) -> dict[str, UniversalOutcome]:
    """The perturbation and the random ones of its size, by name."""
    from medrobust.experiments.system import groups
    from medrobust.universal import controls, judge

    trials = {MINE: v} | {u.provenance["method"]: u for u in controls(classifier, test, v.ball, seed)}
    outcomes: dict[str, UniversalOutcome] = {}
    clean = None
    bars.start(f"judging on {len(test)} test images", len(trials))
    for name, u in trials.items():
        outcome = judge(classifier, test, u, test.labels, listed(groups(test)), test.bits, clean=clean)
        # a random perturbation has no target of its own: it is judged by that of the one it stands beside
        outcomes[name], clean = dataclasses.replace(outcome, target=v.target), outcome.clean
        bars.advance()
    bars.stop()
    return outcomes


def summary(outcomes: dict[str, UniversalOutcome], title: str, *, doubtful: bool = False) -> None:
    """The perturbation beside the random ones, then what happens to each class."""
    mine = outcomes[MINE]
    outcomes = {name + MARK * (doubtful and o is mine): o for name, o in outcomes.items()}
    wanted = None if mine.target is None else mine.classes[mine.target]
    say(title)
    head = ["perturbation", "Rf: decision changed", f"Rf saved at {mine.bits} bit"]
    rows = [[name, brief(o.fooling_rate), brief(o.fooling_rate_saved)] for name, o in outcomes.items()]
    if wanted is not None:
        head = ["perturbation", f"Rs: decided {wanted}", "Rs of others", f"Rs saved at {mine.bits} bit", "Rf"]
        rows = [
            [name, *map(brief, (o.targeted_success, o.targeted_success_new, o.targeted_success_saved, o.fooling_rate))]
            for name, o in outcomes.items()
        ]
    table(head, rows, f"On {mine.n} test images, in % with the 95 % interval")
    if mine.targeted_base is not None:
        say(f"decided {wanted} without a perturbation (base rate of Rs): {percent(mine.targeted_base)}")
    elif not math.isnan(mine.cap.value):
        say(f"Rf when all images go to one class: at most {percent(mine.cap)}")
    if mine.multilabel:
        return
    lines = []
    for name, before, after in mine.dominant[:SHOWN]:
        cells = (mine.fooling_rate_per_class[name], before, after, mine.recall_before[name], mine.recall_after[name])
        lines.append([name, *(brief(e, 0) for e in cells)])
    head = ["class", "Rf among them", "decided so before", "and after", "right before", "and after"]
    table(head, lines, "By class, in %")
    assert mine.accuracy_before is not None
    assert mine.accuracy_after is not None
    say(f"accuracy {percent(mine.accuracy_before)} before, {percent(mine.accuracy_after)} after")


def guesses_of(o: UniversalOutcome) -> str:
    """Why the classifier is not believed on the images it was judged on; empty where it is better than guessing."""
    from medrobust import guessing

    return "" if o.labels is None or o.multilabel else guessing.of(o.clean == o.labels, o.labels, o.groups).text


def numbers(o: UniversalOutcome) -> dict[str, Any]:
    """Everything that was judged, as JSON; null where there was nothing to count."""
    single = (
        "fooling_rate",
        "fooling_rate_saved",
        "cap",
        "targeted_success",
        "targeted_success_saved",
        "targeted_base",
        "targeted_success_new",
        "accuracy_before",
        "accuracy_after",
        "accuracy_saved",
    )
    by_class = ("fooling_rate_per_class", "targeted_success_per_class", "recall_before", "recall_after")
    told: dict[str, Any] = {name: estimate(getattr(o, name)) for name in single}
    told |= {name: {c: estimate(e) for c, e in getattr(o, name).items()} for name in by_class}
    pairs = {"sensitivity": o.sensitivity, "specificity": o.specificity}
    told |= {
        k: None if pair is None else {"before": estimate(pair[0]), "after": estimate(pair[1])}
        for k, pair in pairs.items()
    }
    told["dominant"] = [{"class": c, "before": estimate(a), "after": estimate(b)} for c, a, b in o.dominant]
    return told | {
        "classes": list(o.classes),
        "confusion": o.confusion.tolist(),
        "target": o.target,
        "legal": o.legal,
        "bits": o.bits,
        "n": o.n,
    }


def estimate(e: Any) -> dict[str, Any] | None:
    """value, low, high and n; None where nothing was counted."""
    if e is None or math.isnan(e.value):
        return None
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in e._asdict().items()}
