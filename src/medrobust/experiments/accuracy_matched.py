"""Evolved networks under attack, each beside an accuracy-matched control: trained by gradients, as accurate on clean
images.

Equal accuracy is reached by stopping early, and checked where it counts. The control of an evolved network is a point
on Adam's way from one of the first STARTS points that the search began with: the one where the difference in balanced
accuracy on all test images (at most MATCHING) and that in accuracy on the attacked ones have the smallest sum. The
choice uses nothing of the attacks. The two are then compared image by image, where both are right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from medrobust import attacks, code_digest, search, stats
from medrobust.attacks import Attack
from medrobust.classifier import Classifier
from medrobust.data.splits import group_names
from medrobust.experiments.checks import doubt
from medrobust.experiments.config import attack_named, digest
from medrobust.experiments.context import base_name
from medrobust.experiments.gradient_check import compared, derived, gradient_check
from medrobust.experiments.search_system import Keep, SearchImages, classifier, features_of
from medrobust.progress import Progress
from medrobust.results import INCONCLUSIVE, OK, Kind, Rows, group
from medrobust.stats import Estimate
from medrobust.store import Cell, Result
from medrobust.threat import Linf, Untargeted
from medrobust.training import evolved
from medrobust.training.evolved import FeatureTable, Fitted, OuterFold, Problem

GREY = 1 / 255
GRID = tuple(0.02 * 1.2**i / 255 for i in range(38))
"""0.02 to 17 grey levels in steps of a fifth."""
SHOWN = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Grey levels at which accuracy is reported."""
CHECKPOINTS, STARTS = 100, 4
"""Points on each of so many ways of Adam's that may become a control."""
MATCHING = 2000
"""Test images at most that accuracy is matched on; the attacked ones are among them."""
GRADIENT_TRAINED = ("adam", "logistic")
"""Attacked beside the evolved networks and their controls."""

Networks = dict[tuple[str, int], Fitted]
"""By name and seed."""
MinEps = Mapping[tuple[str, int], Mapping[str, np.ndarray]]
"""What the attack found, by name and seed: min_eps and inconclusive, one entry an image."""


@dataclass(frozen=True)
class AccuracyMatchedConfig:
    """Which networks are attacked: names of evolved ones, how many seeds of each, on how many test images, by what.

    attack: a name of ATTACKS with options. One that looks for the smallest change (deepfool) costs a tenth of one that
    is carried over a grid of sizes.
    """

    methods: tuple[str, ...] = ("pso", "ga", "gwo")
    seeds: int = 2
    images: int = 50
    budget: int = 6000
    attack: str = "pgd:steps=10"

    @property
    def name(self) -> str:
        """Of the attack, without its options."""
        return base_name(self.attack)

    @property
    def networks(self) -> list[tuple[str, int]]:
        """(name, seed) of every network that is attacked; logistic regression has no start to draw."""
        searched = [(n, s) for m in self.methods for s in range(self.seeds) for n in (m, control_of(m))]
        return [*searched, *(("adam", s) for s in range(self.seeds)), ("logistic", 0)]


def control_of(method: str) -> str:
    """Name of the accuracy-matched control of an evolved network."""
    return f"control of {method}"


class AttackedNetworks:
    """The networks of ``config`` on the features of ``images``, and what the attack does to each."""

    def __init__(self, config: AccuracyMatchedConfig, images: SearchImages, keep: Keep, progress: Progress) -> None:
        self.config, self.images, self.keep, self.progress = config, images, keep, progress
        self.whole = images.test.sample(MATCHING, 0)
        self.part = self.whole.sample(config.images, 0)
        self.attacker: Attack = attack_named(config.attack)

    @property
    def sizes(self) -> list[float]:
        """At which accuracy is reported, fractions of the pixel range."""
        return [level * GREY for level in SHOWN]

    @cached_property
    def matching(self) -> FeatureTable:
        """Features of the images that accuracy is matched on."""
        return features_of(self.images, self.whole, self.keep, self.progress)

    @cached_property
    def networks(self) -> Networks:
        """All networks that are attacked, trained once and kept."""
        config = self.config
        fitted = features_of(self.images, self.images.fitted, self.keep, self.progress)
        names = self.config.networks

        def compute() -> Result:
            self.progress.start("Training networks to attack", 1)
            attacked = np.isin(self.whole.ids, self.part.ids)
            made = networks(config, fitted, self.matching, attacked)
            self.progress.stop()
            each = [(i, made[name].arrays()) for i, name in enumerate(names)]
            return {}, {f"{i}.{k}": v for i, arrays in each for k, v in arrays.items()}

        spec = {
            "kind": "search networks",
            "fitted": fitted.digest(),
            "matching": self.matching.digest(),
            "attacked": digest(self.part.ids),
            "methods": config.methods,
            "seeds": config.seeds,
            "budget": config.budget,
            "optimisers": [evolved.code("weights", name) for name in config.methods],
        }
        arrays = self.keep(spec, compute).arrays
        return {name: Fitted.of_arrays(group(arrays, str(i))) for i, name in enumerate(names)}

    def attack(self, name: str, seed: int) -> tuple[Cell, str]:
        """What the attack does to one network, and why it is not to be believed; empty where nothing says so."""
        clf = classifier(self.images, self.networks[name, seed], {"method": name, "seed": seed})
        common = {"model": clf.digest(), "images": digest([self.images.data.digest(), *self.part.ids])}
        spec = {"kind": "search attack", **common, "grid": GRID, "attack": code_digest.described(self.attacker)}
        cell = self.keep(spec, partial(self._swept, clf, f"{name}, seed {seed}"))
        subset = self.part.sample(compared(self.part), 0)
        check = self.keep({"kind": "gradient check", **common}, partial(derived, clf, subset, 0))
        return cell, doubt([gradient_check(check)])

    def _swept(self, clf: Classifier, title: str) -> Result:
        pixels, labels = self.part.tensors()
        self.progress.start(f"Attacking {title}", len(self.part))
        goal, ids = Untargeted(labels), self.part.ids
        curve = attacks.sweep(self.attacker, clf, pixels, goal, Linf, GRID, ids=ids, advance=self.progress.advance)
        self.progress.stop()
        return {}, {"min_eps": curve.min_eps.numpy(), "inconclusive": curve.inconclusive.numpy()}

    @property
    def info(self) -> dict[str, Any]:
        """For results.json. grid: sizes that are tried, fractions of the pixel range."""
        config = self.config
        return {
            "attack": self.config.name,
            "settings": repr(self.attacker),
            "grid": list(GRID),
            "n": len(self.part),
            "matching": len(self.whole),
            "methods": list(config.methods),
            "seeds": config.seeds,
            "budget": config.budget,
        }

    def add_rows(self, rows: Rows) -> None:
        """Accuracy and smallest eps of every network, and every evolved one beside its control.

        Columns: network; networks, how many seeds it stands for. matched: balanced accuracy on the images that it is
        matched on. ratio: smallest eps of an evolved network over its control's, with by_seed and left_out.
        matched_gap, attacked_gap: the largest difference to the control over seeds, there and on the attacked images;
        attacked_gap_mean: the mean. gradients_lost: attacks that prove nothing.
        """
        attacked_cells, doubts = {}, {}
        for key in self.config.networks:
            cell, doubts[key] = self.attack(*key)
            attacked_cells[key] = cell.arrays
        accuracy = {key: _accuracy(_decided(n, self.matching), self.matching) for key, n in self.networks.items()}
        for name in dict.fromkeys(name for name, _ in attacked_cells):
            self._network(rows, name, attacked_cells, accuracy, _why(doubts, name))
            if name in self.config.methods:
                why = _why(doubts, name) or _why(doubts, control_of(name))
                self._beside_control(rows, name, attacked_cells, accuracy, why)

    def _network(
        self, rows: Rows, name: str, attacked_cells: MinEps, accuracy: Mapping[tuple[str, int], float], why: str
    ) -> None:
        keys, owners = [key for key in attacked_cells if key[0] == name], group_names(self.part.ids, self.part.patients)
        min_eps = np.stack([attacked_cells[key]["min_eps"] for key in keys])
        about: dict[str, Any] = {"network": name, "networks": len(keys)}
        doubted = _status(why)
        # an image counts with the share of seeds: the interval is that of images, and a little too wide
        rows.add(Kind.SEARCH, "accuracy", stats.proportion((min_eps > 0).mean(0), owners), **about)
        at: dict[str, Any] = {"attack": self.config.name, **about}
        for level in SHOWN:
            share = stats.proportion((min_eps > level / 255).mean(0), owners)
            rows.add(Kind.SEARCH, "accuracy", share, eps=level * GREY, **doubted, **at)
        levels = stats.median(np.median(min_eps, 0)[(min_eps > 0).all(0)] * 255)
        middle = Estimate(levels.value * GREY, levels.low * GREY, levels.high * GREY, levels.n)
        rows.add(Kind.SEARCH, "min_eps_median", middle, **(doubted if math.isfinite(middle.value) else UNKNOWN), **at)
        rows.add(Kind.SEARCH, "matched", _number([accuracy[key] for key in keys], len(self.matching)), **about)
        lost = Estimate(
            float(sum(attacked_cells[k]["inconclusive"].sum() for k in keys)), math.nan, math.nan, len(self.part)
        )
        rows.add(Kind.SEARCH, "gradients_lost", lost, **at)

    def _beside_control(
        self, rows: Rows, name: str, attacked_cells: MinEps, accuracy: Mapping[tuple[str, int], float], why: str
    ) -> None:
        seeds, owners = self.config.seeds, group_names(self.part.ids, self.part.patients)
        estimate, by_seed, left_out = ratio(attacked_cells, name, seeds, owners)
        status = _status(why) if why or math.isfinite(estimate.value) else UNKNOWN
        at: dict[str, Any] = {"attack": self.config.name, "network": name, "networks": seeds}
        rows.add(Kind.SEARCH, "ratio", estimate, **status, by_seed=by_seed, left_out=left_out, **at)
        pairs = [((name, s), (control_of(name), s)) for s in range(seeds)]
        apart = [accuracy[one] - accuracy[other] for one, other in pairs]
        right = [
            float((attacked_cells[a]["min_eps"] > 0).mean() - (attacked_cells[b]["min_eps"] > 0).mean())
            for a, b in pairs
        ]
        about: dict[str, Any] = {"network": name, "networks": seeds}
        rows.add(Kind.SEARCH, "matched_gap", _number([max(apart, key=abs)], len(self.matching)), **about)
        rows.add(Kind.SEARCH, "attacked_gap", _number([max(right, key=abs)], len(self.part)), **about)
        rows.add(Kind.SEARCH, "attacked_gap_mean", _number(right, len(self.part)), **about)


UNKNOWN: Mapping[str, Any] = {"status": INCONCLUSIVE, "note": "too few images to say"}


def _status(why: str) -> Mapping[str, Any]:
    return {"status": INCONCLUSIVE if why else OK, "note": why}


def _number(values: list[float], n: int) -> Estimate:
    """The mean, without an interval."""
    return Estimate(float(np.mean(values)), math.nan, math.nan, n)


def _why(doubts: Mapping[tuple[str, int], str], name: str) -> str:
    """Why the attacks on any of the networks of that name are not believed; empty where nothing says so."""
    return next((why for (network, _), why in doubts.items() if network == name and why), "")


def networks(
    config: AccuracyMatchedConfig, fitted: FeatureTable, matching: FeatureTable, attacked: np.ndarray
) -> Networks:
    """All networks that are attacked, on all rows of ``fitted``. attacked: which of the matching images will be."""
    everything = np.arange(len(fitted))
    tasks = [OuterFold(s, 0, everything, everything) for s in range(config.seeds)]
    problem = evolved.QUESTIONS["weights"].problem(fitted, tasks)
    ways = list(zip(*_adams_way(problem, config.budget), strict=True))  # a seed's points
    decisions = [np.array([_decided(network, matching) for network in way]) for way in ways]
    out: Networks = {}
    for name in config.methods:
        for seed, network in enumerate(evolved.method("weights", name)(problem, config.budget).fitted):
            out[name, seed] = network
            nearest = _nearest(_decided(network, matching), decisions[seed], matching, attacked)
            out[control_of(name), seed] = ways[seed][nearest]
    for name in GRADIENT_TRAINED:
        for seed, network in enumerate(evolved.method("weights", name)(problem, config.budget).fitted):
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


def ratio(attacked_cells: MinEps, name: str, seeds: int, owners: list[str]) -> tuple[Estimate, list[float | None], int]:
    """Smallest eps of the evolved network over its control's, image by image where both are right: geometric mean.

    Also that of each seed, and how many inconclusive attacks were left out. An image's ratio is averaged over the
    seeds, a patient's over the images, and the interval is that of patients. Never fooled counts as the grid's end;
    where the attack on either was inconclusive the image is left out, and counted, once a seed.
    """
    logs, left_out = np.full((seeds, len(owners)), np.nan), 0
    for seed in range(seeds):
        pair = [attacked_cells[n, seed] for n in (name, control_of(name))]
        own, control = (np.minimum(a["min_eps"], GRID[-1]) for a in pair)
        both = (own > 0) & (control > 0)
        no_gradient = both & (pair[0]["inconclusive"] | pair[1]["inconclusive"])
        left_out += int(no_gradient.sum())
        both &= ~no_gradient
        logs[seed, both] = np.log(own[both] / control[both])
    known = ~np.isnan(logs).all(0)
    image = np.array([column[~np.isnan(column)].mean() for column in logs[:, known].T])
    who = np.array(owners)[known]
    mean = stats.mean([float(image[who == owner].mean()) for owner in dict.fromkeys(who.tolist())])
    each = [math.exp(row[~np.isnan(row)].mean()) if not np.isnan(row).all() else None for row in logs]
    value, low, high = (math.exp(v) if math.isfinite(v) else math.nan for v in mean[:3])
    return Estimate(value, low, high, int(known.sum())), each, left_out
