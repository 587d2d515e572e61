"""The acceptance criteria of a run in words, above everything else on its page and in its summary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING

from pydantic import Field

from medrobust.criteria.judging import FAILED, UNDECIDED, WORDS, Judged, exit_code, summary
from medrobust.report.schema import Stated
from medrobust.report.words import count, ends, number

if TYPE_CHECKING:
    from medrobust.report.conditions import Items

TONES = {0: "calm", FAILED: "bad", UNDECIDED: "warn"}
"""Colour of the edge, by exit code; never the only sign."""


@dataclass(frozen=True)
class JudgedInfo(Judged):
    """Read from results.json, and in words."""

    @property
    def mark(self) -> str:
        return WORDS[self.verdict][0]

    @property
    def measured(self) -> str:
        """ "0.775 (0.672–0.853), n = 80"; empty where there is no number."""
        if self.value is None and self.low is None and self.high is None:
            return ""
        value = "above the grid" if self.value is None else _plain(self.value)
        low, high = (None if end is None else _plain(end) for end in (self.low, self.high))
        span = ends(low, high) if low and high else f"from {low}" if low else f"to {high}" if high else ""
        interval = f" ({span})" if span else ""
        return f"{value}{interval}, n = {count(self.n)}"


class BaselineInfo(Stated):
    run: str = ""
    digest: str = ""


class CriteriaInfo(Stated):
    """As ``medrobust.criteria.Criteria.stated``. begun_with: SHA-256 of those that stood when the run began."""

    texts: list[str] = Field(default_factory=list)
    sha256: str = ""
    begun_with: str = ""
    baseline: BaselineInfo | None = None
    judged: list[JudgedInfo] = Field(default_factory=list)
    of_page: bool = False
    """Whether they are of these pages alone: results.json holds others or none."""

    @property
    def line(self) -> str:
        """The first line of the terminal."""
        if not self.texts:
            return "acceptance criteria: those that this run began with were removed, nothing is judged"
        if not self.judged:
            return f"acceptance criteria: {len(self.texts)}, to be judged when the run is finished"
        return summary([j.verdict for j in self.judged])

    @property
    def title(self) -> str:
        """The first line of page and summary."""
        return self.line[:1].upper() + self.line[1:]

    @property
    def exit_code(self) -> int:
        return exit_code([j.verdict for j in self.judged])

    @property
    def tone(self) -> str:
        return TONES[self.exit_code] if self.judged else "warn"

    @property
    def origin(self) -> str:
        """Whether they stood before the run."""
        return self._when + (" results.json does not hold them or their verdicts." if self.of_page else "")

    @property
    def _when(self) -> str:
        now, first = (f"SHA-256 {digest[:12]}…" for digest in (self.sha256, self.begun_with))
        if self.sha256 == self.begun_with:
            return f"They stood before the run: spec.json holds them since it began ({now})."
        if not self.begun_with:
            return f"They were given after the run began ({now}); it began without any."
        changed = f"changed after the run began ({now})" if self.sha256 else "removed after the run began"
        return f"They were {changed}; it began with others ({first})."

    @property
    def against(self) -> str:
        """Which run drops are measured against; empty where there is none."""
        if self.baseline is None:
            return ""
        return f"Drops are against run {self.baseline.run or 'without an id'} (results {self.baseline.digest[:12]})."


def html(info: CriteriaInfo | None) -> str:
    """What stands at the top of the page; empty where there are no criteria."""
    from medrobust.report import section

    if info is None:
        return ""
    text = (files("medrobust.report") / "criteria.html").read_text(encoding="utf-8")
    return section.rendered(text, {"info": info})


def markdown(info: CriteriaInfo | None, escaped: Callable[[str], str]) -> list[str]:
    """The first lines of the summary, a table among them; none where there are no criteria."""
    if info is None:
        return []
    rows = [
        f"| {j.mark} | {escaped(j.criterion)} | {escaped(j.measured)} | {escaped(j.of)} | {escaped(j.reason)} |"
        for j in info.judged
    ]
    table = ["| verdict | criterion | measured | number | why |", "|---|---|---|---|---|", *rows, ""] if rows else []
    return [f"**{escaped(info.title)}**", "", *table, escaped(f"{info.origin} {info.against}".strip()), ""]


def items(info: CriteriaInfo | None) -> Items:
    """For the exact conditions."""
    if info is None:
        return []
    first = [] if info.begun_with == info.sha256 else [("SHA-256 of the criteria at the beginning", info.begun_with)]
    return [("Acceptance criteria", "; ".join(info.texts)), ("SHA-256 of the criteria", info.sha256), *first]


def _plain(value: float) -> str:
    return number(value) if value >= 0 else f"−{number(-value)}"
