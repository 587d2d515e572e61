"""The tables of explanations: a number a cell, with its interval and its n."""

from __future__ import annotations

from collections.abc import Sequence

from medrobust.report.comparison import Share
from medrobust.report.explained import Explained
from medrobust.report.tables import Table, TableCell
from medrobust.report.words import NBSP, NO_INTERVAL, NOTHING, count, ends, number
from medrobust.results import Row

LEVELS = (1, 2, 4, 8)
KINDS = (
    ("effective-rank", "Effective rank"),
    ("relative-rank", "Of the largest possible"),
    ("spectral-entropy", "Spectral entropy"),
    ("spatial-entropy", "Spatial entropy"),
)
MAPS = (
    ("gradient", "Input gradient"),
    ("integrated", "Integrated gradients"),
    ("smooth", "SmoothGrad"),
    ("cam", "Grad-CAM"),
)


def estimate_text(row: Row | Share | None, *, percent: bool = False, n: bool = False) -> str:
    """ "0.17 (0.15–0.19)", three significant digits; percent: as a share; n: with the number of images."""
    if row is None or row.value is None:
        return NOTHING
    scale = 100 if percent else 1
    value, low, high = (None if v is None else signed(v * scale) for v in (row.value, row.low, row.high))
    text = f"{value}{NBSP}%" if percent else f"{value}"
    if low is not None and high is not None:
        text += f" ({ends(low, high)})"
    else:
        text += f" ({NO_INTERVAL})"
    return text + (f", n{NBSP}={NBSP}{count(row.n)}" if n else "")


def signed(value: float) -> str:
    """Three significant digits, also below zero and below a thousandth."""
    if value == 0:
        return "0"
    size = abs(value)
    text = number(size) if 1e-3 <= size < 1e6 else f"{size:.1e}".replace("e-0", "e-").replace("e+0", "e")
    return ("−" if value < 0 else "") + text


def cell(row: Row | None, *, percent: bool = False, n: bool = False) -> TableCell:
    """As ``told``; marked where the number has an interval and is in doubt all the same."""
    return TableCell(estimate_text(row, percent=percent, n=n), row is not None and row.low is not None and not row.ok)


def compared(pairs: Sequence[Row], place: int, measure: str, when: str = "clean") -> Row | None:
    return next((r for r in pairs if r.has(than=place, measure=measure, when=when)), None)


def measures(runs: Sequence[Explained], pairs: Sequence[Row]) -> Table:
    """A measure a row, a classifier a column, and how often the first has the larger value."""
    names = list(dict.fromkeys(name for run in runs for name in run.info.measures))
    by_name = {name: m for run in runs for name, m in run.info.measures.items()}
    body = []
    for name in names:
        m = by_name[name]
        rows = [run.find(name) for run in runs]
        # said where some images have no such number
        fewer = [r is not None and r.n != run.info.n for r, run in zip(rows, runs, strict=True)]
        cells = [TableCell(f"{m.title}, {m.unit}")]
        cells += [cell(r, n=some) for r, some in zip(rows, fewer, strict=True)]
        for k in range(1, len(runs)):
            cells.append(cell(compared(pairs, k, name), percent=True))
        body.append(cells)
    head = ["Measure", *(f"{run.name} (n = {count(run.info.n)})" for run in runs)]
    head += [f"Larger than {run.name}, of 100 pairs" for run in runs[1:]]
    caption = "One number an image, without an attack: median and its 95 % interval. "
    if len(runs) > 1:
        caption += "Pairs: of an image of the first classifier and one of the other, the share in which the first has "
        caption += "the larger value (AUROC, DeLong's interval); 50 % is no difference."
    return Table(caption, [TableCell(h) for h in head], body, "tab:measures")


def saliency(runs: Sequence[Explained]) -> Table:
    """Concentration of the gradient before and after the attack."""
    kinds = (("saliency-half", "Pixels that hold half", True), ("saliency-gini", "Gini coefficient", False))
    body = []
    for run in runs:
        for metric, title, percent in kinds:
            rows = [run.find(metric, when) for when in ("clean", "attacked", "change")]
            body.append([TableCell(f"{run.name}: {title.lower()}"), *(cell(r, percent=percent, n=True) for r in rows)])
    caption = "How the input gradient is spread before and after the attack: medians with 95 % intervals. "
    caption += "Change: of each image that the attack turned."
    return Table(caption, _head("Classifier", "Before", "After", "Change"), body, "tab:saliency")


def cam(runs: Sequence[Explained]) -> Table:
    """How far the centre of Grad-CAM moves."""
    body = []
    for run in runs:
        cells = [TableCell(run.name)]
        for metric, percent in (("cam-shift", True), ("cam-shift-px", False), ("cam-shift-asked", True)):
            cells.append(cell(run.find(metric, "change"), percent=percent, n=metric == "cam-shift"))
        cells.append(cell(run.find("cam-shift", "noise"), percent=True))
        body.append(cells)
    head = _head(
        "Classifier",
        "Share of the diagonal",
        "Pixels",
        "Untouched image, asked about the new class",
        "Noise of that size",
    )
    caption = (
        "How far the centre of mass of Grad-CAM moves under the attack, each time asked about the decision: medians "
    )
    caption += "with 95 % intervals. The last columns are controls: the image stays and only the question "
    caption += "changes, or noise replaces the attack. "
    caption += "Images where nothing in that layer speaks for the decision have no centre and are left out."
    return Table(caption, head, body, "tab:cam")


def lesion(runs: Sequence[Explained]) -> Table | None:
    """Agreement of every map with the lesion, where it is known."""
    body = []
    for run in runs:
        area = run.find("lesion-area")
        if area is None:
            continue
        for kind, title in MAPS:
            cells = [TableCell(f"{run.name}: {title}")]
            for how, percent in (("point", True), ("auroc", False), ("share", True)):
                for when in ("clean", "attacked"):
                    row = run.find(f"lesion-{how}", when, map=kind)
                    cells.append(cell(row, percent=percent, n=how == "point"))
            body.append(cells)
        chance = [
            "" if how == "auroc" else estimate_text(area, percent=True)
            for how in ("point", "point", "auroc", "auroc", "share", "share")
        ]
        body.append([TableCell(f"{run.name}: chance (area of the lesion)"), *(TableCell(c or "0.5") for c in chance)])
    if not body:
        return None
    head = ["Map", "Largest value in the lesion", "after the attack", "AUROC of its pixels", "after the attack"]
    head += ["Mass in the lesion", "after the attack"]
    caption = (
        "Agreement with the true lesion, images that have one: share of images (pointing game) and medians, with 95 % "
    )
    caption += "intervals."
    return Table(caption, [TableCell(h) for h in head], body, "tab:lesion")


def finding_lesions(runs: Sequence[Explained]) -> Table | None:
    """Agreement of the maps of each finding with its own mask, where findings have masks of their own."""
    body = []
    for run in runs:
        for name in run.info.findings:
            area = run.find("lesion-area", class_name=name)
            if area is None:
                continue
            for kind, title in (MAPS[0], MAPS[-1]):
                measured = [
                    cell(run.find(f"lesion-{how}", when, map=kind, class_name=name), percent=how != "auroc")
                    for how in ("point", "auroc", "share")
                    for when in ("clean", "attacked")
                ]
                chance = [TableCell(estimate_text(area, percent=True)), TableCell(count(area.n))]
                lead = TableCell(f"{run.name}: {name}, {title}" if len(runs) > 1 else f"{name}, {title}")
                body.append([lead, *measured, *chance])
    if not body:
        return None
    head = ["Finding and map", "Largest value in its mask", "after the attack", "AUROC of its pixels"]
    head += ["after the attack", "Mass in its mask", "after the attack", "Area of its mask (chance)", "n"]
    caption = (
        "Each finding by itself: maps of what speaks for this finding alone, beside the true mask of this finding, "
    )
    caption += "in images that have it; shares of images and medians, with 95 % intervals."
    return Table(caption, [TableCell(h) for h in head], body, "tab:finding-lesions")


def layers(runs: Sequence[Explained]) -> Table:
    """How simple each layer's picture of an image is, before and after."""
    body = []
    for run in runs:
        for layer in run.info.layers:
            cells = [TableCell(f"{run.name}: {layer}")]
            for kind, _ in KINDS:
                cells.append(cell(run.find(kind, layer=layer), percent=kind == "relative-rank"))
            cells.append(cell(run.find("effective-rank", "change", layer=layer), n=True))
            body.append(cells)
    head = _head("Layer", *(title for _, title in KINDS), "Effective rank, change by the attack")
    caption = "Simplicity of what a layer sees, small is simple: medians over images with 95 % intervals (n as in the "
    caption += "table of measures). Change: of each image that the attack turned."
    return Table(caption, head, body, "tab:layers")


def landscape(runs: Sequence[Explained]) -> Table:
    """Loss at 1, 2, 4 and 8/255 along each direction."""
    names = (
        ("gradient", "the model's sign gradient"),
        ("second", "a second model's sign gradient"),
        ("random", "random signs"),
    )
    body = []
    for run in runs:
        for direction, title in names:
            rows = [run.loss(level, direction) for level in LEVELS]
            if any(rows):
                clean = cell(run.loss(0), n=True)
                body.append([TableCell(f"{run.name}: {title}"), clean, *(cell(r) for r in rows)])
    head = _head("Along", "At the image", *(f"{level}/255" for level in LEVELS))
    caption = "Cross-entropy in nats away from the image, median of the images with its 95 % interval."
    return Table(caption, head, body, "tab:landscape")


def embedding(runs: Sequence[Explained]) -> Table | None:
    """How far the groups are apart in the penultimate features."""
    kinds = (
        ("attacked", "clean against attacked"),
        ("classes", "classes, clean images"),
        ("groups", "class and attacked"),
    )
    body = []
    for run in runs:
        for kind, title in kinds:
            when = "clean" if kind == "classes" else "attacked"
            probe = run.find("probe", when, of=kind)
            if probe is None:
                continue
            if probe.value is None:
                body.append(
                    [TableCell(f"{run.name}: {title}"), TableCell(probe.note), *(TableCell(NOTHING) for _ in range(3))]
                )
                continue
            chance = f"{100 * float(probe.get('chance')):.0f}{NBSP}%"
            body.append(
                [
                    TableCell(f"{run.name}: {title}"),
                    cell(probe, percent=True, n=True),
                    TableCell(chance),
                    cell(run.find("probe-auroc", when, of=kind)),
                    cell(run.find("silhouette", when, of=kind)),
                ]
            )
    if not body:
        return None
    head = _head("Groups", "Linear probe: right", "Most frequent group", "AUROC", "Silhouette (−1 to 1)")
    caption = (
        "How far groups of images lie apart in the penultimate features: a linear probe, cross-validated with pairs "
    )
    caption += "on one side, and the mean silhouette; 95 % intervals, at which an image and its twin count as one."
    return Table(caption, head, body, "tab:embedding")


def _head(*titles: str) -> list[TableCell]:
    return [TableCell(t) for t in titles]
