"""Both sides of the true accuracy: what is proved, and what attacks leave."""

from __future__ import annotations

from medrobust.report import charts
from medrobust.report.certified_words import BothSides, between, smoothed
from medrobust.report.comparison import Share
from medrobust.report.findings import Findings
from medrobust.report.run import same
from medrobust.report.section import Content
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table, TableCell, eps_text, n_text, share, unit
from medrobust.report.words import percent
from medrobust.results import Kind, Row, among

ANCHOR, TITLE, ORDER, NEEDS = "certified", "What is proved", 25, ("certified", "smoothed")
COMMANDS = ("audit", "certify")
SMOOTHED = "smoothing"


def build(f: Findings) -> Content | None:
    info = f.run.conditions.certified
    drawn = sides(f)
    if not proved(f) and not smooth(f):
        return None
    table = _table(f, drawn, [] if info is None else _rows(f, "undecided", info.method))
    alt = "Accuracy against ε with 95 % intervals: above what attacks leave, below what is proved. "
    alt += " ".join(f"{title}: {percent(rows[-1].value)} at {short_size(f, rows[-1].eps)}." for title, rows in drawn)
    values = {"info": info, "told": [*of_bounds(f), *of_smoothing(f)], "table_": table}
    return Content(values, [table], {"certified": charts.series(f, "certified", "accuracy", drawn, alt)})


def sides(f: Findings) -> list[tuple[str, list[Row]]]:
    """What attacks leave, what is proved, and what is proved of the smoothed classifier, each over the sizes."""
    info, attacked = f.run.conditions.certified, _attacked(f)
    every = [
        (f"Attacked ({f.run.title(f.strongest)})" if f.strongest else "", attacked),
        ("Proved" if info is None else f"Proved ({info.title})", proved(f)),
        ("Smoothed, proved", smooth(f)),
    ]
    return [(title, rows) for title, rows in every if rows]


def of_bounds(f: Findings) -> list[tuple[str, bool]]:
    """What bounds and attacks say of the first page's size, then of the largest at which half is proved; whether each
    is a warning."""
    attacked = _attacked(f)
    return [between(_sides(row, attacked), short_size(f, row.eps)) for row in _told(f, proved(f))]


def proved(f: Findings) -> list[Row]:
    """Of bounds, by size."""
    info = f.run.conditions.certified
    return [] if info is None else _rows(f, "accuracy", info.method)


def smooth(f: Findings) -> list[Row]:
    """Of the smoothed classifier, by size."""
    return _rows(f, "accuracy", SMOOTHED)


def at_one_size(f: Findings, rows: list[Row]) -> list[Row]:
    """The row at the size of the first page, or else that at the smallest size."""
    return [r for r in rows if f.reference is not None and same(r.eps, f.reference)] or rows[:1]


def _attacked(f: Findings) -> list[Row]:
    return f.run.curve(f.strongest) if f.strongest else []


def _rows(f: Findings, metric: str, bound: str) -> list[Row]:
    rows = among(f.run.rows, kind=Kind.CERTIFIED, metric=metric, bound=bound, class_name=None)
    return sorted((r for r in rows if r.eps > 0), key=lambda r: r.eps)


def _sides(row: Row, attacked: list[Row]) -> BothSides:
    here = next((r for r in attacked if same(r.eps, row.eps)), None)
    low = Share.of(row)
    assert low is not None
    return BothSides(low, Share.of(here))


def _told(f: Findings, rows: list[Row]) -> list[Row]:
    """The size of the first page, and the largest at which half of what is read correctly is proved."""
    at = at_one_size(f, rows)
    clean = f.clean.value if f.clean is not None else 1.0
    half = [r for r in rows if r.value is not None and r.value >= clean / 2]
    return at if not half or same(half[-1].eps, at[0].eps) else [*at, half[-1]]


def of_smoothing(f: Findings) -> list[tuple[str, bool]]:
    """The same of the smoothed classifier, in one paragraph at most."""
    info, run = f.run.conditions.smoothed, f.run
    clean, abstained = (
        Share.of(run.find(Kind.CERTIFIED, metric, eps=0.0, bound=SMOOTHED)) for metric in ("accuracy", "abstained")
    )
    told = [(share_, short_size(f, row.eps)) for row in _told(f, smooth(f)) if (share_ := Share.of(row)) is not None]
    if info is None or clean is None or abstained is None or not told:
        return []
    return [smoothed(clean, abstained, told, info.sigma, info.draws)]


def _table(f: Findings, drawn: list[tuple[str, list[Row]]], undecided: list[Row]) -> Table:
    columns = [*drawn, *([("Neither", undecided)] if undecided else [])]
    sizes = sorted({r.eps for _, rows in columns for r in rows})
    body = [
        [TableCell(eps_text(f, e)), *(share(next((r for r in rows if same(r.eps, e)), None)) for _, rows in columns)]
        for e in sizes
    ]
    every = [row for _, rows in columns for row in rows]
    caption = f"Accuracy that attacks leave and that is proved ({n_text(every)}), with 95 % intervals."
    caption += " Neither: images that are neither proved nor turned." if undecided else ""
    head = [TableCell(t) for t in (unit(f), *(title for title, _ in columns))]
    return Table(caption, head, body, "tab:certified")
