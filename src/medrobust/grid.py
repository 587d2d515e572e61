"""What a study file declares: data, models, cells and what they depend on, and the figures that were published.

Nothing here computes or loads anything: a grid of 10,000 cells is laid out in a moment.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from medrobust.errors import InputError

SIZES = ("smoke", "small", "paper")

KINDS = {
    "code": "read in the published code or its logs",
    "text": "stated in the paper",
    "recalled": "recalled, unconfirmed: nothing to be graded against",
}
"""Where a published figure is known from."""


@dataclass(frozen=True)
class Data:
    """Images, as ``medrobust.data.load`` takes them; ``{data}`` in ``spec`` stands for the folder of --data.

    classes: those whose images are used, in this order; all by default. each: training images of a class, at most.
    name: what tables call it. get: where to get it and how its folder must look, for whoever does not have it.
    """

    name: str
    spec: str
    size: int | None = None
    channels: int | None = None
    label: str = "label"
    findings: tuple[str, ...] | None = None
    separator: str | None = None
    patient: str | None = None
    fit: str | None = None
    classes: tuple[str, ...] = ()
    each: int | None = None
    seed: int = 0
    get: str = ""


@dataclass(frozen=True, eq=False)
class Model:
    """A classifier: trained here, read as it is from ``weights``, or taken from --models where NAME/ is found there.

    options: of ``medrobust.training.fit``: epochs, lr, batch, optimiser, pretrained, mean, std, head, augment.
    weights: a file that is used without training. In both ``{data}`` stands for the folder of --data.
    seconds: what its training takes on one core, for --dry-run.
    """

    name: str
    data: Data
    architecture: str
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    seed: int = 0
    seconds: float | None = None


_EMPTY: Mapping[str, Any] = {}


def _empty() -> Mapping[str, Any]:
    """One for all nodes: a grid may have a million of them."""
    return _EMPTY


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One cell: a task, what it is asked, and what it stands on. The same ask twice is one cell.

    task: a name of ``medrobust.experiments.tasks.TASKS``, or ``module:function`` of one's own.
    args: plain JSON; all that the result depends on beside data and needs. data: the images, or None. also: others.
    needs: other cells and models by the name under which the task asks for them.
    labels: columns of the rows it makes (data, model, attack, seed, …); not part of its name.
    rows: of a task of one's own, the kinds of rows that it gives, by column the value, a list of values, or None for
    any: ``({"metric": ["mean", "spread"]},)``. Tables are held against them before anything runs.
    seconds: a first guess of its duration on one core, for --dry-run.
    """

    task: str
    args: Mapping[str, Any] = field(default_factory=_empty)
    data: Data | None = None
    also: Mapping[str, Data] = field(default_factory=_empty)
    needs: Mapping[str, Node | Model] = field(default_factory=_empty)
    labels: Mapping[str, Any] = field(default_factory=_empty)
    seconds: float | None = None
    rows: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class StudyTable:
    """Rows of numbers as a person reads them: one line for each combination of ``lines``, a column for each value
    of ``across``. where: which rows, by their columns, as ``matches`` has it."""

    title: str
    where: Mapping[str, Any]
    lines: tuple[str, ...]
    across: str
    note: str = ""


@dataclass(frozen=True)
class Chart:
    """Numbers against ``x``: a line for each combination of ``lines``, a picture for each of ``panels``."""

    title: str
    where: Mapping[str, Any]
    x: str
    lines: tuple[str, ...]
    panels: tuple[str, ...] = ()
    label: str = "share"


@dataclass(frozen=True)
class Published:
    """A figure from elsewhere, and the row of ours that comes nearest to it.

    where: the columns of our row. text: the figure as it was published. setting: what it was measured on there.
    kind: one of KINDS. reason: why ours differs, in words; checked by nobody but the reader.
    """

    what: str
    text: str
    source: str
    kind: str
    setting: str
    where: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"{self.what}: kind must be one of {', '.join(KINDS)}, got {self.kind!r}")


@dataclass(frozen=True)
class Part:
    """A question of the study: its cells, and how their numbers are shown."""

    name: str
    title: str
    cells: Sequence[Node]
    show: Sequence[StudyTable | Chart] = ()
    published: Sequence[Published] = ()
    note: str = ""

    def __post_init__(self) -> None:
        for cell in self.cells:
            if not isinstance(cell, Node):
                raise InputError(
                    f"the cells of part {self.name!r} hold a {type(cell).__name__} where a Node belongs; "
                    "a function that gives several cells is taken apart with *"
                )


@dataclass(frozen=True)
class Study:
    """Everything that one file asks at one size."""

    title: str
    source: str
    parts: Sequence[Part]
    note: str = ""


def grid(make: Callable[..., Node | list[Node]], **axes: Any) -> list[Node]:
    """``make`` for every combination: a list is an axis, everything else is the same for all cells.

    Where ``make`` gives a list of cells, as ``asks.detectors`` does, all of them are in the list.
    """
    names = [k for k, v in axes.items() if isinstance(v, list)]
    rest = {k: v for k, v in axes.items() if not isinstance(v, list)}
    combinations = itertools.product(*(axes[k] for k in names))
    made = [make(**rest, **dict(zip(names, values, strict=True))) for values in combinations]
    return [cell for cells in made for cell in (cells if isinstance(cells, list) else [cells])]


ANY = "*"
"""In ``where``: the column has a value, whichever."""


def matches(row: Mapping[str, Any], where: Mapping[str, Any]) -> bool:
    """The row has these values; a list or tuple means any of these, ANY any value but none; numbers are compared up
    to rounding."""
    return all(_is(row.get(k), v) for k, v in where.items())


def _is(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, (list, tuple)):
        return any(_is(value, w) for w in wanted)
    if wanted == ANY:
        return value is not None
    if isinstance(value, (int, float)) and isinstance(wanted, (int, float)):
        return abs(value - wanted) <= 1e-6 * max(abs(value), abs(wanted))
    return bool(value == wanted)


def everything(parts: Iterable[Part]) -> Iterator[tuple[str, Node | Model]]:
    """(part, node) of all cells and what they need, needs first, each object once."""
    visited: set[int] = set()
    for part in parts:
        for cell in part.cells:
            if id(cell) not in visited and all(id(n) in visited for n in cell.needs.values()):  # nearly every cell
                visited.add(id(cell))
                yield part.name, cell
                continue
            waiting: list[tuple[Node | Model, bool]] = [(cell, False)]
            open_above: set[int] = set()
            while waiting:
                node, needs_done = waiting.pop()
                if id(node) in visited:
                    continue
                needs = [] if needs_done or isinstance(node, Model) else list(node.needs.values())
                left = [n for n in needs if id(n) not in visited]
                if not left:
                    visited.add(id(node))
                    yield part.name, node
                    continue
                if id(node) in open_above:
                    raise InputError(f"{part.name}: a cell of task {getattr(node, 'task', node)!r} depends on itself")
                open_above.add(id(node))
                waiting.append((node, True))
                waiting += [(n, False) for n in reversed(left)]


VARIED = ("seed", "shard")
"""Arguments in which the cells of one part usually differ."""


def without_seed(node: Node) -> bytes:
    """Equal for cells of one task whose arguments differ in the values of seed and shard only.

    A grid of a million cells has few of them: what depends on them alone is checked and made once.
    """
    return pickle.dumps((node.task, {**node.args, **dict.fromkeys(node.args.keys() & VARIED)}))
