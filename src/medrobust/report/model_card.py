"""model-card.md: what an audit knows of a classifier, in the layout of the FDA's example, with Hugging Face's metadata.

The example: draft guidance of January 2025, appendix E. Every number is a row of results.json with its interval and its
n. What an audit cannot know is left to the manufacturer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from medrobust.report import check_lines, summary
from medrobust.report.detection_tables import estimate_cell
from medrobust.report.findings import Findings
from medrobust.report.sections.limits import limits
from medrobust.report.sections.threat_model import described, titles
from medrobust.report.sizes import short_size
from medrobust.report.tested import believed, coverage, outcome
from medrobust.report.words import count, listing, plural
from medrobust.results import Kind, Row, among

FILE = "model-card.md"
OPEN = "to be filled in by the manufacturer"
GOALS = (("hide", "Finding hidden by an attack"), ("invent", "Finding invented by an attack"))
"""Of attacks on one finding, as rows name them."""
UNTOUCHED, ATTACKED, CONTROL = SETTINGS = ("untouched images", "attacked images", "noise and natural corruptions")
"""Under which the numbers hold; Hugging Face's results are grouped by them."""
PERFORMANCE = "Performance and limitations"
HUB_METRICS = {"accuracy": "accuracy", "auroc": "roc_auc", "sensitivity": "recall"}
"""Hugging Face's names of metrics; others stand under ours."""


@dataclass(frozen=True)
class CardNumber:
    """One row under a name for people. setting: one of SETTINGS; ok: it is believed."""

    setting: str
    name: str
    row: Row
    ok: bool

    @property
    def value(self) -> str:
        return estimate_cell(self.row).text + ("" if self.ok else ", inconclusive")


def text(f: Findings) -> str:
    """The whole file."""
    head = yaml.safe_dump(metadata(f), sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{head}---\n\n" + "\n".join(_body(f)) + "\n"


# -- numbers ---------------------------------------------------------------------------------------------------


def measured(f: Findings) -> list[CardNumber]:
    """The numbers of the card, without an attack first."""
    parts = ((UNTOUCHED, _clean(f)), (ATTACKED, _attacked(f)), (ATTACKED, _others(f)), (CONTROL, _controls(f)))
    return [
        CardNumber(setting, name, row, believed(f, row))
        for setting, part in parts
        for name, row in part
        if row is not None and row.value is not None and row.n
    ]


def _clean(f: Findings) -> Iterator[tuple[str, Row | None]]:
    find = f.run.find
    yield "Every finding right" if f.several else "Accuracy", find(Kind.CLEAN, "accuracy")
    yield "Balanced accuracy", find(Kind.CLEAN, "balanced_accuracy")
    yield "AUROC", find(Kind.CLEAN, "auroc")
    for name in f.run.conditions.classes:
        for metric, title in (("sensitivity", "Sensitivity"), ("specificity", "Specificity"), ("auroc", "AUROC")):
            yield f"{title}, {name}", find(Kind.CLEAN, metric, class_name=name)


def _attacked(f: Findings) -> Iterator[tuple[str, Row | None]]:
    attack, eps = f.strongest, f.reference
    if attack is None or eps is None:
        return
    size = short_size(f, eps)
    yield f"Accuracy under attack ({f.name(attack)}, {size})", f.at_reference
    for finding in f.run.conditions.classes if f.several else ():
        for goal, title in GOALS:
            row = f.run.find(Kind.FINDING, "success", eps=eps, goal=goal, class_name=finding)
            yield f"{title}: {finding}, of images read correctly ({size})", row
    if f.directed and not f.several:
        for title, sources, targets in (("Missed disease", f.disease, f.normal), ("False alarms", f.normal, f.disease)):
            yield f"{title} under that attack, of images read correctly", f.turned(sources, targets, attack, eps)


def _others(f: Findings) -> Iterator[tuple[str, Row | None]]:
    rows = f.run.rows
    for row in among(rows, kind=Kind.UNIVERSAL):
        if row.metric == "fooling_rate" and not row.more:
            yield f"Fooled by one change for all images ({short_size(f, row.eps)})", row
        if row.metric == "targeted_success" and row.more.keys() == {"target"}:
            yield f"Sent to {row.get('target')} by one change for all images ({short_size(f, row.eps)})", row
    for row in among(rows, kind=Kind.DETECTOR, metric="auroc"):
        if outcome(row) and "layer" not in row.more:
            title = f.run.detector_title(str(row.get("detector")))
            yield f"AUROC, detector {title} ({f.run.title(row.attack)}, {short_size(f, row.eps)})", row


def _controls(f: Findings) -> Iterator[tuple[str, Row | None]]:
    eps = f.reference
    if eps is not None:
        for control in f.run.controls:
            name = f"Accuracy under {f.run.title(control).lower()} ({short_size(f, eps)})"
            yield name, f.run.at(control, "accuracy", eps)
    worst = [r for r in among(f.run.rows, kind=Kind.CORRUPTION, metric="accuracy", severity=3) if r.value is not None]
    if worst:
        lowest = min(worst, key=lambda r: r.value or 0.0)
        title = f.run.corruption_title(str(lowest.get("corruption")))
        yield f"Accuracy under natural corruption ({title}: lowest of {len(worst)} at severity 3)", lowest


def metadata(f: Findings) -> dict[str, object]:
    """As Hugging Face's cards have it; numbers in doubt are left out, for it cannot mark them."""
    c, numbers = f.run.conditions, [number for number in measured(f) if number.ok]
    name = c.data or "not named"
    results: list[dict[str, object]] = []
    for setting in SETTINGS:
        dataset = {"type": name, "name": name, "config": setting, "split": "test"}
        dataset |= {"revision": c.data_digest} if c.data_digest else {}
        metrics = [_metric(number) for number in numbers if number.setting == setting]
        if metrics:  # the hub refuses results without a metric
            results.append({"task": {"type": "image-classification"}, "dataset": dataset, "metrics": metrics})
    tags = ["image-classification", "medical-imaging", "adversarial-robustness", *["synthetic-images"] * c.synthetic]
    head: dict[str, object] = {"pipeline_tag": "image-classification", "tags": tags}
    return head | ({"model-index": [{"name": c.model or "classifier", "results": results}]} if results else {})


def _metric(number: CardNumber) -> dict[str, object]:
    row = number.row
    interval = {name: round(end, 4) for name, end in (("low", row.low), ("high", row.high)) if end is not None}
    kind, value = HUB_METRICS.get(row.metric, row.metric), round(row.value or 0.0, 4)
    return {"type": kind, "value": value, "name": number.name, "args": {**interval, "n": row.n}}


# -- the card --------------------------------------------------------------------------------------------------


def _body(f: Findings) -> Iterator[str]:
    c = f.run.conditions
    yield f"# Model card: {summary.escaped(c.model or 'the classifier')}"
    yield ""
    yield (
        "Layout after the example of the FDA's draft guidance of January 2025 (appendix E). Filled from an audit by "
        f"medrobust {c.versions.get('medrobust', '')}: what it cannot know reads “{OPEN}”. No claim of conformity."
    )
    if c.pending:
        yield f"\n**This run is not finished** (still to come: {listing(c.pending)}); the card is incomplete."
    if c.synthetic:
        yield "\n**The images are synthetic: no number here says anything about patients.**"
    for title, entries in _parts(f).items():
        yield f"\n## {title}\n"
        if title == PERFORMANCE:
            yield from _table(f)
        for name, value in entries.items():
            yield f"- **{name}**: {summary.escaped(value) if value else f'*{OPEN}*'}"


def _parts(f: Findings) -> dict[str, Mapping[str, str]]:
    c, run, covered = f.run.conditions, f.run.run, coverage(f)
    architecture = str(c.provenance.get("architecture") or "")
    parameters = f"{count(c.parameters)} parameters" if c.parameters else ""
    weights = f"weights with SHA-256 {c.model_digest}" if c.model_digest else ""
    return {
        "Device information": {
            "Name of the device": "",
            "Name of the model": c.model,
            "Version": "",
            "Identified by": weights,
            "Date created or last updated": "",
            "Date of the audit": run.finished,
            "Model architecture": ", ".join(filter(None, [architecture, parameters])),
        },
        "Regulatory status": {"Authorisation status": "", "File number": ""},
        "Description": {
            **dict.fromkeys(("Intended users", "Intended use", "Indications for use", "Instructions for use"), ""),
            **dict.fromkeys(("Clinical benefits", "Clinical workflow phase"), ""),
            "Inputs": _inputs(f),
            "Outputs": f"{'findings' if f.several else 'one of the classes'} {listing(c.classes)}",
            "Degree of automation, compared with the standard of care": "",
        },
        PERFORMANCE: {
            "Acceptance criteria": _criteria(f),
            "Known biases": "",
            "Known failure modes": f"those of the table, under attack, noise and corruption; others {OPEN}",
            "Precision (reproducibility)": "",
            "Known gaps in the characterisation of the data": "",
            "Limitations of this evaluation": " ".join([*c.model_doubts, *limits(f)]),
            "Inputs unlike the development data": "",
            "Evidence with characterisation of the data": "",
            "How it was established that the model meets its intended use": "",
        },
        "Risk management": {
            "Potential risks": "",
            "Tested in this run": "; ".join(map(described, covered.measured.values())) or "none",
            "Not tested in this run": titles([*covered.unused.values(), *covered.never]),
            "Checks of the audit": check_lines.counted(f.run.checks).text if f.run.checks else "none was recorded",
            **dict.fromkeys(("Interactions", "Deployment", "Updates"), ""),
        },
        "Development": {
            "Data of this audit": _data(f),
            "Origin of the model": {True: "trained for this audit", False: "supplied", None: ""}[c.trained_here],
            "Sources, types and demographics of the development data": "",
        },
    }


def _table(f: Findings) -> Iterator[str]:
    numbers = measured(f)
    if not numbers:
        yield "No number was measured.\n"
        return
    yield "| Measure | Value (95 % interval) | n |\n|---|---|---|"
    for number in numbers:
        yield f"| {summary.escaped(number.name)} | {number.value} | {count(number.row.n)} |"
    yield "\nn: images, or those among them that a share is of. Every row, with its conditions: results.csv.\n"


def _inputs(f: Findings) -> str:
    c = f.run.conditions
    side = f"{c.size} × {c.size} pixels, " if c.size and not c.shapes else ""
    steps = f"; preprocessing as a part of the model: {c.preprocessing}" if c.preprocessing else ""
    return f"images of {side}{plural(c.channels or 1, 'channel')}, {c.bits} bits a channel{steps}"


def _criteria(f: Findings) -> str:
    info = f.run.criteria
    return "none in this run" if info is None else f"{info.line}. {info.origin}"


def _data(f: Findings) -> str:
    c = f.run.conditions
    sides = (("training", c.n_train), ("validation", c.n_val), ("test", c.n_test), ("attacked", c.n_attacked))
    counts = ", ".join(f"{name} {count(n)}" for name, n in sides if n)
    return "; ".join(filter(None, [c.data, counts, f"SHA-256 {c.data_digest}" if c.data_digest else ""]))
