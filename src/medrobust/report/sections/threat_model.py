"""Threat model: who was assumed to attack, with what, and what was not tested."""

from __future__ import annotations

from collections.abc import Iterable

from medrobust.crosswalk import NOT_LISTED, NotTested, Threat, crosswalk
from medrobust.report.findings import Findings
from medrobust.report.section import Content
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table, TableCell, eps_text
from medrobust.report.tested import Coverage, Tested, coverage
from medrobust.report.words import NOTHING, count, listing

ANCHOR, TITLE, ORDER = "threat", "Threat model: what was tested, and what was not", 122
COMMANDS = ("audit", "universal", "detect", "evade", "defend")
NO_TEST = "medrobust has no test for it"
NO_NETWORK = "it needs gradients or features, which this classifier does not give"


def build(f: Findings) -> Content:
    covered = coverage(f)
    parts = [t for t in (measured(f, covered), unmeasured(f, covered)) if t is not None]
    frameworks = "; ".join(f"{one.title} ({one.basis})" for one in crosswalk().frameworks.values())
    version = f"version {crosswalk().version}, {crosswalk().date}"
    return Content({"parts": parts, "frameworks": frameworks, "version": version}, parts)


def measured(f: Findings, covered: Coverage) -> Table | None:
    """One kind of attack or defence a row; None where nothing was tested."""
    head = ("Tested in this run", "Goal", "Attacker knows and has", "Attacker may", "Identifiers and risk")
    body = [[TableCell(text, doubt) for text, doubt in _cells(f, one)] for one in covered.measured.values()]
    caption = "What this run tested, in the terms of NIST AI 100-2, MITRE ATLAS and the FDA's draft guidance. "
    caption += "n: images; of attacks in doubt the numbers prove no strength."
    widths = (0.24, 0.15, 0.2, 0.2, 0.16)
    return Table(caption, [TableCell(t) for t in head], body, "tab:threat", widths) if body else None


def unmeasured(f: Findings, covered: Coverage) -> Table:
    """Everything that is known to the crosswalk and was not tested: never empty."""
    head = ("Not tested in this run", "Why", "Identifiers and risk")
    body = [(threat.title, _why(f, threat), identifiers(threat)) for threat in covered.unused.values()]
    body += [(kind.title, NO_TEST, identifiers(kind)) for kind in covered.never]
    cells = [[TableCell(name), TableCell(f"not tested: {why}"), TableCell(risk)] for name, why, risk in body]
    caption = "What this run did not test. Nothing on this page says anything about it."
    return Table(caption, [TableCell(t) for t in head], cells, "tab:untested", (0.32, 0.36, 0.28))


def identifiers(kind: Threat | NotTested) -> str:
    """ "NISTAML.022; AML.T0043.000; FDA: model evasion"."""
    fda = "" if kind.fda == NOTHING else f"FDA: {kind.fda}"
    return "; ".join([*kind.nist, *kind.atlas, *filter(None, [fda])]) or "none"


def _why(f: Findings, threat: Threat) -> str:
    if f.run.conditions.pending:
        return "this run is not finished"
    if f.run.conditions.answers is not None and threat.needs_network:
        return NO_NETWORK
    return f"measured by {threat.command}"


def _cells(f: Findings, one: Tested) -> Iterable[tuple[str, bool]]:
    doubtful = [title for title, ok in one.ok.items() if not ok]
    what = listing(list(one.ok))
    counts = f"n = {count(min(one.n))}" + (f"–{count(max(one.n))}" if len(one.n) > 1 else "")
    counts += f"; at most {count(one.queries)} queries an image" if one.queries else ""
    counts += f"; inconclusive: {listing(doubtful)}" if doubtful and one.believed else ""
    threat = one.threat
    if threat is None:
        return ((f"{what}; {counts}", not one.believed), *(((NOT_LISTED, False),) * 4))
    who = ": ".join(t for t in (threat.knowledge, threat.access) if t != NOTHING) or NOTHING
    return (
        (f"{threat.title}: {what}; {counts}", not one.believed),
        (threat.goal, False),
        (who, False),
        (f"{threat.capability}{_sizes(f, one)}", False),
        (identifiers(threat), False),
    )


def _sizes(f: Findings, one: Tested) -> str:
    """ ": ε 0.1 to 10 grey levels"."""
    if not one.sizes:
        return ""
    low, high = min(one.sizes), max(one.sizes)
    span = short_size(f, high) if low == high else f"{eps_text(f, low)} to {short_size(f, high)}"
    return f" (ε {span}, {f.run.conditions.norm})"
