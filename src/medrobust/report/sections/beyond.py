"""Patches, rotations and shifts, smooth changes of intensity: a sentence each, beside their controls; pictures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from medrobust.report import charts, pictures
from medrobust.report.change_words import CONTROLS, BesideControls, beside_controls
from medrobust.report.comparison import Share
from medrobust.report.findings import Findings
from medrobust.report.paragraph import Paragraph
from medrobust.report.schema import ChangeInfo
from medrobust.report.section import Content
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table, TableCell, n_text, share
from medrobust.report.words import listing, percent, plural
from medrobust.results import Kind, Row, among

ANCHOR, TITLE, ORDER, NEEDS = "beyond", "Beyond small pixel changes", 66, ("changes",)
OPTIMISED = "optimised"
NAMES = {OPTIMISED: "chosen by the attack", **CONTROLS}


@dataclass(frozen=True)
class ChangePicture:
    """An image that a change turned, before and after, as data URIs, and its answers. words: what was done to it."""

    clean: str
    changed: str
    before: str
    after: str
    words: str
    width: int


@dataclass(frozen=True)
class MeasuredChange:
    """One change of a run. rows: by how images were made, the share of those read correctly that are turned."""

    f: Findings
    name: str
    info: ChangeInfo
    rows: dict[str, Row]

    @property
    def turned(self) -> Row:
        return self.rows[OPTIMISED]

    @property
    def controls(self) -> dict[str, Row]:
        return {made: row for made, row in self.rows.items() if made != OPTIMISED}

    @cached_property
    def sentence(self) -> str:
        """Empty where no image was read correctly."""
        turned = Share.of(self.turned)
        controls = {made: one for made, row in self.controls.items() if (one := Share.of(row)) is not None}
        return "" if turned is None else beside_controls(BesideControls(self.info.range, turned, controls))

    @property
    def pictures(self) -> list[ChangePicture]:
        sides = [self.f.run.arrays.get(f"changes.{self.name}.{side}") for side in ("clean", "changed")]
        clean, changed = sides
        if clean is None or changed is None or clean.shape != changed.shape or clean.ndim != 4:
            return []
        answer = self.f.run.answer
        return [
            ChangePicture(
                pictures.data_uri(before),
                pictures.data_uri(after),
                answer(e.before),
                answer(e.after),
                e.words[:1].upper() + e.words[1:],
                int(before.shape[-1]),
            )
            for e, before, after in zip(self.info.examples, clean, changed, strict=False)
        ]


def measured_changes(f: Findings) -> list[MeasuredChange]:
    """In the order in which they were asked for."""
    measured = []
    for name, info in f.run.conditions.changes.items():
        rows = among(f.run.rows, kind=Kind.CHANGE, metric="success", change=name)
        by_made = {str(row.get("made")): row for row in rows}
        if OPTIMISED in by_made:
            measured.append(MeasuredChange(f, name, info, by_made))
    return measured


def paragraph(f: Findings) -> Paragraph | None:
    """The change that turns most, for the first page; None where the run measured none that is believed."""
    measured = [m for m in measured_changes(f) if m.turned.ok and m.sentence]
    if not measured:
        return None
    most = max(measured, key=lambda m: m.turned.value or 0.0)
    first = f"Of {plural(len(measured), 'kind')} of larger changes this one turns most. " if len(measured) > 1 else ""
    return Paragraph("Larger changes", first + most.sentence)


def build(f: Findings) -> Content | None:
    measured = measured_changes(f)
    if not measured:
        return None
    table = _table(measured)
    values = {"measured": measured, "every": table, "caption": _caption(f, measured)}
    return Content(values, [table], {"beyond": _figure(f, measured)})


def _attack(f: Findings) -> Row | None:
    """Success of the strongest attack on single pixels at the size of the page."""
    eps = f.grey or f.reference
    return None if f.strongest is None or eps is None else f.run.at(f.strongest, "success", eps)


def _caption(f: Findings, measured: list[MeasuredChange]) -> str:
    text = f"Images turned of those read correctly ({n_text(m.turned for m in measured)}), with 95 % intervals: by the "
    text += "attack (filled) and by its controls (hollow)."
    if (row := _attack(f)) is not None:
        text += f" Level line: the attack with changes of at most {short_size(f, row.eps)} a pixel."
    return text


def _figure(f: Findings, measured: list[MeasuredChange]) -> str:
    row = _attack(f)
    level = None if row is None else (f"attack, {short_size(f, row.eps)}", row)
    groups = [(m.info.title, [(NAMES.get(made, made), row) for made, row in m.rows.items()]) for m in measured]
    alt = "Images turned by each change: " + listing([f"{m.info.title} {percent(m.turned.value)}" for m in measured])
    return charts.beside_controls(groups, level, f"{alt}.")


def _table(measured: list[MeasuredChange]) -> Table:
    body = []
    for m in measured:
        for made, row in m.rows.items():
            body.append([TableCell(m.info.title), TableCell(NAMES.get(made, made)), share(row)])
    caption = f"Images turned of those read correctly ({n_text(m.turned for m in measured)}), with 95 % intervals. At "
    caption += "random: the mean over several draws an image. Patches that are filled lie where the attack's does."
    head = [TableCell(text) for text in ("Change", "How it was made", "Turned")]
    return Table(caption, head, body, "tab:beyond", headings=2, folded="All changes beside their controls")
