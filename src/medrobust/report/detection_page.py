"""The first page of `medrobust detect` and `medrobust evade`: the detector that was named first, in sentences."""

from __future__ import annotations

from medrobust.report.check_lines import counted
from medrobust.report.findings import Findings
from medrobust.report.first_page import Fact, FirstPage
from medrobust.report.sections import detection
from medrobust.report.verdict import outputs_swapped
from medrobust.report.words import bounds, percent, plural


def first_page(f: Findings) -> FirstPage:
    """What was found, or why it says nothing."""
    page = outputs_swapped(f)
    if page is not None:
        return FirstPage(*page)
    if f.guessing:
        text = "A classifier that is no better than guessing has no decision that an attack could change."
        return FirstPage("The classifier does not beat guessing.", text, "warn", facts(f))
    content = detection.section(f)
    sentences = ["No detector was tried."] if content is None else content.sentences
    title = "Can the attack be detected?" if f.run.command == "detect" else "Can the detector be evaded?"
    doubt = "" if content is None or not content.doubt else f" Some numbers are inconclusive: {content.doubt}."
    return FirstPage(title, " ".join(sentences) + doubt, "warn" if doubt or f.decisive else "calm", facts(f))


def facts(f: Findings) -> list[Fact]:
    """Beside the sentences."""
    entries = []
    if f.clean is not None:
        every = ", every finding right" if f.several else ""
        images = f"{plural(f.clean.n, 'image')}, unattacked{every} {bounds(f.clean.low, f.clean.high)}".strip()
        entries.append(Fact("Accuracy before", percent(f.clean.value), images))
    if f.run.checks:
        counts = counted(f.run.checks)
        note = "sanity checks passed" + (f", {counts.failed} failed" if counts.failed else "")
        entries.append(Fact("Checks", f"{counts.passed} of {counts.asked}", note, counts.failed > 0))
    return entries
