"""report.html: the summary, then every section of the list; everything inline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from medrobust.report import criteria_words, section
from medrobust.report.examples import Picture, examples, lead
from medrobust.report.findings import Findings, doubts_together
from medrobust.report.first_page import FirstPage, first_page, heading
from medrobust.report.schema import RunInfo
from medrobust.report.section import Built
from medrobust.report.words import listing

READ_ON = {
    "missing": "what is missing",
    "compared-runs": "which runs, and how alike",
    "compared-sides": "which images changed sides",
    "searches": "every method",
    "attacked": "how easily evolved networks are fooled",
    "flips": "which errors",
    "findings": "which findings",
    "beyond": "markers, rotation, brightness",
    "survival": "JPEG, resizing, a screenshot",
    "without": "attackers without the network",
    "detection": "whether an alarm sees it",
    "saliency": "which pixels decide",
    "setup": "which images and attack were explained",
    "checks": "what each check means",
    "conditions": "data, network, software and their SHA-256",
    "limits": "what was not tested",
    "words": "what a word means",
    "compared-accuracy": "every size of the change",
    "compared-findings": "every finding",
    "compared-classes": "sensitivity and specificity",
}
"""What a reader of the first page asks next, by the anchor of the section that answers it."""


OF_RUN = ("conditions", "compared-runs")
"""Anchors of sections that state command, software and digests of a run."""


@dataclass(frozen=True)
class PageHead:
    """What stands above the summary and below the sections. kind: of the page. name, joint, subject: the title, such as
    "resnet18", "on", "chest"."""

    kind: str
    name: str
    joint: str
    subject: str
    synthetic: bool
    version: str
    run: RunInfo


def html(f: Findings, sections: Sequence[Built]) -> str:
    """The whole page of a run. Same findings, same bytes."""
    c = f.run.conditions
    name, subject = c.model or "The classifier", c.data or "the given data"
    if c.compared is not None:
        name = listing([run.name for run in c.compared.runs])
    head = PageHead(heading(f), name, "on", subject, c.synthetic, c.versions.get("medrobust", ""), f.run.run)
    values = {"f": f, "run": f.run, "c": c, "doubts": doubts_together(f)}
    return written(head, first_page(f), sections, values, lead(f, examples(f)), criteria_words.html(f.run.criteria))


def written(
    head: PageHead,
    page: FirstPage,
    sections: Sequence[Built],
    values: Mapping[str, object],
    lead: Picture | None = None,
    criteria: str = "",
) -> str:
    """The base page of every command. values: what all sections see. criteria: HTML of the acceptance criteria."""
    shown = [{"anchor": s.anchor, "title": s.title, "folded": s.folded, "html": s.html(values)} for s in sections]
    contents = [("summary", "Summary"), *((s.anchor, s.title) for s in sections)]
    room = files("medrobust.report")
    css = (room / "page.css").read_text(encoding="utf-8")
    text, script = ((room / name).read_text(encoding="utf-8") for name in ("page.html", "page.js"))
    shared = {"css": css, "script": script, "head": head, "page": page, "lead": lead, "contents": contents}
    shared["read_on"] = [(READ_ON[s.anchor], s.anchor, s.title) for s in sections if s.anchor in READ_ON and s.content]
    shared["of_run"] = next((s.title for s in sections if s.anchor in OF_RUN), "")
    shared |= {"criteria": criteria, "sections": shown, "folded": [s.title for s in sections if s.folded]}
    return "<!DOCTYPE html>\n" + section.rendered(text, shared).lstrip()
