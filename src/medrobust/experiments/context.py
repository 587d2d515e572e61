"""What every experiment of a run shares: the system under test, the config, the store of finished cells, progress."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from medrobust.attacks import Attack, DecisionBased
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.experiments.config import AuditSpec, attack_named
from medrobust.experiments.gradient_check import attacked, compared, derived
from medrobust.experiments.system import System, groups
from medrobust.grey_scale import GreyScale, grey_scale
from medrobust.images import Images, Logits
from medrobust.progress import NoProgress, Progress
from medrobust.results import Check, ResultsFile, Rows
from medrobust.run_folder import RunFolder
from medrobust.store import Cell, Result, Store, key
from medrobust.threat import Ball

Advance = Callable[[int], None]
Compute = Callable[[Dataset, Advance], Result]

SHARD = 256
"""Images a cell: what a kill can cost, and what memory must hold."""


KNOWN = 100
"""Test images that decision-based attacks may start from."""


class TestData(Protocol):
    """What a run tests: a ``System``, or something without images and classifier, such as a table of features."""

    @property
    def name(self) -> str:
        """Of the data."""

    @property
    def model_digest(self) -> str: ...

    @property
    def data_digest(self) -> str: ...

    @property
    def trained_here(self) -> bool: ...

    @property
    def device(self) -> str:
        """Where its network computes; empty where there is none."""

    def conditions(self, config: AuditSpec, study: str, settings: Collection[str]) -> dict[str, object]:
        """For results.json: data, model, threat and machine. settings: fields of the config that the command reads."""

    def named(self, results: ResultsFile, keep_names: bool) -> ResultsFile:
        """``results`` with codes for names, unless ``keep_names``."""


class Context:
    """One run: ``tested`` under ``config``. seconds: what the cells took, by kind."""

    def __init__(
        self, tested: TestData, config: AuditSpec, store: Store, progress: Progress | None = None, study: str = "audit"
    ) -> None:
        self.tested, self.config, self.store, self.study = tested, config, store, study
        self.progress: Progress = progress or NoProgress()
        self.ball: type[Ball] = config.ball
        self.seconds: dict[str, float] = {}
        self.counted: set[str] = set()
        """Cells that several experiments read, and whose seconds were added."""
        self._cells: dict[str, Cell] = {}

    def of(self, tested: TestData) -> Context:
        """The same run of another system; its seconds count here."""
        made = Context(tested, self.config, self.store, self.progress, self.study)
        made.seconds, made.counted = self.seconds, self.counted
        return made

    @cached_property
    def system(self) -> System:
        """What is tested, where it is a classifier of images."""
        assert isinstance(self.tested, System)
        return self.tested

    @property
    def classifier(self) -> Classifier:
        """Of the system."""
        return self.system.classifier

    def gradient_cell(self) -> Cell:
        """Whether the network's gradient agrees with finite differences, and what stands in for one that does not."""
        sample, seed, classifier = self.sample.most_frequent_shape(), self.config.seed, self.classifier
        subset = sample.sample(compared(sample), seed)
        return self.cell(subset, {"kind": "derivative"}, lambda: derived(classifier, subset, seed, seek=True))

    @cached_property
    def attacked(self) -> Classifier:
        """The classifier as attacks see it: where its gradient is masked, with a stand-in for that."""
        if self.classifier.black_box:
            return self.classifier
        made = attacked(self.classifier, self.gradient_cell())
        if made.substitute is not None:
            self.progress.note(f"The network's gradient is masked; attacks go past it: {made.substitute.text}")
        return made

    @property
    def sample(self) -> Dataset:
        """The test images that are attacked."""
        return self.system.sample

    @property
    def test(self) -> Dataset:
        """The test images."""
        return self.system.test

    @cached_property
    def grey_scale(self) -> GreyScale:
        """The grey levels in which sizes are written."""
        return grey_scale(self.sample.common_levels, self.sample.span)

    @property
    def labels(self) -> np.ndarray:
        """int64 (n,): of ``sample``."""
        return self.sample.labels

    @cached_property
    def patients(self) -> np.ndarray | None:
        """Of ``sample``; None where nothing is known of them."""
        return groups(self.sample)

    def started(self, attack: Attack) -> Attack:
        """A decision-based attack with test images that it may start from; any other as it is."""
        return attack if not isinstance(attack, DecisionBased) else attack.starting_from(*self._known)

    @cached_property
    def _known(self) -> tuple[Images, Logits]:
        images, _ = self.test.most_frequent_shape().tensors(KNOWN, self.config.seed)
        return images, self.classifier.logits(images)

    def rows(self) -> Rows:
        """An empty list of rows of this run."""
        return Rows(self.study, self.tested.name, self.config.model, self.config.norm_name, self.config.seed)

    def cell(self, part: Dataset, key_: Mapping[str, object], compute: Callable[[], Result]) -> Cell:
        """The finished cell on these images; key_: what else it depends on, with its ``kind``."""
        spec = {
            "model": self.system.model_digest,
            "images": self.system.images_digest(part),
            "norm": self.config.norm,
            "seed": self.config.seed,
            **key_,
        }
        return self.kept(spec, compute)

    def kept(self, spec: dict[str, object], compute: Callable[[], Result]) -> Cell:
        """The finished cell of that spec, which has a ``kind``; its seconds are counted once."""
        name = key(spec)
        if name not in self._cells:
            self._cells[name] = cell = self.store.once(spec, compute)
            kind = str(spec["kind"])
            self.seconds[kind] = self.seconds.get(kind, 0.0) + cell.seconds
        return self._cells[name]

    def sharded(
        self,
        part: Dataset,
        title: str,
        key_: Mapping[str, object],
        compute: Callable[[Dataset, Advance], Result],
        total: int | None = None,
        shard: int | None = None,
    ) -> Cell:
        """One cell a shard, joined: memory and the price of a kill do not grow with the number of images.

        compute(shard, advance) gives a cell's result. total: steps of progress, by default one an image. shard: images
        a cell, less than ``SHARD`` where one image takes long.
        """
        total = total or len(part)
        name = key({"images": list(part.ids), **key_})
        if name in self._cells:
            return self._cells[name]
        self.progress.start(title, total)
        try:
            done = [self._shard(part, index, key_, compute, total) for index in part.bounds(shard or SHARD)]
        finally:
            self.progress.stop()
        joined = {k: np.concatenate([c.arrays[k] for c in done]) for k in done[0].arrays}
        facts = {k: sum((c.facts[k] for c in done[1:]), done[0].facts[k]) for k in done[0].facts}
        self._cells[name] = Cell(facts, joined, sum(c.seconds for c in done))
        return self._cells[name]

    def _shard(self, part: Dataset, index: range, key_: Mapping[str, object], compute: Compute, total: int) -> Cell:
        shard = part.select(index)
        advanced = 0

        def advance(n: int) -> None:
            nonlocal advanced
            advanced += n
            self.progress.advance(n)

        cell = self.cell(shard, key_, lambda: compute(shard, advance))
        self.progress.advance(max(0, total * len(shard) // len(part) - advanced))
        return cell


@dataclass(frozen=True)
class Step:
    """A piece of work that a worker may do by itself. needs: steps whose cells it reads. work: puts its cells there."""

    name: str
    work: Callable[[], object]
    needs: tuple[str, ...] = ()


@dataclass
class ExperimentResult:
    """What an experiment found. conditions: its entries of results.json's conditions.

    doubts: attack -> why none of its numbers is believed. left_out: (part, why) of what could not be measured.
    on_gradients: attacks whose numbers rest on the network's gradient. guesses: why the classifier is not better than
    guessing; empty where it is. of_another: its rows are those of another classifier, whose doubts are marked already.
    pictures: further arrays, which show images of the data; left out where the user does not want them in a report.
    """

    rows: Rows
    checks: list[Check] = field(default_factory=list)
    conditions: dict[str, object] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    examples: list[Mapping[str, object]] = field(default_factory=list)
    doubts: dict[str, str] = field(default_factory=dict)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    on_gradients: tuple[str, ...] = ()
    guesses: str = ""
    of_another: bool = False


class Experiment(ABC):
    """One subject of an audit: steps that fill the store, and what their cells amount to.

    ``steps`` may be done in any order that their needs allow, in this process or in others that share the store.
    ``outcome`` reads the cells, and computes those that are missing.
    """

    name: str

    @abstractmethod
    def steps(self) -> Sequence[Step]:
        """In the order in which one process does them."""

    @abstractmethod
    def outcome(self) -> ExperimentResult:
        """Rows, checks and what results.json tells of the experiment."""

    def preliminary(self, finished: Collection[str]) -> ExperimentResult | None:  # noqa: ARG002 - most need all of them
        """What the cells of these steps and experiments tell of it already; None: nothing. Computes no cell."""
        return None

    def save(self, run: RunFolder, *, keep_names: bool) -> None:  # noqa: B027 - most have no files of their own
        """Write files of its own into the run folder, such as a model; none by default.

        keep_names: with the names of data as they are, instead of codes.
        """


class NotCovered(Experiment):
    """Experiments that cannot be done with this data or classifier: their names, and why, for the report."""

    name = "not covered"

    def __init__(self, context: Context, parts: Sequence[str], why: str) -> None:
        self.context, self.parts, self.why = context, parts, why

    def steps(self) -> Sequence[Step]:
        return []

    def outcome(self) -> ExperimentResult:
        return ExperimentResult(self.context.rows(), left_out=[(part, self.why) for part in self.parts])


def steps_by_name(experiments: Iterable[Experiment]) -> dict[str, Step]:
    """All steps of some experiments, in order; needs that are no step of any are left out."""
    steps = {step.name: step for experiment in experiments for step in experiment.steps()}
    return {name: Step(name, step.work, tuple(n for n in step.needs if n in steps)) for name, step in steps.items()}


def base_name(attack: str) -> str:
    """ "pgd" of "pgd:steps=40"."""
    return attack.partition(":")[0]


def main_attack(names: Sequence[str]) -> str:
    """The attack that sanity checks, saving and examples are about: PGD where it is among them, else the last."""
    return next((name for name in names if base_name(name) == "pgd"), names[-1])


def attacks_of(config: AuditSpec) -> dict[str, Attack]:
    """The attacks that were asked for, by the name under which they were."""
    return {name: attack_named(name) for name in config.attacks}
