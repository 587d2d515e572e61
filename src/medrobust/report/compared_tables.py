"""The tables of a comparison, for the page and for LaTeX."""

from __future__ import annotations

from medrobust.report.compared import BEFORE, UNDER, ComparedAudits, p_text, points
from medrobust.report.finding_words import HIDE, INVENT
from medrobust.report.run import same
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table, TableCell, cells, eps_text, share, unit
from medrobust.report.words import NOTHING, count, listing, number, plain
from medrobust.results import Kind, Row

Pair = tuple[str, str]
GOALS = {HIDE: "hide it", INVENT: "invent it"}


def _difference(row: Row | None) -> TableCell:
    return TableCell(points(row), row is not None and not row.ok)


def _pairs(c: ComparedAudits) -> list[TableCell]:
    return cells(*(f"{second} less {first}" for first, second in c.shown_pairs))


def _rest(c: ComparedAudits) -> str:
    more = len(c.pairs) > len(c.shown_pairs)
    return f" Differences from {c.names[0]}; results.csv holds those of all pairs." if more else ""


def runs(c: ComparedAudits) -> Table:
    """A run a row."""
    rows = []
    for r in c.info.runs:
        unused = len(c.f.run.conditions.classes) > 2 and not c.f.several
        thresholds = () if r.threshold is None or unused else r.threshold
        levels = [number(t) for t in ((thresholds,) if isinstance(thresholds, float) else thresholds)]
        texts = [r.name, r.model, r.data, count(r.n_test), count(r.n_attacked), listing(levels) or NOTHING]
        rows.append(cells(*texts, r.id or NOTHING, r.finished or NOTHING))
    head = cells("Run", "Classifier", "Data", "Test images", "Attacked", "Threshold", "Run id", "Finished")
    caption = f"The runs; compared are the {count(c.f.run.conditions.n_test)} test and "
    caption += f"{count(c.f.run.conditions.n_attacked)} attacked images that all have."
    return Table(caption, head, rows, "tab:runs")


def accuracy(c: ComparedAudits) -> Table:
    """Every common size, a run and a pair a column."""
    n, test = c.f.run.conditions.n_attacked, c.f.run.conditions.n_test
    clean = [share(c.of_run(Kind.CLEAN, "accuracy", run)) for run in c.names]
    changes = [_difference(c.between("accuracy", pair)) for pair in c.shown_pairs]
    rows = [[TableCell(f"none, all {count(test)} test images"), *clean, *changes]]
    for eps in (0.0, *(row.eps for row in c.curve(c.names[0]) if row.eps)):
        name = eps_text(c.f, eps) if eps else f"none, the {count(n)} attacked images"
        name += " (reference)" if same(eps, c.info.reference) else ""
        held = [share(c.of_run(Kind.WORST, "accuracy", run, eps)) for run in c.names]
        changes = [
            _difference(c.between("accuracy", pair, eps)) if eps else TableCell(NOTHING) for pair in c.shown_pairs
        ]
        rows.append([TableCell(name), *held, *changes])
    caption = (
        f"Accuracy and paired differences in percentage points, with 95 % intervals ({count(n)} attacked images). "
    )
    caption += (
        f"Attacks that all runs share: {listing(c.info.attacks)}; for each image whichever needs least. Only the "
    )
    caption += (
        f"row of the reference is the primary comparison; the others are not adjusted for their number.{_rest(c)}"
    )
    return Table(caption, [*cells(unit(c.f), *c.names), *_pairs(c)], rows, "tab:compared")


def sides(c: ComparedAudits) -> Table:
    """A pair and a condition a row: how many images only one of the two reads correctly, and the test."""
    rows = []
    for pair in c.pairs:
        for when in (UNDER, BEFORE):
            d = c.difference(pair, when)
            condition = f"under attack, {short_size(c.f, c.info.reference)}" if when == UNDER else "without an attack"
            alone = [f"{name}: {count(n)}" for name, n in ((d.second, d.gained), (d.first, d.lost))]
            test = p_text(d.p) + (" (adjusted)" if when == UNDER and len(c.pairs) > 1 else "")
            row = cells(f"{d.second} less {d.first}", condition, count(d.row.n), *alone)
            rows.append([*row, _difference(d.row), TableCell(test, not d.row.ok), TableCell(d.verdict.value)])
    head = ("Runs", "When", "Images", "Read correctly by one alone", "By the other alone", "Difference")
    caption = "Images that only one of two runs reads correctly, with McNemar's exact test"
    caption += " on patients" if c.info.by_patient else ""
    caption += f"; under attack p is adjusted by Holm's method for {len(c.pairs)} pairs" if len(c.pairs) > 1 else ""
    caption += "."
    return Table(caption, cells(*head, "Test", "Reading"), rows, "tab:sides", headings=2)


def findings(c: ComparedAudits) -> list[Table]:
    """Each finding hidden and invented under attack at the reference, a pair a row; none where that is not known."""
    rows = []
    for finding in c.by_finding:
        d, columns = finding.difference, {"goal": finding.goal, "class_name": finding.name}
        kept = [c.of_run(Kind.FINDING, "kept", run, c.info.reference, **columns) for run in (d.first, d.second)]
        row = [*cells(finding.name, GOALS[finding.goal], count(d.row.n)), *map(share, kept)]
        row += [_difference(d.row), *cells(f"{count(d.gained)} and {count(d.lost)}")]
        row += [TableCell(p_text(d.p), not d.row.ok), TableCell(d.verdict.value)]
        rows.append([*cells(f"{d.second} less {d.first}"), *row] if len(c.pairs) > 1 else row)
    if not rows:
        return []
    names = ("the first", "the second") if len(c.pairs) > 1 else c.names
    head = [
        *(["Runs"] if len(c.pairs) > 1 else []),
        "Finding",
        "Attacked to",
        "n",
        *(f"Not turned, {n}" for n in names),
    ]
    head += ["Difference", f"By {names[1]} alone, by {names[0]} alone", "Test", "Reading"]
    caption = (
        f"Findings under attack at {short_size(c.f, c.info.reference)}, with 95 % intervals: share of the images in "
    )
    caption += (
        "which a finding is not hidden, or not invented, of those that all runs read correctly in it and attacked. "
    )
    caption += f"McNemar's exact test{' on patients' if c.info.by_patient else ''}; p is adjusted by Holm's method for "
    caption += f"these {len(rows)} tests."
    return [Table(caption, cells(*head), rows, "tab:compared-findings", headings=3 if len(c.pairs) > 1 else 2)]


def classes(c: ComparedAudits) -> list[Table]:
    """Sensitivity and specificity of each class or finding, without an attack; and under attack at the reference."""
    f, at, tables = c.f, c.info.reference, list[Table]()
    one = "Finding" if f.several else "Class"
    clean = [
        row
        for name in f.run.conditions.classes
        for metric in ("sensitivity", "specificity")
        if (row := _class_row(c, Kind.CLEAN, metric, name, 0.0, name, metric))
    ]
    if clean:
        caption = (
            f"Without an attack, on the common test images, with 95 % intervals; secondary, not adjusted.{_rest(c)}"
        )
        head = [*cells(one, "Measure", "n", *c.names), *_pairs(c)]
        tables.append(Table(caption, head, clean, "tab:compared-clean", headings=2))
    held = [
        row for name in f.run.conditions.classes if (row := _class_row(c, Kind.WORST, "sensitivity", name, at, name))
    ]
    if held:
        caption = f"Sensitivity under attack at {short_size(f, at)}: of the images of a class, the share that is still "
        caption += f"read as it, with 95 % intervals; secondary, not adjusted.{_rest(c)}"
        tables.append(Table(caption, [*cells(one, "n", *c.names), *_pairs(c)], held, "tab:compared-attacked"))
    return tables


def _class_row(c: ComparedAudits, kind: Kind, metric: str, name: str, eps: float, *first: str) -> list[TableCell]:
    """first: its first cells, then n, the runs and the pairs; empty where a run has no such number."""
    by_run = [c.of_run(kind, metric, run, eps, class_name=name) for run in c.names]
    measured = [row for row in by_run if row is not None]
    if len(measured) < len(by_run):
        return []
    pairs = [_difference(c.between(metric, pair, eps, class_name=name)) for pair in c.shown_pairs]
    return [*cells(*first, count(measured[0].n)), *map(share, measured), *pairs]


def others(c: ComparedAudits) -> Table:
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
        areas = ((TableCell(plain(row), not row.ok), row) for row in map(by_run.__getitem__, c.names))
        rows.append([TableCell(name), *(_with_n(cell, row) for cell, row in areas)])
    caption = (
        "Further measures of each run, with 95 % intervals and n. The median and the halved size are those of the "
    )
    caption += "common attacked images; all else is what each run measured on its own."
    return Table(caption, cells("Measure", *c.names), rows, "tab:compared-more")


def _with_n(cell: TableCell, row: Row | None) -> TableCell:
    return TableCell(f"{cell.text}, n = {row.n}" if row is not None and row.n else cell.text, cell.doubt)


def _medians(c: ComparedAudits) -> list[TableCell]:
    out = []
    for name in c.names:
        row = c.of_run(Kind.WORST, "min_eps_median", name)
        if row is None or not row.n:
            out.append(TableCell(NOTHING))
            continue
        value = "above the grid" if row.value is None else eps_text(c.f, row.value)
        low = "" if row.low is None else eps_text(c.f, row.low)
        high = "∞" if row.high is None else eps_text(c.f, row.high)
        interval = f" ({low}–{high})" if low and row.value is not None else ""
        out.append(TableCell(f"{value}{interval}, n = {row.n}", not row.ok))
    return out


def _halved(c: ComparedAudits) -> list[TableCell]:
    out = []
    for name in c.names:
        row = c.of_run(Kind.WORST, "halved_at", name)
        value = None if row is None else row.value
        text = "not reached" if value is None else eps_text(c.f, value)
        out.append(TableCell(text, row is not None and not row.ok))
    return out
