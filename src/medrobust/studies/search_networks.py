"""The networks of a comparison as classifiers: kept, and attacked beside gradient-trained ones of equal accuracy.

Equal accuracy is reached by stopping: the gradient-trained twin of an evolved network is the point on Adam's way, from
the same first point, whose balanced accuracy on validation images is nearest to the evolved network's. So a
difference in robustness is not one in accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medrobust import attacks, search, stats
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.progress import Progress
from medrobust.studies import search_subject
from medrobust.studies.search_subject import Images
from medrobust.studies.store import Store
from medrobust.threat import Linf, Untargeted
from medrobust.training import evolved
from medrobust.training.evolved import Fitted, Problem, Table, Task

VERSION = 1
GRID = tuple(0.02 * 1.2**i / 255 for i in range(38))
"""0.02 to 17 grey levels in steps of a fifth."""
SHOWN = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Grey levels at which accuracy is told."""
STEPS = 10
CHECKPOINTS = 60
"""Points on Adam's way that may become a twin."""


def kept(
    images: Images, question: str, names: Sequence[str], budget: int, folder: Path, store: Store, progress: Progress
) -> dict[str, Path]:
    """Fit each method's network on all training images (seed 0), and save it as a classifier that audits can take."""
    table = search_subject.table(images, images.fitted, store, progress)
    everything = np.arange(len(table))
    problem = evolved.QUESTIONS[question].problem(table, [Task(0, 0, everything, everything)])
    out = {}
    progress.start("Keeping networks", len(names))
    for name in names:
        (network,) = evolved.method(question, name)(problem, budget).fitted
        told = {"question": question, "method": name, "budget": budget, "images": len(table)}
        out[name] = classifier(images, network, told).save(folder / question / name)
        progress.advance()
    progress.stop()
    return out


def classifier(images: Images, network: Fitted, told: dict[str, Any]) -> Classifier:
    """``network`` behind the source of its features; the provenance names the data, so that audits know the split."""
    at = {"name": images.data.name, "digest": images.data.digest(), "train": len(images.fitted)}
    return network.as_classifier(images.source, {"search": told, "data": at})


@dataclass(frozen=True)
class Robustness:
    """What is attacked: names of evolved networks, how many seeds of each, on how many test images."""

    methods: tuple[str, ...] = ("pso", "de", "gwo")
    seeds: int = 2
    images: int = 50
    budget: int = 6000


def attacked(ask: Robustness, images: Images, store: Store, progress: Progress) -> dict[str, Any]:
    """Evolved networks, their gradient-trained twins, Adam and logistic regression under PGD, image by image."""
    fitted = search_subject.table(images, images.fitted, store, progress)
    validation = search_subject.table(images, images.validation, store, progress)
    networks = _networks(ask, fitted, validation)
    part = images.test.sample(ask.images, 0)
    progress.start("Attacking", len(networks) * len(part))
    found = {}
    for (name, seed), network in networks.items():
        clf = classifier(images, network, {"method": name, "seed": seed})
        spec = {
            "kind": "search robustness", "version": VERSION, "model": clf.digest(), "steps": STEPS, "grid": GRID,
            "images": search_subject.digest([images.data.digest(), *part.ids]),
        }  # fmt: skip
        cell = store.get(spec)
        if cell is None:
            cell = store.once(spec, lambda clf=clf: _swept(clf, part, progress))  # type: ignore[misc]
        else:
            progress.advance(len(part))
        found[name, seed] = cell.arrays
    progress.stop()
    return _compared(ask, found, networks, validation, part)


def _networks(ask: Robustness, fitted: Table, validation: Table) -> dict[tuple[str, int], Fitted]:
    everything = np.arange(len(fitted))
    problem = evolved.QUESTIONS["weights"].problem(
        fitted, [Task(s, 0, everything, everything) for s in range(ask.seeds)]
    )
    out: dict[tuple[str, int], Fitted] = {}
    way = _adams_way(problem, ask.budget)
    scores = np.array([[_accuracy(n, validation) for n in point] for point in way])  # (points, seeds)
    for name in ask.methods:
        for seed, network in enumerate(evolved.method("weights", name)(problem, ask.budget).fitted):
            out[name, seed] = network
            nearest = int(np.abs(scores[:, seed] - _accuracy(network, validation)).argmin())
            out[f"twin of {name}", seed] = way[nearest][seed]
    for name in ("adam", "logistic"):
        for seed, network in enumerate(evolved.method("weights", name)(problem, ask.budget).fitted):
            if name == "adam" or not seed:  # logistic regression has no start to draw
                out[name, seed] = network
    return out


def _adams_way(problem: Problem, budget: int) -> list[list[Fitted]]:
    """Networks at CHECKPOINTS points between Adam's first step and its last, each for all tasks."""
    run = search.Adam().start(problem.space, problem.seeds, budget)
    steps = budget // search.GRADIENT_COST
    wanted = set(np.geomspace(1, steps, CHECKPOINTS).round().astype(int).tolist())
    out, step = [], 0
    while not run.done:
        x = run.ask()
        if run.needs_gradient:
            step += 1
            if step in wanted:
                out.append(problem.settle(x[:, 0]))
            x = x.detach().requires_grad_()
            f = problem(x)
            run.tell(f.detach(), torch.autograd.grad(f.sum(), x)[0])
        else:
            run.tell(problem(x))
    return out


def _accuracy(network: Fitted, table: Table) -> float:
    decided = network.probabilities(table.features).argmax(1)
    return evolved.scored(np.eye(len(table.classes))[decided], table.labels, table.healthy)["balanced_accuracy"]


def _swept(clf: Classifier, part: Dataset, progress: Progress) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    pixels, labels = part.tensors()
    curve = attacks.sweep(attacks.PGD(steps=STEPS), clf, pixels, Untargeted(labels), Linf, GRID, ids=part.ids,
                          advance=progress.advance)  # fmt: skip
    return {}, {"eps_star": curve.eps_star.numpy(), "inconclusive": curve.inconclusive.numpy()}


def _compared(
    ask: Robustness, found: dict[tuple[str, int], dict[str, np.ndarray]], networks: dict[tuple[str, int], Fitted],
    validation: Table, part: Dataset,
) -> dict[str, Any]:  # fmt: skip
    owners = search_subject.groups(part)
    names = list(dict.fromkeys(name for name, _ in found))
    rows = []
    for name in names:
        runs = [(s, a) for (n, s), a in found.items() if n == name]
        star = np.stack([a["eps_star"] for _, a in runs])
        row: dict[str, Any] = {
            "network": name, "seeds": len(runs), "n": len(part),
            "validation": float(np.mean([_accuracy(networks[name, s], validation) for s, _ in runs])),
            # an image counts with the share of seeds: the interval is that of images, and a little too wide
            "clean": _told(stats.proportion((star > 0).mean(0), owners)),
            "accuracy": {f"{g:g}": _told(stats.proportion((star > g / 255).mean(0), owners)) for g in SHOWN},
            "median": _told(stats.median(np.median(star, 0)[(star > 0).all(0)] * 255)),
            "inconclusive": int(sum(a["inconclusive"].sum() for _, a in runs)),
        }  # fmt: skip
        if name in ask.methods:
            row["ratio"] = _ratio(found, name, ask.seeds)
        rows.append(row)
    return {"rows": rows, "grid": [g * 255 for g in GRID], "steps": STEPS, "n": len(part), "methods": list(ask.methods),
            "seeds": ask.seeds, "budget": ask.budget}  # fmt: skip


def _ratio(found: dict[tuple[str, int], dict[str, np.ndarray]], name: str, seeds: int) -> dict[str, Any]:
    """Smallest eps of the evolved network over its twin's, image by image where both are right: geometric mean.

    An image's ratio is first averaged over the seeds, so that n counts images. Never reached counts as the grid's end.
    """
    logs: list[list[float]] = [[] for _ in found[name, 0]["eps_star"]]
    for seed in range(seeds):
        mine, twin = (np.minimum(found[n, seed]["eps_star"], GRID[-1]) for n in (name, f"twin of {name}"))
        for i in np.flatnonzero((mine > 0) & (twin > 0)):
            logs[i].append(math.log(mine[i] / twin[i]))
    told = stats.mean([float(np.mean(values)) for values in logs if values])
    return {
        k: (math.exp(v) if math.isfinite(v) else None) for k, v in zip(("value", "low", "high"), told[:3], strict=True)
    } | {"n": told.n}


def _told(estimate: stats.Estimate) -> dict[str, Any]:
    return {k: v if math.isfinite(v) else None for k, v in estimate._asdict().items()}
