"""Tables of detectors and of attacks that know them, for as many detectors, attacks and sizes as a run has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medrobust.report.findings import Findings
from medrobust.report.run import same
from medrobust.report.schema import DetectionInfo
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table, TableCell
from medrobust.report.words import NO_INTERVAL, NOTHING, bounds, count, percent, plural
from medrobust.results import Kind, Row

FPR = 0.05
"""False-positive rate that the sentences and tables are about."""
OPEN = 0.5
"""Width of the interval of a predictive value from which its middle says nothing."""
DIGITS = {"auroc": 3, "auroc_paired": 3, "alarms_per_1000": 0, "steps": 0}
"""Of metrics that are no shares."""
NO_ATTACK, NOISE, NO_DETECTOR = "none", "noise", "none"


def estimate_cell(row: Row | None) -> TableCell:
    """A number with its interval, marked where it is in doubt."""
    if row is None or row.value is None:
        return TableCell(NOTHING)
    digits, scale = (DIGITS[row.metric], 1) if row.metric in DIGITS else (1, 100)
    interval = bounds(row.low, row.high, digits, scale) or f"({NO_INTERVAL})"
    value = percent(row.value) if scale == 100 else f"{row.value:.{digits}f}"
    if row.metric == "predictive_value" and row.high is not None and row.low is not None and row.high - row.low > OPEN:
        value = "cannot say"  # one false alarm more or less would turn it round
    return TableCell(value if row.metric == "steps" else f"{value} {interval}", not row.ok)


class DetectorRows:
    """Rows of detectors and evasions, by their columns."""

    def __init__(self, f: Findings) -> None:
        self.rows = [r for r in f.run.rows if r.kind in (Kind.DETECTOR, Kind.EVASION)]

    def find(self, kind: Kind, metric: str, **columns: Any) -> Row | None:
        """The row with these values; columns that are not named are absent, except eps, protocol and fitted_on."""
        columns = {"layer": None, "corruption": None, **columns}
        return next((r for r in self.rows if r.kind == kind and r.metric == metric and r.has(**columns)), None)

    def fitted(
        self, metric: str, detector: str, attack: str, eps: float, protocol: str = "clean", **columns: Any
    ) -> Row | None:
        """Of the detector fitted on the attack that it is tested on, else of the one fitted without attacks."""
        rows = [
            self.find(
                Kind.DETECTOR,
                metric,
                detector=detector,
                attack=attack,
                fitted_on=on,
                eps=eps,
                protocol=protocol,
                **columns,
            )
            for on in (attack, NO_ATTACK)
        ]
        return next((r for r in rows if r is not None and r.value is not None), rows[0])

    def alone(self, metric: str, detector: str, attack: str, eps: float, **columns: Any) -> Row | None:
        """Of images without an attack, or with noise."""
        return self.find(Kind.DETECTOR, metric, detector=detector, attack=attack, eps=eps, protocol="clean", **columns)


def tables(f: Findings, info: DetectionInfo) -> list[Table]:
    """All that have a number; lines without one are left out."""
    rows, made = DetectorRows(f), []
    for size in info.sizes:
        eps, at = size.eps, "" if len(info.sizes) == 1 else f"{f.run.conditions.grey_scale.unit * size.eps:g}"
        made += [
            _attacked(f, info, rows, eps, at),
            _transfer(f, info, rows, eps, at),
            _layers(f, info, rows, eps, at),
            _false_alarms(f, info, rows, eps, at),
            _in_use(info, rows, eps, at),
        ]
    if f.run.conditions.evasion is not None:
        made += [_evaded(f, info, rows), _reach(f, info, rows)]
    return [t for t in made if t is not None and t.rows]


def _table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str | TableCell]],
    label: str,
    at: str = "",
    folded: str = "",
) -> Table:
    measured = [row for row in rows if any(isinstance(c, TableCell) and c.text != NOTHING for c in row)]
    body = [[c if isinstance(c, TableCell) else TableCell(c) for c in row] for row in measured]
    return Table(caption, [TableCell(h) for h in head], body, f"tab:{label}{f'-{at}' if at else ''}", folded=folded)


def _attacked(f: Findings, info: DetectionInfo, rows: DetectorRows, eps: float, at: str) -> Table:
    paper = any(r.get("protocol") == "paper" for r in rows.rows)
    size = next(s for s in info.sizes if same(s.eps, eps))
    body: list[list[str | TableCell]] = []
    for name, detector in info.detectors.items():
        for attack, attack_info in info.attacks.items():
            area = rows.fitted("auroc", name, attack, eps)
            title = detector.title
            if area is not None and area.get("fitted_on") == NO_ATTACK:
                title += ", fitted without attacks"
            line: list[str | TableCell] = [
                title,
                attack_info.title,
                count(size.n_attacked.get(attack, 0)),
                estimate_cell(area),
            ]
            line += [estimate_cell(rows.fitted(m, name, attack, eps, at_fpr=FPR)) for m in ("alarms", "seen")]
            line.append(estimate_cell(rows.alone("alarms", name, NO_ATTACK, eps, at_fpr=FPR)))
            body.append(line + ([estimate_cell(rows.fitted("auroc", name, attack, eps, "paper"))] if paper else []))
    head = ["Detector", "Attack", "n", "AUROC", "Detected at 5 % false alarms", "Detected on the ROC curve"]
    head += ["False alarms measured", *(["AUROC as published (leaks)"] if paper else [])]
    caption = f"Attacks of {short_size(f, eps)} told from {plural(size.n_clean, 'clean image')}, with 95 % intervals"
    caption += "; too few reference images a class: all classes serve as one." if size.pooled else "."
    return _table(caption, head, body, "detect", at)


def _transfer(f: Findings, info: DetectionInfo, rows: DetectorRows, eps: float, at: str) -> Table | None:
    if len(info.attacks) < 2:
        return None
    at_size = {"eps": eps, "protocol": "clean"}
    body: list[list[str | TableCell]] = [
        [
            d.title,
            a.title,
            *(
                estimate_cell(rows.find(Kind.DETECTOR, "auroc", detector=name, fitted_on=on, attack=b, **at_size))
                for b in info.attacks
            ),
        ]
        for name, d in info.detectors.items()
        for on, a in info.attacks.items()
    ]
    head = ["Detector", "Fitted on", *(f"Tested on {a.title}" for a in info.attacks.values())]
    return _table(
        f"AUROC from one attack to another, {short_size(f, eps)}.",
        head,
        body,
        "transfer",
        at,
        "From one attack to another",
    )


def _layers(f: Findings, info: DetectionInfo, rows: DetectorRows, eps: float, at: str) -> Table | None:
    if len(info.layers) < 2:
        return None
    body: list[list[str | TableCell]] = [
        [
            d.title,
            *(estimate_cell(rows.find(Kind.DETECTOR, "auroc", detector=name, eps=eps, layer=y)) for y in info.layers),
        ]
        for name, d in info.detectors.items()
    ]
    return _table(
        f"AUROC of each layer by itself, {short_size(f, eps)}.", ["Detector", *info.layers], body, "layers", at
    )


def _false_alarms(f: Findings, info: DetectionInfo, rows: DetectorRows, eps: float, at: str) -> Table:
    corruptions = dict.fromkeys(
        (str(r.get("corruption")), r.get("severity")) for r in rows.rows if r.get("corruption") and same(r.eps, eps)
    )
    tested: list[tuple[str, Mapping[str, Any]]] = [
        ("clean", {"attack": NO_ATTACK}),
        (f"noise of {short_size(f, eps)}", {"attack": NOISE}),
        *((f"{c}, severity {s}", {"attack": NO_ATTACK, "corruption": c, "severity": s}) for c, s in corruptions),
    ]
    body: list[list[str | TableCell]] = []
    for what, columns in tested:
        alarms = [rows.alone("alarms", name, **{"eps": eps, "at_fpr": FPR, **columns}) for name in info.detectors]
        n = next((r.n for r in alarms if r is not None), 0)
        body.append([what, count(n), *map(estimate_cell, alarms)])
    head = ["Images without an attack", "n", *(d.title for d in info.detectors.values())]
    caption = "False alarms where 5 % were allowed, on images that set no threshold and are classified right."
    return _table(caption, head, body, "false-alarms", at, "False alarms on untouched and on changed images")


def _in_use(info: DetectionInfo, rows: DetectorRows, eps: float, at: str) -> Table:
    metrics = ("alarms_per_1000", "predictive_value")
    body: list[list[str | TableCell]] = [
        [d.title, *(estimate_cell(rows.alone(m, name, NO_ATTACK, eps, at_fpr=FPR)) for m in metrics)]
        for name, d in info.detectors.items()
    ]
    head = ["Detector", "False alarms in 1,000 studies", "An alarm is an attack"]
    caption = f"In use at 5 % false alarms, if {100 * info.prevalence:g} % of all studies are attacked (a guess)."
    return _table(caption, head, body, "in-use", at, "In use: false alarms in 1,000 studies")


def _evaded(f: Findings, info: DetectionInfo, rows: DetectorRows) -> Table:
    evasion = f.run.conditions.evasion
    assert evasion is not None
    metrics = ("fooled", "auroc", "detected", "success", "success_saved", "steps")
    body: list[list[str | TableCell]] = []
    for name, d in info.detectors.items():
        for attack, title in ((evasion.attack, info.title(evasion.attack)), (evasion.name, evasion.title)):
            at: Mapping[str, Any] = {"detector": name, "attack": attack, "eps": evasion.eps}
            cells = []
            for metric in metrics:
                fpr = None if metric in ("fooled", "auroc", "steps") else FPR
                cells.append(estimate_cell(rows.find(Kind.EVASION, metric, at_fpr=fpr, **at)))
            body.append([d.title, title, *cells])
    head = ["Detector", "Attack", "Model fooled", "AUROC", "Of these detected at 5 % false alarms"]
    head += ["Fooled and not detected", "The same after saving at 8 bits", "Steps"]
    caption = (
        f"Attacks of {short_size(f, evasion.eps)} on {plural(evasion.n, 'image')}, before and after they knew the "
    )
    caption += "detector: the same images, thresholds fixed beforehand; with 95 % intervals."
    return _table(caption, head, body, "evade", folded="Past the detectors, by detector and attack")


def _reach(f: Findings, info: DetectionInfo, rows: DetectorRows) -> Table | None:
    sizes = sorted({r.eps for r in rows.rows if r.metric == "reach"})
    if not sizes:
        return None
    names = {NO_DETECTOR: "no detector", **{name: d.title for name, d in info.detectors.items()}}
    body: list[list[str | TableCell]] = [
        [title, *(estimate_cell(rows.find(Kind.EVASION, "reach", detector=name, eps=eps)) for eps in sizes)]
        for name, title in names.items()
    ]
    head = ["Detector", *(short_size(f, eps) for eps in sizes)]
    caption = "Images that fool the classifier and raise no alarm at 5 % false alarms, by largest ε allowed; no "
    caption += "detector: the same search where nothing raises an alarm."
    return _table(caption, head, body, "reach")
