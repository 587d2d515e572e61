"""Evolved networks under attack, each beside a gradient-trained twin that reads clean images equally well.

Equal accuracy is reached by stopping, and looked at where it counts. The twin of an evolved network is a point on
Adam's way from one of the first STARTS points that the search began with: the one where the difference in balanced
accuracy on all test images (at most MATCHING) and that in accuracy on the attacked ones have the smallest sum. Nothing
of the attacks is known to that choice. The two are then compared image by image, where both are right.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from medrobust import attacks, code_digest, search, stats
from medrobust.attacks import Attack
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.experiments import search_system
from medrobust.experiments.checks import doubt
from medrobust.experiments.gradient_check import compared, derived, gradient_check
from medrobust.experiments.search_networks import classifier
from medrobust.experiments.search_system import Images
from medrobust.progress import Progress
from medrobust.store import Store
from medrobust.threat import Linf, Untargeted
from medrobust.training import evolved
from medrobust.training.evolved import FeatureTable, Fitted, OuterFold, Problem

GRID = tuple(0.02 * 1.2**i / 255 for i in range(38))
"""0.02 to 17 grey levels in steps of a fifth."""
SHOWN = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Grey levels at which accuracy is told."""
CHECKPOINTS, STARTS = 100, 4
"""Points on each of so many ways of Adam's that may become a twin."""
MATCHING = 2000
"""Test images at most that accuracy is matched on; the attacked ones are among them."""

Networks = dict[tuple[str, int], Fitted]
"""By name and seed."""
Stars = Mapping[tuple[str, int], Mapping[str, np.ndarray]]
"""What the attack found, by name and seed: min_eps and inconclusive, one entry an image."""


@dataclass(frozen=True)
class AccuracyMatchedConfig:
    """What is attacked: names of evolved networks, how many seeds of each, on how many test images; and by what.

    An attack that looks for the smallest change (DeepFool) costs a tenth of one that is carried over a grid of sizes.
    """

    methods: tuple[str, ...] = ("pso", "ga", "gwo")
    seeds: int = 2
    images: int = 50
    budget: int = 6000
    attack: Attack = field(default_factory=lambda: attacks.PGD(steps=10))


def attacked(ask: AccuracyMatchedConfig, images: Images, store: Store, progress: Progress) -> dict[str, Any]:
    """Evolved networks, their gradient-trained twins, Adam and logistic regression under attack, image by image."""
    whole = images.test.sample(MATCHING, 0)
    part = whole.sample(ask.images, 0)
    fitted = search_system.table(images, images.fitted, store, progress)
    matching = search_system.table(images, whole, store, progress)
    networks = _networks(ask, fitted, matching, np.isin(whole.ids, part.ids))
    progress.start("Attacking", len(networks) * len(part))
    found, doubts = {}, {}
    for (name, seed), network in networks.items():
        clf = classifier(images, network, {"method": name, "seed": seed})
        spec = {
            "kind": "search robustness",
            "model": clf.digest(),
            "grid": GRID,
            "attack": code_digest.described(ask.attack),
            "images": search_system.digest([images.data.digest(), *part.ids]),
        }
        computed = [0]

        def compute(
            clf: Classifier = clf, computed: list[int] = computed
        ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
            computed[0] = len(part)
            return _swept(ask.attack, clf, part, progress)

        cell = store.once(spec, compute)
        progress.advance(len(part) - computed[0])
        found[name, seed] = cell.arrays
        about = {"kind": "gradient check", "model": spec["model"], "images": spec["images"]}
        few = part.sample(compared(part), 0)
        doubts[name, seed] = doubt([gradient_check(store.once(about, functools.partial(derived, clf, few, 0)))])
    progress.stop()
    accuracy = {key: _accuracy(_decided(network, matching), matching) for key, network in networks.items()}
    told = _compared(ask, found, accuracy, len(matching), part)
    for row in told["rows"]:
        row["doubt"] = _why(doubts, row["network"])
        if "ratio" in row:
            row["ratio"]["doubt"] = row["doubt"] or _why(doubts, f"twin of {row['network']}")
    return told


def _why(doubts: Mapping[tuple[str, int], str], name: str) -> str:
    """Why the attacks on any of the networks of that name are not believed; empty where nothing says so."""
    return next((why for (network, _), why in doubts.items() if network == name and why), "")


def _networks(ask: AccuracyMatchedConfig, fitted: FeatureTable, matching: FeatureTable, shown: np.ndarray) -> Networks:
    """All networks that are attacked; ``shown``: which of the matching images will be."""
    everything = np.arange(len(fitted))
    problem = evolved.QUESTIONS["weights"].problem(
        fitted, [OuterFold(s, 0, everything, everything) for s in range(ask.seeds)]
    )
    ways = list(zip(*_adams_way(problem, ask.budget), strict=True))  # a seed's points
    seen = [np.array([_decided(network, matching) for network in way]) for way in ways]
    out: Networks = {}
    for name in ask.methods:
        for seed, network in enumerate(evolved.method("weights", name)(problem, ask.budget).fitted):
            out[name, seed] = network
            nearest = _nearest(_decided(network, matching), seen[seed], matching, shown)
            out[f"twin of {name}", seed] = ways[seed][nearest]
    for name in ("adam", "logistic"):
        for seed, network in enumerate(evolved.method("weights", name)(problem, ask.budget).fitted):
            if name == "adam" or not seed:  # logistic regression has no start to draw
                out[name, seed] = network
    return out


def _nearest(decided: np.ndarray, seen: np.ndarray, matching: FeatureTable, shown: np.ndarray) -> int:
    """Which row of ``seen`` (points, n) decides as well as ``decided`` (n,)."""
    right, own = (seen == matching.labels)[:, shown].mean(1), (decided == matching.labels)[shown].mean()
    gaps = np.array([_accuracy(row, matching) for row in seen]) - _accuracy(decided, matching)
    return int((np.abs(gaps) + np.abs(right - own)).argmin())


def _adams_way(problem: Problem, budget: int) -> list[list[Fitted]]:
    """Networks at CHECKPOINTS points between Adam's first step and its last on each way, each for all tasks."""
    run = search.Adam(population=STARTS).start(problem.space, problem.seeds, STARTS * budget)
    steps = budget // search.GRADIENT_COST
    wanted = set(np.geomspace(1, steps, CHECKPOINTS).round().astype(int).tolist())
    out, step = [], 0
    while not run.done:
        x = run.ask()
        if run.needs_gradient:
            step += 1
            if step in wanted:
                out += [problem.settle(point) for point in x.unbind(1)]
            x = x.detach().requires_grad_()
            f = problem(x)
            run.tell(f.detach(), torch.autograd.grad(f.sum(), x)[0])
        else:
            run.tell(problem(x))
    return out


def _decided(network: Fitted, table: FeatureTable) -> np.ndarray:
    """int64 (n,): the class that the network gives each image."""
    return np.asarray(network.probabilities(table.features).argmax(1))


def _accuracy(decided: np.ndarray, table: FeatureTable) -> float:
    """Balanced: the mean over the classes."""
    right = decided == table.labels
    return float(np.mean([right[table.labels == c].mean() for c in np.unique(table.labels)]))


def _swept(
    attack: Attack, clf: Classifier, part: Dataset, progress: Progress
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    pixels, labels = part.tensors()
    curve = attacks.sweep(attack, clf, pixels, Untargeted(labels), Linf, GRID, ids=part.ids, advance=progress.advance)
    return {}, {"min_eps": curve.min_eps.numpy(), "inconclusive": curve.inconclusive.numpy()}


def _compared(
    ask: AccuracyMatchedConfig, found: Stars, accuracy: Mapping[tuple[str, int], float], matching: int, part: Dataset
) -> dict[str, Any]:
    owners = search_system.groups(part)
    names = list(dict.fromkeys(name for name, _ in found))
    rows = []
    for name in names:
        runs = [(s, a) for (n, s), a in found.items() if n == name]
        min_eps = np.stack([a["min_eps"] for _, a in runs])
        row: dict[str, Any] = {
            "network": name,
            "seeds": len(runs),
            "n": len(part),
            "matched": float(np.mean([accuracy[name, s] for s, _ in runs])),
            # an image counts with the share of seeds: the interval is that of images, and a little too wide
            "clean": _told(stats.proportion((min_eps > 0).mean(0), owners)),
            "accuracy": {f"{g:g}": _told(stats.proportion((min_eps > g / 255).mean(0), owners)) for g in SHOWN},
            "median": _told(stats.median(np.median(min_eps, 0)[(min_eps > 0).all(0)] * 255)),
            "inconclusive": int(sum(a["inconclusive"].sum() for _, a in runs)),
        }
        if name in ask.methods:
            row["ratio"] = _ratio(found, name, ask.seeds, owners)
            row["gap"] = _gap(found, accuracy, name, ask.seeds)
        rows.append(row)
    return {
        "rows": rows,
        "grid": [g * 255 for g in GRID],
        "attack": repr(ask.attack),
        "n": len(part),
        "matching": matching,
        "methods": list(ask.methods),
        "seeds": ask.seeds,
        "budget": ask.budget,
    }


def _ratio(found: Stars, name: str, seeds: int, owners: list[str]) -> dict[str, Any]:
    """Smallest eps of the evolved network over its twin's, image by image where both are right: geometric mean.

    An image's ratio is averaged over the seeds, a patient's over the images, and the interval is that of patients;
    ``seeds`` holds each seed's own mean. Never reached counts as the grid's end; where the attack on either was
    inconclusive the image is left out, and counted, once a seed.
    """
    logs, left_out = np.full((seeds, len(owners)), np.nan), 0
    for seed in range(seeds):
        pair = [found[n, seed] for n in (name, f"twin of {name}")]
        mine, twin = (np.minimum(a["min_eps"], GRID[-1]) for a in pair)
        both = (mine > 0) & (twin > 0)
        no_gradient = both & (pair[0]["inconclusive"] | pair[1]["inconclusive"])
        left_out += int(no_gradient.sum())
        both &= ~no_gradient
        logs[seed, both] = np.log(mine[both] / twin[both])
    seen = ~np.isnan(logs).all(0)
    image = np.array([column[~np.isnan(column)].mean() for column in logs[:, seen].T])
    who = np.array(owners)[seen]
    told = stats.mean([float(image[who == owner].mean()) for owner in dict.fromkeys(who.tolist())])
    each = [math.exp(row[~np.isnan(row)].mean()) if not np.isnan(row).all() else None for row in logs]
    return {
        k: (math.exp(v) if math.isfinite(v) else None) for k, v in zip(("value", "low", "high"), told[:3], strict=True)
    } | {"n": int(seen.sum()), "left_out": left_out, "seeds": each}


def _gap(found: Stars, accuracy: Mapping[tuple[str, int], float], name: str, seeds: int) -> dict[str, float]:
    """How equal: the largest difference to the twin over the seeds, and the mean one on the attacked images."""
    apart = [accuracy[name, s] - accuracy[f"twin of {name}", s] for s in range(seeds)]
    right = [
        float((found[name, s]["min_eps"] > 0).mean() - (found[f"twin of {name}", s]["min_eps"] > 0).mean())
        for s in range(seeds)
    ]
    return {"matched": max(apart, key=abs), "attacked": max(right, key=abs), "attacked_mean": float(np.mean(right))}


def _told(estimate: stats.Estimate) -> dict[str, Any]:
    return {k: v if math.isfinite(v) else None for k, v in estimate._asdict().items()}
