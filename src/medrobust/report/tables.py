"""The tables of the report, once, for the page and for LaTeX."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from medrobust.report.findings import Findings, in_doubt
from medrobust.report.run import WORST, same
from medrobust.report.sizes import short_size
from medrobust.report.words import NO_INTERVAL, NOTHING, bounds, count, number, percent, plain, with_interval
from medrobust.results import Kind, Row
from medrobust.stats import Estimate

MOST_CLASSES = 30
"""Longer per-class tables are cut; results.csv holds every class."""
MOST_CONFUSED = 12
FEW_ROWS = 5
"""Longer tables beside a figure of the same numbers are folded away."""
MOST_FLIPS = 20
BITS = (8, 12, 16)


@dataclass(frozen=True)
class TableCell:
    text: str
    doubt: bool = False
    """Marked "inconclusive" wherever it is shown."""
    tone: Literal["", "pass", "failed", "open"] = ""
    """Its colour on the page, never the only sign."""
    links: tuple[tuple[str, str], ...] = ()
    """Anchor and title of sections that show what it speaks of."""

    @property
    def whole(self) -> str:
        """The text with the titles of its links."""
        return self.text + (f"; see {', '.join(title for _, title in self.links)}" if self.links else "")

    @property
    def value(self) -> str:
        """The text without its interval, so that a narrow page can set the two on two lines."""
        return self.text.partition(" (")[0]

    @property
    def interval(self) -> str:
        return self.text.removeprefix(self.value).strip()


@dataclass(frozen=True)
class Table:
    caption: str
    head: list[TableCell]
    rows: list[list[TableCell]] = field(default_factory=list)
    label: str = ""
    """Names the table in LaTeX."""
    widths: tuple[float, ...] = ()
    """Of columns of running text, as shares of the page; empty: as wide as they need."""
    headings: int = 1
    """First columns that are a row's heading."""
    folded: str = ""
    """What stands in the place of the table until it is opened; empty: the table is open."""


def cells(*texts: str) -> list[TableCell]:
    return [TableCell(t) for t in texts]


def share(row: Row | None) -> TableCell:
    return TableCell(with_interval(row), row is not None and not row.ok and row.value is not None)


def attack_head(f: Findings, attack: str) -> TableCell:
    return TableCell(f.run.title(attack), in_doubt(f, attack))


def unit(f: Findings) -> str:
    return (
        f"ε (/{f.run.conditions.grey_scale.levels})"
        if f.run.conditions.norm == "Linf"
        else f"ε ({f.run.conditions.norm})"
    )


def eps_text(f: Findings, eps: float) -> str:
    return number(eps * f.run.conditions.grey_scale.unit if f.run.conditions.norm == "Linf" else eps)


def n_text(rows: Iterable[Row | None]) -> str:
    """ "n = 200", or "n = 66–72" where the rows differ."""
    ns = sorted({r.n for r in rows if r is not None and r.n})
    if not ns:
        return "n not recorded"
    return f"n = {count(ns[0])}" + (f"–{count(ns[-1])}" if len(ns) > 1 else "")


def overall(f: Findings) -> Table | None:
    """Accuracy, balanced accuracy, AUROC, calibration error and Brier score on untouched images."""
    mean = ", mean of the findings" if f.several else ""
    names = (
        ("accuracy", "Every finding right (exact match)" if f.several else "Accuracy", with_interval),
        ("balanced_accuracy", f"Balanced accuracy{mean}", with_interval),
        ("auroc", f"AUROC{mean}", plain),
        ("ece", "ECE (calibration error)", plain),
        ("brier", "Brier score", plain),
    )
    measured = [
        (title, show, row) for metric, title, show in names if (row := f.run.find(Kind.CLEAN, metric)) is not None
    ]
    rows = [
        [TableCell(title), TableCell(show(row), not row.ok and row.value is not None), TableCell(count(row.n))]
        for title, show, row in measured
    ]
    return (
        Table(
            f"Performance on untouched test images of {f.run.conditions.data} ({f.run.conditions.model}), "
            "with 95 % intervals.",
            cells("Measure", "Value (95 % interval)", "n"),
            rows,
            "tab:clean",
        )
        if rows
        else None
    )


def per_class(f: Findings) -> Table | None:
    """Sensitivity, specificity and AUROC of each class against the rest."""
    kinds = (
        ("sensitivity", "Sensitivity", with_interval),
        ("specificity", "Specificity", with_interval),
        ("auroc", "AUROC", plain),
    )
    rows = {c: [f.run.find(Kind.CLEAN, kind, class_name=c) for kind, _, _ in kinds] for c in f.run.conditions.classes}
    used = [i for i in range(len(kinds)) if any(r[i] is not None for r in rows.values())]
    if not used:
        return None
    classes = f.run.conditions.classes[:MOST_CLASSES]
    body = [
        [TableCell(c + (" (disease)" if f.directed and c in f.disease else ""))]
        + [TableCell(kinds[i][2](rows[c][i])) for i in used]
        + [TableCell(count(sensitivity.n if (sensitivity := rows[c][0]) else None))]
        for c in classes
    ]
    caption = "Each class against the rest, untouched test images, with 95 % intervals; n: images of the class."
    one, many = ("Finding", "findings") if f.several else ("Class", "classes")
    if f.several:
        caption = "Each finding, untouched test images in which it is known, with 95 % intervals; n: images with it."
    if len(classes) < len(rows):
        caption += f" The first {len(classes)} of {len(rows)} {many}; results.csv holds all."
    return Table(caption, cells(one, *(kinds[i][1] for i in used), "n"), body, "tab:classes")


@dataclass(frozen=True)
class Confusion:
    classes: list[str]
    counts: np.ndarray
    """int (k, k): rows are true classes, columns what the model says."""
    note: str = ""

    def table(self, caption: str, label: str) -> Table:
        """As a table of counts and shares of the row."""
        head = [TableCell(""), *(TableCell(c) for c in self.classes)]
        places = range(len(self.classes))
        body = [
            [TableCell(name), *(TableCell(f"{count(int(self.counts[i, j]))} ({self.shade(i, j)} %)") for j in places)]
            for i, name in enumerate(self.classes)
        ]
        return Table(f"{caption} {self.note}".strip(), head, body, label)

    def shade(self, i: int, j: int) -> int:
        """Share of the row in whole percent."""
        total = int(self.counts[i].sum())
        return round(100 * int(self.counts[i, j]) / total) if total else 0


def tested(f: Findings) -> tuple[np.ndarray, np.ndarray] | None:
    """Probabilities (n, k) and labels (n,) of the test images, where each image has one class."""
    probability, labels = f.run.arrays.get("test_probability"), f.run.arrays.get("test_labels")
    if probability is None or labels is None or probability.ndim != 2 or labels.ndim != 1 or not labels.size:
        return None
    k = len(f.run.conditions.classes)
    fits = probability.shape == (labels.size, k) and labels.min() >= 0 and labels.max() < k
    return (probability, labels) if fits and np.isfinite(probability).all() else None


def confusion(f: Findings) -> Confusion | None:
    pair, k = tested(f), len(f.run.conditions.classes)
    if pair is None or k > MOST_CONFUSED:
        return None
    probability, labels = pair
    given = f.run.arrays.get("test_prediction")
    predicted = given if given is not None and given.shape == labels.shape else probability.argmax(1)
    counts = np.zeros((k, k), dtype=int)
    np.add.at(counts, (labels, predicted), 1)
    accuracy, note = f.run.find(Kind.CLEAN, "accuracy"), ""
    if (
        accuracy is not None
        and accuracy.value is not None
        and abs(counts.trace() / labels.size - accuracy.value) > 1e-6
    ):
        note = "Counted at the most probable class; the model's own threshold gives a different accuracy (table above)."
    return Confusion(f.run.conditions.classes, counts, note)


def accuracy(f: Findings) -> Table | None:
    """Accuracy at every eps, an attack a column, the controls last."""
    attacks = [a for a in f.run.measured + f.run.controls if f.run.curve(a)]
    if not attacks:
        return None
    grid: list[float] = []
    for eps in sorted(r.eps for a in attacks for r in f.run.curve(a)):
        if not grid or eps > grid[-1] * (1 + 1e-6):
            grid.append(eps)
    rows = [[TableCell(eps_text(f, eps)), *(share(f.run.at(a, "accuracy", eps)) for a in attacks)] for eps in grid]
    clean = f.clean
    if clean is not None:
        low, high = (None, None) if np.isnan(clean.low) or np.isnan(clean.high) else (clean.low, clean.high)
        text = f"{percent(clean.value)} {bounds(low, high)}".strip()
        rows.insert(0, [TableCell("0"), *(TableCell(text) for _ in attacks)])
    n = n_text(r for a in attacks for r in f.run.curve(a))
    caption = (
        f"Accuracy under attack against ε, with 95 % intervals ({n} images). Noise columns are controls, no attacks."
    )
    if WORST in attacks:
        caption += " Worst case: for each image, the attack that needed the smallest ε."
    for probe in f.run.probes:
        caption += f" {f.run.title(probe)}, a black-box probe: "
        caption += "; ".join(
            f"{with_interval(r)} at {short_size(f, r.eps)} (n = {count(r.n)})" for r in f.run.curve(probe)
        )
        caption += "."
    head = [TableCell(unit(f)), *(attack_head(f, a) for a in attacks)]
    return Table(
        caption,
        head,
        rows,
        "tab:accuracy",
        folded="Accuracy at every size, with intervals" if len(rows) > FEW_ROWS else "",
    )


def grades(f: Findings) -> Table | None:
    """How far an attack and noise move grades at the reference eps, a row each; None where classes are no grades."""
    eps, rows = f.reference, []
    for attack in f.run.measured + f.run.controls:
        shift = f.run.at(attack, "grade_shift", eps)
        if shift is None:
            continue
        shares = (f.run.at(attack, metric, eps) for metric in ("grade_far", "grade_lowered"))
        moved = TableCell(plain(shift, 2), doubt=not shift.ok)
        rows.append([attack_head(f, attack), moved, *(share(row) for row in shares)])
    if not rows or eps is None:
        return None
    error = f.run.find(Kind.CLEAN, "grade_error")
    caption = f"How far grades move at {short_size(f, eps)}, of the images read correctly before, with 95 % intervals."
    if error is not None:
        caption += f" Without an attack the mean error is {plain(error, 2)} grades."
    head = cells("Attack", "Moved by, mean in grades", "By two grades or more", "To a lower grade")
    return Table(caption, head, rows, "tab:grades")


def smallest(f: Findings) -> Table | None:
    """eps* and what the attack cost, an attack a row."""
    rows = []
    for attack in f.run.measured:
        median, half = f.median(attack), f.half(attack)
        values, cost = f.min_eps(attack), f.run.at(attack, "gradients_per_image")
        broken = NOTHING
        if values is not None and values.size:
            broken = f"{count(int(np.isfinite(values).sum()))} of {count(values.size)}"
        rows.append(
            [
                attack_head(f, attack),
                TableCell(_median_text(f, median)),
                TableCell(eps_text(f, half.eps) if half else "not reached"),
                TableCell(broken),
                TableCell(number(cost.value) if cost is not None and cost.value is not None else NOTHING),
                share(f.run.at(attack, "inconclusive")),
            ]
        )
    name = unit(f)
    caption = f"Smallest change that fools: median over the images read correctly before the attack, in {name}."
    head = cells(
        "Attack",
        f"Median ε*, {name[2:].strip('()')}",
        "Accuracy halves at",
        "Fooled at all",
        "Gradients an image",
        "No usable gradient",
    )
    return Table(caption, head, rows, "tab:epsstar") if rows else None


def _median_text(f: Findings, median: Estimate | None) -> str:
    if median is None or not median.n:
        return NOTHING
    if not np.isfinite(median.value):
        return "above the grid"
    high = eps_text(f, median.high) if np.isfinite(median.high) else "∞"
    interval = f" ({NO_INTERVAL})" if np.isnan(median.low) else f" ({eps_text(f, median.low)}–{high})"
    return eps_text(f, median.value) + interval


def flips(f: Findings) -> Table | None:
    """Every direction at the reference eps, an attack a column."""
    if f.reference is None or f.strongest is None or not f.run.of_attacks("flip"):
        return None
    attacks = [a for a in f.run.measured + f.run.controls if f.flips(a, f.reference)]
    if not attacks:
        return None
    lead = f.strongest if f.strongest in attacks else attacks[0]
    pairs = [(x.source, x.target) for x in f.flips(lead, f.reference)]
    body = [
        [TableCell(f"{a} → {b}"), *(share(f.run.at(x, "flip", f.reference, class_name=a, target=b)) for x in attacks)]
        for a, b in pairs[:MOST_FLIPS]
    ]
    n = n_text(f.run.at(lead, "flip", f.reference, class_name=a, target=b) for a, b in pairs[:MOST_FLIPS])
    caption = f"Flips at {short_size(f, f.reference)}: of the images of the first class that were read correctly "
    caption += f"({n}), the share read as the second. "
    caption += "The decision threshold is the one used without attack."
    if any(a in f.run.controls for a in attacks):
        caption += " Noise columns are controls, no attacks."
    if len(pairs) > MOST_FLIPS:
        caption += f" The {MOST_FLIPS} most frequent of {len(pairs)}; results.csv holds all."
    return Table(caption, [TableCell("From → to"), *(attack_head(f, a) for a in attacks)], body, "tab:flips")


def saving(f: Findings) -> Table | None:
    """Accuracy on attacked images as computed and after rounding to 8, 12 and 16 bits."""
    measured = [(a, r) for a in f.run.measured for r in f.run.curve(a, "accuracy_full")]
    lead = f.saved_attack
    if not measured or lead is None:
        return None
    kept = {r.get("bits") for r in f.run.of_attacks("accuracy_saved")}
    bits = [b for b in BITS if b in kept]
    at = f.reference if f.reference is not None else measured[0][1].eps
    # every eps for the attack that the page speaks of; one each for the others
    chosen = [(a, r) for a, r in measured if a == lead or same(r.eps, at)]
    body = [
        [TableCell(f.run.title(a), in_doubt(f, a)), TableCell(eps_text(f, r.eps)), share(r)]
        + [share(f.run.at(a, "accuracy_saved", r.eps, bits=b)) for b in bits]
        for a, r in sorted(chosen, key=lambda pair: pair[0] != lead)
    ]
    clean = [f.run.find(Kind.CLEAN, "accuracy_saved", bits=b) for b in bits]
    untouched = [r for r in clean if r is not None]
    if untouched:
        body.insert(0, [TableCell("No attack"), TableCell("0"), TableCell(NOTHING), *(share(r) for r in clean)])
    n = n_text(r for _, r in measured)
    caption = f"Accuracy on full-strength attacked images, as computed and after saving at a bit depth ({n} images), "
    caption += "with 95 % intervals."
    if untouched and untouched[0].n not in {r.n for _, r in measured}:
        caption += f" Without attack: all {count(untouched[0].n)} test images."
    if len(chosen) < len(measured):
        caption += f" All ε for {f.run.title(lead)}, {short_size(f, at)} for the others; results.csv holds all."
    return Table(
        caption, cells("Attack", unit(f), "As computed", *(f"Saved at {b} bit" for b in bits)), body, "tab:saving"
    )
