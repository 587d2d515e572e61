"""Several audits on the same images: what the rows of a comparison allow to be said.

The primary comparison of two runs is their accuracy under attack at the reference size: told apart only where the 95 %
interval of the paired difference leaves out 0 and the exact paired test, adjusted for the number of pairs, gives a p
below 0.05. Findings under attack, hidden and invented one by one, are read in the same way, their p adjusted for the
number of these tests. Everything else is secondary: its intervals are not adjusted for their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from itertools import combinations

from medrobust.report.comparison import Share
from medrobust.report.finding_words import HIDE, INVENT
from medrobust.report.findings import Findings
from medrobust.report.schema import ComparedInfo
from medrobust.report.words import NBSP, NOTHING
from medrobust.results import Kind, Row, among

BEFORE, UNDER = "before", "under"
"""Values of the column ``when``: without an attack, and under attack."""
LEVEL = 0.05


class PairedVerdict(Enum):
    """What a difference allows to be said of the second run."""

    BETTER = "better"
    WORSE = "worse"
    NOT_TOLD_APART = "not told apart"
    INCONCLUSIVE = "inconclusive"


APART = (PairedVerdict.BETTER, PairedVerdict.WORSE)


@dataclass(frozen=True)
class Difference:
    """Accuracy of the second run less that of the first on the same images. p: of the exact paired test; adjusted for
    the number of pairs where that is more than one. gained, lost: number of images that only the second,
    only the first reads correctly."""

    first: str
    second: str
    row: Row
    p: float | None = None
    gained: int | None = None
    lost: int | None = None

    @property
    def verdict(self) -> PairedVerdict:
        if not self.row.ok or self.row.low is None or self.row.high is None:
            return PairedVerdict.INCONCLUSIVE
        if self.p is None or self.p >= LEVEL or self.row.low <= 0 <= self.row.high:
            return PairedVerdict.NOT_TOLD_APART
        return PairedVerdict.BETTER if self.row.low > 0 else PairedVerdict.WORSE

    @property
    def text(self) -> str:
        return points(self.row)


def points(row: Row | None) -> str:
    """ "+12.5 points (+3.1 to +21.4)": a difference of shares."""
    if row is None or row.value is None:
        return NOTHING
    ends = "" if row.low is None or row.high is None else f" ({100 * row.low:+.1f} to {100 * row.high:+.1f})"
    return f"{100 * row.value:+.1f}{NBSP}points{ends}".replace("-", "−")


def p_text(p: float | None) -> str:
    """ "p = 0.012", "p < 0.001"."""
    if p is None:
        return ""
    return f"p{NBSP}<{NBSP}0.001" if p < 0.001 else f"p{NBSP}={NBSP}{p:.3f}" if p < 0.0995 else f"p{NBSP}={NBSP}{p:.2f}"


@dataclass(frozen=True)
class FindingDifference:
    """Share of images in which a finding is not hidden, or not invented: of the second run less that of the first."""

    name: str
    goal: str
    difference: Difference


@dataclass(frozen=True)
class ComparedAudits:
    """The runs of a comparison and their rows."""

    f: Findings
    info: ComparedInfo

    @cached_property
    def names(self) -> list[str]:
        return [run.name for run in self.info.runs]

    @cached_property
    def titles(self) -> Mapping[str, str]:
        """Name with model, "A (resnet18)", by name; without the model where all have the same."""
        models = {run.model for run in self.info.runs}
        return {r.name: f"{r.name} ({r.model})" if len(models) > 1 and r.model else r.name for r in self.info.runs}

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return list(combinations(self.names, 2))

    @property
    def few_runs(self) -> bool:
        """Whether the first page holds every pair."""
        return len(self.names) <= 3

    @property
    def shown_pairs(self) -> list[tuple[str, str]]:
        """All of up to three runs; of more, those with the first."""
        return self.pairs if self.few_runs else [pair for pair in self.pairs if pair[0] == self.names[0]]

    def of_run(self, kind: Kind, metric: str, name: str, eps: float | None = None, **more: str) -> Row | None:
        """A run's own number; None where it has none. more: all further columns."""
        return self.f.run.find(kind, metric, eps=eps, run=name, **more)

    def between(self, metric: str, pair: tuple[str, str], eps: float = 0.0, **more: str) -> Row | None:
        """A number of two runs, at 0 without an attack; None where there is none. more: all further columns."""
        when = UNDER if eps else BEFORE
        return self.f.run.find(Kind.COMPARISON, metric, eps=eps, run=pair[1], against=pair[0], when=when, **more)

    def curve(self, name: str) -> list[Row]:
        """Accuracy under attack by growing eps, from 0."""
        rows = among(self.f.run.rows, kind=Kind.WORST, metric="accuracy", run=name)
        return sorted(rows, key=lambda r: r.eps)

    def copied(self, kind: Kind, metric: str) -> dict[tuple[object, ...], dict[str, Row]]:
        """Rows that are shown as each run has them: by their further columns and size, then by run; those of all."""
        table: dict[tuple[object, ...], dict[str, Row]] = {}
        for row in among(self.f.run.rows, kind=kind, metric=metric):
            columns = tuple((k, str(v)) for k, v in row.more.items() if k != "run")
            table.setdefault((row.attack, f"{row.eps:.9g}", *columns), {})[str(row.get("run"))] = row
        return {key: by_run for key, by_run in table.items() if len(by_run) == len(self.names)}

    def difference(self, pair: tuple[str, str], when: str) -> Difference:
        """Without an attack, or under attack at the reference size."""
        difference = self._difference("accuracy", pair, self.info.reference if when == UNDER else 0.0)
        assert difference is not None
        return difference

    def _difference(self, metric: str, pair: tuple[str, str], eps: float, **more: str) -> Difference | None:
        row = self.between(metric, pair, eps, **more)
        p = self.between("p_adjusted" if eps else "p_value", pair, eps, **more)
        if row is None:
            return None
        gained, lost = (Share.of(self.between(side, pair, eps, **more)) for side in ("gained", "lost"))
        alone = (None if share is None else share.hits for share in (gained, lost))
        return Difference(*pair, row, None if p is None else p.value, *alone)

    @cached_property
    def by_finding(self) -> list[FindingDifference]:
        """Every finding that was hidden or invented on images that all attacked, at the reference size."""
        return [
            FindingDifference(name, goal, difference)
            for name in self.f.run.conditions.classes
            for goal in (HIDE, INVENT)
            for pair in self.pairs
            if (difference := self._difference("kept", pair, self.info.reference, goal=goal, class_name=name))
        ]


def compared(f: Findings) -> ComparedAudits:
    """The comparison of a run of `medrobust compare`."""
    assert f.run.conditions.compared is not None
    return ComparedAudits(f, f.run.conditions.compared)
