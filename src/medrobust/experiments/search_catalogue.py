"""The cells of searches: optimisers on functions, networks trained by search on features of images. Nothing computes.

Every function returns the cell whose rows are wanted, with what it stands on; see ``catalogue``.
"""

from __future__ import annotations

from collections.abc import Sequence

from medrobust.grid import Data, Model, Node

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
    """Evolved networks on features of ``source``, attacked beside gradient-trained controls of the same accuracy."""
    args: dict[str, object] = _subject(source, source.data, limit, seed)
    args |= {"methods": list(methods), "seeds": seeds, "images": images, "budget": budget}
    return Node("evolved_attacked", args, source.data, {}, {"source": source}, {"data": source.data.name}, seconds)


def _subject(source: Model, data: Data, limit: int | None, seed: int) -> dict[str, object]:
    """seen: the source was trained on this data, so that only its test images are new to it."""
    return {"source": source.name, "seen": source.data.spec == data.spec, "limit": limit, "seed": seed}
