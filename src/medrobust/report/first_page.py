"""The first page of a run: what it says above its sections, by the command that made the run."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from medrobust.report.advice_words import Advice
from medrobust.report.check_lines import counted
from medrobust.report.findings import Findings
from medrobust.report.paragraph import Paragraph
from medrobust.report.tables import Table
from medrobust.report.words import bounds, listing, percent, plural

BUILT_BY = {
    "audit": ("Robustness audit", "medrobust.report.plain:first_page"),
    "harden": ("Adversarial training", "medrobust.report.sections.hardening:first_page"),
    "input-defences": ("Defences at input and output", "medrobust.report.sections.input_defences:first_page"),
    "defend": ("Defence by training", "medrobust.report.sections.defence:first_page"),
    "universal": ("One change for every image", "medrobust.report.sections.universal:first_page"),
    "certify": ("Proofs beside attacks", "medrobust.report.certified_page:first_page"),
    "detect": ("Detection of attacks", "medrobust.report.detection_page:first_page"),
    "evade": ("Evasion of detectors", "medrobust.report.detection_page:first_page"),
    "explain": ("Explanations", "medrobust.report.explanation:first_page"),
    "search": ("Search against gradients", "medrobust.report.search_page:first_page"),
    "compare": ("Comparison of audits", "medrobust.report.compared_page:first_page"),
}
"""By command, the heading of its page and the function of Findings that makes its FirstPage."""


TO_COME = {
    "clean": "performance before attacks",
    "robustness": "attacks at every size",
    "sanity": "sanity checks of the attacks",
    "blackbox": "attacks without gradients",
    "headline": "all attacks together at one size",
    "findings": "attacks on each finding",
    "corruptions": "natural corruptions",
    "changes": "larger changes such as patches and rotation",
    "certified": "certified bounds",
    "smoothed": "randomized smoothing",
    "stored": "changes that a file can hold",
    "universal": "one change for every image",
    "detection": "detectors of attacks",
    "guards": "guards",
    "evasion": "attacks that evade detectors",
    "pairs": "attacked images",
    "explanation": "explanations",
    "defence": "the defence",
    "hardening": "adversarial training",
    "input_defences": "defences at the input",
    "networks": "trained networks",
    "networks under attack": "attacks on the trained networks",
}
"""By experiment, what it finds out."""


@dataclass(frozen=True)
class Fact:
    label: str
    value: str
    note: str
    warn: bool = False


@dataclass(frozen=True)
class FirstPage:
    title: str
    text: str
    tone: str
    """ "bad", "warn" or "calm": the colour of the verdict's edge, never its only sign; empty: no verdict."""
    facts: list[Fact] = field(default_factory=list)
    paragraphs: list[Paragraph] = field(default_factory=list)
    banners: list[tuple[str, str]] = field(default_factory=list)
    """(what, why) of warnings that stand above everything else."""
    tables: list[Table] = field(default_factory=list)
    """What it means for patients, below ``meaning``."""
    meaning: str = ""
    advice: list[Advice] = field(default_factory=list)
    """What to do next."""
    advice_note: str = ""


def clean_fact(f: Findings) -> list[Fact]:
    """Accuracy before an attack, where it was measured."""
    if f.clean is None:
        return []
    every = ", every finding right" if f.several else ""
    note = f"{plural(f.clean.n, 'image')}, unattacked{every} {bounds(f.clean.low, f.clean.high)}".strip()
    return [Fact("Accuracy before", percent(f.clean.value), note)]


def checks_fact(f: Findings) -> list[Fact]:
    """How many sanity checks passed, where there were any."""
    if not f.run.checks:
        return []
    counts = counted(f.run.checks)
    note = "all sanity checks passed" if counts.passed == counts.asked else "sanity checks passed"
    note += f", {counts.failed} failed" if counts.failed else ""
    if f.run.conditions.pending:
        note = "of those asked so far" + (f"; {counts.failed} failed" if counts.failed else "")
    return [Fact("Checks", f"{counts.passed} of {counts.asked}", note, counts.failed > 0)]


def heading(f: Findings) -> str:
    """ "Robustness audit"."""
    return BUILT_BY[f.run.command][0]


def first_page(f: Findings) -> FirstPage:
    """That of the command which made the run."""
    module, _, function = BUILT_BY[f.run.command][1].partition(":")
    page: FirstPage = getattr(importlib.import_module(module), function)(f)
    pending = f.run.conditions.pending
    if not pending:
        return page
    why = f"Still to come: {to_come(pending)}. Load this page again later."
    if f.run.command == "audit" and f.strongest is not None:
        why += " Accuracy under attack is that of the attacks done so far: further ones can only lower it."
    return replace(page, banners=[("This run is not finished", why), *page.banners])


def to_come(pending: Sequence[str]) -> str:
    """What experiments of these names find out, as a list."""
    return listing([TO_COME.get(name, name) for name in pending if name != "not covered"])
