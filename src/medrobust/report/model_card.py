"""model-card.md: what an audit knows of a classifier, in the layout of the FDA's example, with Hugging Face's metadata.

The example: draft guidance of January 2025, appendix E. Every number is a row of results.json with its interval and its
n. What an audit cannot know is left to the manufacturer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from medrobust.report import check_lines, summary
from medrobust.report.findings import Findings
from medrobust.report.sections.limits import limits
from medrobust.report.sections.threat_model import names
from medrobust.report.sizes import short_size
from medrobust.report.tested import believed, coverage
from medrobust.report.words import NO_INTERVAL, bounds, count, listing, percent, plural
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
    """One row under a name for people. setting: one of SETTINGS; ok: it is believed; share: it is one, no AUROC."""

    setting: str
    name: str
    row: Row
    ok: bool
    share: bool

    @property
    def value(self) -> str:
        scale, digits = (100, 1) if self.share else (1, 3)
        text = percent(self.row.value) if self.share else f"{self.row.value:.3f}"
        interval = bounds(self.row.low, self.row.high, digits, scale) or f"({NO_INTERVAL})"
        return f"{text} {interval}" + ("" if self.ok else ", inconclusive")


def text(f: Findings) -> str:
    """The whole file."""
    head = yaml.safe_dump(metadata(f), sort_keys=False, allow_unicode=True, width=120)
    return f"---\n{head}---\n\n" + "\n".join(_body(f)) + "\n"


# -- numbers ---------------------------------------------------------------------------------------------------


def measured(f: Findings) -> list[CardNumber]:
    """The numbers of the card, without an attack first."""
    parts = ((UNTOUCHED, _clean(f)), (ATTACKED, _attacked(f)), (ATTACKED, _others(f)), (CONTROL, _controls(f)))
    return [
        CardNumber(setting, name, row, believed(f, row), share)
        for setting, part in parts
        for name, row, share in part
        if row is not None and row.value is not None and row.n
    ]


def _clean(f: Findings) -> Iterator[tuple[str, Row | None, bool]]:
    find = f.run.find
    yield "Every finding right" if f.several else "Accuracy", find(Kind.CLEAN, "accuracy"), True
    yield "Balanced accuracy", find(Kind.CLEAN, "balanced_accuracy"), True
    yield "AUROC", find(Kind.CLEAN, "auroc"), False
    for name in f.run.conditions.classes:
        for metric, share in (("sensitivity", True), ("specificity", True), ("auroc", False)):
            title = "AUROC" if metric == "auroc" else metric.capitalize()
            yield f"{title}, {name}", find(Kind.CLEAN, metric, class_name=name), share


def _attacked(f: Findings) -> Iterator[tuple[str, Row | None, bool]]:
    attack, eps = f.strongest, f.reference
    if attack is None or eps is None:
        return
    size = short_size(f, eps)
    yield f"Accuracy under attack ({f.name(attack)}, {size})", f.at_reference, True
    for finding in f.run.conditions.classes if f.several else ():
        for goal, said in GOALS:
            row = f.run.find(Kind.FINDING, "success", eps=eps, goal=goal, class_name=finding)
            yield f"{said}: {finding}, of images read correctly ({size})", row, True
    if f.directed and not f.several:
        for title, sources, targets in (("Missed disease", f.disease, f.normal), ("False alarms", f.normal, f.disease)):
            yield f"{title} under that attack, of images read correctly", f.turned(sources, targets, attack, eps), True


def _others(f: Findings) -> Iterator[tuple[str, Row | None, bool]]:
    rows = f.run.rows
    for row in among(rows, kind=Kind.UNIVERSAL):
        if row.metric == "fooling_rate" and not row.more:
            yield f"Fooled by one change for all images ({short_size(f, row.eps)})", row, True
        if row.metric == "targeted_success" and row.more.keys() == {"target"}:
            yield f"Sent to {row.get('target')} by one change for all images ({short_size(f, row.eps)})", row, True
    for row in among(rows, kind=Kind.DETECTOR, metric="auroc"):
        if row.attack not in ("none", "noise") and "layer" not in row.more:
            known = f.run.conditions.detection
            info = known.detectors.get(str(row.get("detector"))) if known is not None else None
            who = row.get("detector") if info is None else info.title
            yield f"AUROC, detector {who} ({f.run.title(row.attack)}, {short_size(f, row.eps)})", row, False


def _controls(f: Findings) -> Iterator[tuple[str, Row | None, bool]]:
    eps = f.reference
    if eps is not None:
        for control in f.run.controls:
            name = f"Accuracy under {f.run.title(control).lower()} ({short_size(f, eps)})"
            yield name, f.run.at(control, "accuracy", eps), True
    worst = [r for r in among(f.run.rows, kind=Kind.CORRUPTION, metric="accuracy", severity=3) if r.value is not None]
    if worst:
        lowest = min(worst, key=lambda r: r.value or 0.0)
        natural, name = f.run.conditions.corruptions, str(lowest.get("corruption"))
        title = name if natural is None else natural.titles.get(name, name)
        yield f"Accuracy under natural corruption ({title}: lowest of {len(worst)} at severity 3)", lowest, True


def metadata(f: Findings) -> dict[str, object]:
    """As Hugging Face's cards have it; numbers in doubt are left out, for it cannot mark them."""
    c, believable = f.run.conditions, [one for one in measured(f) if one.ok]
    name = c.data or "not named"
    results: list[dict[str, object]] = []
    for setting in SETTINGS:
        dataset = {"type": name, "name": name, "config": setting, "split": "test"}
        dataset |= {"revision": c.data_digest} if c.data_digest else {}
        metrics = [_metric(one) for one in believable if one.setting == setting]
        if metrics:  # the hub refuses results without a metric
            results.append({"task": {"type": "image-classification"}, "dataset": dataset, "metrics": metrics})
    tags = ["image-classification", "medical-imaging", "adversarial-robustness", *["synthetic-images"] * c.synthetic]
    head: dict[str, object] = {"pipeline_tag": "image-classification", "tags": tags}
    return head | ({"model-index": [{"name": c.model or "classifier", "results": results}]} if results else {})


def _metric(one: CardNumber) -> dict[str, object]:
    ends = {k: round(v, 4) for k, v in (("low", one.row.low), ("high", one.row.high)) if v is not None}
    kind, value = HUB_METRICS.get(one.row.metric, one.row.metric), round(one.row.value or 0.0, 4)
    return {"type": kind, "value": value, "name": one.name, "args": {**ends, "n": one.row.n}}


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
    c, run = f.run.conditions, f.run.run
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
            "Tested in this run": _tested(f),
            "Not tested in this run": _untested(f),
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
    rows = measured(f)
    if not rows:
        yield "No number was measured.\n"
        return
    yield "| Measure | Value (95 % interval) | n |\n|---|---|---|"
    for one in rows:
        yield f"| {summary.escaped(one.name)} | {one.value} | {count(one.row.n)} |"
    yield "\nn: images, or those among them that a share is of. Every row, with its conditions: results.csv.\n"


def _inputs(f: Findings) -> str:
    c = f.run.conditions
    side = f"{c.size} × {c.size} pixels, " if c.size and not c.shapes else ""
    steps = f"; preprocessing as a part of the model: {c.preprocessing}" if c.preprocessing else ""
    return f"images of {side}{plural(c.channels or 1, 'channel')}, {c.bits} bits a channel{steps}"


def _criteria(f: Findings) -> str:
    info = f.run.criteria
    return "none in this run" if info is None else f"{info.line}. {info.origin}"


def _tested(f: Findings) -> str:
    parts = []
    for name, one in coverage(f).measured.items():
        title = one.threat.title if one.threat else name
        parts.append(f"{title} ({names(list(one.ok))}{'' if one.believed else '; inconclusive'})")
    return "; ".join(parts) or "none"


def _untested(f: Findings) -> str:
    covered = coverage(f)
    return "; ".join([*(t.title for t in covered.unused.values()), *(t.title for t in covered.never)])


def _data(f: Findings) -> str:
    c = f.run.conditions
    sides = (("training", c.n_train), ("validation", c.n_val), ("test", c.n_test), ("attacked", c.n_attacked))
    counts = ", ".join(f"{name} {count(n)}" for name, n in sides if n)
    return "; ".join(filter(None, [c.data, counts, f"SHA-256 {c.data_digest}" if c.data_digest else ""]))
