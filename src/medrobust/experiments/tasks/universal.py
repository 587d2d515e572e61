"""One change for every image: made once, judged on any classifier, beside random changes of the same size.

Rows are those of ``medrobust.experiments.universal`` and ``medrobust.experiments.defence``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from medrobust import guessing, options
from medrobust import universal as room
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.errors import InputError
from medrobust.experiments.catalogue import NONTARGETED
from medrobust.experiments.config import ask
from medrobust.experiments.context import Context
from medrobust.experiments.defence import DefenceConfig, DefenceExperiment
from medrobust.experiments.perturbation import PerturbationConfig, goal_of
from medrobust.experiments.system import given, groups
from medrobust.experiments.task_options import nearest
from medrobust.experiments.tasks.curves import anonymous, fresh
from medrobust.experiments.tasks.gradient import DOUBT, doubt_all, gradient_doubt
from medrobust.experiments.universal_images import CraftSplit, craft_split, decoded
from medrobust.experiments.universal_rows import believed, fooling_rows, rows_before, target_rows
from medrobust.experiments.work import Work
from medrobust.images import Lazy
from medrobust.results import INCONCLUSIVE, Kind
from medrobust.stats import Estimate
from medrobust.store import Result, Store
from medrobust.threat import BALLS, Ball
from medrobust.universal import Noise, Universal, UniversalOutcome, Varied


def made(work: Work) -> Result:
    """A perturbation against ``model``. args: method, settings, norm, zeta, measured, goal, source, vary, n, seed."""
    classifier, args = work.model(), work.args
    config, apart = PerturbationConfig(**_aim(args, args["settings"])), _craft_split(work, classifier)
    ball, goal = _ball(config, apart), goal_of(_target(args["goal"], classifier))
    with work.store.unfinished(work.ticket["spec"]) as checkpoint:
        images = _source(work, apart)
        v = config.maker(classifier, images, goal, ball, seed=args["seed"], checkpoint=checkpoint)
    doubt = gradient_doubt(work) if config.maker.opens else ""
    facts = {"eps": float(ball.eps), "why": v.why, "history": v.history, "provenance": v.provenance, "rows": []}
    return facts | {DOUBT: doubt}, {"delta": v.delta.numpy()}


def judged(work: Work) -> Result:
    """What the perturbation ``v`` does to ``model``. args: method, norm, goal, on (splits), judged (images), seed."""
    classifier, args, cell = work.model(), work.args, work.input("v")
    goal, apart = goal_of(_target(args["goal"], classifier)), _craft_split(work, classifier)
    delta, ball = torch.from_numpy(cell.arrays["delta"]), BALLS[args["norm"]](cell.facts["eps"])
    v = Universal(delta, ball, goal, why=cell.facts["why"])
    rows, arrays = fresh(args["norm"], args["seed"]), {}
    at: dict[str, Any] = {"attack": args["method"], "eps": cell.facts["eps"]}
    for split in args["on"]:
        part = _split(apart, split).sample(args["judged"], args["seed"])
        outcome = _judge(classifier, part, v)
        status, note = believed(outcome, v.nonzero, v.why, bool(outcome.legal))
        guesses = (
            "" if outcome.multilabel else guessing.of(outcome.clean == part.labels, part.labels, groups(part)).text
        )
        if guesses:
            status, note = INCONCLUSIVE, guesses
        said = {**at, "status": status, "note": note, "split": split, "by_class": False}
        if v.target is not None:
            target_rows(rows, Kind.UNIVERSAL, outcome, **said)
        target = None if v.target is None else args["goal"]
        fooling_rows(rows, Kind.UNIVERSAL, outcome, target=target, **said)
        rows_before(rows, Kind.UNIVERSAL, outcome, **said)
        arrays[f"after.{split}"] = outcome.after
    doubt_all(rows, cell.facts[DOUBT])
    provenance = cell.facts["provenance"]
    metric = "gradients" if provenance["gradients"] else "queries"
    cost = Estimate(float(provenance[metric]), np.nan, np.nan, provenance["images"]["n"])
    rows.add(Kind.UNIVERSAL, metric, cost, **at)
    used = Estimate(v.size / cell.facts["eps"], np.nan, np.nan, provenance["images"]["n"])
    rows.add(Kind.UNIVERSAL, "norm_used", used, **at)
    return {"rows": rows.plain()}, arrays


def random(work: Work) -> Result:
    """Three random changes of the same size, for every goal. args: norm, zeta, measured, goals, on, judged, seed."""
    classifier, args = work.model(), work.args
    apart, rows = _craft_split(work, classifier), fresh(args["norm"], args["seed"])
    ball = _ball(PerturbationConfig(**_size(args)), apart)
    for split in args["on"]:
        part = _split(apart, split).sample(args["judged"], args["seed"])
        for v in room.controls(classifier, part, ball, args["seed"]):
            outcome = _judge(classifier, part, v)
            at: dict[str, Any] = {"attack": str(v.provenance["method"]), "eps": float(ball.eps), "split": split}
            for name in args["goals"]:
                said = {**at, "goal": name, "by_class": False}
                if name == NONTARGETED:
                    fooling_rows(rows, Kind.CONTROL, outcome, **said)
                else:
                    towards = replace(outcome, target=_target(name, classifier))
                    target_rows(rows, Kind.CONTROL, towards, **said)
    return {"rows": rows.plain()}, {}


def defence(work: Work) -> Result:
    """Training on perturbations, round by round. args: defence, settings, method, method_settings, norm, zeta,
    measured, goal, seed. Finished rounds lie in RUN/training/KEY."""
    classifier, args = work.model(), work.args
    spec = ask(data=work.data.name, norm=args["norm"], seed=args["seed"])
    context = Context(given(work.data, classifier), spec, Store(work.run / "training" / work.key), study="")
    config = DefenceConfig(**_aim(args, args["method_settings"]), defence=args["defence"], **args["settings"])
    outcome = DefenceExperiment(context, config).outcome()
    work.checks["hardened"] = [check.plain() for check in outcome.checks]
    return {"rows": anonymous(outcome.rows.rows, args["norm"]), "conditions": outcome.conditions}, {}


# -- what the arguments say --------------------------------------------------------------------------------------


def _size(args: Mapping[str, Any]) -> dict[str, Any]:
    return {name: args[name] for name in ("norm", "zeta", "measured")}


def _aim(args: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of a PerturbationConfig. settings: of the method."""
    target = None if args["goal"] == NONTARGETED else args["goal"]
    return {"method": options.text(args["method"], settings), "target": target, **_size(args)}


def _target(name: str, classifier: Classifier) -> int | None:
    """A class of the classifier; None: away from the clean decision."""
    if name != NONTARGETED and name not in classifier.classes:
        raise InputError(f"no class {name!r}{nearest(name, (*classifier.classes, NONTARGETED))}")
    return None if name == NONTARGETED else classifier.classes.index(name)


def _craft_split(work: Work, classifier: Classifier) -> CraftSplit:
    """The images of the cell that a perturbation may be made from, and those it may be judged on."""
    apart = craft_split(given(work.data, classifier), seed=0)
    if apart is None:
        raise InputError(f"{work.data.name} has too few images to make a perturbation from some and judge it on others")
    return apart


def _split(apart: CraftSplit, name: str) -> Dataset:
    return apart.craft if name == "train" else apart.judged


def _ball(config: PerturbationConfig, apart: CraftSplit) -> Ball:
    """zeta is a share of the mean norm of the training images, whatever the perturbation is made from."""
    return config.ball(apart.craft.sample(config.measured, 0))


def _source(work: Work, apart: CraftSplit) -> Lazy:
    """The n images it is made from: training images of its own set, others or variants of those, or noise."""
    kind, n, home = work.args["source"], work.args["n"], apart.craft
    if kind == "noise":
        return Noise(n, home.shape)
    if work.args["vary"]:
        return Varied(decoded(work.another("source")), n, work.args["seed"])
    return decoded((home if kind == "training" else work.another("source")).sample(n, work.args["seed"]))


def _judge(classifier: Classifier, part: Dataset, v: Universal) -> UniversalOutcome:
    return room.judge(classifier, decoded(part), v, part.labels, groups(part))
