"""Finding by finding: what it takes to hide one, to invent one, and to change the set of findings."""

from __future__ import annotations

from medrobust.report import charts, finding_words
from medrobust.report.finding_words import HIDE, INVENT
from medrobust.report.findings import Findings
from medrobust.report.section import Content
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table, TableCell, eps_text, n_text, share, unit
from medrobust.report.words import NO_INTERVAL, NOTHING, count, number, percent
from medrobust.results import Kind, Row

ANCHOR, TITLE, ORDER, NEEDS = "findings", "Finding by finding", 30, ("findings",)
DONE = {HIDE: "Hidden", INVENT: "Invented"}
GOALS = {"any": "Any change", "hide-all": "Hide all", "occurring": "Change to a set that occurs"}
MOST_LINES = 6


def build(f: Findings) -> Content | list[Content]:
    if not f.several:
        return []
    eps = finding_words.size(f)
    if f.run.conditions.findings is None or eps is None:
        return Content({"info": None})
    each, sets = {goal: _each(f, goal, eps) for goal in DONE}, _sets(f, eps)
    figures = {f"findings-{goal}": figure for goal in DONE if (figure := _figure(f, goal, eps))}
    return Content(
        {"info": f.run.conditions.findings, "each": each, "sets": sets, "size": short_size(f, eps)},
        [t for t in (*each.values(), sets) if t is not None],
        figures,
    )


def _each(f: Findings, goal: str, eps: float) -> Table | None:
    """One finding a row, at the size of the page."""
    rows = []
    for name in f.run.conditions.classes:
        at = finding_words.row(f, "success", goal, eps, class_name=name)
        if at is None:
            continue
        changed = finding_words.row(f, "findings_changed", goal, class_name=name)
        noise = f.run.find(Kind.CONTROL, "success", "noise", eps, goal=goal, class_name=name)
        rows.append(
            [
                TableCell(name),
                share(at),
                share(finding_words.row(f, "success", goal, eps, class_name=name, alone=True)),
                share(noise),
                _median(f, finding_words.row(f, "min_eps_median", goal, class_name=name)),
                _median(f, finding_words.row(f, "min_eps_median", goal, class_name=name, alone=True)),
                TableCell(NOTHING if changed is None or changed.value is None else number(changed.value)),
                share(finding_words.row(f, "occurs_after", goal, class_name=name)),
            ]
        )
    if not rows:
        return None
    images = "with the finding, in which it was reported" if goal == HIDE else "without the finding, not reported"
    n = n_text(finding_words.row(f, "success", goal, eps, class_name=c) for c in f.run.conditions.classes)
    caption = (
        f"{DONE[goal]} at {short_size(f, eps)}: share of the images {images} ({n}); and where nothing else changes; "
    )
    caption += f"the smallest change, {unit(f)}, as a median; what changes in the smallest examples."
    head = ["Finding", DONE[goal], "Alone", "By noise", "Median ε*", "Median ε*, alone", "Findings changed"]
    head += ["Set occurs"]
    return Table(caption, [TableCell(t) for t in head], rows, f"tab:findings-{goal}")


def _sets(f: Findings, eps: float) -> Table | None:
    """Goals for the whole set, one a row."""
    rows = []
    for goal, title in GOALS.items():
        at = finding_words.row(f, "success", goal, eps)
        if at is None:
            continue
        changed = finding_words.row(f, "findings_changed", goal)
        rows.append(
            [
                TableCell(title),
                share(at),
                share(f.run.find(Kind.CONTROL, "success", "noise", eps, goal=goal)),
                _median(f, finding_words.row(f, "min_eps_median", goal)),
                TableCell(NOTHING if changed is None or changed.value is None else number(changed.value)),
                share(finding_words.row(f, "occurs_after", goal)),
                TableCell(count(at.n)),
            ]
        )
    if not rows:
        return None
    caption = f"Goals for the whole set of findings at {short_size(f, eps)}, with 95 % intervals."
    head = ["Goal", "Reached", "By noise", "Median ε*", "Findings changed", "Set occurs", "n"]
    return Table(caption, [TableCell(t) for t in head], rows, "tab:finding-sets")


def _median(f: Findings, row: Row | None) -> TableCell:
    if row is None or (row.value is None and "above" not in row.note):
        return TableCell(NOTHING)
    if row.value is None:
        return TableCell("above the grid")
    if row.low is None:
        return TableCell(f"{eps_text(f, row.value)} ({NO_INTERVAL})", not row.ok)
    high = "∞" if row.high is None else eps_text(f, row.high)
    return TableCell(f"{eps_text(f, row.value)} ({eps_text(f, row.low)}–{high})", not row.ok)


def _figure(f: Findings, goal: str, eps: float) -> str:
    """Share turned against eps, a finding a line."""
    every = finding_words.turned(f, goal, eps)[:MOST_LINES]
    lines = [(t.name, _curve(f, goal, t.name)) for t in every]
    if not lines:
        return ""
    alt = f"{DONE[goal]} findings against ε, one line a finding. At {short_size(f, eps)}: "
    alt += "; ".join(f"{t.name} {percent(t.turned.value)}" for t in every)
    return charts.series(f, f"findings-{goal}", f"share {DONE[goal].lower()}", lines, alt + ".")


def _curve(f: Findings, goal: str, name: str) -> list[Row]:
    rows = [r for r in f.run.rows if r.has(kind=Kind.FINDING, metric="success", goal=goal, class_name=name)]
    return sorted((r for r in rows if not r.get("alone")), key=lambda r: r.eps)
