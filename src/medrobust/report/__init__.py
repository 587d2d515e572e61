"""The report: one run folder in, a page that a doctor, an engineer and a reviewer can read out.

Reads rows and figures; never a model, never torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medrobust.report.criteria_words import CriteriaInfo


def write(
    run_dir: Path,
    *,
    locked: bool = False,
    criteria: CriteriaInfo | None = None,
    prevalence: float | Mapping[str, float] | None = None,
    pdf: bool = False,
) -> Path:
    """Write report.html, results.csv, tables.tex and summary.md into a run folder; returns the path of report.html.

    Of an audit also model-card.md.

    locked: the caller holds the lock of the folder, as an audit does that is still under way. criteria: acceptance
    criteria of these pages, in the place of the run's own. prevalence: share of studies with the disease, or by class
    or finding, in the place of the run's own; InputError where the run has no such class. pdf: also write report.pdf,
    the page as it prints; InputError where WeasyPrint or a library of it is missing. Without, a report.pdf of another
    page is removed.

    Reads results.json and, where they are there, figures.safetensors and spec.json. With acceptance criteria it also
    writes criteria.xml. The same input gives the same bytes. InputError: the folder or its results.json is missing or
    broken, or cannot be written to.
    """
    from dataclasses import replace

    from medrobust.report import (
        findings,
        first_page,
        junit,
        latex,
        model_card,
        page,
        patients,
        run,
        section,
        sheet,
        summary,
    )
    from medrobust.report import pdf as pdf_room
    from medrobust.report.writing import write_files

    run_dir = Path(run_dir)
    read = run.read(run_dir)
    if criteria is not None:
        read = replace(read, criteria=criteria)
    if prevalence is not None:
        read = patients.with_prevalence(read, prevalence)
    findings_ = findings.find(read)
    rows, sections = [row.plain() for row in read.rows], section.built(findings_)
    first, every = first_page.first_page(findings_), [t for s in sections for t in s.tables]
    html = page.html(findings_, sections)
    files: dict[str, str | bytes | None] = {
        "results.csv": sheet.text(rows),
        "tables.tex": latex.document([*first.tables, *every]),
        "summary.md": summary.text(findings_),
        "report.html": html,
    }
    if read.command == "audit":
        files[model_card.FILE] = model_card.text(findings_)
    if read.command == "explain":
        files["images.csv"] = sheet.images(read)
    judged = read.criteria if read.criteria is not None and read.criteria.judged else None
    files["criteria.xml"] = None if judged is None else junit.text(judged, read.command)
    write_files(run_dir, {**files, **pdf_room.file(run_dir, html, wanted=pdf)}, locked=locked)
    return run_dir / "report.html"


__all__ = ["write"]
