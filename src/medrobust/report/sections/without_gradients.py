"""Without gradients: what an attacker reaches who sees only a model's answers, in sentences and a table."""

from __future__ import annotations

from dataclasses import dataclass

from medrobust.report import black_box_words as words
from medrobust.report.comparison import Share, said
from medrobust.report.findings import Findings
from medrobust.report.section import Content
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table, TableCell, share
from medrobust.report.words import NOTHING, count, listing
from medrobust.results import Kind, Row, find

ANCHOR, TITLE, ORDER, NEEDS = "without", "Without gradients", 60, ("blackbox",)


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
    text = f"Asked {count(count_)} times about an image, and told only its scores, {f.run.title(best.attack)} turns "
    text += f"{said(turned, 'correctly read images')} with changes of at most {short_size(f, eps)}."
    white = Share.of(find(f.run.rows, kind=Kind.ATTACK, metric="success_probed"))
    random = Share.of(next((by_attack[a][-1] for a in by_attack if a in f.run.controls), None))
    shares = words.FromOutside(turned, white, random)
    return [f"{text} {words.compared(shares)}", words.meaning(shares)]


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
