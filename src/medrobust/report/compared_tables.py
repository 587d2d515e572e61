"""The tables of a comparison, for the page and for LaTeX."""

from __future__ import annotations

from medrobust.report.compared import BEFORE, UNDER, ComparedAudits, p_text, points
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table, TableCell, eps_text, share, unit
from medrobust.report.words import NOTHING, count, listing, number, plain
from medrobust.results import Kind, Row

Pair = tuple[str, str]


def _head(*texts: str) -> list[TableCell]:
    return [TableCell(text) for text in texts]


def _difference(row: Row | None) -> TableCell:
    return TableCell(points(row), row is not None and not row.ok)


def _pairs(c: ComparedAudits) -> list[TableCell]:
    return _head(*(f"{second} less {first}" for first, second in c.shown_pairs))


def _rest(c: ComparedAudits) -> str:
    more = len(c.pairs) > len(c.shown_pairs)
    return f" Differences from {c.names[0]}; results.csv holds those of all pairs." if more else ""


def runs(c: ComparedAudits) -> Table:
    """A run a row."""
    rows = []
    for r in c.info.runs:
        many = len(c.f.run.conditions.classes) > 2 and c.f.run.conditions.head != "multilabel"
        each = () if r.threshold is None or many else r.threshold
        levels = [number(t) for t in ((each,) if isinstance(each, float) else each)]
        cells = [r.name, r.model, r.data, count(r.n_test), count(r.n_attacked), listing(levels) or NOTHING]
        rows.append(_head(*cells, r.id or NOTHING, r.finished or NOTHING))
    head = _head("Run", "Classifier", "Data", "Test images", "Attacked", "Threshold", "Run id", "Finished")
    text = f"The runs; compared are the {count(c.f.run.conditions.n_test)} test and "
    return Table(f"{text}{count(c.f.run.conditions.n_attacked)} attacked images that all have.", head, rows, "tab:runs")


def accuracy(c: ComparedAudits) -> list[Table | None]:
    """Every common size, a run and a pair a column."""
    n = c.f.run.conditions.n_attacked
    rows = []
    for eps in (0.0, *(row.eps for row in c.curve(c.names[0]) if row.eps)):
        name = "none" if not eps else eps_text(c.f, eps)
        if eps and abs(eps - c.info.reference) <= 1e-6 * eps:
            name += " (reference)"
        cells = [share(c.of_run(Kind.WORST, "accuracy", run, eps)) for run in c.names]
        pairs = [
            _difference(c.between("accuracy", p, UNDER, eps)) if eps else TableCell(NOTHING) for p in c.shown_pairs
        ]
        rows.append([TableCell(name), *cells, *pairs])
    test = c.f.run.conditions.n_test
    cells = [share(c.of_run(Kind.CLEAN, "accuracy", run)) for run in c.names]
    pairs = [_difference(c.between("accuracy", p, BEFORE)) for p in c.shown_pairs]
    rows.insert(0, [TableCell(f"none, all {count(test)} test images"), *cells, *pairs])
    caption = (
        f"Accuracy and paired differences in percentage points, with 95 % intervals ({count(n)} attacked images). "
    )
    caption += (
        f"Attacks that all runs share: {listing(c.info.attacks)}; for each image whichever needs least. Only the "
    )
    caption += (
        f"row of the reference is the primary comparison; the others are not adjusted for their number.{_rest(c)}"
    )
    return [Table(caption, [TableCell(unit(c.f)), *_head(*c.names), *_pairs(c)], rows, "tab:compared")]


def sides(c: ComparedAudits) -> Table:
    """A pair and a condition a row: how many images only one of the two reads correctly, and the test."""
    rows = []
    for pair in c.pairs:
        for when in (UNDER, BEFORE):
            d = c.difference(pair, when)
            at = f"under attack, {short_size(c.f, c.info.reference)}" if when == UNDER else "without an attack"
            alone = ((d.second, d.gained), (d.first, d.lost))
            counts = [
                TableCell(f"{name}: {count(round((r.value or 0.0) * r.n))}") for name, r in alone if r is not None
            ]
            test = p_text(d.p) + (" (adjusted)" if when == UNDER and len(c.pairs) > 1 else "")
            doubt = not d.row.ok
            row = [TableCell(f"{pair[1]} less {pair[0]}"), TableCell(at), TableCell(count(d.row.n)), *counts]
            rows.append([*row, _difference(d.row), TableCell(test, doubt), TableCell(d.verdict.value)])
    head = _head("Runs", "When", "Images", "Read correctly by one alone", "By the other alone", "Difference")
    caption = "How many images only one of two runs reads correctly, with McNemar's exact test"
    caption += " on patients" if c.info.by_patient else ""
    caption += (
        ". Under attack at the reference: primary, by Holm's method over the pairs. Without an attack: secondary."
    )
    return Table(caption, [*head, *_head("Test", "PointerReading")], rows, "tab:sides", headings=2)


def classes(c: ComparedAudits) -> list[Table | None]:
    """Sensitivity and specificity of each class or finding, without an attack; and under attack at the reference."""
    f, out = c.f, list[Table | None]()
    rows = []
    for name in f.run.conditions.classes:
        for metric in ("sensitivity", "specificity"):
            own = [c.of_run(Kind.CLEAN, metric, run, class_name=name) for run in c.names]
            if any(row is None for row in own):
                continue
            pairs = [_difference(c.between(metric, p, BEFORE, class_name=name)) for p in c.shown_pairs]
            n = count(own[0].n if own[0] else 0)
            rows.append([TableCell(name), TableCell(metric), TableCell(n), *map(share, own), *pairs])
    one = "Finding" if f.several else "Class"
    if rows:
        head = [*_head(one, "Measure", "n", *c.names), *_pairs(c)]
        caption = "Without an attack, on the common test images, with 95 % intervals; secondary, not adjusted."
        out.append(Table(caption + _rest(c), head, rows, "tab:compared-clean", headings=2))
    rows = []
    for name in f.run.conditions.classes:
        at = c.info.reference
        own = [c.of_run(Kind.WORST, "sensitivity", run, at, class_name=name) for run in c.names]
        if any(row is None for row in own):
            continue
        pairs = [_difference(c.between("sensitivity", p, UNDER, at, class_name=name)) for p in c.shown_pairs]
        rows.append([TableCell(name), TableCell(count(own[0].n if own[0] else 0)), *map(share, own), *pairs])
    if rows:
        head = [*_head(one, "n", *c.names), *_pairs(c)]
        caption = (
            f"Sensitivity under attack at {short_size(f, c.info.reference)}: of the images of a class, the share that "
        )
        caption += "is still read as it; secondary, not adjusted."
        out.append(Table(caption + _rest(c), head, rows, "tab:compared-attacked"))
    return out


def others(c: ComparedAudits) -> Table | None:
    """What is not known image by image, as each run has it."""
    f = c.f
    rows = [
        [TableCell(f"Smallest change that fools half, median of images read correctly, {unit(f)}"), *_medians(c)],
        [TableCell(f"Tested size at which the accuracy has halved, {unit(f)}"), *_halved(c)],
    ]
    noise = [c.of_run(Kind.CONTROL, "accuracy", run, c.info.reference) for run in c.names]
    if all(row is not None for row in noise):
        name = f"Accuracy under random noise of {short_size(f, c.info.reference)}"
        rows.append([TableCell(name), *(_with_n(share(row), row) for row in noise)])
    for by_run in c.copied(Kind.UNIVERSAL, "fooling_rate").values():
        first = by_run[c.names[0]]
        if first.get("class_name") is None:
            target = f" to {first.get('target')}" if first.get("target") is not None else ""
            name = f"One change for every image, {short_size(f, first.eps)}{target}: images that get another answer"
            rows.append([TableCell(name), *(_with_n(share(by_run[run]), by_run[run]) for run in c.names)])
    for by_run in c.copied(Kind.DETECTOR, "auroc").values():
        first = by_run[c.names[0]]
        columns = [str(v) for k, v in first.more.items() if k in ("detector", "protocol", "layer")]
        name = f"AUROC of a detector of {first.attack.upper()} at {short_size(f, first.eps)}: {', '.join(columns)}"
        cells = [TableCell(plain(by_run[run]), not by_run[run].ok) for run in c.names]
        rows.append([TableCell(name), *(_with_n(cell, by_run[run]) for cell, run in zip(cells, c.names, strict=True))])
    caption = (
        "Further measures of each run, with 95 % intervals and n. The median and the halved size are those of the "
    )
    caption += "common attacked images; all else is what each run measured on its own."
    return Table(caption, [TableCell("Measure"), *_head(*c.names)], rows, "tab:compared-more")


def _with_n(cell: TableCell, row: Row | None) -> TableCell:
    return TableCell(f"{cell.text}, n = {row.n}" if row is not None and row.n else cell.text, cell.doubt)


def _medians(c: ComparedAudits) -> list[TableCell]:
    cells = []
    for name in c.names:
        row = c.of_run(Kind.WORST, "min_eps_median", name)
        if row is None or not row.n:
            cells.append(TableCell(NOTHING))
            continue
        value = "above the grid" if row.value is None else eps_text(c.f, row.value)
        low = "" if row.low is None else eps_text(c.f, row.low)
        high = "∞" if row.high is None else eps_text(c.f, row.high)
        interval = f" ({low}–{high})" if low and row.value is not None else ""
        cells.append(TableCell(f"{value}{interval}, n = {row.n}", not row.ok))
    return cells


def _halved(c: ComparedAudits) -> list[TableCell]:
    cells = []
    for name in c.names:
        row = c.of_run(Kind.WORST, "halved_at", name)
        value = None if row is None else row.value
        text = "not reached" if value is None else eps_text(c.f, value)
        cells.append(TableCell(text, row is not None and not row.ok))
    return cells
