"""The page of a study: report.html, tables.tex, summary.md, from the list of sections and the base page of all runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medrobust.report import latex, page, pdf, section, sheet, study_export, summary
from medrobust.report.first_page import Fact, FirstPage
from medrobust.report.paragraph import Paragraph
from medrobust.report.schema import RunInfo
from medrobust.report.section import Built
from medrobust.report.study_missing import missing_lines
from medrobust.report.study_tables import incomplete, published_rows
from medrobust.report.writing import write_files


@dataclass(frozen=True)
class StudyFindings:
    """What the sections of a study read. results: of results.json. runs: what each run took (machine, seconds)."""

    results: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]] = ()
    pages: frozenset[str] = frozenset({"study"})
    pending: frozenset[str] = frozenset()

    @cached_property
    def remarks(self) -> list[str]:
        """What is missing: cells, tables without a row, rows that no table shows."""
        return [*missing_lines(self.results), *incomplete(self.results)]


def write(
    folder: Path,
    results: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    *,
    locked: bool = False,
    with_pdf: bool = False,
) -> Path:
    """report.html, results.csv, published.csv, tables.tex and summary.md in the run folder; returns the path of the
    page. locked: the caller holds the lock of the folder. with_pdf: also report.pdf; see ``report.write``."""
    f = StudyFindings(results, runs)
    sections = section.built(f)
    text = html(f, sections)
    texts: dict[str, str | bytes | None] = {
        "results.csv": study_export.csv(results),
        "published.csv": sheet.lines(published_rows(results)),
        "tables.tex": latex.document((t for s in sections for t in s.tables), f.remarks),
        "summary.md": summary.written(f"{_kind(results)}: {results['study']['title']}", first_page(f)),
        "report.html": text,
        **pdf.file(folder, text, wanted=with_pdf),
    }
    write_files(folder, texts, locked=locked)
    return folder / "report.html"


def html(f: StudyFindings, sections: Sequence[Built]) -> str:
    """The whole page, readable offline. Same results, same bytes."""
    results = f.results
    study, synthetic = results["study"], {d["spec"].partition(":")[0] for d in results["data"]} == {"phantom"}
    try:
        run = RunInfo.model_validate(results.get("run") or {})
    except ValidationError:  # of another version: the page stands without it
        run = RunInfo()
    version = str(results["versions"].get("medrobust", ""))
    head = page.PageHead(_kind(results), study["title"], study["source"], "", synthetic, version, run)
    return page.written(head, first_page(f), sections, {"r": {"checks": [], "doubts": [], **results}})


def tables_tex(results: Mapping[str, Any]) -> str:
    """tables.tex: every table of the page."""
    f = StudyFindings(results)
    return latex.document((t for s in section.built(f) for t in s.tables), f.remarks)


def first_page(f: StudyFindings) -> FirstPage:
    """How much of it is done, and what limits its numbers."""
    results, lacking = f.results, f.remarks
    cells = results["cells"]
    doubtful = sum(row.get("status", "ok") != "ok" for row in results["rows"])
    facts = [
        Fact("Cells", f"{cells['done']} of {cells['all']}", "are done", cells["done"] < cells["all"]),
        Fact("Numbers", f"{len(results['rows'])}", f"of which {doubtful} are inconclusive", bool(doubtful)),
        Fact("Classifiers", f"{len(results['models'])}", f"on {len(results['data'])} sets of images"),
    ]
    guess = "Inconclusive: what attacks do to a classifier that guesses has no meaning"
    hidden = (
        "Inconclusive: attacks followed a gradient that is not the network's; what they leave is no sign of strength"
    )
    limits = {guess: guessing(results), hidden: masked(results)}
    banners = [(what, ". ".join(lines) + ".") for what, lines in limits.items() if lines]
    banners += [(f"In doubt, {d['model']}", d["text"]) for d in results.get("doubts", ())]
    note = results["study"]["note"]
    title = "Every cell is done" if cells["done"] == cells["all"] else "Some cells are missing"
    text = "Numbers in brackets are 95 % intervals."
    paragraphs = [Paragraph("The question", note)] if note else []
    paragraphs += [Paragraph("Missing", f"{lacking[0]}. See “Missing” below.", True)] if lacking else []
    return FirstPage(title, text, "warn" if lacking or banners else "calm", facts, paragraphs, banners)


def _kind(results: Mapping[str, Any]) -> str:
    return f"Study, {results['study']['size']}"


def masked(results: Mapping[str, Any]) -> list[str]:
    """The classifiers whose gradient failed its check, each with the numbers."""
    return [
        f"{c['model']} on {c['data']}: failed: “{c['name']}” ({c['detail']})"
        for c in results.get("checks", ())
        if c["passed"] is False and c["decisive"]
    ]


def guessing(results: Mapping[str, Any]) -> list[str]:
    """The classifiers that are no better than guessing, each with its numbers."""
    lines = {
        f"{row.get('model')} on {row.get('data')}: {note}": None
        for row in results["rows"]
        if "no better than guessing" in (note := str(row.get("note") or ""))
    }
    return list(lines)
