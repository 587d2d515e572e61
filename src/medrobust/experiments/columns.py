"""The rows that each task will give, known before it runs: its columns, and their values where the study decides them.

What tables and published figures ask for is compared with these, so that a mistyped column is an error, not an empty
table. ``tests/runner/test_study_file.py`` holds every row of every study against them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medrobust.experiments import stored_catalogue
from medrobust.experiments.catalogue import NO_DETECTOR, NONTARGETED
from medrobust.experiments.task_options import attack_settings
from medrobust.grid import ANY, Data, Model, Node, matches

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
    seeds_of_cell: dict[str, int | None] = {}
    if len(models) == 1:
        seeds_of_cell["model_seed"] = seeds.get(id(models[0]), models[0].seed)
    data = node.data or (models[0].data if len(models) == 1 else None)
    if isinstance(data, Data):
        seeds_of_cell["data_seed"] = data.seed
    return seeds_of_cell


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
    if value == ANY:
        return wanted is not None
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


def _curve(node: Node) -> list[Columns]:
    attack = node.args["attack"]
    cost = _attacked(node, attack, "gradients_per_image", "forwards_per_image")
    by = {"attack": (attack,), "norm": (node.args["norm"],), "eps": (max(node.args["eps"]),), "metric": ("broken_by",)}
    return [*cost, {**by, "member": None}] if attack.partition(":")[0] == "auto" else cost


def _sized(node: Node, attack: str) -> list[Columns]:
    args = node.args
    return [{"attack": (attack,), "norm": (args["norm"],), "eps": tuple(args["eps"]), "metric": ("accuracy",)}]


def _corrupted(_: Node) -> list[Columns]:
    at: Columns = {"norm": ("",), "corruption": None, "severity": (1, 2, 3, 4, 5)}
    untouched: Columns = {**at, "corruption": ("none",), "severity": (0,), "metric": ("accuracy", "balanced_accuracy")}
    measured = {**at, "metric": ("accuracy", "accuracy_lost", "balanced_accuracy")}
    errors = {**at, "severity": (None,), "metric": ("balanced_error", "relative_balanced_error")}
    return [untouched, measured, errors, {**at, "metric": ("sensitivity",), "class_name": ("*",)}]


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
        "corruption": (None,),
    }
    severities = {"corruption": tuple(args["corruptions"]), "severity": None}
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
        if args["corruptions"]:
            tested.append({"fitted_on": (guarded,), "attack": ("none",), "same": (False,), **severities})
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


COSTS = ("gradients", "queries", "norm_used")
"""Of a universal perturbation: what it took, and the share of the allowed norm that it uses."""


def _evaded(node: Node) -> list[Columns]:
    args, evasion = node.args, (next(a for a in attack_settings(node) if a != node.args["attack"]),)
    common: Columns = {"norm": (args["norm"],), "eps": (args["eps"],), "detector": (args["detector"],)}
    at_rate: Columns = {**common, "at_fpr": None}
    reach: Columns = {**at_rate, "attack": evasion, "eps": tuple(args["sizes"]), "metric": ("reach",)}
    if args["detector"] == NO_DETECTOR:
        return [reach]
    both = (args["attack"], *evasion)
    kinds: list[Columns] = [
        {**common, "attack": both, "metric": ("fooled", "auroc")},
        {**at_rate, "attack": both, "metric": ("detected", "success")},
        {**at_rate, "attack": evasion, "metric": ("success_saved",)},
        {**common, "attack": evasion, "metric": ("steps",)},
    ]
    largest = {"eps": (max(args["sizes"]),), "metric": ("min_eps_median",)} if args["sizes"] else {}
    return kinds + ([reach, {**at_rate, "attack": evasion, **largest}] if largest else [])


def _features(node: Node) -> list[Columns]:
    args = node.args
    if args["of"] == "clean":
        return [{"metric": ("images",), "norm": (args["norm"],), "eps": (args["eps"],), "images": None}]
    changed: Columns = {"metric": ("success",), "attack": (args["of"],), "norm": (args["norm"],), "eps": (args["eps"],)}
    return [changed] if args["of"] != "corrupted" else []


def _queried(node: Node) -> list[Columns]:
    args = node.args
    common: Columns = {"attack": (args["attack"],), "norm": (args["norm"],), "eps": (args["eps"],)}
    return [
        {**common, "metric": ("success_at",), "queries": tuple(args["queries"])},
        {**common, "metric": ("accuracy", "queries_median")},
    ]


def _judged(node: Node) -> list[Columns]:
    args = node.args
    common: Columns = {"attack": (args["method"],), "norm": (args["norm"],), "eps": None}
    split: Columns = {**common, "split": tuple(args["on"])}
    target = {} if args["goal"] == NONTARGETED else {"target": (args["goal"],)}
    kinds = [{**split, "metric": ("fooling_cap", "accuracy_before")}, {**common, "metric": COSTS}]
    return kinds + _fooling({**split, **target}) + (_towards({**split, **target}, base=True) if target else [])


def _random(node: Node) -> list[Columns]:
    args = node.args
    common: Columns = {"attack": ("random *",), "norm": (args["norm"],), "eps": None, "split": tuple(args["on"])}
    kinds: list[Columns] = []
    for goal in args["goals"]:
        at: Columns = {**common, "goal": (goal,)}
        kinds += _fooling(at) if goal == NONTARGETED else _towards({**at, "target": (goal,)})
    return kinds


def _fooling(common: Columns) -> list[Columns]:
    saved = {"metric": ("fooling_rate_saved", "accuracy_saved"), "bits": None}
    return [{**common, "metric": ("fooling_rate", "accuracy_after")}, {**common, **saved}]


def _towards(common: Columns, base: bool = False) -> list[Columns]:
    metrics = ("targeted_success", "targeted_success_new", *(("targeted_base",) if base else ()))
    return [{**common, "metric": metrics}, {**common, "metric": ("targeted_success_saved",), "bits": None}]


def _defence(node: Node) -> list[Columns]:
    targeted = ("targeted_success", "targeted_base", "targeted_success_new")
    metrics: tuple[str, ...] = ("fooling_rate", "strongest", "strongest_saved", "accuracy_strongest")
    metrics = metrics if node.args["goal"] == NONTARGETED else (*metrics, *targeted)
    common: Columns = {"norm": (node.args["norm"],), "round": None}
    tried: Columns = {**common, "eps": None, "metric": metrics}
    return [
        {**common, "metric": ("accuracy", "balanced_accuracy")},
        {**common, "metric": ("recall",), "class_name": None},
        {**tried, "attack": (node.args["method"],), "pool": ("fresh", "old", "first")},
        {**tried, "attack": ("random",), "pool": ("random",)},
    ]


def _minimised(_: Node) -> list[Columns]:
    return [{"norm": ("",), "metric": ("objective",), "evaluations": None}]


def _explained(node: Node) -> list[Columns]:
    args = node.args
    measures = (*args["measures"], *args["expensive"])
    norm: Columns = {"norm": (args["norm"],)}
    at: Columns = {"attack": (args["attack"],), "eps": (args["eps"],)}
    clean: Columns = {**norm, "when": ("clean",)}
    attacked: Columns = {**norm, **at, "when": ("attacked",)}
    change: Columns = {**norm, **at, "when": ("change",)}
    saliency = ("saliency-gini", "saliency-half")
    lesions = tuple(f"lesion-{how}" for how in ("point", "auroc", "share"))
    layers: Columns = {
        "metric": ("effective-rank", "relative-rank", "spectral-entropy", "spatial-entropy"),
        "layer": (ANY,),
    }
    apart: Columns = {"metric": ("probe", "silhouette", "probe-auroc"), "of": ("attacked", "groups")}
    kinds: list[Columns] = [
        {**norm, "attack": ("pgd",), "metric": ("min_eps_median",)},
        {**clean, "metric": tuple(dict.fromkeys((*measures, *saliency, "lesion-area")))},
        {**clean, "metric": ("rank_correlation",), "measure": measures},
        {**clean, "metric": ("loss",), "at": (0.0,)},
        {**clean, "metric": ("loss", "rise"), "at": (ANY,), "direction": ("gradient", "random", "second")},
        {**clean, **apart, "of": ("classes",), "chance": None},
        {**attacked, **apart, "chance": None},
        {**change, "metric": ("cam-shift", "cam-shift-px", "cam-shift-asked", "cam-shift-asked-px")},
        {**norm, **at, "attack": ("noise",), "when": ("noise",), "metric": ("cam-shift",)},
        {**change, "metric": ("larger_than_noise",), "measure": ("cam-shift",)},
    ]
    for kind in (clean, attacked, change):
        kinds += [{**kind, "metric": saliency}] if kind is not clean else []
        kinds += [{**kind, "metric": lesions, "map": (ANY,)}, {**kind, **layers}]
    return [{**kind, "unknown": None} for kind in kinds]


def _claimed(node: Node) -> list[Columns]:
    return [
        {
            "data": (*node.args["sets"], "all of them"),
            "norm": ("",),
            "metric": ("larger",),
            "claim": None,
            "by": None,
            "claimed": ("more", "less"),
            "than": (node.args["natural"],),
        }
    ]


def _trend(node: Node) -> list[Columns]:
    mean: Columns = {"metric": ("network_mean",), "network": None, "quantity": None, node.args["by"]: None}
    return [mean, {"metric": ("rank_correlation",), "quantity": None, "networks": None, "given": None}]


def _compared(node: Node) -> list[Columns]:
    methods = tuple(node.args["methods"])
    more = ("method_kind", "than", "p", "p_signed_ranks", "detectable", "q1", "q3", "seeds")
    counts: Columns = {"metric": ("better", "worse"), "method_kind": ("search", "both"), "test": None, "than": None}
    return [{"model": methods, "metric": SEARCHED, **dict.fromkeys(more)}, counts]


def _ranked(node: Node) -> list[Columns]:
    return [
        {"data": ("all sets",), "model": tuple(node.args["methods"]), "metric": ("rank",)},
        {
            "data": ("all sets",),
            "metric": ("friedman_p",),
            **dict.fromkeys(("critical_difference", "chi2", "p_chi2", "f")),
        },
    ]


def _evolved_attacked(_: Node) -> list[Columns]:
    common: Columns = {"model": None, "norm": ("linf",), "networks": None}
    return [
        {**common, "metric": ("accuracy", "matched", "matched_gap", "attacked_gap", "attacked_gap_mean")},
        {**common, "attack": ("pgd",), "eps": None, "metric": ("accuracy",)},
        {**common, "attack": ("pgd",), "metric": ("min_eps_median", "ratio", "gradients_lost"), "left_out": None},
    ]


def _none(_: Node) -> list[Columns]:
    return []


_TASKS: dict[str, Callable[[Node], list[Columns]]] = {
    "clean": lambda _: [{"metric": CLEAN}, {"class_name": ("*",), "metric": BY_CLASS}],
    "curve": _curve,
    "worst": lambda n: _attacked(n, "worst"),
    "noise": lambda n: _sized(n, "noise"),
    "transfer": lambda n: _sized(n, n.args["attack"]),
    "corrupted": _corrupted,
    "saved": _saved,
    **stored_catalogue.COLUMNS,
    "detector": _detector,
    "evaded": _evaded,
    "features": _features,
    "queried": _queried,
    "judged": _judged,
    "random": _random,
    "minimised": _minimised,
    "explained": _explained,
    "claimed": _claimed,
    "measured": lambda n: [{"norm": ("",), "metric": tuple(n.args["measures"]), "when": ("clean",)}],
    "more_robust": lambda _: [{"norm": ("",), "metric": ("larger",)}],
    "trend": _trend,
    "compared": _compared,
    "ranked": _ranked,
    "evolved_attacked": _evolved_attacked,
    "defence": _defence,
    **dict.fromkeys(("train", "swept", "universal", "features_table", "evolved"), _none),
}
