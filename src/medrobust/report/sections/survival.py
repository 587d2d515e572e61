"""What saving, compression, resizing and a screenshot leave of an attack, plain and optimised through them."""

from __future__ import annotations

from medrobust.report.comparison import Relation, Share, in_words, relation
from medrobust.report.findings import Findings
from medrobust.report.section import Content
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table, TableCell, n_text, share
from medrobust.report.words import NOTHING, listing
from medrobust.results import Kind, Row, among, find

ANCHOR, TITLE, ORDER, NEEDS = "survival", "What survives on the way", 91, ("stored",)
FOLDED = True
NONE = "none"
COLUMNS = {"plain": "Attack", "optimised": "Optimised through it", "noise": "Random noise"}


def build(f: Findings) -> Content | None:
    rows = list(among(f.run.rows, kind=Kind.SURVIVAL, metric="success"))
    names = list(dict.fromkeys(str(r.get("transformation")) for r in rows))
    if not names:
        return None
    table = _table(f, rows, names)
    return Content({"sentences": _sentences(rows, names), "table_": table}, [table])


def _row(rows: list[Row], name: str, made: str) -> Row | None:
    return find(rows, transformation=name, made=made)


def _sentences(rows: list[Row], names: list[str]) -> list[str]:
    """Which transformations undo a plain attack, and whether one that was optimised through them survives those."""
    whole = Share.of(_row(rows, NONE, "plain"))
    if whole is None or not whole.hits:
        return ["The attack turned no image at this size, so that nothing could survive."]
    undone, back = [], []
    for name in names:
        plain, optimised = (Share.of(_row(rows, name, made)) for made in ("plain", "optimised"))
        if name != NONE and plain is not None and relation(plain, whole) is Relation.BELOW:
            undone.append(f"“{name}”")
            if optimised is not None and relation(optimised, plain) is Relation.ABOVE:
                back.append(f"“{name}”")
    out = [f"Before any of them the attack turns {in_words(whole)}."]
    out.append(
        f"Fewer are left after {listing(undone)}."
        if undone
        else f"After none of them is it shown to turn fewer ({n_text(rows)})."
    )
    if undone:
        out.append(
            f"An attack that knows of it turns more again after {listing(back)}."
            if back
            else "An attack that knows of it is not shown to turn more again, where that was tried."
        )
    return out


def _table(f: Findings, rows: list[Row], names: list[str]) -> Table:
    body = []
    for name in names:
        itself = find(f.run.rows, kind=Kind.SURVIVAL, metric="changed_by_itself", transformation=name)
        cells = [share(_row(rows, name, made)) for made in COLUMNS]
        body.append(
            [TableCell(name if name != NONE else "None"), share(itself) if itself else TableCell(NOTHING), *cells]
        )
    caption = (
        f"Images turned after each transformation, at {short_size(f, rows[0].eps)}: of those read correctly before and "
    )
    caption += (
        f"after it without an attack ({n_text(rows)}), with 95 % intervals. Changed by itself: decisions that the "
    )
    caption += "transformation changes without an attack."
    head = ["Transformation", "Changed by itself", *COLUMNS.values()]
    return Table(caption, [TableCell(t) for t in head], body, "tab:survival")
