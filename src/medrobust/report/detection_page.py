"""The first page of `medrobust detect` and `medrobust evade`: the detector that was named first, in sentences."""

from __future__ import annotations

from medrobust.report.findings import Findings
from medrobust.report.first_page import FirstPage, checks_fact, clean_fact
from medrobust.report.sections import detection
from medrobust.report.verdict import outputs_swapped


def first_page(f: Findings) -> FirstPage:
    """What was found, or why it says nothing."""
    page = outputs_swapped(f)
    if page is not None:
        return FirstPage(*page)
    facts = [*clean_fact(f), *checks_fact(f)]
    if f.guessing:
        text = "A classifier that is no better than guessing has no decision that an attack could change."
        return FirstPage("The classifier does not beat guessing.", text, "warn", facts)
    content = detection.section(f)
    sentences = ["No detector was tried."] if content is None else content.sentences
    title = "Can the attack be detected?" if f.run.command == "detect" else "Can the detector be evaded?"
    doubt = "" if content is None or not content.doubt else f" Some numbers are inconclusive: {content.doubt}."
    return FirstPage(title, " ".join(sentences) + doubt, "warn" if doubt or f.decisive else "", facts)
