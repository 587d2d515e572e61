"""The criteria of one run: judged, and as results.json holds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from medrobust.criteria.baseline import BaselineRun, FinishedAudit, drop
from medrobust.criteria.choosing import NoRowError, chosen
from medrobust.criteria.judging import CriterionVerdict, Judged, in_words, judged
from medrobust.criteria.language import Criterion, Size, digest
from medrobust.errors import InputError
from medrobust.results import Row


@dataclass(frozen=True)
class Criteria:
    """What is required of a run. baseline: the run that drops are measured against."""

    entries: tuple[Criterion, ...] = ()
    baseline: BaselineRun | None = None

    @classmethod
    def read(cls, texts: Sequence[str], baseline: BaselineRun | None = None) -> Criteria:
        """InputError where a text is no criterion, and where one names a drop and there is no baseline."""
        entries = {str(criterion): criterion for criterion in map(Criterion.read, texts)}
        against = next((c for c in entries.values() if c.drop), None)
        if against is not None and baseline is None:
            raise InputError(f"criterion '{against}' needs a run to compare with: give --baseline RUN_FOLDER")
        if against is None and baseline is not None:
            raise InputError("--baseline is for criteria such as 'drop[accuracy]@1/255 <= 0.05', and none is given")
        return cls(tuple(entries.values()), baseline)

    @cached_property
    def sha256(self) -> str:
        """Of the canonical texts; empty where there are none."""
        return digest(map(str, self.entries), self.baseline.digest if self.baseline else "") if self.entries else ""

    def opening(self) -> Mapping[str, object]:
        """As spec.json holds them when a run begins."""
        against = {"run": self.baseline.run, "digest": self.baseline.digest} if self.baseline else None
        return {"texts": [str(c) for c in self.entries], "sha256": self.sha256, "baseline": against}

    def stated(
        self,
        measured: FinishedAudit | None,
        begun_with: str,
        eps: Callable[[Size], float],
        size: Callable[[float], str],
    ) -> Mapping[str, object]:
        """As results.json holds them. measured: None while the run is not finished.

        begun_with: the sha256 of those that stood when the run began. eps: a size as rows hold it. size: in words.
        """
        verdicts = [] if measured is None else [asdict(self.judge(c, measured, eps, size)) for c in self.entries]
        return {**self.opening(), "begun_with": begun_with, "judged": verdicts}

    def judge(
        self, criterion: Criterion, measured: FinishedAudit, eps: Callable[[Size], float], size: Callable[[float], str]
    ) -> Judged:
        """One criterion; inconclusive, with the reason, where no row answers it."""
        try:
            at = None if criterion.size is None else eps(criterion.size)
            row = chosen(criterion, measured.rows, at, size)
            of = in_words(row, size(row.eps))
            if not criterion.drop:
                return judged(criterion, row.estimate, of, _doubt(row))
            assert self.baseline is not None
            other = chosen(criterion, self.baseline.measured.rows, at, size)
        except NoRowError as error:
            return Judged(str(criterion), CriterionVerdict.INCONCLUSIVE, str(error))
        apart = drop(self.baseline.measured, other, measured, row)
        doubt = _doubt(row) or (f"in the baseline: {_doubt(other)}" if _doubt(other) else "")
        made = judged(criterion, apart.estimate, of, doubt, "" if doubt else apart.remark)
        return replace(made, of=f"{of}, {_three(other.value)} in the baseline")


def _doubt(row: Row) -> str:
    return "" if row.status == "ok" else row.note or "the number is inconclusive"


def _three(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3g}"
