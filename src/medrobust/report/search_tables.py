"""Tables of a comparison of searches."""

from __future__ import annotations

from medrobust.report import search_words as words
from medrobust.report.schema import AttackedNetworksInfo
from medrobust.report.searched import MAIN, AttackedNetwork, Searched
from medrobust.report.tables import Table, TableCell
from medrobust.report.words import NO_INTERVAL, NOTHING, bounds, count, number
from medrobust.results import Row

METRICS = (
    ("balanced_accuracy", "balanced accuracy"),
    ("auroc", "AUROC"),
    ("accuracy", "accuracy"),
    ("sensitivity", "sensitivity"),
    ("specificity", "specificity"),
)
SCORES = """Median over {seeds} seeds with its 95 % interval, in % (AUROC apart). Every seed deals the {n} images into \
{folds} folds anew, and each image is judged by the network of the fold that it was held out of. The interval is that \
of draws, not of patients."""
APART = """Points of balanced accuracy more or less than {reference}: mean over {tests} test folds with its 95 % \
interval. p: corrected for training sets that overlap (Nadeau & Bengio), then Holm's over all methods. p, signed \
ranks: Wilcoxon's over seeds, then Holm's; it takes draws of the same patients for independent and calls too much \
different. Seconds of one processor a network."""
ROBUST = """Accuracy in % under {attack} through the feature extractor on {n} test images, and the smallest \
change that fools it, with 95 % intervals; {seeds} seeds. Matched: balanced accuracy on {matching} test images. A \
control is a point on Adam's way that matches the evolved network there and on the attacked images; apart: the largest \
difference over the seeds, in points, there and on the attacked images. ε* over its control's: geometric mean over \
images that both read correctly, and that of each seed. Inconclusive: never fooled, and the gradient vanished."""


def scores(result: Searched) -> Table:
    """Every metric of every method."""
    defined = [(metric, text) for metric, text in METRICS if result.info.reference in result.values(metric)]
    rows = []
    for name in result.ordered:
        cells = [TableCell(result.methods[name].title)]
        for metric, _ in defined:
            row = result.find(metric, name)
            scale, digits = (1, 3) if metric == "auroc" else (100, 1)
            cells.append(_cell(row, scale, digits))
            if metric == MAIN:
                known = row is not None and row.get("q1") is not None
                cells.append(
                    TableCell(f"{100 * row.get('q1'):.1f}–{100 * row.get('q3'):.1f}" if known and row else NOTHING)
                )
        rows.append(cells)
    head = ["method"] + [w for k, t in defined for w in ((t, "quartiles") if k == MAIN else (t,))]
    caption = SCORES.format(seeds=result.table.seeds, n=count(result.table.n), folds=result.table.folds)
    return Table(caption, [TableCell(h) for h in head], rows, f"tab:search-scores-{result.question}")


def apart(result: Searched) -> Table:
    """Every method against the reference, and what it took."""
    reference, kept = result.methods[result.info.reference].title, bool(result.values("kept"))
    rows = []
    for name in result.ordered:
        row, cells = result.find("difference", name), [result.methods[name].title]
        if row is None or row.value is None:
            cells += ["reference" if name == result.info.reference else NOTHING, "", ""]
        else:
            p = (words.p_value(float(row.get(which))) for which in ("p", "p_signed_ranks"))
            cells += [f"{100 * row.value:+.1f} {_ends(row)}", *p]
        cells.append(_value(result.find("rank", name), ".1f"))
        cells.append(_value(result.find("objective", name), ".3f"))
        if kept:
            cells.append(_value(result.find("kept", name), ".0f"))
        spent = result.find("evaluations", name)
        cells += [NOTHING if spent is None else count(round(spent.value or 0)), number(result.seconds(name))]
        rows.append([TableCell(c) for c in cells])
    head = ["method", f"balanced accuracy less {reference}", "p", "p, signed ranks", "mean rank"]
    head += ["objective in training", *(["features kept"] if kept else []), "evaluations", "seconds"]
    caption = APART.format(reference=reference, tests=result.table.seeds * result.table.folds)
    return Table(caption, [TableCell(h) for h in head], rows, f"tab:search-apart-{result.question}")


def attacked_table(info: AttackedNetworksInfo, networks: list[AttackedNetwork]) -> Table:
    """Networks under attack."""
    sizes = networks[0].sizes
    rows = []
    for network in networks:
        matched, gap, images = (network.find(m) for m in ("matched", "matched_gap", "attacked_gap"))
        cells = [
            TableCell(network.name),
            _cell(matched, 100, 1, interval=False),
            _cell(network.find("accuracy"), 100, 1),
        ]
        gaps = [100 * row.value for row in (gap, images) if row is not None and row.value is not None]
        cells.append(TableCell(", ".join(f"{value:+.1f}" for value in gaps)))
        middle, ratio = network.find("min_eps_median"), network.find("ratio")
        cells.append(_number(middle, 255))
        shown = ratio is not None and ratio.low is not None
        text = f"{_number(ratio, 1).text}; {words.by_seed(ratio)}" if shown and ratio else ""
        cells.append(TableCell(text, ratio is not None and shown and not ratio.ok))
        lost = network.find("gradients_lost")
        cells.append(TableCell("all" if network.doubt else _value(lost, ".0f")))
        cells += [_cell(network.find("accuracy", eps), 100, 1) for eps in sizes]
        rows.append(cells)
    head = ["network", "matched", "no attack", "apart from its control", "median ε* (/255)", "ε* over its control's"]
    head += ["inconclusive", *(f"{255 * eps:g}/255" for eps in sizes)]
    caption = ROBUST.format(attack=info.settings, n=info.n, seeds=info.seeds, matching=info.matching)
    return Table(caption, [TableCell(h) for h in head], rows, "tab:search-attacked")


def _cell(row: Row | None, scale: float, digits: int, *, interval: bool = True) -> TableCell:
    """A share in %, or an area, with its interval; marked where it is in doubt."""
    if row is None or row.value is None:
        return TableCell(NOTHING)
    text = f"{scale * row.value:.{digits}f}"
    return TableCell(f"{text} {_ends(row, digits, scale)}" if interval else text, not row.ok)


def _number(row: Row | None, scale: float) -> TableCell:
    if row is None or row.value is None:
        return TableCell(NOTHING)
    return TableCell(f"{number(scale * row.value)} {_ends(row, 2, scale)}", not row.ok)


def _value(row: Row | None, form: str) -> str:
    return NOTHING if row is None or row.value is None else format(row.value, form)


def _ends(row: Row, digits: int = 1, scale: float = 100) -> str:
    return bounds(row.low, row.high, digits, scale) or f"({NO_INTERVAL})"
