"""Threat model: who was assumed to attack, with what, and what was not tested."""

from __future__ import annotations

from collections.abc import Iterable

from medrobust.crosswalk import NOT_LISTED, NamedKind, ThreatKind, crosswalk
from medrobust.report.findings import Findings
from medrobust.report.section import ATTACK_COMMANDS, Content
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table, TableCell, eps_text
from medrobust.report.tested import Coverage, TestedKind, coverage
from medrobust.report.words import NBSP, NOTHING, count, listing

ANCHOR, TITLE, ORDER = "threat", "Threat model", 122
COMMANDS = ATTACK_COMMANDS
MOST = 8
"""Longer lists are counted instead of written out."""
NO_TEST = "medrobust has no test for it"
NO_NETWORK = "it needs gradients or features, which this classifier does not give"


def build(f: Findings) -> Content:
    covered = coverage(f)
    tables = [t for t in (measured(f, covered), unmeasured(f, covered)) if t is not None]
    values = {
        "tables": tables,
        "frameworks": "; ".join(
            f"{framework.title} ({framework.basis})" for framework in crosswalk().frameworks.values()
        ),
        "version": f"version {crosswalk().version}, {crosswalk().date}",
        "tested": [described(kind) for kind in covered.measured.values()],
        "unused": titles(covered.unused.values()),
        "never": titles(covered.never),
    }
    # what an audit did not test stands among its limits too, which are never folded
    return Content(values, tables, folded=f.run.command == "audit")


def untested(f: Findings) -> list[str]:
    """What was not tested, in two sentences."""
    covered = coverage(f)
    here = [f"Not tested in this run: {titles(covered.unused.values())}."] if covered.unused else []
    return [*here, f"Not tested by medrobust at all: {titles(covered.never)}."]


def titles(kinds: Iterable[NamedKind]) -> str:
    """ "Data poisoning; Backdoors"."""
    return "; ".join(kind.title for kind in kinds)


def described(kind: TestedKind) -> str:
    """ "Queries for scores (Square; n = 24, at most 80 queries an image)"."""
    doubtful = [title for title, ok in kind.ok.items() if not ok]
    counts = f"n{NBSP}={NBSP}{count(min(kind.n))}" + (f"–{count(max(kind.n))}" if len(kind.n) > 1 else "")
    counts += f", at most {count(kind.queries)} queries an image" if kind.queries else ""
    counts += f", inconclusive: {_names(doubtful)}" if doubtful else ""
    names = _names(list(kind.ok))
    return f"{names} ({counts})" if kind.threat is None else f"{kind.threat.title} ({names}; {counts})"


def _names(members: list[str]) -> str:
    """All of them, or how many there are."""
    return listing(members) if len(members) <= MOST else f"{count(len(members))} kinds"


def measured(f: Findings, covered: Coverage) -> Table | None:
    """One kind of attack or defence a row; None where nothing was tested."""
    head = ("Tested in this run", "Goal", "Attacker knows and has", "Attacker may", "Identifiers and risk")
    body = [_cells(f, kind) for kind in covered.measured.values()]
    caption = "What this run tested, in the terms of NIST AI 100-2, MITRE ATLAS and the FDA's draft guidance. "
    caption += "n: images; of attacks in doubt the numbers prove no strength."
    widths = (0.24, 0.15, 0.2, 0.2, 0.16)
    return Table(caption, [TableCell(t) for t in head], body, "tab:threat", widths) if body else None


def _cells(f: Findings, kind: TestedKind) -> list[TableCell]:
    threat, first = kind.threat, TableCell(described(kind), not kind.believed)
    if threat is None:
        return [first, *[TableCell(NOT_LISTED)] * 4]
    may = f"{threat.capability}{_sizes(f, kind)}"
    return [first, *(TableCell(text) for text in (threat.goal, threat.attacker, may, identifiers(threat)))]


def _sizes(f: Findings, kind: TestedKind) -> str:
    """ " (ε 0.1 to 10 grey levels, Linf)"."""
    if not kind.sizes:
        return ""
    low, high = min(kind.sizes), max(kind.sizes)
    span = short_size(f, high) if low == high else f"{eps_text(f, low)} to {short_size(f, high)}"
    return f" (ε {span}, {f.run.conditions.norm})"


def unmeasured(f: Findings, covered: Coverage) -> Table:
    """Everything that is known to the crosswalk and was not tested: never empty."""
    head = ("Not tested in this run", "Why", "Identifiers and risk")
    body = [(threat.title, _why(f, threat), identifiers(threat)) for threat in covered.unused.values()]
    body += [(kind.title, NO_TEST, identifiers(kind)) for kind in covered.never]
    cells = [[TableCell(name), TableCell(f"not tested: {why}"), TableCell(risk)] for name, why, risk in body]
    caption = "What this run did not test. Nothing on this page says anything about it."
    return Table(caption, [TableCell(t) for t in head], cells, "tab:untested", (0.32, 0.36, 0.28))


def identifiers(kind: NamedKind) -> str:
    """ "NISTAML.022; AML.T0043.000; FDA: model evasion"."""
    fda = [] if kind.fda == NOTHING else [f"FDA: {kind.fda}"]
    return "; ".join([*kind.identifiers, *fda]) or "none"


def _why(f: Findings, threat: ThreatKind) -> str:
    if f.run.conditions.pending:
        return "this run is not finished"
    if f.run.conditions.answers is not None and threat.needs_network:
        return NO_NETWORK
    return f"measured by {threat.command}"
