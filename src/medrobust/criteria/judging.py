"""Pass, fail or inconclusive: a criterion against the interval of its number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from medrobust.criteria.language import Criterion
from medrobust.results import Row, number
from medrobust.stats import Estimate


class CriterionVerdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


FAILED, UNDECIDED = 3, 4
"""Exit codes: a criterion fails; none fails and one cannot be judged."""


@dataclass(frozen=True)
class Judged:
    """A criterion with its verdict. value, low, high: None where there is no number. n: images.

    of: which number answers it, in words. reason: how the verdict follows.
    """

    criterion: str
    verdict: str
    reason: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    of: str = ""

    def plain(self) -> Mapping[str, object]:
        """As JSON."""
        return asdict(self)


def judged(criterion: Criterion, estimate: Estimate, of: str, doubt: str = "", remark: str = "") -> Judged:
    """Pass where the whole interval fulfils the criterion, fail where none of it does, else inconclusive.

    doubt: why the number is not believed; it is inconclusive then.
    """
    value, low, high = (number(v) for v in estimate[:3])
    if doubt:
        verdict, reason = CriterionVerdict.INCONCLUSIVE, doubt
    elif low is None and high is None:
        verdict, reason = (
            CriterionVerdict.INCONCLUSIVE,
            "it has no interval" if value is not None else "it was not measured",
        )
    else:
        verdict = _verdict(criterion, low, high)
        reason = {
            CriterionVerdict.PASS: "the whole interval fulfils it",
            CriterionVerdict.FAIL: "the whole interval violates it",
            CriterionVerdict.INCONCLUSIVE: "the interval lies on both sides of the limit; more images make it narrower",
        }[verdict]
    return Judged(
        str(criterion), verdict, f"{reason}; {remark}" if remark else reason, value, low, high, estimate.n, of
    )


def _verdict(criterion: Criterion, low: float | None, high: float | None) -> CriterionVerdict:
    """An end that is None is not known, as of a median above the grid."""
    if not criterion.rising:  # the same question of the negative numbers
        low, high = (None if end is None else -end for end in (high, low))
    limit = criterion.threshold if criterion.rising else -criterion.threshold
    strict = "=" not in criterion.operator
    if low is not None and (low > limit if strict else low >= limit):
        return CriterionVerdict.PASS
    if high is not None and (high <= limit if strict else high < limit):
        return CriterionVerdict.FAIL
    return CriterionVerdict.INCONCLUSIVE


def in_words(row: Row, size: str) -> str:
    """Which number a row holds: "worst case, accuracy, 1/255, class pneumonia"."""
    columns = [f"{'class' if k == 'class_name' else k.replace('_', ' ')} {v}" for k, v in row.more.items()]
    attack = row.attack if row.attack not in ("none", "worst", row.kind) else ""
    parts = [row.kind, attack, row.metric.replace("_", " "), size if row.eps else "", *columns]
    return ", ".join(part for part in parts if part)


def counts(every: Iterable[str]) -> Mapping[CriterionVerdict, int]:
    """How many of each verdict."""
    verdicts = list(every)
    return {verdict: sum(v == verdict for v in verdicts) for verdict in CriterionVerdict}


def summary(every: Sequence[str]) -> str:
    """ "acceptance criteria: 2 pass, 1 fails, 1 cannot be judged", of verdicts."""
    of = counts(every)
    parts = [
        (of[CriterionVerdict.PASS], "passes", "pass"),
        (of[CriterionVerdict.FAIL], "fails", "fail"),
        (of[CriterionVerdict.INCONCLUSIVE], "cannot be judged", "cannot be judged"),
    ]
    return "acceptance criteria: " + (
        ", ".join(f"{n} {one if n == 1 else many}" for n, one, many in parts if n) or "none"
    )


def exit_code(every: Sequence[str]) -> int:
    """0 where all pass or there are none, of verdicts."""
    of = counts(every)
    return FAILED if of[CriterionVerdict.FAIL] else UNDECIDED if of[CriterionVerdict.INCONCLUSIVE] else 0
