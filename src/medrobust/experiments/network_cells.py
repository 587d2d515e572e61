"""Cells that set networks beside each other: measures of one, which of two is harder to fool, trends over many.

As ``catalogue``, which has the cells of a single network; nothing here computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from medrobust.experiments.catalogue import EXPLAINED
from medrobust.grid import Model, Node


def measured(
    model: Model, measures: Sequence[str] = EXPLAINED, limit: int | None = 60, seed: int = 0, seconds: float | None = 10
) -> Node:
    """Medians of ``medrobust.explain.MEASURES`` over images that are read rightly."""
    args = {"measures": list(measures), "limit": limit, "seed": seed}
    return Node(
        "measured",
        args,
        model.data,
        {},
        {"model": model},
        {"data": model.data.name, "model": model.name, "seed": seed},
        seconds,
    )


def more_robust(first: Node, second: Node) -> Node:
    """How often an image of the first network needs the larger eps than one of the second: two curves on one data."""
    models = {"first": first.needs["model"], "second": second.needs["model"]}
    args = {k: first.args[k] for k in ("limit", "seed")}
    labels = {**first.labels, "against": second.labels["model"]}
    return Node("more_robust", args, first.data, {}, {**models, "curve0": first, "curve1": second}, labels, 1)


@dataclass(frozen=True)
class Measured:
    """A network and the cells of it that ``trend`` reads. line: its kind, for means; x: its number of classes.

    group: networks of one group are drawn together for the interval of a correlation.
    """

    model: Model
    clean: Node
    curve: Node
    measured: Node
    line: str
    group: str
    detector: Node | None = None
    x: int | None = None

    def cells(self) -> list[Node]:
        return [c for c in (self.clean, self.curve, self.measured, self.detector) if c is not None]


def trend(
    networks: Sequence[Measured],
    by: str = "weights",
    kept: Sequence[float] = (),
    target: float | None = None,
    aside: Sequence[str] = (),
    **labels: Any,
) -> Node:
    """Means over the networks of each kind, and rank correlations over all, with the number of weights or of classes.

    kept: eps at which the kept share of accuracy is a quantity. target: validation balanced accuracy that was aimed at;
    networks near it are also correlated alone. aside: kinds that no correlation is over.
    """
    args = {
        "by": by,
        "x": [n.x for n in networks] if by == "classes" else None,
        "lines": [n.line for n in networks],
        "groups": [n.group for n in networks],
        "kept": list(kept),
        "target": target,
        "aside": list(aside),
    }
    needs: dict[str, Node | Model] = {}
    for i, n in enumerate(networks):
        needs |= {f"model{i}": n.model, f"clean{i}": n.clean, f"curve{i}": n.curve, f"measured{i}": n.measured}
        needs |= {} if n.detector is None else {f"detector{i}": n.detector}
    return Node("trend", args, needs=needs, labels=labels, seconds=5)
