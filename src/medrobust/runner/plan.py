"""A study laid out as cells with names: what is to be done, what is there already, how long the rest will take."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from medrobust import atomic, json_files, own_code
from medrobust.atomic import disk_errors
from medrobust.errors import InputError
from medrobust.experiments.columns import seed_columns
from medrobust.experiments.declared import file_in, found
from medrobust.experiments.task_options import ON_NEEDS, attack_settings
from medrobust.experiments.tasks import is_own, task_named
from medrobust.experiments.tickets import DataFields, Spec, Ticket
from medrobust.grid import VARIED, Data, Model, Node, Study, everything, without_seed
from medrobust.json_files import read_object
from medrobust.progress import NoProgress, Progress
from medrobust.run_folder import CELLS, RunFolder
from medrobust.runner.digest_cache import FILE, DigestCache
from medrobust.runner.garbage import no_collection
from medrobust.runner.planned import GIVEN, TRAIN, Done, Failure, Listed, Place, Planned
from medrobust.runner.validation import check
from medrobust.store import ARRAYS, UNFINISHED, Cell, Keys, Store, key, read_facts

FAILED = "failed"
"""Folder of cells that failed for good, one file each."""

ENTRIES = (CELLS, UNFINISHED, FAILED, FILE, "log", "models", "training", "results.json", "run.json")
"""Everything that a study writes into its run folder; listed in its mark before workers write them."""

FILES = ("pretrained", "weights")
"""Options of a model that name a file."""


@dataclass
class Plan:
    """All cells of a study in an order in which they could be done; ``done`` holds what is known of finished ones."""

    study: Study
    place: Place
    cells: dict[str, Planned]
    done: dict[str, Done] = field(default_factory=dict)
    failed: dict[str, Failure] = field(default_factory=dict)
    listed: dict[str, list[Listed]] = field(default_factory=dict)
    """By part, the cells it lists and the labels it gives them: a cell may be in several parts."""
    absent: tuple[Data, ...] = ()
    """Data that is not there: its cells have no final name yet."""

    @property
    def left(self) -> list[Planned]:
        """Cells that are neither done nor failed."""
        return [c for c in self.cells.values() if c.key not in self.done and c.key not in self.failed]

    def finished(self, name: str) -> None:
        """A cell was computed since."""
        done = _finished(self.place.out / CELLS / name)
        if done is not None:
            self.done[name] = done

    def seconds(self, cell: Planned) -> float | None:
        """How long it should take: as long as the median of the same task so far, else the file's guess."""
        if not hasattr(self, "_measured"):
            times: dict[tuple[str, str], list[float]] = {}
            for name, facts in self.done.items():
                cell_done = self.cells[name]
                times.setdefault((cell_done.part, cell_done.task), []).append(facts.seconds)
            self._measured = {k: statistics.median(v) for k, v in times.items()}
        return self._measured.get((cell.part, cell.task), cell.guess)

    def time_left(self, workers: int = 1) -> tuple[float, int]:
        """(seconds for so many workers, cells of which nothing is known).

        No shorter than the longest chain of cells that wait for each other.
        """
        total, unknown = 0.0, 0
        chains: dict[str, float] = {}
        for cell in self.left:
            guess = self.seconds(cell)
            unknown += guess is None
            total += guess or 0.0
            chains[cell.key] = (guess or 0.0) + max((chains.get(k, 0.0) for k in cell.needs), default=0.0)
        return max(total / max(workers, 1), max(chains.values(), default=0.0)), unknown


def plan(study: Study, place: Place, *, dry: bool = False, progress: Progress | None = None) -> Plan:
    """Every cell of ``study`` by name, and which are there. dry: write nothing, and take data that is absent.

    InputError where data or a model's file is not there (unless dry), or the study asks for what does not exist.
    """
    with no_collection():
        check(study)
        if not dry:
            RunFolder.join(place.out).entry(*ENTRIES)
        layout = _Layout(place, dry, progress or NoProgress())
        for part, node in everything(study.parts):
            layout.add(part, node)
        if layout.absent and not dry:
            raise InputError(missing(layout.absent, place.data))
        listed = {part.name: [layout.listed[id(n)] for n in part.cells] for part in study.parts}
        plan_ = Plan(study, place, layout.cells, listed=listed, absent=tuple(layout.absent))
        read(plan_)
    return plan_


def missing(absent: Iterable[Data], root: Path) -> str:
    """One line that says which data is not there, and how to get the first of it."""
    absent = list(absent)
    names = ", ".join(d.name for d in absent)
    first = absent[0]
    where = first.spec.replace("{data}", str(root)).partition(":")[2]
    return f"not there: {names} ({where}); give --data FOLDER that holds it. {first.get}".strip()


@dataclass(frozen=True)
class _Shared:
    """What cells that differ in seed, shard and needed cells only have in common. settings: of their attacks."""

    keys: Keys
    settings: Mapping[str, str]


class _Layout:
    """Names nodes one after the other, needs before what needs them, and makes their tickets.

    What many cells share is made once: digests of code and data, settings of attacks.
    """

    def __init__(self, place: Place, dry: bool, progress: Progress) -> None:
        self.place, self.dry = place, dry
        self.cells: dict[str, Planned] = {}
        self.cache = DigestCache(place.out, place.data, progress, keep=not dry)
        self.names: dict[int, str] = {}
        """Keys by ``id`` of a node or model."""
        self.listed: dict[int, Listed] = {}
        """Cells as a part lists them, by ``id`` of their node."""
        self.seeds: dict[int, int | None] = {}
        """By ``id`` of a model the seed it was trained with; None where it was trained elsewhere and does not say."""
        self.models: dict[str, tuple[Spec, Mapping[str, object], DataFields | None]] = {}
        """(spec, arguments, images) of the cells of models."""
        self.digests: dict[Data, str] = {}
        self.codes: dict[str, str | None] = {}
        self.shared: dict[tuple[object, ...], _Shared] = {}
        self.met: set[int] = set()
        """Hashes of what would be keys of ``shared``."""
        self.seed_columns: dict[tuple[Any, ...], Mapping[str, int | None]] = {}
        self.absent: list[Data] = []

    def add(self, part: str, node: Node | Model) -> None:
        if isinstance(node, Model):
            self._model(part, node)
        else:
            needs = tuple([self.names[id(n)] for n in node.needs.values()])
            shared = None if node.task in ON_NEEDS else self._shared(node)
            if shared is None:
                settings: Mapping[str, str] = attack_settings(node)
                name = key(self._spec(node, needs, settings))
            else:
                settings, name = shared.settings, shared.keys.of([*_varied(node).values(), *needs])
            self._planned(part, node, node.task, name, needs, node.labels)
            columns: Mapping[str, int | None] = seed_columns(node, self.seeds)
            columns = self.seed_columns.setdefault(tuple(columns.items()), columns)
            self.listed[id(node)] = Listed(name, node.labels, columns, settings)

    def _shared(self, node: Node) -> _Shared | None:
        """None for the first of these cells: there may be no other."""
        # data by its id: the study holds it until all is planned
        known = (
            without_seed(node),
            id(node.data),
            *node.needs,
            *((name, id(data)) for name, data in node.also.items()),
        )
        if known not in self.shared:
            if (met := hash(known)) not in self.met:
                self.met.add(met)
                return None
            varied, settings = _varied(node), attack_settings(node)

            def spec(values: Sequence[str]) -> Spec:
                args = {**node.args, **dict(zip(varied, values, strict=False))}
                return self._spec(dataclasses.replace(node, args=args), tuple(values[len(varied) :]), settings)

            self.shared[known] = _Shared(Keys(spec, len(varied) + len(node.needs)), settings)
        return self.shared[known]

    def ticket(self, cell: Planned) -> Ticket:
        node, place = cell.node, self.place
        models: dict[str, bool | str] = {}
        also: dict[str, DataFields | None] = {}
        if isinstance(node, Model):
            spec, args, data = self.models[cell.key]
        else:
            spec = self._spec(node, cell.needs, self.listed[id(node)].settings)
            args, data = dict(node.args), _plain(node.data)
            models = {name: self._trusted(n) for name, n in node.needs.items() if isinstance(n, Model)}
            also = {name: _plain(d) for name, d in node.also.items()}
        return {
            "task": cell.task,
            "key": cell.key,
            "spec": spec,
            "args": args,
            "data": data,
            "also": also,
            "needs": spec.get("needs", {}),
            "models": models,
            "run": str(place.out),
            "root": str(place.data),
            "folder": None if place.code is None else str(place.code),
            "keep_names": place.keep_names,
        }

    def _spec(self, node: Node, needs: tuple[str, ...], settings: Mapping[str, str]) -> Spec:
        """What the key of a cell is made of. settings: of its attacks."""
        spec: Spec = {
            "task": node.task,
            "code": self._code(node.task),
            "args": dict(node.args),
            "data": self._digest(node.data),
            "also": {k: self._digest(d) for k, d in node.also.items()},
            "needs": dict(zip(node.needs, needs, strict=True)),
        }
        if settings and not is_own(node.task):
            spec["attacks"] = settings  # a default that changes makes another cell
        return spec

    def _code(self, task: str) -> str | None:
        if task not in self.codes:
            own = is_own(task)
            self.codes[task] = own_code.digest(self.place.code, task) if own else task_named(task).code()
        return self.codes[task]

    def _trusted(self, model: Model) -> bool | str:
        """Code that may run to build this model: any, or what the study file names."""
        return self.place.trust_code or model.architecture

    def _model(self, part: str, model: Model) -> None:
        folder = found(self.place.models, model)
        # weights that were made elsewhere have the seed that their file states, not the one of this study
        self.seeds[id(model)] = model.seed if folder is None and not model.weights else _trained_seed(folder)
        labels = {"data": model.data.name, "model": model.name, "model_seed": self.seeds[id(model)]}
        if folder is not None:
            spec: Spec = {"task": GIVEN, "digest": self.cache.model(folder, self._trusted(model))}
            args, data = dict[str, object](), None
        else:
            options = dict(model.options) | ({"weights": model.weights} if model.weights else {})
            hashed = {k: self._bytes(v) if k in FILES and v != "hub" else v for k, v in options.items()}
            args, data = (
                {"architecture": model.architecture, "seed": model.seed, "options": options},
                _plain(model.data),
            )
            spec = {
                "task": TRAIN,
                "code": self._code(TRAIN),
                "args": args | {"options": hashed},
                "data": self._digest(model.data),
                "needs": {},
            }
            if ":" in model.architecture and "=" not in model.architecture:  # one's own, module:function
                spec["network"] = own_code.digest(self.place.code, model.architecture)
        name = key(spec)
        self.models[name] = spec, args, data
        self._planned(part, model, spec["task"], name, (), labels)
        if folder is not None and not self.dry:
            adopt(self.place.out, name, spec, folder)

    def _planned(
        self, part: str, node: Node | Model, task: str, name: str, needs: tuple[str, ...], labels: Mapping[str, Any]
    ) -> None:
        self.names[id(node)] = name
        if name not in self.cells:
            self.cells[name] = Planned(name, part, task, node, needs, labels, self)

    def _digest(self, data: Data | None) -> str | None:
        if data is None:
            return None
        if data not in self.digests:
            digest = self.cache.data(data)
            if digest is None:
                self.absent.append(data)
            self.digests[data] = digest or f"not there: {data.spec}"
        return self.digests[data]

    def _bytes(self, text: str) -> str:
        try:
            return self.cache.file_of(file_in(text, self.place.data))
        except InputError:
            if not self.dry:
                raise
            return f"not there: {text}"


def _varied(node: Node) -> dict[str, object]:
    return {name: node.args[name] for name in VARIED if name in node.args}


def _plain(data: Data | None) -> DataFields | None:
    if data is None:
        return None
    return {
        "name": data.name,
        "spec": data.spec,
        "size": data.size,
        "channels": data.channels,
        "label": data.label,
        "findings": data.findings,
        "separator": data.separator,
        "patient": data.patient,
        "fit": data.fit,
        "classes": data.classes,
        "each": data.each,
        "seed": data.seed,
    }


def _trained_seed(folder: Path | None) -> int | None:
    """The seed that a saved classifier says it was trained with."""
    if folder is None:
        return None
    provenance = read_object(folder / "model.json").get("provenance")
    seed = provenance.get("seed") if isinstance(provenance, dict) else None
    return seed if isinstance(seed, int) else None


def adopt(out: Path, name: str, spec: Spec, folder: Path) -> None:
    """A classifier that was trained elsewhere becomes a finished cell: workers need the run folder only."""
    target = out / "models" / name
    with disk_errors(out):
        if not (target / "model.json").is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=atomic.PARTIAL, dir=target.parent))
            for file in ("model.safetensors", "model.json"):
                shutil.copy(folder / file, temporary / file)
            temporary.chmod(0o755)
            shutil.rmtree(target, ignore_errors=True)
            temporary.rename(target)
    store = Store(out)
    if store.get(spec) is None:
        store.put(spec, Cell({"rows": []}, {}, 0.0))


def read(plan: Plan) -> None:
    """Fill in what is done and what has failed, from the run folder. What cannot be read is not done."""
    out, failures = plan.place.out / CELLS, plan.place.out / FAILED
    there, failed = _names(out), _names(failures)
    for name, cell in plan.cells.items():
        if name in there and (done := _finished(out / name)) is not None:
            if cell.task not in (TRAIN, GIVEN) or (plan.place.out / "models" / name / "model.json").is_file():
                plan.done[name] = done
        elif f"{name}.json" in failed:
            with contextlib.suppress(ValueError):  # not readable: the cell is tried again
                content = json_files.read_object(failures / f"{name}.json")
                plan.failed[name] = TypeAdapter(Failure).validate_python(content)


def _names(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _finished(folder: Path) -> Done | None:
    cell = read_facts(folder)
    if cell is None or not (folder / ARRAYS).is_file():
        return None
    facts = cell.facts
    remarks = facts.get("doubts", {}), facts.get("checks", {})
    return Done(facts.get("rows", []), *remarks, facts.get("digest"), cell.seconds, facts.get("titles", {}))
