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


def _labels(model: Model, seed: int, **more: Any) -> dict[str, object]:
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


def worst(curves: Sequence[Node], name: str = "worst") -> Node:
    """For each image the attack of these curves that needed least. name: value of ``attack`` in its rows."""
    first = curves[0]
    args = {k: v for k, v in first.args.items() if k != "attack"}
    needs: dict[str, Node | Model] = {"model": first.needs["model"], **{f"curve{i}": c for i, c in enumerate(curves)}}
    labels = {**first.labels, "attack": name}
    return Node("worst", args, first.data, needs=needs, labels=labels, seconds=1)


def noise(
    model: Model, eps: Sequence[float] = GRID, norm: str = "linf", limit: int | None = None, seed: int = 0
) -> Node:
    """The control of a curve: random changes of exactly the same size."""
    args = {"norm": norm, "eps": tuple(eps), "limit": limit, "seed": seed}
    return Node("noise", args, model.data, needs={"model": model}, labels=_labels(model, seed), seconds=10)


def corrupted(
    model: Model, corruptions: str = "any", limit: int | None = None, seed: int = 0, seconds: float | None = None
) -> Node:
    """Natural corruptions at five severities. corruptions: a set, as of ``medrobust audit --corruptions``."""
    args = {"corruption_set": corruptions, "limit": limit, "seed": seed}
    return Node("corrupted", args, model.data, {}, {"model": model}, _labels(model, seed), seconds)


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


def queried(
    model: Model,
    attack: str,
    eps: float,
    queries: Sequence[int],
    norm: str = "linf",
    limit: int | None = 50,
    seed: int = 0,
    seconds: float | None = None,
) -> Node:
    """An attack without gradients at one size: images fooled within each number of ``queries``.

    attack: without its number of queries, which is the largest of ``queries``; "noise" for random changes of the same
    size, one a query.
    """
    made = attack if attack == "noise" else f"{attack}:queries={max(queries)}"
    args = {"attack": made, "norm": norm, "eps": eps, "queries": list(queries), "limit": limit, "seed": seed}
    return Node("queried", args, model.data, {}, {"model": model}, _labels(model, seed, attack=attack), seconds)


def detectors(
    model: Model,
    names: Sequence[str],
    attacks: Sequence[str],
    eps: float = GREY,
    norm: str = "linf",
    limit: int | None = 300,
    layers: Sequence[str] = ("penultimate",),
    protocols: Sequence[str] = ("clean", "paper"),
    corruptions: Sequence[str] = (),
    corrupted: int = 60,
    seed: int = 0,
    seconds: float | None = None,
) -> list[Node]:
    """A cell for each detector, fitted on each attack and tested on all of them, and those of the images it reads.

    corruptions: at every severity, on ``corrupted`` of the images. seconds: of one attack's adversarial pairs.
    """
    common: dict[str, object] = {"norm": norm, "eps": eps, "limit": limit, "layers": list(layers), "seed": seed}
    changed = {"corruptions": list(corruptions), "corrupted": corrupted}
    labels = _labels(model, seed)

    def features(of: str, more: Mapping[str, Any], **needs: Node) -> Node:
        return Node("features", common | {"of": of, **more}, model.data, {}, {"model": model, **needs}, labels, seconds)

    first = features("clean", {})
    read = [features(a, {}, clean=first) for a in attacks]
    read += [features("corrupted", changed, clean=first)] if corruptions else []
    config = common | changed | {"attacks": list(attacks), "protocols": list(protocols)}
    needs: dict[str, Node | Model] = {"model": model, "clean": first, **{f"features{i}": n for i, n in enumerate(read)}}
    fitted = [
        Node("detector", config | {"detector": d}, model.data, needs=needs, labels=labels, seconds=10) for d in names
    ]
    return [first, *read, *fitted]


NO_DETECTOR = "none"
"""For ``evaded``: the same search where no detector raises an alarm."""


def evaded(
    model: Model,
    names: Sequence[str],
    attack: str = "pgd",
    eps: float = GREY,
    sizes: Sequence[float] = (),
    norm: str = "linf",
    limit: int | None = 200,
    attacked: int = 40,
    evasions: Sequence[str] = ("selective", "matching"),
    pressed: bool = False,
    layers: Sequence[str] = ("penultimate",),
    seed: int = 0,
    seconds: float | None = None,
) -> list[Node]:
    """A cell for each detector, fitted on ``attack``, and attacks that know it; one without a detector.

    sizes: ascending, eps among them, over which the smallest that suffices is sought. attacked: images of ``limit``.
    pressed: whether more steps and larger sizes do no worse is checked. seconds: of one detector.
    """
    args: dict[str, object] = {"norm": norm, "eps": eps, "limit": limit, "layers": list(layers), "seed": seed}
    labels = _labels(model, seed)
    needs = {
        f"features{i}": Node("features", args | {"of": of}, model.data, {}, {"model": model}, labels, 10)
        for i, of in enumerate(("clean", attack))
    }
    args |= {"attack": attack, "sizes": list(sizes), "attacked": attacked, "evasions": list(evasions)}
    args |= {"pressed": pressed}
    found = [*([NO_DETECTOR] if sizes else []), *names]
    return [
        Node("evaded", args | {"detector": d}, model.data, {}, {"model": model, **needs}, labels, seconds)
        for d in found
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
EXPENSIVE = 24
"""Images on which measures that cost dozens of gradients are taken."""


def explained(
    model: Model,
    second: Model | None = None,
    attack: str = "pgd",
    eps: float = GREY,
    norm: str = "linf",
    limit: int | None = 60,
    surfaces: int = 16,
    measures: Sequence[str] = EXPLAINED,
    expensive: Sequence[str] = (),
    steps: int = 10,
    seed: int = 0,
    seconds: float | None = None,
) -> Node:
    """Why it breaks: saliency, Grad-CAM, representation, loss landscape and embedding of ``limit`` right images.

    second: an independently trained classifier, for the published plane. surfaces: images with a landscape. expensive:
    further measures, of the first EXPENSIVE images. steps: of PGD, for the smallest eps that fools each image.
    """
    args = {
        "attack": attack,
        "norm": norm,
        "eps": eps,
        "limit": limit,
        "surfaces": surfaces,
        "measures": list(measures),
        "expensive": list(expensive),
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
