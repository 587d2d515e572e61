"""What a plan is made of: the place of a study, its cells by name, and what is known of those that ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from medrobust.experiments.tickets import Ticket
from medrobust.grid import Model, Node

TRAIN, GIVEN = "train", "given"


@dataclass(frozen=True)
class Place:
    """Where a study works: its run folder, the folder of --data, and of --models where there is one.

    code: the folder of the study file, where cells of one's own are searched first.
    """

    out: Path
    data: Path = Path("data")
    models: Path | None = None
    code: Path | None = None
    trust_code: bool = False
    """Whether code that classifiers below ``models`` name may run."""
    keep_names: bool = False
    """Whether errors that are written down keep names of images and paths."""


class Tickets(Protocol):
    """Makes the tickets of planned cells."""

    def ticket(self, cell: Planned) -> Ticket: ...


@dataclass(frozen=True, slots=True)
class Planned:
    """One cell with its name. needs: keys of the cells it needs, as ``node`` names them; none for a model.

    A grid may have a million cells: what can be made from the node again is not kept.
    """

    key: str
    part: str
    task: str
    node: Node | Model
    needs: tuple[str, ...]
    labels: Mapping[str, Any]
    layout: Tickets

    @property
    def ticket(self) -> Ticket:
        """What a worker is handed, plain JSON."""
        return self.layout.ticket(self)

    @property
    def guess(self) -> float | None:
        """Seconds on one core as the study file has them."""
        return 0.0 if self.task == GIVEN else self.node.seconds


@dataclass(frozen=True, slots=True)
class Listed:
    """A cell as a part lists it. labels, seeds: columns of its rows. settings: see ``attack_settings``."""

    key: str
    labels: Mapping[str, Any]
    seeds: Mapping[str, int | None]
    settings: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Done:
    """What is known of a finished cell. doubts, checks: of the models it used, by the name of the need. titles: of
    metrics, where tables need them."""

    rows: Sequence[Mapping[str, Any]]
    doubts: Mapping[str, Sequence[str]]
    checks: Mapping[str, Sequence[Mapping[str, object]]]
    digest: str | None
    seconds: float
    titles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """Why a cell failed. cause: the failed cell that it needs, in words. trace: of Python."""

    part: str
    task: str
    labels: Mapping[str, object]
    error: str
    cause: str | None
    trace: str
