"""Tables of a comparison of searches."""

from __future__ import annotations

from typing import Any

from medrobust.report import search_words as words
from medrobust.report.tables import Table, TableCell
from medrobust.report.words import NO_INTERVAL, NOTHING, bounds, count, number, percent

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
ROBUST = """Accuracy under {attack} through the feature extractor on {n} test images, and the smallest \
change that fools it, with 95 % intervals; {seeds} seeds. Matched: balanced accuracy on {matching} test images. A twin \
is a point on Adam's way that matches the evolved network there and on the attacked images; apart: the largest \
difference over the seeds, in points, there and on the attacked images. ε* over its twin's: geometric mean over images \
that both read correctly, and that of each seed. Inconclusive: never fooled, and the gradient vanished."""


def ordered(results: dict[str, Any], question: str) -> list[str]:
    """Methods, best median balanced accuracy first."""
    values = words.medians(results, question)
    return sorted(values, key=lambda n: (-values[n], n))


def scores(results: dict[str, Any], question: str) -> Table:
    """Every metric of every method."""
    told, facts = results["questions"][question], results["facts"]
    found = {(r["method"], r["metric"]): r for r in results["rows"] if r["question"] == question}
    shown = [(k, t) for k, t in METRICS if found[told["reference"], k]["value"] is not None]
    rows = []
    for name in ordered(results, question):
        cells = [TableCell(told["methods"][name]["title"])]
        for metric, _ in shown:
            row = found[name, metric]
            if metric == "auroc":
                cells.append(TableCell(f"{row['value']:.3f} {_ends(row, 3, 1)}"))
            else:
                cells.append(TableCell(f"{100 * row['value']:.1f} {_ends(row)}"))
            if metric == "balanced_accuracy":
                cells.append(TableCell(f"{100 * row['q1']:.1f}–{100 * row['q3']:.1f}"))
        rows.append(cells)
    head = ["method"] + [w for k, t in shown for w in ((t, "quartiles") if k == "balanced_accuracy" else (t,))]
    caption = SCORES.format(seeds=facts["seeds"], n=count(facts["n"]), folds=facts["folds"])
    return Table(caption, [TableCell(h) for h in head], rows, f"scores:{question}")


def apart(results: dict[str, Any], times: dict[str, Any], question: str) -> Table:
    """Every method against the reference, and what it took."""
    told, facts = results["questions"][question], results["facts"]
    reference = told["methods"][told["reference"]]["title"]
    kept = any("kept" in m["found"] for m in told["methods"].values())
    rows = []
    for name in ordered(results, question):
        about, against = told["methods"][name], told["against"].get(name)
        cells = [about["title"]]
        if against is None:
            cells += ["reference", "", ""]
        else:
            ends = _ends(against)
            cells += [
                f"{100 * against['difference']:+.1f} {ends}",
                words.p_value(against["p"]),
                words.p_value(against["p_wilcoxon"]),
            ]
        cells.append(f"{told['friedman']['ranks'][name]:.1f}" if "friedman" in told else NOTHING)
        cells.append(f"{about['worth']['value']:.3f}" if "worth" in about else NOTHING)
        if kept:
            cells.append(f"{about['found']['kept']['value']:.0f}" if "kept" in about["found"] else NOTHING)
        spent = about["evaluations"]
        cells += [NOTHING if spent is None else count(spent), number(times[question][name]["seconds"])]
        rows.append([TableCell(c) for c in cells])
    head = ["method", f"balanced accuracy less {reference}", "p", "p, signed ranks", "mean rank"]
    head += ["objective in training", *(["features kept"] if kept else []), "evaluations", "seconds"]
    caption = APART.format(reference=reference, tests=facts["seeds"] * facts["folds"])
    return Table(caption, [TableCell(h) for h in head], rows, f"apart:{question}")


def robust_table(told: dict[str, Any]) -> Table:
    """Networks under attack."""
    levels = list(told["rows"][0]["accuracy"])
    rows = []
    for row in told["rows"]:
        gap = row.get("gap")
        cells = [row["network"], percent(row["matched"]), _share(row["clean"])]
        cells.append(f"{100 * gap['matched']:+.1f}, {100 * gap['attacked']:+.1f}" if gap else "")
        cells += [_share(row["accuracy"][level]) for level in levels]
        middle, ratio = row["median"], row.get("ratio")
        cells.append(_number(middle) if middle["value"] is not None else NOTHING)
        cells.append(f"{_number(ratio)}; {words.by_seed(ratio)}" if ratio and ratio["low"] else "")
        cells.append("all" if row.get("doubt") else str(row["inconclusive"]))
        rows.append([TableCell(c) for c in cells])
    head = ["network", "matched", "no attack", "apart from its twin", *(f"{level}/255" for level in levels)]
    head += ["median ε* (/255)", "ε* over its twin's", "inconclusive"]
    caption = ROBUST.format(attack=told["attack"], n=told["n"], seeds=told["seeds"], matching=told["matching"])
    return Table(caption, [TableCell(h) for h in head], rows, "robustness")


def _share(row: dict[str, Any]) -> str:
    return f"{percent(row['value'])} {_ends(row)}"


def _number(row: dict[str, Any]) -> str:
    return f"{number(row['value'])} {_ends(row, 2, 1)}"


def _ends(row: dict[str, Any], digits: int = 1, scale: float = 100) -> str:
    return bounds(row["low"], row["high"], digits, scale) or f"({NO_INTERVAL})"
