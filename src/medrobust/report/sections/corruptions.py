"""Natural corruptions beside the attack: accuracy against severity, and what each of them costs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from medrobust.report import charts
from medrobust.report.comparison import Share
from medrobust.report.corruption_words import BesideCorruptions, beside_attack
from medrobust.report.findings import Findings, Verdict
from medrobust.report.paragraph import Paragraph
from medrobust.report.schema import CorruptionsInfo
from medrobust.report.section import Content
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table, TableCell, n_text, share
from medrobust.report.words import NOTHING, bounds, listing, percent, plain
from medrobust.results import Kind, Row, among, find

ANCHOR, TITLE, ORDER, NEEDS = "corruptions", "Natural corruptions beside the attack", 65, ("corruptions",)
SEVERITIES = (1, 2, 3, 4, 5)
MIDDLE, LARGEST = 3, 5
UNTOUCHED = "none"
ERRORS = ("balanced_error", "relative_balanced_error")
MOST_LINES = 5
"""Corruptions that have a colour of their own in the figure: those that cost most."""


@dataclass(frozen=True)
class Corruptions:
    """The rows of one run. order: names of the corruptions, those that leave least on average first."""

    f: Findings
    info: CorruptionsInfo
    rows: dict[tuple[str, str, int], Row]
    """By metric, corruption and severity; without those of single classes."""

    @classmethod
    def of(cls, f: Findings) -> Corruptions | None:
        """None where the run did not measure them."""
        info = f.run.conditions.corruptions
        rows = {
            (r.metric, str(r.get("corruption")), int(r.get("severity", 0))): r
            for r in f.run.rows
            if r.kind == Kind.CORRUPTION and r.get("class_name") is None
        }
        return None if info is None or not rows else cls(f, info, rows)

    def accuracy(self, name: str) -> list[Row]:
        """By severity."""
        return [row for s in SEVERITIES if (row := self.rows.get(("accuracy", name, s))) is not None]

    def errors(self, name: str | None) -> list[Row]:
        """BE and rBE of a corruption, or of all; empty where they were not measured."""
        at = {"kind": Kind.CORRUPTION, "corruption": name}
        return [row for metric in ERRORS if (row := find(self.f.run.rows, metric=metric, **at)) is not None]

    @property
    def before(self) -> Row | None:
        """Accuracy on the same images, untouched."""
        return self.rows.get(("accuracy", UNTOUCHED, 0))

    @cached_property
    def order(self) -> list[str]:
        return sorted(self.info.titles, key=lambda name: fmean(r.value or 0.0 for r in self.accuracy(name)))

    @cached_property
    def attack(self) -> Row | None:
        """The strongest attack at one grey level; in another norm than Linf at the size of the page."""
        f = self.f
        rows = [] if f.strongest is None else f.run.curve(f.strongest)
        if not rows:
            return None
        return min(rows, key=lambda r: abs(r.eps - (f.grey or f.reference or 0.0)))

    @property
    def size(self) -> str:
        """Of the attack, in words."""
        return short_size(self.f, self.attack.eps) if self.attack is not None else ""

    def beside(self, severity: int) -> BesideCorruptions | None:
        """None where nothing was measured at that severity."""
        measured = [(name, Share.of(self.rows.get(("accuracy", name, severity)))) for name in self.info.titles]
        known = [(name, share) for name, share in measured if share is not None]
        before = Share.of(self.before)
        if not known or before is None:
            return None
        name, worst = min(known, key=lambda pair: pair[1].value)
        title, attack = self.info.titles[name], Share.of(self.attack)
        return BesideCorruptions(before, title, worst, len(known), severity, attack)


def paragraph(f: Findings) -> Paragraph | None:
    """For the first page; None where the run did not measure it."""
    corruptions = Corruptions.of(f)
    beside = None if corruptions is None else corruptions.beside(MIDDLE)
    if corruptions is None or beside is None or f.verdict is Verdict.CHANCE:
        return None
    return Paragraph("Compared with natural corruptions", *beside_attack(beside, corruptions.size))


def build(f: Findings) -> Content | None:
    corruptions = Corruptions.of(f)
    if corruptions is None:
        return None
    beside = corruptions.beside(MIDDLE)
    text = "" if beside is None else beside_attack(beside, corruptions.size)[0]
    values = {
        "content": corruptions,
        "text": text,
        "errors": balanced_errors(corruptions),
        "caption": _caption(corruptions),
    }
    table = _table(corruptions)
    return Content(values | {"every": table}, [table], {"corruptions": _figure(corruptions)})


def balanced_errors(c: Corruptions) -> str:
    """BE and rBE in a sentence; empty where they were not measured."""
    errors = c.errors(None)
    if c.info.dataset is None or len(errors) < len(ERRORS):
        return ""
    be, rbe = errors
    text = f"As MedMNIST-C defines them for {c.info.dataset}, the balanced error is {plain(be)} and the relative one "
    text += f"{plain(rbe)}: 1 is what AlexNet reaches on its images (Di Salvo et al. 2024, arXiv:2406.17536)."
    if c.info.left_out:
        text += f" One of its corruptions ({c.info.left_out}) is left out of both."
    return text + ("" if be.ok else f" Inconclusive: {be.note}.")


def _caption(c: Corruptions) -> str:
    text = f"Accuracy against severity (0: untouched; {n_text(c.accuracy(c.order[0]))} images). In colour the "
    text += "corruptions that leave least, in grey the others."
    if c.attack is not None:
        text += f" Level lines: the attack and random noise at {c.size}. Bands are 95 % intervals."
    return text


def _figure(c: Corruptions) -> str:
    f = c.f
    shares = [(c.info.titles[name], c.accuracy(name)) for name in c.order]
    levels = [] if c.attack is None else [(f"attack, {c.size}", c.attack)]
    if c.attack is not None:
        noise = [row for a in f.run.controls if (row := f.run.at(a, "accuracy", c.attack.eps)) is not None]
        levels += [(f"random noise, {c.size}", row) for row in noise[:1]]
    worst = [f"{title} {percent(rows[-1].value)}" for title, rows in shares]
    alt = f"Accuracy against severity, a corruption a line; at the largest: {listing(worst)}."
    return charts.by_severity(c.before, shares, levels, MOST_LINES, alt)


def _table(c: Corruptions) -> Table:
    body = []
    for name in c.order:
        lost = c.rows.get(("accuracy_lost", name, MIDDLE))
        at = {r.get("severity"): r for r in c.accuracy(name)}
        errors = [TableCell(plain(row), not row.ok) for row in c.errors(name)]
        cells = [share(at.get(severity)) for severity in SEVERITIES]
        body.append([TableCell(c.info.titles[name]), *cells, _points(lost), _lowest(c, name), *errors])
    head = ["Corruption", *map(str, SEVERITIES), f"Lost at {MIDDLE}", f"Lowest sensitivity at {LARGEST}"]
    head += ["Balanced error", "Relative balanced error"] if c.errors(None) else []
    n = n_text(c.accuracy(c.order[0]))
    caption = f"Accuracy after each natural corruption at severities 1 to 5, with 95 % intervals ({n} images); "
    caption += f"percentage points lost at severity {MIDDLE} on the same images; the class that is recognised worst."
    return Table(
        caption, [TableCell(t) for t in head], body, "tab:corruptions", folded="All corruptions at every severity"
    )


def _points(row: Row | None) -> TableCell:
    if row is None or row.value is None:
        return TableCell(NOTHING)
    value = f"{100 * row.value:.1f}".replace("-", "−")
    return TableCell(f"{value} {bounds(row.low, row.high)}".strip(), not row.ok)


def _lowest(c: Corruptions, name: str) -> TableCell:
    """The class, or finding, with the lowest sensitivity at the largest severity."""
    at = {"kind": Kind.CORRUPTION, "metric": "sensitivity", "corruption": name, "severity": LARGEST}
    rows = [row for row in among(c.f.run.rows, **at) if row.value is not None]
    if not rows:
        return TableCell(NOTHING)
    row = min(rows, key=lambda r: r.value or 0.0)
    return TableCell(f"{percent(row.value)} {bounds(row.low, row.high)} {row.get('class_name')}", not row.ok)
