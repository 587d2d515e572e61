"""What can be refused before anything is computed: metrics, classes and sizes that a run will not have."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from medrobust.criteria.baseline import BaselineRun
from medrobust.criteria.choosing import NoRowError, SeveralRowsError, chosen, metric_of
from medrobust.criteria.criteria import Criteria
from medrobust.criteria.language import Criterion, Size, bare, column_text
from medrobust.errors import InputError
from medrobust.results import Kind, Row

CLEAN = ("accuracy", "balanced_accuracy", "auroc", "ece", "brier", "guessing", "accuracy_saved", "grade_error")
BY_CLASS = ("sensitivity", "specificity")
OVER_SIZES = ("accuracy", "success", "grade_shift", "grade_far", "grade_lowered")
"""Metrics that every attack has at every size of the grid."""
FURTHER = {
    Kind.CLEAN: ("unknown",),
    Kind.ATTACK: (
        *("accuracy", "success", "flip", "min_eps_median", "inconclusive", "accuracy_full", "accuracy_saved"),
        *("gradients_per_image", "forwards_per_image", "queries_per_image", "success_probed", "broken_by"),
    ),
    Kind.WORST: ("flip", "min_eps_median", "inconclusive"),
    Kind.FINDING: ("success", "min_eps_median", "findings_changed", "occurs_before", "occurs_after", "risk"),
    Kind.CONTROL: (
        *("accuracy", "success", "flip", "success_at", "grade_shift", "grade_far", "grade_lowered", "fooling_rate"),
        *("fooling_rate_saved", "accuracy_after", "accuracy_saved", "recall_after", "decided_after"),
        *("targeted_success", "targeted_success_new", "targeted_success_saved"),
    ),
    Kind.CORRUPTION: ("accuracy", "balanced_accuracy", "accuracy_lost", "sensitivity"),
    Kind.CHANGE: ("accuracy", "success"),
    Kind.CERTIFIED: ("accuracy", "sensitivity", "undecided", "abstained"),
    Kind.BLACK_BOX: ("accuracy", "success_at"),
    Kind.UNIVERSAL: (
        *("fooling_rate", "accuracy_after", "recall_after", "decided_after"),
        *("fooling_rate_saved", "accuracy_saved", "targeted_success", "targeted_success_new"),
        *("targeted_success_saved", "targeted_base", "fooling_cap", "accuracy_before", "recall_before"),
        "decided_before",
    ),
    Kind.DETECTOR: ("auroc", "auroc_paired", "alarms", "seen", "alarms_per_1000", "predictive_value"),
    Kind.EVASION: ("fooled", "auroc", "detected", "success", "success_saved", "steps"),
    Kind.STORED: ("min_eps_median", "pixels_median", "not_by_one_level", "pixels_turned", "turned_within"),
    Kind.SURVIVAL: ("success", "changed_by_itself"),
}
"""Metrics of rows of which columns or sizes are not known before the run."""
DETECTED = (Kind.DETECTOR, Kind.EVASION)
KINDS_BY_COLUMN: dict[str, Collection[Kind]] = {
    **dict.fromkeys(("kind", "attack", "class_name"), tuple(Kind)),
    "target": (Kind.ATTACK, Kind.WORST, Kind.CONTROL, Kind.UNIVERSAL),
    **dict.fromkeys(("goal", "alone"), (Kind.FINDING, Kind.CONTROL)),
    "bits": (Kind.CLEAN, Kind.ATTACK, Kind.UNIVERSAL, Kind.CONTROL),
    "queries": (Kind.BLACK_BOX, Kind.CONTROL),
    "member": (Kind.ATTACK,),
    **dict.fromkeys(("corruption", "severity"), (Kind.CORRUPTION,)),
    "bound": (Kind.CERTIFIED,),
    **dict.fromkeys(("detector", "at_fpr", "fitted_on", "protocol"), DETECTED),
    **dict.fromkeys(("levels", "pixels"), (Kind.STORED,)),
    "transformation": (Kind.SURVIVAL,),
    "made": (Kind.SURVIVAL, Kind.CHANGE),
    "change": (Kind.CHANGE,),
    **dict.fromkeys(("when", "map", "measure", "direction"), (Kind.EXPLANATION,)),
}
"""Columns that a criterion may name, and the kinds of rows that have them."""
WITHOUT_SIZE = (Kind.CLEAN, Kind.CORRUPTION, Kind.CHANGE)


@dataclass(frozen=True)
class PlannedRows:
    """What is known of a run before it computes. attacks: by the names of their rows. eps: of the grid, as rows hold
    it. off: kinds of rows that the run leaves out, and the option that says so."""

    classes: Sequence[str]
    attacks: Sequence[str]
    eps: Sequence[float]
    several: bool
    """Whether an image may have several findings."""
    ordinal: bool
    known_attacks: Collection[str]
    """Names that may stand as the attack in some row."""
    off: dict[Kind, str]
    measured: Sequence[Row] = ()
    """The rows of a run that is finished."""

    def check(self, criteria: Criteria, eps: Callable[[Size], float], size: Callable[[float], str]) -> None:
        """InputError for the first criterion that the run cannot answer."""
        rows = list(self._rows())
        for c in criteria.entries:
            at = None if c.size is None else eps(c.size)
            try:
                self._check(c, rows, at, size)
                if criteria.baseline is not None and c.drop:
                    _check_baseline(c, criteria.baseline, at, size)
            except InputError as error:
                raise InputError(f"criterion '{c}': {error}") from None

    def _check(self, c: Criterion, rows: Sequence[Row], eps: float | None, size: Callable[[float], str]) -> None:
        if self.measured:
            try:
                chosen(c, self.measured, eps, size)
                return
            except SeveralRowsError:
                raise
            except NoRowError:
                pass  # it may have been left out of the run; what no run has is refused below
        self._check_names(c)
        if c.by_column.get("kind") == Kind.EXPLANATION and Kind.EXPLANATION not in self.off:
            return  # its metrics depend on the network's layers
        try:
            chosen(c, rows, eps, size)
        except NoRowError as error:
            kinds = [kind for kind, metrics in FURTHER.items() if _can_answer(c, kind, metrics)]
            kinds = [kind for kind in kinds if not eps or kind not in WITHOUT_SIZE]
            if self.several and c.metric in BY_CLASS:  # of several findings the whole set is proved, or nothing
                kinds = [kind for kind in kinds if kind != Kind.CERTIFIED]
            kinds = [kind for kind in kinds if kind != Kind.CONTROL] or kinds
            planned = {"kind", "class_name", *(["attack"] if c.by_column.get("attack") in self.attacks else [])}
            # of rows that are planned with all their columns, none is at that size, or several answer
            missing = _has_planned(c, rows) and not set(c.by_column) - planned
            if kinds and not missing:
                if any(kind not in self.off for kind in kinds):
                    return
                raise InputError(f"this run has no numbers of kind {kinds[0].value} ({self.off[kinds[0]]})") from None
            raise InputError(self._nearest(c) or str(error)) from None

    def _check_names(self, c: Criterion) -> None:
        column = next((name for name in c.by_column if name not in KINDS_BY_COLUMN), None)
        if column is not None:
            names = ", ".join(map(column_text, KINDS_BY_COLUMN))
            raise InputError(f"there is no column {column}; there are: {names}")
        name = c.by_column.get("class_name")
        if name is not None and name not in self.classes:
            raise InputError(f"there is no class {name!r}; there are: {', '.join(self.classes)}")
        kind = c.by_column.get("kind")
        if kind is not None and kind not in list(Kind):
            raise InputError(f"there is no kind {kind!r}; there are: {', '.join(Kind)}")
        attack = c.by_column.get("attack")
        if attack is not None and attack not in self.attacks and attack not in self.known_attacks:
            raise InputError(f"attack {attack!r} is not among {', '.join(self.attacks)}")

    def _nearest(self, c: Criterion) -> str:
        """Where no number at all has that name."""
        names = dict.fromkeys([*CLEAN, *BY_CLASS, *OVER_SIZES, *(m for every in FURTHER.values() for m in every)])
        if self.several and c.metric in BY_CLASS and c.size is not None:
            goal, has = ("hide", "with") if c.metric == "sensitivity" else ("invent", "without")
            columns = (("class_name", c.by_column.get("class_name", "NAME")), ("goal", goal))
            return (
                f"with several findings an image, {c.metric} is of untouched images only; write "
                f"'{replace(c, metric='success', columns=columns).quantity} <= LIMIT': of the images {has} it that are "
                f"read correctly, the share in which an attack can {goal} it"
            )
        if c.metric == "accuracy" and "class_name" in c.by_column:
            return f"accuracy is of all classes; write sensitivity[class={c.by_column['class_name']}]"
        if c.metric in names:
            return ""
        near = difflib.get_close_matches(c.metric, names, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}"
        return f"no number is called {c.metric}; {hint}"

    def _rows(self) -> Iterator[Row]:
        """Rows without values, of which all columns are known."""
        for metric in CLEAN:
            if metric != "grade_error" or self.ordinal:
                more = {"bits": 8} if metric == "accuracy_saved" else {}
                yield Row(Kind.CLEAN, metric, None, more=more)
        for name in self.classes:
            for metric in (*BY_CLASS, "auroc"):
                yield Row(Kind.CLEAN, metric, None, more={"class_name": name})
        attacks = [(Kind.ATTACK, name) for name in self.attacks]
        for kind, attack in [(Kind.WORST, "worst"), *attacks]:
            for at in self.eps:
                for metric in OVER_SIZES if self.ordinal else OVER_SIZES[:2]:
                    yield Row(kind, metric, None, attack=attack, eps=at)
                for name in () if self.several or kind != Kind.WORST else self.classes:
                    for metric in BY_CLASS if len(self.classes) == 2 else BY_CLASS[:1]:
                        yield Row(kind, metric, None, attack=attack, eps=at, more={"class_name": name})


def _check_baseline(c: Criterion, baseline: BaselineRun, eps: float | None, size: Callable[[float], str]) -> None:
    try:
        chosen(c, baseline.measured.rows, eps, size)
    except NoRowError as error:
        raise InputError(f"in --baseline {baseline.name}, {error}") from None


def _can_answer(criterion: Criterion, kind: Kind, metrics: Collection[str]) -> bool:
    owned = all(kind in KINDS_BY_COLUMN[name] for name in criterion.by_column)
    return metric_of(criterion) in map(bare, metrics) and owned and criterion.by_column.get("kind", kind) == kind


def _has_planned(criterion: Criterion, rows: Sequence[Row]) -> bool:
    """Whether rows that are planned have the metric, at any size and of any class."""
    kinds = {criterion.by_column["kind"]} if "kind" in criterion.by_column else {row.kind for row in rows}
    if criterion.size is not None:
        kinds -= {Kind.CLEAN}
    return any(row.kind in kinds and bare(row.metric) == criterion.metric for row in rows)
