"""The cells of the field, by name: what a study file fills its grids with. Nothing here computes.

Every function returns the cell whose rows are wanted; what it stands on (models, shards, features, perturbations) comes
with it, and is one cell however often it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medrobust.studies.grid import Data, Model, Node

GREY = 1 / 255
GRID = (*(g / 10 * GREY for g in range(1, 11)), *(g * GREY for g in range(2, 11)))
"""0.1 to 1.0 and 2 to 10 grey levels."""

NONTARGETED = "nontargeted"


def _labels(model: Model, seed: int, **more: Any) -> dict[str, Any]:
    return {"data": model.data.name, "model": model.name, "seed": seed, **more}


def clean(model: Model, limit: int | None = None, seed: int = 0, data: Data | None = None) -> Node:
    """Performance without an attack, on ``limit`` of the test images (None: all)."""
    args = {"limit": limit, "seed": seed}
    return Node("clean", args, data or model.data, needs={"model": model}, labels=_labels(model, seed), seconds=5)


def curve(
    model: Model, attack: str, eps: Sequence[float] = GRID, norm: str = "linf", limit: int | None = None, seed: int = 0,
    shards: int = 1, seconds: float | None = None,
) -> Node:  # fmt: skip
    """Accuracy under one attack at every eps. A cell takes the whole grid, for an image is carried through it.

    shards: pieces that the images are dealt into, so that several workers share a long curve. seconds: of all of them.
    """
    args = {"attack": attack, "norm": norm, "eps": list(eps), "limit": limit, "seed": seed}
    labels = _labels(model, seed)
    each = None if seconds is None else seconds / shards
    pieces = {
        f"shard{i}": Node("swept", args | {"shard": [i, shards]}, model.data, {}, {"model": model}, labels, each)
        for i in range(shards)
    }
    return Node("curve", args, model.data, needs={"model": model, **pieces}, labels=labels, seconds=1)


def worst(curves: Sequence[Node]) -> Node:
    """For each image the attack of these curves that needed least."""
    first = curves[0]
    args = {k: v for k, v in first.args.items() if k != "attack"}
    needs: dict[str, Node | Model] = {"model": first.needs["model"], **{f"curve{i}": c for i, c in enumerate(curves)}}
    return Node("worst", args, first.data, needs=needs, labels=first.labels, seconds=1)


def noise(
    model: Model, eps: Sequence[float] = GRID, norm: str = "linf", limit: int | None = None, seed: int = 0,
) -> Node:  # fmt: skip
    """The control of a curve: random changes of exactly the same size."""
    args = {"norm": norm, "eps": list(eps), "limit": limit, "seed": seed}
    return Node("noise", args, model.data, needs={"model": model}, labels=_labels(model, seed), seconds=10)


def transfer(
    model: Model, surrogate: Model, attack: str, eps: Sequence[float], norm: str = "linf", limit: int | None = None,
    seed: int = 0, seconds: float | None = None,
) -> Node:  # fmt: skip
    """Full-strength examples made on ``surrogate`` and shown to ``model``."""
    args = {"attack": attack, "norm": norm, "eps": list(eps), "limit": limit, "seed": seed}
    labels = _labels(model, seed, made_on=surrogate.name)
    return Node("transfer", args, model.data, {}, {"model": model, "surrogate": surrogate}, labels, seconds)


def detectors(
    model: Model, names: Sequence[str], attacks: Sequence[str], eps: float = GREY, norm: str = "linf",
    limit: int | None = 300, layers: Sequence[str] = ("penultimate",), protocols: Sequence[str] = ("clean", "paper"),
    seed: int = 0, seconds: float | None = None,
) -> list[Node]:  # fmt: skip
    """A cell for each detector, fitted on each attack and tested on all of them. seconds: of one attack's twins."""
    common: dict[str, Any] = {"norm": norm, "eps": eps, "limit": limit, "layers": list(layers), "seed": seed}
    labels = _labels(model, seed)

    def features(of: str, **needs: Node) -> Node:
        asked: dict[str, Any] = common | {"of": of}
        return Node("features", asked, model.data, {}, {"model": model, **needs}, labels, seconds)

    first = features("clean")
    seen = {f"features{i}": features(a, clean=first) for i, a in enumerate(attacks)}
    asked = common | {"attacks": list(attacks), "protocols": list(protocols)}
    needs: dict[str, Node | Model] = {"model": model, "clean": first, **seen}
    return [
        Node("detector", asked | {"detector": d}, model.data, needs=needs, labels=labels, seconds=10) for d in names
    ]


EXPLAINED = (
    "slope-l1", "slope-l2", "loss", "saliency-gini", "saliency-half", "margin", "margin-slope", "linear-eps",
    "rise-gradient", "rise-random", "cam-half", "effective-rank", "relative-rank", "spectral-entropy",
    "spatial-entropy",
)  # fmt: skip
"""Of medrobust.explain.MEASURES those that cost a few gradients an image."""


def explained(
    model: Model, second: Model | None = None, attack: str = "pgd", eps: float = GREY, norm: str = "linf",
    limit: int | None = 60, surfaces: int = 16, measures: Sequence[str] = EXPLAINED, steps: int = 10, seed: int = 0,
    seconds: float | None = None,
) -> Node:  # fmt: skip
    """Why it breaks: saliency, Grad-CAM, representation, loss landscape and embedding of ``limit`` right images.

    second: an independently trained classifier, for the published plane. surfaces: images with a landscape. steps: of
    PGD, for the smallest eps that fools each image.
    """
    args = {
        "attack": attack, "norm": norm, "eps": eps, "limit": limit, "surfaces": surfaces, "measures": list(measures),
        "steps": steps, "seed": seed,
    }  # fmt: skip
    needs = {"model": model} | ({} if second is None else {"second": second})
    return Node("explained", args, model.data, needs=needs, labels=_labels(model, seed), seconds=seconds)


def claimed(medical: Sequence[Node], natural: Node, seed: int = 0) -> Node:
    """What the paper says of medical images beside natural ones, held to numbers: cells of ``explained``."""
    args = {
        "sets": [n.labels["data"] for n in medical], "natural": natural.labels["data"], "seed": seed,
    }  # fmt: skip
    needs: dict[str, Node | Model] = {"natural": natural, **{f"set{i}": n for i, n in enumerate(medical)}}
    return Node("claimed", args, needs=needs, seconds=1)


def universal(
    model: Model, goal: str = NONTARGETED, norm: str = "l2", zeta: float = 0.04, method: str = "sga",
    settings: Mapping[str, Any] | None = None, source: str | Data = "training", n: int = 400, seed: int = 0,
    measured: int = 400, seconds: float | None = None,
) -> Node:  # fmt: skip
    """One perturbation for all images, at zeta of the mean norm of ``measured`` training images; no rows of its own.

    goal: a class, or nontargeted. source: training, noise, or other images; n of them. settings: of the method.
    """
    named = source if isinstance(source, str) else source.name
    args = {
        "method": method, "settings": dict(settings or {}), "norm": norm, "zeta": zeta, "measured": measured,
        "goal": goal, "source": named, "n": n, "seed": seed,
    }  # fmt: skip
    also = {} if isinstance(source, str) else {"source": source}
    labels = _labels(model, seed, goal=goal, zeta=zeta, source=named, made_on=model.name)
    return Node("universal", args, model.data, also, {"model": model}, labels, seconds)


def judged(
    perturbation: Node, model: Model | None = None, on: Sequence[str] = ("test",), images: int | None = None,
    seed: int = 0,
) -> Node:  # fmt: skip
    """What a perturbation does to ``model`` (by default the one that it was made on), on images of these splits."""
    made_on = perturbation.needs["model"]
    assert isinstance(made_on, Model)
    target = model or made_on
    args = {k: perturbation.args[k] for k in ("method", "norm", "goal")}
    args |= {"on": list(on), "judged": images, "seed": seed}
    labels = {**perturbation.labels, "data": target.data.name, "model": target.name}
    return Node("judged", args, target.data, {}, {"model": target, "v": perturbation}, labels, 5)


def random(
    model: Model, goals: Sequence[str] = (NONTARGETED,), norm: str = "l2", zeta: float = 0.04,
    on: Sequence[str] = ("test",), images: int | None = None, seed: int = 0, measured: int = 400,
) -> Node:  # fmt: skip
    """The control of universal perturbations: three random changes of the same size."""
    args = {
        "norm": norm, "zeta": zeta, "measured": measured, "goals": list(goals), "on": list(on), "judged": images,
        "seed": seed,
    }  # fmt: skip
    labels = _labels(model, seed, zeta=zeta, source="random", made_on="random")
    return Node("random", args, model.data, needs={"model": model}, labels=labels, seconds=10)


def retraining(
    model: Model, settings: Mapping[str, Any], goal: str = NONTARGETED, norm: str = "l2", zeta: float = 0.04,
    method: str = "sga", method_settings: Mapping[str, Any] | None = None, seed: int = 0, measured: int = 400,
    seconds: float | None = None,
) -> Node:  # fmt: skip
    """Adversarial retraining, round by round. settings: of ``medrobust.universal.Retraining``."""
    args = {
        "method": method, "settings": dict(settings), "method_settings": dict(method_settings or {}), "norm": norm,
        "zeta": zeta, "measured": measured, "goal": goal, "seed": seed,
    }  # fmt: skip
    return Node("defence", args, model.data, {}, {"model": model}, _labels(model, seed, goal=goal, zeta=zeta), seconds)
