"""Audits side by side: what was compared, accuracy against the size of the change, classes, and other measures."""

from __future__ import annotations

from collections.abc import Sequence

from medrobust.report import charts, compared_tables
from medrobust.report.compared import ComparedAudits, compared
from medrobust.report.findings import Findings
from medrobust.report.run_line import items
from medrobust.report.section import Content
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table
from medrobust.report.words import percent

ORDER, COMMANDS = 10, ("compare",)


def build(f: Findings) -> list[Content]:
    c = compared(f)
    parts = [
        _part("runs", "What is compared", [compared_tables.runs(c)], facts=items(f.run.run)),
        _part("accuracy", "Accuracy under attack", [compared_tables.accuracy(c)], figure=_curves(c)),
        _part("sides", "Which images changed sides", [] if c.few_runs else [compared_tables.sides(c)]),
        _part("findings", "Finding by finding under attack", compared_tables.findings(c)),
        _part(
            "classes", "Each finding without an attack" if f.several else "Class by class", compared_tables.classes(c)
        ),
        _part("more", "Other measures of each run", [compared_tables.others(c)], text=OTHERS),
    ]
    return [part for part in parts if part.tables]  # such as those of classes, where they are many


OTHERS = (
    "These are not compared image by image, and no difference is claimed from them. "
    "Universal perturbations and attacks that detectors look for were made against each classifier by itself."
)


def _part(
    name: str,
    title: str,
    tables: list[Table],
    *,
    figure: tuple[str, str] | None = None,
    text: str = "",
    facts: Sequence[tuple[str, str]] = (),
) -> Content:
    """figure: its SVG and its caption."""
    svg, caption = figure or ("", "")
    values = {"text": text, "tables": tables, "caption": caption, "facts": facts}
    return Content(values, tables, {name: svg} if svg else {}, f"compared-{name}", title)


def _curves(c: ComparedAudits) -> tuple[str, str]:
    """Accuracy against eps, a run a line, and the caption."""
    lines = []
    for name in c.names:
        rows = c.curve(name)
        lines.append((c.titles[name] + (" – inconclusive" if any(not row.ok for row in rows) else ""), rows))
    ends = [
        f"{title}: {percent(rows[0].value)} before, {percent(rows[-1].value)} at {short_size(c.f, rows[-1].eps)}."
        for title, rows in lines
    ]
    alt = " ".join(["Accuracy against ε, one line a run, with 95 % intervals.", *ends])
    caption = (
        f"Accuracy against ε on the same n = {c.f.run.conditions.n_attacked} images, under the attacks that all runs "
    )
    caption += "share. Bands are 95 % intervals of each run by itself: two bands may overlap although the paired "
    caption += "difference is clear. Hollow markers are inconclusive."
    return charts.series(c.f, "compared", "accuracy", lines, alt), caption
