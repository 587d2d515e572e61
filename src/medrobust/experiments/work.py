"""One cell being computed: what its task is given, and how its result gets into the run folder.

The same function runs in this process, in a worker process and on a cluster. A process computes one cell at a time.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from medrobust.errors import InputError
from medrobust.experiments.declared import load
from medrobust.experiments.tickets import DataFields, Ticket
from medrobust.grid import Data
from medrobust.progress import NoProgress
from medrobust.store import Cell, Store

if TYPE_CHECKING:
    from medrobust.classifier import Classifier
    from medrobust.data import Dataset


class GoneError(Exception):
    """A cell that this one needs cannot be read; ``key`` says which."""

    def __init__(self, key: str) -> None:
        super().__init__(f"cell {key} cannot be read")
        self.key = key


class Work:
    """What a task is given: ``args``, ``data``, ``model()``, ``input()``, and the run folder's ``store``.

    Inner results that several cells share go through ``store.once`` under their own hashed spec.
    """

    def __init__(self, ticket: Ticket) -> None:
        self.ticket, self.key = ticket, ticket["key"]
        self.args = dict(ticket["args"])
        self.run, self.root = Path(ticket["run"]), Path(ticket["root"])
        self.store = Store(self.run)
        self.doubts: dict[str, list[str]] = {}
        """What limits every number of a network that was used, by the name under which the cell needs it."""
        self.checks: dict[str, list[dict[str, object]]] = {}
        """Checks of networks that were attacked, likewise; the first is that of the gradient."""

    @property
    def data(self) -> Dataset:
        """The images of this cell; read once in a process. InputError where they are not those of the plan."""
        return self._dataset(self.ticket["data"], self.ticket["spec"]["data"])

    def data_for(self, classifier: Classifier) -> Dataset:
        """``data`` with labels numbered as the classes of ``classifier``."""
        return self.data.for_network(classifier)

    def another(self, name: str) -> Dataset:
        """The other images that this cell names so."""
        return self._dataset(self.ticket["also"][name], self.ticket["spec"]["also"][name])

    def _dataset(self, declared: DataFields | None, digest: str | None) -> Dataset:
        if declared is None:
            raise InputError(f"the task {self.ticket['task']} needs images, and its cell names none")
        # a scheduler brings tuples as lists
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in declared.items()}
        data = loaded(tuple(sorted(fields.items())), str(self.root))
        if data.digest() != digest:
            raise InputError(f"{data.name} is not what it was when the study was planned; give the same command again")
        return data

    def model(self, name: str = "model", classifies: bool = True) -> Classifier:
        """The classifier that this cell needs under that name, where this process computes.

        classifies: whether its decisions are used, not its features alone.
        """
        classifier = _classifier(str(self.run / "models" / self.ticket["needs"][name]), self.ticket["models"][name])
        if self.ticket["data"] is not None and (doubts := _doubts(classifier, self.data, classifies)):
            self.doubts[name] = doubts
        return classifier

    def inputs(self, prefix: str) -> list[Cell]:
        """The needed cells whose names begin with ``prefix``, in the order of their numbers."""
        names = [n for n in self.ticket["needs"] if n.startswith(prefix) and n not in self.ticket["models"]]
        return [self.input(n) for n in sorted(names, key=lambda n: (len(n), n))]

    def input(self, name: str) -> Cell:
        """The finished cell that this one needs under that name."""
        key = self.ticket["needs"][name]
        cell = self.store.named(key)
        if cell is None:
            raise GoneError(key)
        return cell


@functools.lru_cache(maxsize=8)
def loaded(declared: tuple[tuple[str, object], ...], root: str) -> Dataset:
    fields: dict[str, Any] = dict(declared)
    data: Dataset = load(Data(**fields), Path(root))
    return data


_DOUBTS: WeakKeyDictionary[Classifier, dict[tuple[str, bool], list[str]]] = WeakKeyDictionary()


def _doubts(classifier: Classifier, data: Dataset, classifies: bool) -> list[str]:
    """What limits every number of a classifier on these images; found out once in a process."""
    from medrobust.experiments.admission import admit

    by_images = _DOUBTS.setdefault(classifier, {})
    key = data.digest(), classifies
    if key not in by_images:
        by_images[key] = admit(classifier, data, NoProgress(), classifies=classifies).doubts
    return by_images[key]


@functools.lru_cache(maxsize=4)
def _classifier(folder: str, trust_code: bool | str) -> Classifier:
    from medrobust import devices
    from medrobust.classifier import Classifier

    try:
        classifier = Classifier.load(folder, trust_code=trust_code)
    except InputError:
        raise GoneError(Path(folder).name) from None
    classifier.net.to(devices.find())
    return classifier
