"""report.html of a study: its parts, tables and curves, and published figures beside measured ones."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from medrobust.report import run_line, study_charts, study_export, study_tables
from medrobust.report.study_missing import missing_lines
from medrobust.report.study_tables import compared, sheets
from medrobust.report.writing import write_files

CAUTION = (
    "Published figures come from other images, networks and splits; the column says which difference is known, and a "
    "figure that is only recalled is nothing to be graded against."
)


def write(folder: Path, results: Mapping[str, Any], runs: list[dict[str, Any]]) -> Path:
    """report.html, results.csv and tables.tex in the run folder; returns the path of the page.

    runs: what each run took (machine, seconds).
    """
    texts = {"results.csv": study_export.csv(results), "tables.tex": study_export.latex(results)}
    write_files(folder, {**texts, "report.html": html(results, runs)})
    return folder / "report.html"


def html(results: Mapping[str, Any], runs: list[dict[str, Any]]) -> str:
    """The whole page, readable offline. Same results, same bytes."""
    from jinja2 import Environment, StrictUndefined

    room = files("medrobust.report")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    template = environment.from_string((room / "study.html").read_text(encoding="utf-8"))
    parts = [
        {
            **part,
            "sheets": sheets(results, part["name"]),
            "charts": study_charts.charts(results, part),
            "compared": [(p, ours) for p, ours in compared(results, part["name"]) if ours],
            "alone": [p for p, ours in compared(results, part["name"]) if not ours],
        }
        for part in results["parts"]
    ]
    missing = [*missing_lines(results), *study_tables.incomplete(results)]
    attacks = dict.fromkeys(study_tables.attack_words(r) for r in results["rows"] if r.get("settings"))
    css = (room / "page.css").read_text(encoding="utf-8")
    page = template.render(
        css=css,
        r=results,
        parts=parts,
        runs=runs,
        caution=CAUTION,
        made_by=run_line.line(results),
        guessing=guessing(results),
        masked=masked(results),
        checks=results.get("checks", ()),
        missing=missing,
        attacks=list(attacks),
        options=_options,
        braces=any("{data}" in d["spec"] for d in results["data"]),
    )
    return "<!DOCTYPE html>\n" + page.lstrip()


def _options(model: Mapping[str, Any]) -> str:
    """How a model was trained, as the study file says it; options that it leaves out have their defaults."""
    given = {**model["options"], **({"weights": model["weights"]} if model["weights"] else {})}
    return ", ".join(f"{k} {v}" for k, v in given.items())


def masked(results: Mapping[str, Any]) -> list[str]:
    """The classifiers whose gradient failed its check, each with the numbers; of runs before there was one none."""
    return [
        f"{c['model']} on {c['data']}: failed: “{c['name']}” ({c['detail']})"
        for c in results.get("checks", ())
        if c["passed"] is False and c["decisive"]
    ]


def guessing(results: Mapping[str, Any]) -> list[str]:
    """The classifiers that are no better than guessing, each with its numbers."""
    found = {
        f"{row.get('model')} on {row.get('data')}: {note}": None
        for row in results["rows"]
        if "no better than guessing" in (note := str(row.get("note") or ""))
    }
    return list(found)
