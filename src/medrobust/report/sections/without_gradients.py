"""Without gradients: what an attacker reaches who sees only a model's answers, in sentences and a table."""

from __future__ import annotations

from dataclasses import dataclass, replace

from medrobust.report import black_box_words as words
from medrobust.report.comparison import Share, in_words
from medrobust.report.findings import Findings
from medrobust.report.section import Content
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table, TableCell, share
from medrobust.report.words import NOTHING, count, listing, plain
from medrobust.results import Kind, Row, find

MEDIANS = {"median_l2": ("in L2 (pixels from 0 to 1)", 1.0), "median_linf": ("grey levels a pixel", None)}
"""Metric: the words for its unit, and how many of them are 1; None: as many as grey levels are stored."""

ANCHOR, TITLE, ORDER, NEEDS = "without", "Without gradients", 60, ("blackbox",)
FOLDED = True


@dataclass(frozen=True)
class BlackBoxSection:
    """What the page shows of it."""

    sentences: list[str]
    table: Table
    doubt: str = ""
    """Why some of its numbers are inconclusive."""


def build(f: Findings) -> Content | None:
    content = section(f)
    return None if content is None else Content({"content": content}, [content.table])


def section(f: Findings) -> BlackBoxSection | None:
    """None where the run did not ask for it, or comes from a version that could not."""
    by_attack = _by_attack(f)
    probes = [a for a in by_attack if a not in f.run.controls]
    if not probes:
        return None
    notes = [r.note for a in probes for r in by_attack[a] if not r.ok and r.note]
    return BlackBoxSection(_sentences(f, by_attack, probes), _table(f, by_attack), listing(list(dict.fromkeys(notes))))


def _by_attack(f: Findings) -> dict[str, list[Row]]:
    """attack -> its rows, by growing number of queries."""
    by_attack: dict[str, list[Row]] = {}
    for r in f.run.black_box:
        by_attack.setdefault(r.attack, []).append(r)
    return {a: sorted(rows, key=queries) for a, rows in by_attack.items()}


def queries(r: Row) -> int:
    """How many questions an image the row allows."""
    return int(r.get("queries", 0))


def _sentences(f: Findings, by_attack: dict[str, list[Row]], probes: list[str]) -> list[str]:
    last = [by_attack[a][-1] for a in probes]
    best = max(last, key=lambda r: -1.0 if r.value is None else r.value)
    eps, count_ = best.eps, queries(best)
    if best.value is None:
        return ["No image was read correctly before, so that none could be turned."]
    turned = Share.of(best)
    if turned is None:
        return []
    medians = [r for r in f.run.rows if r.kind == Kind.BLACK_BOX and r.metric in MEDIANS and r.value is not None]
    decided = bool(medians)
    text = f"Asked {count(count_)} times about an image, and told only its {'decision' if decided else 'scores'}, "
    text += f"{f.run.title(best.attack)} turns "
    text += f"{in_words(turned, 'correctly read images')} with changes of at most {short_size(f, eps)}."
    white = Share.of(find(f.run.rows, kind=Kind.ATTACK, metric="success_probed"))
    random = Share.of(next((by_attack[a][-1] for a in by_attack if a in f.run.controls), None))
    shares = words.FromOutside(turned, white, random, "decisions" if decided else "scores")
    return [f"{text} {words.compared(shares)}", *(_distance(f, r) for r in medians), words.meaning(shares)]


def _distance(f: Findings, r: Row) -> str:
    """How far decisions alone lead, in a sentence."""
    unit, scale = MEDIANS[r.metric]
    scale = scale or f.run.conditions.grey_scale.unit
    value, low, high = (None if v is None else v * scale for v in (r.value, r.low, r.high))
    length = plain(replace(r, value=value, low=low, high=high))
    text = f"From decisions alone, {f.run.title(r.attack)} needs a change of {length} {unit} for half of the "
    return f"{text}correctly read images after {count(queries(r))} questions each."


def _table(f: Findings, by_attack: dict[str, list[Row]]) -> Table:
    counts = sorted({queries(r) for rows in by_attack.values() for r in rows})
    body = []
    for attack, rows in by_attack.items():
        by = {queries(r): r for r in rows}
        cells = [share(by[c]) if c in by else TableCell(NOTHING) for c in counts]
        body.append([TableCell(f.run.title(attack)), *cells])
    any_row = next(iter(by_attack.values()))[0]
    caption = f"Share of correctly read images turned within so many questions, at {short_size(f, any_row.eps)} "
    caption += f"(n = {count(any_row.n)} images), with 95 % intervals. Noise is the control: random changes."
    head = ["Attack", *(f"{count(c)} questions" for c in counts)]
    return Table(caption, [TableCell(t) for t in head], body, "tab:queries")
