"""One change for every image: made once, judged on any classifier, beside random changes of the same size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from medrobust import guessing
from medrobust import universal as room
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.data.splits import deal
from medrobust.errors import InputError
from medrobust.experiments.system import groups
from medrobust.experiments.task_options import nearest
from medrobust.experiments.tasks.curves import fresh
from medrobust.experiments.tasks.gradient import DOUBT, doubt_all, gradient_doubt
from medrobust.experiments.work import Result, Work
from medrobust.images import Lazy
from medrobust.progress import NoProgress
from medrobust.results import INCONCLUSIVE, OK, Kind
from medrobust.stats import Estimate
from medrobust.threat import BALLS, Ball, Goal, Targeted, Untargeted
from medrobust.training import Pixels
from medrobust.universal import UNIVERSAL, Noise, Retraining, Universal, UniversalMethod, UniversalOutcome

NONTARGETED = "nontargeted"


def method_of(args: dict[str, Any], settings: str = "settings") -> UniversalMethod:
    """The method of these args: a name of UNIVERSAL and its settings."""
    return UNIVERSAL[args["method"]](**args[settings])


def side(home: Dataset, name: str) -> Dataset:
    """The images of that split; of a set that is all test images one half ("train") or the other ("test")."""
    if "train" in home.sides:
        return home.split(name)
    owners = groups(home)
    half = deal(list(home.ids if owners is None else owners), home.labels, {"train": 0.5, "test": 0.5}, 0)
    return home.select(np.flatnonzero(half == name))


def ball_of(args: dict[str, Any], home: Dataset) -> Ball:
    """zeta is a share of the mean norm of the training images, whatever the perturbation is made from."""
    return BALLS[args["norm"]].relative(args["zeta"], side(home, "train").sample(args["measured"], 0))


def goal_of(args: dict[str, Any], classifier: Classifier) -> Goal:
    """``args[goal]``: a class of the classifier, or ``nontargeted``."""
    name = args["goal"]
    return Untargeted() if name == NONTARGETED else Targeted(_class(name, classifier))


def _class(name: str, classifier: Classifier) -> int:
    if name not in classifier.classes:
        raise InputError(f"no class {name!r}{nearest(name, (*classifier.classes, NONTARGETED))}")
    return classifier.classes.index(name)


def source_of(work: Work, home: Dataset) -> Lazy:
    """The images it is made from: training images of its own set, of another one, or noise. n of them."""
    kind, n = work.args["source"], work.args["n"]
    if kind == "noise":
        return Noise(n, (home.channels, home.size, home.size))
    if kind == "training":
        return _decoded(side(home, "train").sample(n, work.args["seed"]))
    return _decoded(work.another("source").sample(n, work.args["seed"]))


def made(work: Work) -> Result:
    """A perturbation against ``model``. args: method, settings, norm, zeta, measured, goal, source, n, seed."""
    classifier, args = work.model(), work.args
    home = work.data_for(classifier)
    ball, goal = ball_of(args, home), goal_of(args, classifier)
    with work.store.unfinished(work.ticket["spec"]) as checkpoint:
        v = method_of(args)(classifier, source_of(work, home), goal, ball, seed=args["seed"], checkpoint=checkpoint)
    doubt = gradient_doubt(work) if method_of(args).opens else ""
    facts = {"eps": float(ball.eps), "why": v.why, "history": v.history, "provenance": v.provenance, "rows": []}
    facts[DOUBT] = doubt
    return facts, {"delta": v.delta.numpy()}


def judged(work: Work) -> Result:
    """What the perturbation ``v`` does to ``model``. args: method, norm, goal, on (splits), judged (images), seed."""
    classifier, args = work.model(), work.args
    cell = work.input("v")
    ball, goal = BALLS[args["norm"]](cell.facts["eps"]), goal_of(args, classifier)
    v = Universal(torch.from_numpy(cell.arrays["delta"]), ball, goal, why=cell.facts["why"])
    rows, arrays, told = fresh(args["norm"], args["seed"]), {}, cell.facts["provenance"]
    for split in args["on"]:
        part = side(work.data_for(classifier), split).sample(args["judged"], args["seed"])
        outcome = _judge(classifier, part, v)
        moved = v.moved or _rate(outcome).value == 1
        guesses = (
            "" if outcome.multilabel else guessing.of(outcome.clean == part.labels, part.labels, groups(part)).text
        )
        status = OK if moved and outcome.legal and not guesses else INCONCLUSIVE
        about = {"attack": args["method"], "eps": cell.facts["eps"], "status": status, "split": split}
        for metric, estimate in _metrics(outcome):
            rows.add(Kind.UNIVERSAL, metric, estimate, note=guesses or ("" if moved else v.why), **about)
        arrays[f"after.{split}"] = outcome.after
    doubt_all(rows, cell.facts[DOUBT])
    spent = Estimate(float(told["gradients"] or told["queries"]), np.nan, np.nan, told["images"]["n"])
    metric = "gradients" if told["gradients"] else "queries"
    rows.add(Kind.UNIVERSAL, metric, spent, attack=args["method"], eps=cell.facts["eps"])
    return {"rows": rows.plain()}, arrays


def random(work: Work) -> Result:
    """Three random changes of the same size, for every goal. args: norm, zeta, measured, goals, on, judged, seed."""
    classifier, args = work.model(), work.args
    home = work.data_for(classifier)
    ball, rows = ball_of(args, home), fresh(args["norm"], args["seed"])
    for split in args["on"]:
        part = side(home, split).sample(args["judged"], args["seed"])
        for v in room.controls(classifier, part, ball, args["seed"]):
            kind = str(v.provenance["method"])
            untargeted = _judge(classifier, part, v)
            for goal in args["goals"]:
                target = None if goal == NONTARGETED else _class(goal, classifier)
                outcome = UniversalOutcome(
                    untargeted.clean,
                    untargeted.after,
                    untargeted.after_saving,
                    classifier.classes,
                    target,
                    True,
                    untargeted.bits,
                    untargeted.labels,
                    untargeted.groups,
                )
                about = {"attack": kind, "eps": float(ball.eps), "goal": goal, "split": split}
                rows.add(Kind.CONTROL, "success", _rate(outcome), **about)
    return {"rows": rows.plain()}, {}


def defence(work: Work) -> Result:
    """Retraining on perturbations, round by round. args: settings (of Retraining), norm, zeta, measured, goal, seed."""
    classifier, args = work.model(), work.args
    way, ball = Retraining(**args["settings"]), ball_of(args, work.data)
    place = work.run / "training" / work.key  # rounds that are finished are kept there
    found = way(
        classifier,
        work.data,
        goal_of(args, classifier),
        ball,
        method=method_of(args, "method_settings"),
        seed=args["seed"],
        folder=place,
    )
    rows = fresh(args["norm"], args["seed"])
    for told in found.rounds:
        pools = {
            "fresh": told.fresh,
            "of the round before": told.old,
            "of the start": told.first,
            "random": told.control,
        }
        rows.add(Kind.DEFENCE, "accuracy", told.accuracy, round=told.number)
        for name, pool in pools.items():
            if pool is not None:
                status = INCONCLUSIVE if pool.inconclusive and name != "random" else OK
                at: dict[str, Any] = {"attack": name, "eps": float(ball.eps), "round": told.number}
                rows.add(Kind.DEFENCE, "success", pool.rate, status=status, note=pool.why, **at)
    if method_of(args, "method_settings").opens:
        doubt_all(rows, gradient_doubt(work), but=("none", "random"))
    return {"rows": rows.plain(), "verdict": found.verdict}, {}


def _judge(classifier: Classifier, part: Dataset, v: Universal) -> UniversalOutcome:
    return room.judge(classifier, _decoded(part), v, part.labels, groups(part))


def _rate(o: UniversalOutcome) -> Estimate:
    """Rf of a nontargeted perturbation, Rs of a targeted one."""
    return o.fooling_rate if o.targeted_success is None else o.targeted_success


def _metrics(o: UniversalOutcome) -> Iterable[tuple[str, Estimate]]:
    yield "success", _rate(o)
    yield "success_saved", o.fooling_rate_saved if o.targeted_success_saved is None else o.targeted_success_saved
    for name, found in (
        ("cap", o.cap if o.target is None else None),
        ("base", o.targeted_base),
        ("success_new", o.targeted_success_new),
        ("accuracy_before", o.accuracy_before),
        ("accuracy", o.accuracy_after),
    ):
        if found is not None:
            yield name, found


def _decoded(part: Dataset) -> Lazy:
    """The same images, decoded once."""
    return Pixels(part, NoProgress(), "images")
