"""The cells of the field, by name: what a study file fills its grids with. Nothing here computes.

Every function returns the cell whose rows are wanted; what it stands on (models, shards, features, perturbations) comes
with it, and is one cell however often it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medrobust.grid import Data, Model, Node

GREY = 1 / 255
GRID = (*(g / 10 * GREY for g in range(1, 11)), *(g * GREY for g in range(2, 11)))
"""0.1 to 1.0 and 2 to 10 grey levels."""

LOG_GRID = tuple(0.02 * GREY * 1.15**k for k in range(55))
"""0.02 to 38 grey levels, each 15 % above the one before: networks whose smallest eps differ a hundredfold share it."""

NONTARGETED = "nontargeted"
FOOLING = {"metric": "fooling_rate", "goal": NONTARGETED}
"""Rows of the fooling rate Rf of nontargeted perturbations, for tables and charts."""
TARGETED = {"metric": "targeted_success"}
"""Rows of the targeted success rate Rs."""


def rates(goals: Iterable[str]) -> dict[str, dict[str, str]]:
    """By the name of the rate, its rows: Rf where a goal is nontargeted, Rs where one is a class."""
    goals = set(goals)
    fooling = {"Rf": FOOLING} if NONTARGETED in goals else {}
    return fooling | ({"Rs": TARGETED} if goals - {NONTARGETED} else {})


def _labels(model: Model, seed: int, **more: Any) -> dict[str, Any]:
    return {"data": model.data.name, "model": model.name, "seed": seed, **more}


def clean(model: Model, limit: int | None = None, seed: int = 0, data: Data | None = None) -> Node:
    """Performance without an attack, on ``limit`` of the test images (None: all)."""
    args = {"limit": limit, "seed": seed}
    return Node("clean", args, data or model.data, needs={"model": model}, labels=_labels(model, seed), seconds=5)


def curve(
    model: Model,
    attack: str,
    eps: Sequence[float] = GRID,
    norm: str = "linf",
    limit: int | None = None,
    seed: int = 0,
    shards: int = 1,
    seconds: float | None = None,
) -> Node:
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
    model: Model, eps: Sequence[float] = GRID, norm: str = "linf", limit: int | None = None, seed: int = 0
) -> Node:
    """The control of a curve: random changes of exactly the same size."""
    args = {"norm": norm, "eps": tuple(eps), "limit": limit, "seed": seed}
    return Node("noise", args, model.data, needs={"model": model}, labels=_labels(model, seed), seconds=10)


def saved(
    model: Model,
    attack: str = "pgd",
    eps: Sequence[float] = (0.3 * GREY, GREY, 2 * GREY),
    norm: str = "linf",
    limit: int | None = 32,
    seed: int = 0,
    seconds: float | None = None,
) -> Node:
    """Full-strength examples, as computed and after saving at 8, 12 and 16 bits."""
    args = {"attack": attack, "norm": norm, "eps": list(eps), "limit": limit, "seed": seed}
    return Node("saved", args, model.data, {}, {"model": model}, _labels(model, seed), seconds)


def transfer(
    model: Model,
    surrogate: Model,
    attack: str,
    eps: Sequence[float],
    norm: str = "linf",
    limit: int | None = None,
    seed: int = 0,
    seconds: float | None = None,
) -> Node:
    """Full-strength examples made on ``surrogate`` and shown to ``model``."""
    args = {"attack": attack, "norm": norm, "eps": list(eps), "limit": limit, "seed": seed}
    labels = _labels(model, seed, made_on=surrogate.name)
    return Node("transfer", args, model.data, {}, {"model": model, "surrogate": surrogate}, labels, seconds)


def detectors(
    model: Model,
    names: Sequence[str],
    attacks: Sequence[str],
    eps: float = GREY,
    norm: str = "linf",
    limit: int | None = 300,
    layers: Sequence[str] = ("penultimate",),
    protocols: Sequence[str] = ("clean", "paper"),
    seed: int = 0,
    seconds: float | None = None,
) -> list[Node]:
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
    "slope-l1",
    "slope-l2",
    "loss",
    "saliency-gini",
    "saliency-half",
    "margin",
    "margin-slope",
    "linear-eps",
    "rise-gradient",
    "rise-random",
    "cam-half",
    "effective-rank",
    "relative-rank",
    "spectral-entropy",
    "spatial-entropy",
)
"""Of medrobust.explain.MEASURES those that cost a few gradients an image."""


def explained(
    model: Model,
    second: Model | None = None,
    attack: str = "pgd",
    eps: float = GREY,
    norm: str = "linf",
    limit: int | None = 60,
    surfaces: int = 16,
    measures: Sequence[str] = EXPLAINED,
    steps: int = 10,
    seed: int = 0,
    seconds: float | None = None,
) -> Node:
    """Why it breaks: saliency, Grad-CAM, representation, loss landscape and embedding of ``limit`` right images.

    second: an independently trained classifier, for the published plane. surfaces: images with a landscape. steps: of
    PGD, for the smallest eps that fools each image.
    """
    args = {
        "attack": attack,
        "norm": norm,
        "eps": eps,
        "limit": limit,
        "surfaces": surfaces,
        "measures": list(measures),
        "steps": steps,
        "seed": seed,
    }
    needs = {"model": model} | ({} if second is None else {"second": second})
    return Node("explained", args, model.data, needs=needs, labels=_labels(model, seed), seconds=seconds)


def claimed(medical: Sequence[Node], natural: Node, seed: int = 0) -> Node:
    """What the paper says of medical images beside natural ones, held to numbers: cells of ``explained``."""
    args = {"sets": [n.labels["data"] for n in medical], "natural": natural.labels["data"], "seed": seed}
    needs: dict[str, Node | Model] = {"natural": natural, **{f"set{i}": n for i, n in enumerate(medical)}}
    return Node("claimed", args, needs=needs, seconds=1)


def universal(
    model: Model,
    goal: str = NONTARGETED,
    norm: str = "l2",
    zeta: float = 0.04,
    method: str = "sga",
    settings: Mapping[str, Any] | None = None,
    source: str | Data = "training",
    vary: bool = False,
    n: int = 400,
    seed: int = 0,
    measured: int = 400,
    seconds: float | None = None,
) -> Node:
    """One perturbation for all images, at zeta of the mean norm of ``measured`` training images; no rows of its own.

    goal: a class, or nontargeted. source: training, noise, or other images; n of them. vary: make n variants of other
    images instead (``medrobust.universal.Varied``). settings: of the method.
    """
    named = source if isinstance(source, str) else source.name
    args = {
        "method": method,
        "settings": dict(settings or {}),
        "norm": norm,
        "zeta": zeta,
        "measured": measured,
        "goal": goal,
        "source": named,
        "vary": vary,
        "n": n,
        "seed": seed,
    }
    also = {} if isinstance(source, str) else {"source": source}
    where = f"{named}, varied" if vary else named
    labels = _labels(model, seed, goal=goal, zeta=zeta, source=where, images=n, made_on=model.name)
    return Node("universal", args, model.data, also, {"model": model}, labels, seconds)


def judged(
    perturbation: Node,
    model: Model | None = None,
    on: Sequence[str] = ("test",),
    images: int | None = None,
    seed: int = 0,
) -> Node:
    """What a perturbation does to ``model`` (by default the one that it was made on), on images of these splits."""
    made_on = perturbation.needs["model"]
    assert isinstance(made_on, Model)
    target = model or made_on
    args = {k: perturbation.args[k] for k in ("method", "norm", "goal")}
    args |= {"on": list(on), "judged": images, "seed": seed}
    labels = {**perturbation.labels, "data": target.data.name, "model": target.name}
    return Node("judged", args, target.data, {}, {"model": target, "v": perturbation}, labels, 5)


def random(
    model: Model,
    goals: Sequence[str] = (NONTARGETED,),
    norm: str = "l2",
    zeta: float = 0.04,
    on: Sequence[str] = ("test",),
    images: int | None = None,
    seed: int = 0,
    measured: int = 400,
) -> Node:
    """The control of universal perturbations: three random changes of the same size."""
    args = {
        "norm": norm,
        "zeta": zeta,
        "measured": measured,
        "goals": list(goals),
        "on": list(on),
        "judged": images,
        "seed": seed,
    }
    labels = _labels(model, seed, zeta=zeta, source="random", made_on="random")
    return Node("random", args, model.data, needs={"model": model}, labels=labels, seconds=10)


def retraining(
    model: Model,
    settings: Mapping[str, Any],
    goal: str = NONTARGETED,
    norm: str = "l2",
    zeta: float = 0.04,
    method: str = "sga",
    method_settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    measured: int = 400,
    seconds: float | None = None,
    defence: str = "retrain",
) -> Node:
    """Training on perturbations, round by round. defence: a name of ``medrobust.universal.defence.DEFENCES``.

    settings: its rounds, epochs, perturbations, limit, lr.
    """
    args = {
        "defence": defence,
        "method": method,
        "settings": dict(settings),
        "method_settings": dict(method_settings or {}),
        "norm": norm,
        "zeta": zeta,
        "measured": measured,
        "goal": goal,
        "seed": seed,
    }
    labels = _labels(model, seed, goal=goal, zeta=zeta, defence=defence)
    return Node("defence", args, model.data, {}, {"model": model}, labels, seconds)


# -- searches: optimisers on functions, networks trained by search on features of images -------------------------------

BASELINES = {
    "weights": ("logistic", "adam", "multi-start-adam"),
    "masks": ("all", "l1"),
    "threshold": ("unmoved", "scan"),
    "hyper": ("defaults", "tpe"),
}
"""What every search of a question has to beat; the names of ``medrobust.training.evolved.QUESTIONS``."""

BREAST_CANCER = "breast cancer"


def minimised(
    optimiser: str, function: str, shifted: bool, dims: int, budget: int, seeds: int, seconds: float | None = 0.5
) -> Node:
    """An optimiser on a function whose optimum is known. shifted: it lies elsewhere for every seed."""
    args = {
        "optimiser": optimiser,
        "function": function,
        "shifted": shifted,
        "dims": dims,
        "budget": budget,
        "seeds": seeds,
    }
    labels = {"data": function, "model": optimiser, "optimum": "shifted" if shifted else "at the centre"}
    return Node("minimised", args, labels=labels, seconds=seconds)


def features_table(
    source: Model | None = None,
    data: Data | None = None,
    limit: int | None = 300,
    seed: int = 0,
    seconds: float | None = 20,
) -> Node:
    """The table that is searched: penultimate features of ``source`` for images of ``data`` (by default its own).

    Images that ``source`` was trained on are left out; without a source, Wisconsin breast cancer as it was measured.
    """
    if source is None:
        return Node("features_table", {"source": BREAST_CANCER}, labels={"data": BREAST_CANCER}, seconds=1)
    home = data or source.data
    args = _subject(source, home, limit, seed)
    return Node("features_table", args, home, {}, {"source": source}, {"data": home.name}, seconds)


def evolved(
    table: Node,
    method: str,
    question: str = "weights",
    budget: int = 6000,
    seeds: int = 20,
    folds: int = 2,
    seconds: float | None = 3,
) -> Node:
    """One method on one table: a network for every seed and fold, whole patients on one side; no rows of its own."""
    args = {"method": method, "question": question, "budget": budget, "seeds": seeds, "folds": folds}
    labels = {**table.labels, "model": method, "question": question}
    return Node("evolved", args, needs={"table": table}, labels=labels, seconds=seconds)


def compared(
    table: Node, methods: Sequence[str], question: str = "weights", budget: int = 6000, seeds: int = 20, folds: int = 2
) -> Node:
    """All methods and the baselines of a question on one table: every metric, and who differs from the reference."""
    names = list(dict.fromkeys((*BASELINES[question], *methods)))
    each = [evolved(table, m, question, budget, seeds, folds) for m in names]
    args = {"methods": names, "question": question, "budget": budget, "seeds": seeds, "folds": folds}
    needs: dict[str, Node | Model] = {"table": table, **{f"method{i}": n for i, n in enumerate(each)}}
    labels = {**table.labels, "question": question}
    return Node("compared", args, needs=needs, labels=labels, seconds=1)


def ranked(comparisons: Sequence[Node]) -> Node:
    """Mean ranks of the methods over sets that share no patient. All comparisons are of the same methods."""
    needs: dict[str, Node | Model] = {f"set{i}": c for i, c in enumerate(comparisons)}
    question = comparisons[0].args["question"]
    return Node(
        "ranked", {"methods": comparisons[0].args["methods"]}, needs=needs, labels={"question": question}, seconds=1
    )


def evolved_under_attack(
    source: Model,
    methods: Sequence[str],
    seeds: int = 2,
    images: int = 50,
    budget: int = 6000,
    limit: int | None = 300,
    seed: int = 0,
    seconds: float | None = 120,
) -> Node:
    """Evolved networks on features of ``source``, beside twins trained by gradients to the same accuracy, attacked."""
    args: dict[str, Any] = _subject(source, source.data, limit, seed)
    args |= {"methods": list(methods), "seeds": seeds, "images": images, "budget": budget}
    return Node("evolved_attacked", args, source.data, {}, {"source": source}, {"data": source.data.name}, seconds)


def _subject(source: Model, data: Data, limit: int | None, seed: int) -> dict[str, Any]:
    """seen: the source was trained on this data, so that only its test images are new to it."""
    return {"source": source.name, "seen": source.data.spec == data.spec, "limit": limit, "seed": seed}
