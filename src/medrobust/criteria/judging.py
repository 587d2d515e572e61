"""Pass, fail or inconclusive: a criterion against the interval of its number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from medrobust.criteria.language import Criterion, column_text
from medrobust.results import Row, number
from medrobust.stats import Estimate


class CriterionVerdict(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


WORDS = {
    CriterionVerdict.PASS: ("passes", "pass"),
    CriterionVerdict.FAIL: ("fails", "fail"),
    CriterionVerdict.INCONCLUSIVE: ("cannot be judged", "cannot be judged"),
}
"""Of one criterion, and of several."""
FAILED, UNDECIDED = 3, 4
"""Exit codes: a criterion fails; none fails and one cannot be judged."""


@dataclass(frozen=True)
class Judged:
    """A criterion with its verdict. value, low, high: None where there is no number. n: images.

    of: which number answers it, in words. reason: how the verdict follows.
    """

    criterion: str
    verdict: CriterionVerdict
    reason: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    of: str = ""


def judged(criterion: Criterion, estimate: Estimate, of: str, doubt: str = "", remark: str = "") -> Judged:
    """Pass where the whole interval fulfils the criterion, fail where none of it does, else inconclusive.

    doubt: why the number is not believed; it is inconclusive then.
    """
    value, low, high = (number(v) for v in estimate[:3])
    if doubt:
        verdict, reason = CriterionVerdict.INCONCLUSIVE, doubt
    elif low is None and high is None:
        verdict = CriterionVerdict.INCONCLUSIVE
        reason = "it has no interval" if value is not None else "it was not measured"
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
    columns = [f"{column_text(k).replace('_', ' ')} {v}" for k, v in row.more.items()]
    attack = row.attack if row.attack not in ("none", "worst", row.kind) else ""
    parts = [row.kind, attack, row.metric.replace("_", " "), size if row.eps else "", *columns]
    return ", ".join(part for part in parts if part)


def summary(verdicts: Sequence[str]) -> str:
    """ "acceptance criteria: 2 pass, 1 fails, 1 cannot be judged", of verdicts."""
    counts = {words: verdicts.count(verdict) for verdict, words in WORDS.items()}
    return "acceptance criteria: " + ", ".join(f"{n} {words[n > 1]}" for words, n in counts.items() if n)


def exit_code(verdicts: Sequence[str]) -> int:
    """0 where all pass or there are none, of verdicts."""
    failed, undecided = CriterionVerdict.FAIL in verdicts, CriterionVerdict.INCONCLUSIVE in verdicts
    return FAILED if failed else UNDECIDED if undecided else 0
