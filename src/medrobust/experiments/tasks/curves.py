"""Accuracy against epsilon: clean, attacked image by image, under noise, and under attacks made on another model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from medrobust import guessing, stats
from medrobust.attacks import run
from medrobust.attacks.auto import MEMBERS
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.experiments import robustness_cells
from medrobust.experiments.config import attack_named
from medrobust.experiments.rows import attack_rows, clean_rows, saving_rows
from medrobust.experiments.system import groups, unseen
from medrobust.experiments.tasks.gradient import DOUBT, doubt_all, gradient_doubt
from medrobust.experiments.work import Work
from medrobust.judging import judge
from medrobust.results import Kind, Row, Rows, doubted
from medrobust.store import Result
from medrobust.threat import BALLS, Untargeted


def judged_images(work: Work, classifier: Classifier, limit: str = "limit") -> Dataset:
    """Of the cell's data the images that the classifier has not seen, ``args[limit]`` of them."""
    part, _ = unseen(work.data, classifier, trained=False)
    return part.sample(work.args.get(limit), int(work.args.get("seed", 0)))


def shard(part: Dataset, number: int, of: int) -> Dataset:
    """The number-th of ``of`` pieces, in order."""
    return part.select(range(len(part) * number // of, len(part) * (number + 1) // of))


def fresh(norm: str = "linf", seed: int = 0) -> Rows:
    """Rows whose study, data and model the plan knows."""
    return Rows(norm=norm, seed=seed)


def anonymous(rows: Iterable[Row], norm: str) -> list[dict[str, object]]:
    """Rows of an experiment as a cell holds them: without study, data and model, which the plan knows."""
    return [replace(row, study="", data="", model="", norm=norm).plain() for row in rows]


def clean(work: Work) -> Result:
    """Performance without an attack. args: limit, seed. needs: model."""
    classifier = work.model()
    part = judged_images(work, classifier)
    _, arrays = robustness_cells.clean(classifier, part, quiet)
    rows = fresh(seed=work.args["seed"])
    clean_rows(rows, arrays["probability"], part.labels, arrays["decision"], classifier.classes, groups(part))
    return {"rows": rows.plain()}, arrays


def swept(work: Work) -> Result:
    """One attack over the grid on one shard of the images. args: attack, norm, eps, limit, seed, shard [i, of k]."""
    classifier, args = work.model(), work.args
    part = shard(judged_images(work, classifier), *args["shard"])
    eps = tuple(args["eps"])
    facts, arrays = robustness_cells.swept(
        attack_named(args["attack"]), classifier, part, BALLS[args["norm"]], eps, None, args["seed"], quiet
    )
    kept = ("min_eps", "before", "after", "gradients", "forwards", "no_gradient", "by")
    return {"rows": [], "unconfirmed": facts["unconfirmed"]}, {k: arrays[k] for k in kept if k in arrays}


def curve(work: Work) -> Result:
    """The shards of one attack joined. args: attack, norm, eps, limit, seed. needs: model, shard0, shard1, …"""
    classifier, args = work.model(), work.args
    done = work.inputs("shard")
    arrays = {k: np.concatenate([c.arrays[k] for c in done]) for k in done[0].arrays}
    doubt = gradient_doubt(work) if attack_named(args["attack"]).uses_gradient else ""
    rows = _rows(work, classifier, args["attack"], arrays, doubt)
    largest = {"attack": args["attack"], "eps": max(args["eps"])}
    for metric, spent in (("gradients_per_image", "gradients"), ("forwards_per_image", "forwards")):
        rows.add(Kind.ATTACK, metric, stats.mean(arrays[spent]), **largest)
    for i, member in enumerate(MEMBERS if "by" in arrays else ()):
        share = stats.proportion(arrays["by"] == i, groups(judged_images(work, classifier)))
        rows.add(Kind.ATTACK, "broken_by", share, **largest, member=member)
    facts = {"rows": rows.plain(), "unconfirmed": sum(c.facts["unconfirmed"] for c in done), DOUBT: doubt}
    return facts, arrays


def worst(work: Work) -> Result:
    """For each image the attack that needed least. args as ``curve``. needs: model, curve0, curve1, …"""
    done = work.inputs("curve")
    min_eps = np.stack([c.arrays["min_eps"] for c in done])
    best, images = min_eps.argmin(0), np.arange(min_eps.shape[1])
    arrays = {
        "min_eps": min_eps.min(0),
        "after": np.stack([c.arrays["after"] for c in done])[best, images],
        # an image proves something if any attack had a gradient to follow and failed
        "no_gradient": np.logical_and.reduce([c.arrays["no_gradient"] for c in done]),
    }
    doubt = next((c.facts[DOUBT] for c in done if c.facts[DOUBT]), "")
    return {"rows": _rows(work, work.model(), "worst", arrays, doubt, Kind.WORST).plain()}, arrays


def _rows(
    work: Work, classifier: Classifier, attack: str, arrays: dict[str, np.ndarray], doubt: str, kind: Kind = Kind.ATTACK
) -> Rows:
    part, args = judged_images(work, classifier), work.args
    rows = fresh(args["norm"], args["seed"])
    attack_rows(
        rows,
        attack,
        tuple(args["eps"]),
        arrays["min_eps"],
        part.labels,
        arrays["after"],
        arrays["no_gradient"],
        classifier.classes,
        groups(part),
        kind=kind,
    )
    doubt_all(rows, doubt)
    if part.labels.ndim == 1:  # whole sets of findings that are right do not say whether each finding is guessed
        chance = guessing.of(arrays["min_eps"] > 0, part.labels, groups(part))
        rows.rows = doubted(rows.rows, chance.text, attacks={attack})
    # a study is about rates; which errors one model makes is an audit's part
    rows.rows = [r for r in rows.rows if r.metric != "flip"]
    return rows


def noise(work: Work) -> Result:
    """Random changes of the same size. args: norm, eps, limit, seed. needs: model."""
    classifier, args = work.model(), work.args
    part, eps = judged_images(work, classifier), tuple(args["eps"])
    _, arrays = robustness_cells.noise(classifier, part, BALLS[args["norm"]], eps, args["seed"], quiet)
    rows = fresh(args["norm"], args["seed"])
    for i, e in enumerate(eps):
        share = stats.proportion(guessing.right(arrays["decision"][:, i], part.labels), groups(part))
        rows.add(Kind.CONTROL, "accuracy", share, attack="noise", eps=e)
    return {"rows": rows.plain()}, arrays


def saved(work: Work) -> Result:
    """Full-strength examples, as computed and saved at 8, 12 and 16 bits. args: attack, norm, eps, limit, seed."""
    classifier, args = work.model(), work.args
    part, attack, rows = (
        judged_images(work, classifier),
        attack_named(args["attack"]),
        fresh(args["norm"], args["seed"]),
    )
    doubt, arrays = gradient_doubt(work) if attack.uses_gradient else "", dict[str, np.ndarray]()
    for eps in args["eps"]:
        ball = BALLS[args["norm"]](eps)
        _, made = robustness_cells.saving(attack, classifier, part, ball, args["seed"], quiet)
        saving_rows(rows, args["attack"], eps, made, groups(part), doubt)
        arrays |= {f"{name}.{eps * 255:.4g}": values for name, values in made.items()}
    return {"rows": rows.plain()}, arrays


def transfer(work: Work) -> Result:
    """Full-strength examples made on ``surrogate`` and shown to ``model``. args: attack, norm, eps, limit, seed."""
    target, surrogate, args = work.model(), work.model("surrogate"), work.args
    part, ball, rows = judged_images(work, target), BALLS[args["norm"]], fresh(args["norm"], args["seed"])
    images, labels = part.tensors()
    goal, arrays = Untargeted(labels), {}
    surrogate_goal = goal.in_order_of(target.classes, surrogate.classes)
    for e in args["eps"]:
        made = run(
            attack_named(args["attack"]),
            surrogate,
            images,
            surrogate_goal,
            ball(e),
            seed=args["seed"],
            ids=part.ids,
            full=True,
        )
        outcome = judge(target, images, made.images, goal, ball(e))
        arrays[f"held.{e * 255:.4g}"] = ~outcome.reached.numpy()
        held = stats.proportion(~outcome.reached.numpy(), groups(part))
        rows.add(Kind.ATTACK, "accuracy", held, attack=args["attack"], eps=e)
    if attack_named(args["attack"]).uses_gradient:
        doubt_all(rows, gradient_doubt(work, "surrogate"))
    return {"rows": rows.plain()}, arrays


def quiet(_: Any) -> None:
    """Progress of a study is counted in cells."""
