"""report.html: the summary, then every section of the list; everything inline."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from medrobust.report import section
from medrobust.report.examples import examples, lead
from medrobust.report.findings import Findings, doubts_together
from medrobust.report.first_page import first_page, heading
from medrobust.report.section import Built


def html(f: Findings, sections: list[Built]) -> str:
    """The whole page. Same findings, same bytes."""
    values = {"f": f, "run": f.run, "c": f.run.conditions, "doubts": doubts_together(f)}
    parts = [{"anchor": s.anchor, "title": s.title, "html": s.html(values)} for s in sections]
    contents = [("summary", "Summary"), *((s.anchor, s.title) for s in sections)]
    first = {"page": first_page(f), "heading": heading(f), "lead": lead(f, examples(f))}
    return rendered("page.html", contents=contents, sections=parts, **first, **values)


def rendered(template: str, **values: Any) -> str:
    """A page of this room: the template after the macros that all of them share, the style inline."""
    room = files("medrobust.report")
    css = (room / "page.css").read_text(encoding="utf-8")
    text = (room / template).read_text(encoding="utf-8")
    return "<!DOCTYPE html>\n" + section.rendered(text, {"css": css, **values}).lstrip()
