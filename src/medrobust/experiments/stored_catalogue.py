"""Cells of images as a file holds them, for study files; nothing here computes. As ``catalogue``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from medrobust.experiments.catalogue import LOG_GRID
from medrobust.grid import Model, Node

Columns = Mapping[str, tuple[Any, ...] | None]


def _labels(model: Model, seed: int) -> dict[str, object]:
    return {"data": model.data.name, "model": model.name, "seed": seed}


def stored(
    model: Model,
    levels: int,
    attack: str = "auto:steps=30:queries=60",
    eps: Sequence[float] = LOG_GRID,
    norm: str = "linf",
    limit: int | None = 80,
    seed: int = 0,
    seconds: float | None = None,
) -> Node:
    """The smallest eps among images of so many levels (255: 8 bits; 0: not rounded)."""
    args = {"attack": attack, "levels": levels, "norm": norm, "eps": list(eps), "limit": limit, "seed": seed}
    return Node("stored", args, model.data, {}, {"model": model}, _labels(model, seed), seconds)


def sparsest(model: Model, levels: int, limit: int | None = 80, seed: int = 0, seconds: float | None = None) -> Node:
    """The fewest pixels whose change by one of so many levels turns an image."""
    args = {"levels": levels, "limit": limit, "seed": seed}
    return Node("sparsest", args, model.data, {}, {"model": model}, _labels(model, seed), seconds)


def survived(
    model: Model,
    eps: float,
    transformations: Sequence[str] | None = None,
    attack: str = "pgd",
    levels: int = 255,
    norm: str = "linf",
    limit: int | None = 80,
    seed: int = 0,
    seconds: float | None = None,
) -> Node:
    """What transformations leave of an attack, plain and optimised through each.

    transformations: names of ``medrobust.transformations.TRANSFORMATIONS``; all if not given.
    """
    args: dict[str, object] = {"attack": attack, "levels": levels, "norm": norm, "eps": eps, "limit": limit}
    args |= {"transformations": None if transformations is None else list(transformations), "seed": seed}
    return Node("survived", args, model.data, {}, {"model": model}, _labels(model, seed), seconds)


# -- the rows that these cells give, for ``columns`` ---------------------------------------------------------------


def _stored(node: Node) -> list[Columns]:
    args = node.args
    at: Columns = {"norm": (args["norm"],), "eps": (max(args["eps"]),), "levels": (args["levels"],)}
    return [{**at, "attack": (args["attack"],), "metric": ("min_eps_median",)}]


def _sparsest(node: Node) -> list[Columns]:
    at: Columns = {"norm": ("linf",), "levels": (node.args["levels"],)}
    medians: Columns = {
        **at,
        "attack": ("sparsest", "one shot"),
        "metric": ("pixels_median", "pixels_turned", "not_by_one_level"),
    }
    return [medians, {**at, "attack": ("sparsest",), "metric": ("turned_within",), "pixels": None}]


def _survived(node: Node) -> list[Columns]:
    args, given = node.args, node.args["transformations"]
    names = None if given is None else tuple(given)
    made: Columns = {"norm": (args["norm"],), "eps": (args["eps"],), "metric": ("success",)}
    made = {**made, "transformation": None if names is None else ("none", *names)}
    return [
        {"norm": (args["norm"],), "metric": ("changed_by_itself",), "transformation": names},
        {**made, "attack": (args["attack"],), "made": ("plain", "optimised")},
        {**made, "attack": ("noise",), "made": ("noise",)},
    ]


COLUMNS = {"stored": _stored, "sparsest": _sparsest, "survived": _survived}
