"""The rows that each task will give, known before it runs: its columns, and their values where the study decides them.

What tables and published figures ask for is compared with these, so that a mistyped column is an error, not an empty
table. ``tests/runner/test_study_file.py`` holds every row of every study against them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medrobust.grid import Data, Model, Node, matches

Columns = Mapping[str, tuple[Any, ...] | None]
"""Of a row that a cell may give: column to its possible values; None where the study does not know them."""

FIRST = ("study", "part", "data", "model", "attack", "norm", "eps", "seed")
"""Columns of every row; a cell's labels decide them, whatever its task says."""
SEEDS = ("model_seed", "data_seed")
LAST = ("metric", "value", "low", "high", "n", "status", "note")

CLEAN = ("accuracy", "balanced_accuracy", "guessing", "auroc", "ece", "brier")
"""Of performance without an attack."""
BY_CLASS = ("sensitivity", "specificity", "auroc")
"""The same for one class, which the column ``class_name`` names."""
SEARCHED = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "auroc", "difference", "evaluations")


def columns(node: Node) -> list[Columns] | None:
    """The kinds of rows that a cell gives, its labels included; None for a task of one's own that declares none.

    A task of one's own declares its rows in ``Node.rows``.
    """
    if node.task in _TASKS:
        kinds: Sequence[Columns] = _TASKS[node.task](node)
    elif node.rows:
        kinds = [{k: _tuple(v) for k, v in row.items()} for row in node.rows]
    else:
        return None
    return [_labelled(kind, node) for kind in kinds]


def seed_columns(node: Node, seeds: Mapping[int, int | None]) -> dict[str, int | None]:
    """The seeds of a cell's model and data; ``seed`` itself is that of its attack and of the images drawn.

    seeds: by ``id`` of a Model, the seed it was trained with; None where it was trained elsewhere and does not say.
    model_seed: of the model the cell needs, or of the only model below it.
    """
    models = [n for name, n in node.needs.items() if isinstance(n, Model) and name in ("model", "source")]
    models = models or list({id(m): m for m in models_below(node)}.values())
    found: dict[str, int | None] = {}
    if len(models) == 1:
        found["model_seed"] = seeds.get(id(models[0]), models[0].seed)
    data = node.data or (models[0].data if len(models) == 1 else None)
    if isinstance(data, Data):
        found["data_seed"] = data.seed
    return found


def models_below(node: Node) -> list[Model]:
    """All models that a cell stands on."""
    found: list[Model] = []
    for need in node.needs.values():
        found += [need] if isinstance(need, Model) else models_below(need)
    return found


def can_match(kind: Columns, where: Mapping[str, Any]) -> bool:
    """Whether a row of that kind may have these values; see ``grid.matches``."""
    return all(_can_be(kind.get(column, ()), value) for column, value in where.items())


def possible(kind: Columns, column: str, where: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """The values of a column among the rows of that kind that match ``where``; None where they are not known."""
    values = kind.get(column, (None,))
    if column not in where:
        return values
    wanted = where[column] if isinstance(where[column], (list, tuple)) else (where[column],)
    return tuple(wanted) if values is None else tuple(v for v in values if any(_is(v, w) for w in wanted))


def _can_be(values: tuple[Any, ...] | None, wanted: Any) -> bool:
    if values is None:
        return True
    if isinstance(wanted, (list, tuple)):
        return any(_can_be(values, w) for w in wanted)
    if wanted is None:
        return not values or None in values
    return any(_is(v, wanted) for v in values)


def _is(value: Any, wanted: Any) -> bool:
    if isinstance(value, str) and value.endswith("*") and isinstance(wanted, str):
        return wanted.startswith(value[:-1])
    return matches({"v": value}, {"v": wanted})


def _labelled(kind: Columns, node: Node) -> Columns:
    """As ``collect`` does: labels decide the first columns, and add those that the row lacks."""
    base: dict[str, tuple[Any, ...] | None] = {
        "study": None,
        "part": None,
        "data": ("",),
        "model": ("",),
        "attack": ("none",),
        "kind": None,
        "norm": None,
        "eps": (0.0,),
        "seed": (node.args.get("seed", 0),),
    }
    rest: Columns = dict.fromkeys(("value", "low", "high", "n", "status", "note", "settings"))
    labels = {k: (v,) for k, v in node.labels.items() if k in FIRST or k not in kind}
    seeds = dict.fromkeys(seed_columns(node, {}))
    return {**base, **kind, **labels, **seeds, **rest}


def _tuple(value: Any) -> tuple[Any, ...] | None:
    return tuple(value) if isinstance(value, (list, tuple)) else None if value is None else (value,)


# -- the tasks of the package ----------------------------------------------------------------------------------


def _attacked(node: Node, attack: str, *more: str) -> list[Columns]:
    eps = tuple(node.args["eps"])
    norm = (node.args["norm"],)
    whole = ("min_eps_median", "inconclusive", *more)
    return [
        {"attack": (attack,), "norm": norm, "eps": eps, "metric": ("accuracy", "success")},
        {"attack": (attack,), "norm": norm, "eps": (max(eps),), "metric": whole},
    ]


def _sized(node: Node, attack: str) -> list[Columns]:
    args = node.args
    return [{"attack": (attack,), "norm": (args["norm"],), "eps": tuple(args["eps"]), "metric": ("accuracy",)}]


def _saved(node: Node) -> list[Columns]:
    (sized,) = _sized(node, node.args["attack"])
    return [{**sized, "metric": ("accuracy_full",)}, {**sized, "metric": ("accuracy_saved",), "bits": None}]


def _detector(node: Node) -> list[Columns]:
    args, attacks = node.args, tuple(node.args["attacks"])
    guarded = next((a for a in attacks if a.partition(":")[0] == "pgd"), attacks[0])
    common: Columns = {
        "norm": (args["norm"],),
        "eps": (args["eps"],),
        "detector": (args["detector"],),
        "layer": (None,),
    }
    areas, at_rate = {"metric": ("auroc", "auroc_paired")}, {"metric": ("alarms", "seen"), "at_fpr": None}
    kinds: list[Columns] = []
    if "clean" in args["protocols"]:
        clean: Columns = {**common, "protocol": ("clean",)}
        in_use = {"metric": ("alarms", "alarms_per_1000", "predictive_value"), "at_fpr": None}
        tested: list[Columns] = []
        for a in attacks:
            others = tuple(b for b in attacks if b != a)
            tested += [
                {"fitted_on": (a,), "attack": (a,), "same": (True,)},
                {"fitted_on": (a,), "attack": others, "same": (False,)},
            ]
        tested.append({"fitted_on": (guarded,), "attack": ("noise",), "same": (False,)})
        if len(args["layers"]) > 1:
            layer = {"layer": tuple(args["layers"])}
            tested.append({"fitted_on": (guarded,), "attack": (guarded,), "same": (True,), **layer})
        kinds += [{**clean, **columns, **rates} for columns in tested for rates in (areas, at_rate)]
        kinds.append({**clean, "fitted_on": (guarded,), "attack": ("none",), "same": (False,), **in_use})
    if "paper" in args["protocols"]:
        for a in attacks:
            paper: Columns = {**common, "protocol": ("paper",), "fitted_on": (a,), "attack": (a,), "same": (True,)}
            kinds += [{**paper, "metric": ("auroc",)}, {**paper, "metric": ("seen",), "at_fpr": None}]
    return kinds


def _judged(node: Node) -> list[Columns]:
    args = node.args
    common: Columns = {"attack": (args["method"],), "norm": (args["norm"],), "eps": None}
    more = ("cap",) if args["goal"] == "nontargeted" else ("base", "success_new")
    metrics = ("success", "success_saved", "accuracy_before", "accuracy", *more)
    return [{**common, "metric": metrics, "split": tuple(args["on"])}, {**common, "metric": ("gradients", "queries")}]


def _random(node: Node) -> list[Columns]:
    args = node.args
    return [
        {
            "attack": ("random *",),
            "norm": (args["norm"],),
            "eps": None,
            "metric": ("success",),
            "split": tuple(args["on"]),
            "goal": tuple(args["goals"]),
        }
    ]


def _defence(node: Node) -> list[Columns]:
    pools = ("fresh", "of the round before", "of the start", "random")
    common: Columns = {"norm": (node.args["norm"],), "round": None}
    return [
        {**common, "attack": ("none",), "metric": ("accuracy",)},
        {**common, "attack": pools, "eps": None, "metric": ("success",)},
    ]


def _minimised(node: Node) -> list[Columns]:
    return [{"attack": (node.args["optimiser"],), "norm": ("",), "metric": ("objective",), "evaluations": None}]


def _explained(node: Node) -> list[Columns]:
    args = node.args
    norm, at = (args["norm"],), {"attack": (args["attack"],), "eps": (args["eps"],)}
    return [
        {"norm": norm, "attack": ("pgd",), "metric": ("min_eps_median",)},
        {"norm": norm, "metric": ("measure", "spearman"), "measure": None},
        {"norm": norm, "metric": ("rise",), "eps": None, "direction": ("gradient", "random", "second")},
        {"norm": norm, "metric": ("rank_share",), "layer": None},
        {"norm": norm, **at, "metric": ("rank_share",), "layer": None},
        {"norm": norm, **at, "metric": ("cam_shift", "further", "probe", "silhouette")},
        {"norm": norm, **at, "attack": ("noise",), "metric": ("cam_shift",)},
    ]


def _claimed(node: Node) -> list[Columns]:
    return [
        {
            "data": (*node.args["sets"], "all of them"),
            "norm": ("",),
            "metric": ("pairs",),
            "claim": None,
            "by": None,
            "claimed": ("more", "less"),
            "against": (node.args["natural"],),
        }
    ]


def _compared(node: Node) -> list[Columns]:
    methods = tuple(node.args["methods"])
    return [{"model": methods, "metric": SEARCHED, "method_kind": None, "than": None}]


def _ranked(node: Node) -> list[Columns]:
    return [
        {"data": ("all sets",), "model": tuple(node.args["methods"]), "metric": ("rank",)},
        {"data": ("all sets",), "metric": ("friedman_p",), "critical_difference": None},
    ]


def _evolved_attacked(_: Node) -> list[Columns]:
    common: Columns = {"model": None, "norm": ("linf",), "networks": None}
    return [
        {**common, "metric": ("accuracy", "matched")},
        {**common, "attack": ("pgd",), "eps": None, "metric": ("accuracy",)},
        {**common, "attack": ("pgd",), "metric": ("min_eps_median", "ratio", "gradients_lost")},
    ]


def _none(_: Node) -> list[Columns]:
    return []


_TASKS: dict[str, Callable[[Node], list[Columns]]] = {
    "clean": lambda _: [{"metric": CLEAN}, {"class_name": ("*",), "metric": BY_CLASS}],
    "curve": lambda n: _attacked(n, n.args["attack"], "gradients_per_image"),
    "worst": lambda n: _attacked(n, "worst"),
    "noise": lambda n: _sized(n, "noise"),
    "transfer": lambda n: _sized(n, n.args["attack"]),
    "saved": _saved,
    "detector": _detector,
    "judged": _judged,
    "random": _random,
    "minimised": _minimised,
    "explained": _explained,
    "claimed": _claimed,
    "compared": _compared,
    "ranked": _ranked,
    "evolved_attacked": _evolved_attacked,
    "defence": _defence,
    **dict.fromkeys(("train", "swept", "features", "universal", "features_table", "evolved"), _none),
}
