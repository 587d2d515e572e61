"""The first page of `medrobust certify`: how much is proved at the size that tells most."""

from __future__ import annotations

from medrobust.report.findings import Findings
from medrobust.report.first_page import Fact, FirstPage
from medrobust.report.paragraph import Paragraph
from medrobust.report.sections import certified
from medrobust.report.sizes import short_size
from medrobust.report.words import NBSP, bounds, count, percent
from medrobust.results import Kind


def first_page(f: Findings) -> FirstPage:
    """What is proved and what attacks leave, in sentences, and the numbers at one size."""
    told = [Paragraph("At the size of the numbers above", *one) for one in certified.of_bounds(f)[:1]]
    told += [Paragraph("The largest size with half proved", *one) for one in certified.of_bounds(f)[1:]]
    told += [Paragraph("Smoothed", *one) for one in certified.of_smoothing(f)]
    facts = []
    for words, rows in certified.sides(f):
        if shown := certified.at_one_size(f, rows):
            row = shown[0]
            note = f"at {short_size(f, row.eps)} {bounds(row.low, row.high)}, n{NBSP}={NBSP}{count(row.n)}"
            facts.append(Fact(words, percent(row.value), note, not row.ok))
    clean = f.run.find(Kind.CLEAN, "accuracy")
    if clean is not None and clean.value is not None:
        note = f"without an attack {bounds(clean.low, clean.high)}, n{NBSP}={NBSP}{count(clean.n)}"
        facts.insert(0, Fact("Accuracy", percent(clean.value), note))
    if not told:
        return FirstPage("Nothing is proved yet", "The proofs are still to come.", "", facts)
    warns = f.guessing or any(one.warn for one in told)
    title = "What is proved, and what attacks leave"
    if f.guessing:
        title = "Not better than guessing: there is nothing to prove"
    return FirstPage(title, told[0].text, "warn" if warns else "calm", facts, told[1:])
