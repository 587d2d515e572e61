"""Without gradients: what an attacker reaches who sees only a model's answers, in sentences and a table."""

from __future__ import annotations

from dataclasses import dataclass

from medrobust.report.findings import Findings
from medrobust.report.run import Row
from medrobust.report.sizes import short_size
from medrobust.report.tables import Cell, Table, share
from medrobust.report.words import NBSP, NOTHING, count, listing, of_hundred, with_interval

METRIC = "success_at:"


@dataclass(frozen=True)
class Section:
    """What the page shows of it."""

    sentences: list[str]
    table: Table
    doubt: str = ""
    """Why some of its numbers are inconclusive."""


def section(f: Findings) -> Section | None:
    """None where the run did not ask for it, or comes from a version that could not."""
    found = _found(f)
    probes = [a for a in found if a not in f.run.controls]
    if not probes:
        return None
    notes = [r.note for a in probes for r in found[a] if not r.ok and r.note]
    return Section(_sentences(f, found, probes), _table(f, found), listing(list(dict.fromkeys(notes))))


def _found(f: Findings) -> dict[str, list[Row]]:
    """attack -> its rows, by growing number of queries."""
    found: dict[str, list[Row]] = {}
    for r in f.run.rows:
        if r.metric.startswith(METRIC):
            found.setdefault(r.attack, []).append(r)
    return {a: sorted(rows, key=queries) for a, rows in found.items()}


def queries(r: Row) -> int:
    """How many questions an image the row allows."""
    return int(r.metric.removeprefix(METRIC))


def _sentences(f: Findings, found: dict[str, list[Row]], probes: list[str]) -> list[str]:
    last = [found[a][-1] for a in probes]
    best = max(last, key=lambda r: -1.0 if r.value is None else r.value)
    eps, asked = best.eps, queries(best)
    if best.value is None:
        return ["No image was read correctly before, so that none could be turned."]
    n = f"n{NBSP}={NBSP}{count(best.n)}"
    text = f"Asked {count(asked)} times about an image, and told only its scores, {f.run.title(best.attack)} turns "
    text += f"{of_hundred(best.value)} of 100 correctly read images with changes of at most {short_size(f, eps)} "
    text += f"({with_interval(best)}, {n})."
    white = next((r for r in f.run.rows if r.metric == "success_probed"), None)
    if white is not None and white.value is not None:
        text += f" Whoever holds the model itself turns {of_hundred(white.value)} of 100 of the same images "
        text += f"({f.run.title(white.attack)}, {with_interval(white)})."
    out = [text, _meaning(best, white)]
    chance = next((found[a][-1] for a in found if a in f.run.controls), None)
    if chance is not None and chance.value is not None:
        out.append(
            f"Random changes of the same size, {count(queries(chance))} of them an image, turn "
            f"{of_hundred(chance.value)} of 100 ({with_interval(chance)})."
        )
    return out


def _meaning(best: Row, white: Row | None) -> str:
    """What it means for a model behind an interface."""
    assert best.value is not None
    if not best.ok:
        return "No answer differed from that to the untouched image: this proves nothing, either way."
    gap = white is not None and white.value is not None and white.value - best.value >= 0.10
    if best.value < 0.05:
        text = "A model of which nothing but its scores can be had is much harder to fool at this size with so few "
        text += "questions. "
    elif gap:
        text = "Keeping the model secret makes the attack dearer, not impossible. "
    else:
        text = "Keeping the model secret is no protection: its scores are enough. "
    return text + (
        "More questions find more, and a model that leaves the house with its product is no secret. Not tested: a copy "
        "trained to imitate the answers, an interface that gives the decision without scores, or one that counts how "
        "often nearly the same image is asked about."
    )


def _table(f: Findings, found: dict[str, list[Row]]) -> Table:
    counts = sorted({queries(r) for rows in found.values() for r in rows})
    body = []
    for attack, rows in found.items():
        by = {queries(r): r for r in rows}
        cells = [share(by[c]) if c in by else Cell(NOTHING) for c in counts]
        body.append([Cell(f.run.title(attack)), *cells])
    any_row = next(iter(found.values()))[0]
    caption = f"Share of correctly read images turned within so many questions, at {short_size(f, any_row.eps)} "
    caption += f"(n = {count(any_row.n)} images), with 95 % intervals. Noise is the control: random changes."
    head = ["Attack", *(f"{count(c)} questions" for c in counts)]
    return Table(caption, [Cell(t) for t in head], body, "tab:queries")
