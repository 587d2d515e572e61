"""A study held against itself before anything runs: names, options, placeholders in paths, and what its tables ask for.

A mistyped column would otherwise merge rows or leave a table empty, after all of the work. Every error is one line.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medrobust.errors import InputError
from medrobust.experiments.columns import Columns, can_match, columns, possible
from medrobust.experiments.task_options import check_model, check_node, nearest
from medrobust.experiments.tasks import task_named
from medrobust.grid import Chart, Data, Model, Node, Part, Study, StudyTable, everything, without_seed

PLACEHOLDER = re.compile(r"\{(\w*)\}")
PLACES = 20_000
"""Places of one table that are looked through for rows that fall together; no study's table is larger."""


def check(study: Study) -> None:
    """InputError, in one line, for what would fail or mislead later."""
    nodes = list(everything(study.parts))
    _unique([part.name for part in study.parts], "part")
    models = [n for _, n in nodes if isinstance(n, Model)]
    _check_names(models, "model")
    data_used = _all_data(nodes)
    _check_names(data_used, "data")
    for data in data_used:
        for text in (data.spec, data.label):
            _check_placeholders(text, f"data {data.name!r}")
    for model in models:
        for path in (model.weights, model.options.get("pretrained")):
            if isinstance(path, str):
                _check_placeholders(path, f"model {model.name!r}")
        check_model(model)
    checked: set[bytes] = set()
    for part, node in nodes:
        if isinstance(node, Node) and (same := without_seed(node)) not in checked:
            task_named(node.task)
            check_node(node, f"part {part!r}")
            checked.add(same)
    for p in study.parts:
        _check_part(p)


def undeclared(study: Study) -> list[str]:
    """A line for each part with tables whose columns cannot be checked before the run, because cells of one's own do
    not declare their rows.
    """
    lines = []
    for part in study.parts:
        tasks = dict.fromkeys(n.task for n in part.cells if columns(n) is None)
        named = [f"{'table' if isinstance(v, StudyTable) else 'chart'} {v.title!r}" for v in part.show]
        named += [f"published {p.what!r}" for p in part.published]
        if tasks and named:
            lines.append(
                f"part {part.name!r}: the columns of {', '.join(named)} cannot be checked before the run: "
                f"{', '.join(tasks)} {'declares' if len(tasks) == 1 else 'declare'} no rows (Node(…, rows=…))"
            )
    return lines


# -- names and paths -----------------------------------------------------------------------------------------------


def _check_names(items: Sequence[Model] | Sequence[Data], kind: str) -> None:
    """Two objects of one name must be the same: tables and digests know them by name."""
    first: dict[str, Model | Data] = {}
    for item in items:
        same_name = first.setdefault(item.name, item)
        if _declared(same_name) != _declared(item):
            raise InputError(f"two different {kind} objects have the name {item.name!r}; give each a name of its own")


def _declared(item: Model | Data) -> str:
    fields = {k: v for k, v in vars(item).items() if k not in ("get", "seconds")}
    if isinstance(item, Model):
        fields |= {"data": _declared(item.data), "options": dict(item.options)}
    return json.dumps(fields, sort_keys=True, default=str)


def _all_data(nodes: Iterable[tuple[str, Node | Model]]) -> list[Data]:
    """Each object once."""
    objects: dict[int, Data] = {}
    for _, node in nodes:
        for data in (node.data, *(node.also.values() if isinstance(node, Node) else ())):
            if data is not None:
                objects[id(data)] = data
    return list(objects.values())


def _unique(names: Sequence[str], kind: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two of the study's {kind}s have the name {name!r}; give each a name of its own")


def _check_placeholders(text: str, where: str) -> None:
    for name in PLACEHOLDER.findall(text):
        if name != "data":
            raise InputError(
                f"{where}: {{{name}}} in {text!r} is not replaced by anything; {{data}} stands for the folder of "
                "--data, and an f before the text fills in a variable"
            )


# -- tables --------------------------------------------------------------------------------------------------------


def _check_part(part: Part) -> None:
    if not part.show and not part.published:
        return
    kinds: list[tuple[Node, Columns]] = []
    for node in {_signature(n): n for n in part.cells}.values():
        given = columns(node)
        if given is None:  # a task of one's own that declares no rows
            return
        kinds += [(node, kind) for kind in given]
    for view in part.show:
        where = f"part {part.name!r}, {'table' if isinstance(view, StudyTable) else 'chart'} {view.title!r}"
        axes = (*view.lines, view.across) if isinstance(view, StudyTable) else (*view.lines, *view.panels, view.x)
        _check_columns([kind for _, kind in kinds], (*view.where, *axes), where)
        matching = [(node, kind) for node, kind in kinds if can_match(kind, view.where)]
        if not matching:
            raise InputError(f"{where}: no cell gives {_unmatched([k for _, k in kinds], view.where)}")
        _check_columns([kind for _, kind in matching], axes, where)
        _check_merging(matching, view, axes, where)
    for published in part.published:
        where = f"part {part.name!r}, published {published.what!r}"
        _check_columns([kind for _, kind in kinds], published.where, where)
        metric = {k: v for k, v in published.where.items() if k == "metric"}
        if not any(can_match(kind, metric) for _, kind in kinds):
            raise InputError(f"{where}: no cell gives {_unmatched([k for _, k in kinds], metric)}")


def _check_columns(kinds: Sequence[Columns], names: Iterable[str], where: str) -> None:
    columns = set().union(*kinds) if kinds else set()
    for name in names:
        if name not in columns:
            raise InputError(f"{where}: its rows have no column {name!r}{nearest(name, columns)}")


def _unmatched(kinds: Sequence[Columns], where: Mapping[str, Any]) -> str:
    """What a table asks for and no row has: the first value that none can have, else the combination."""
    for column, value in where.items():
        if any(can_match(kind, {column: value}) for kind in kinds):
            continue
        values = [v for kind in kinds for v in kind.get(column) or ()]
        wanted = value if isinstance(value, (list, tuple)) else (value,)
        return f"{column} {', '.join(map(str, wanted))}{nearest(str(wanted[0]), map(str, values))}"
    return "a row with all of " + ", ".join(f"{k} {v}" for k, v in where.items())


def _check_merging(
    matching: Sequence[tuple[Node, Columns]], view: StudyTable | Chart, axes: Sequence[str], where: str
) -> None:
    """InputError where several rows fall in one place of the table, which would show the last of them."""
    first: dict[tuple[Any, ...], tuple[Node, Columns]] = {}
    for node, kind in matching:
        for column in kind:
            values = possible(kind, column, view.where)
            if column not in axes and values is not None and len(set(map(str, values))) > 1:
                raise InputError(
                    f"{where}: rows that differ in {column} ({', '.join(map(str, values))}) fall in one place; add "
                    f"{column} to its lines, or choose one value in where"
                )
        sets = [possible(kind, column, view.where) for column in axes]
        if any(s is None for s in sets):
            continue  # values that only the run knows: rows that fall together are counted then
        for place in itertools.islice(itertools.product(*(s for s in sets if s is not None)), PLACES):
            key = tuple(map(str, place))
            other, other_kind = first.setdefault(key, (node, kind))
            if other_kind is not kind:
                shared = ", ".join(f"{a} {p}" for a, p in zip(axes, place, strict=True))
                raise InputError(
                    f"{where}: two rows fall in one place ({shared}); they differ in "
                    f"{_difference(other, other_kind, node, kind)}"
                )


def _difference(a: Node, kind_a: Columns, b: Node, kind_b: Columns) -> str:
    pairs = {k: (kind_a.get(k, ()), kind_b.get(k, ())) for k in {**kind_b, **kind_a}}
    by_column = [k for k, (one, other) in pairs.items() if one != other and None not in (one, other)]
    by_args = [f"argument {k}" for k in {**a.args, **b.args} if a.args.get(k) != b.args.get(k)]
    by_needs = [f"need {k}" for k in {**a.needs, **b.needs} if a.needs.get(k) is not b.needs.get(k)]
    columns = by_column or by_args or by_needs or ["nothing that a row shows"]
    return f"{', '.join(columns)}, which its lines do not name"


def _signature(node: Node | Model | Data | None) -> str:
    """The same for cells that would be one cell: their labels do not count."""
    if not isinstance(node, Node):
        return f"{type(node).__name__} {id(node) if isinstance(node, Model) else node}"
    parts = {
        "task": node.task,
        "args": dict(node.args),
        "data": _signature(node.data),
        "also": {k: _signature(v) for k, v in node.also.items()},
        "needs": {k: _signature(v) for k, v in node.needs.items()},
    }
    return json.dumps(parts, sort_keys=True, default=str)
