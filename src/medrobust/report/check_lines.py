"""Sanity checks as the page lists them: one line for all attacks that gave the same outcome, and how many lines passed.

Whatever counts checks counts these lines, so that a sentence and the table agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from medrobust.report.words import listing
from medrobust.results import Check


@dataclass(frozen=True)
class CheckLine:
    """Checks of one name and one outcome, their attacks together."""

    name: str
    passed: bool | None
    attacks: str
    details: list[str]
    consequence: str


@dataclass(frozen=True)
class Counted:
    """Number of lines by outcome; not_asked: the check could not have failed here."""

    passed: int
    failed: int
    not_asked: int

    @property
    def asked(self) -> int:
        return self.passed + self.failed

    @property
    def text(self) -> str:
        """ "10 of 11 sanity checks passed, 1 failed"."""
        text = f"{self.passed} of {self.asked} sanity checks passed"
        text += f", {self.failed} failed" if self.failed else ""
        return text + (
            f"; {self.not_asked} more could not have failed here and were not asked" if self.not_asked else ""
        )


def lines(checks: Iterable[Check], title: Callable[[str], str]) -> list[CheckLine]:
    """The failed first, then in order; attacks of the same check and outcome stand in one line. title: of an attack."""
    by_outcome: dict[tuple[str, bool | None, str], list[tuple[str, str]]] = {}
    for c in checks:
        who = title(c.attack) if c.attack and c.attack != "none" else "all"
        by_outcome.setdefault((c.name, c.passed, c.consequence), []).append((who, c.detail))
    out = []
    for (name, passed, consequence), attacks in by_outcome.items():
        same_detail: dict[str, list[str]] = {}
        for who, detail in attacks:
            same_detail.setdefault(detail, []).append(who)
        every = list(dict.fromkeys(who for who, _ in attacks))
        apart = len(same_detail) > 1 and len(every) > 1
        details = [f"{listing(names)}: {d}" if apart else d for d, names in same_detail.items()]
        out.append(CheckLine(name, passed, listing(every), details, consequence))
    return sorted(out, key=lambda line: line.passed is not False)


def counted(checks: Iterable[Check]) -> Counted:
    """How many lines passed, failed, and were not asked."""
    outcomes = [line.passed for line in lines(checks, str)]
    return Counted(*(sum(o is wanted for o in outcomes) for wanted in (True, False, None)))
