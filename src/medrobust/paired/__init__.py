"""Finished audits on the same images, side by side: before and after hardening, vendor A and vendor B.

Reads what the audits wrote; never a model, never torch.
"""

from __future__ import annotations

import csv
import io
import json
import string
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medrobust import report
from medrobust.errors import InputError
from medrobust.paired import audits
from medrobust.paired.audits import Audit
from medrobust.paired.common import Paired, pair
from medrobust.paired.rows import rows_of
from medrobust.report.check_lines import lines
from medrobust.report.run import Run
from medrobust.report.schema import ComparedInfo, ComparedRun
from medrobust.results import FORMAT, ResultsFile
from medrobust.run_folder import RunFolder
from medrobust.run_info import with_run
from medrobust.versions import versions

CHANGED = "changed.csv"
"""Images that one run reads correctly and another does not."""
OF_DATA = {
    "data",
    "data_digest",
    "disease_classes",
    "synthetic",
    "size",
    "channels",
    "bits",
    "levels",
    "norm",
    "head",
    "span",
}
"""Conditions that are those of the first run."""


def compare(
    runs: Sequence[Path | Run],
    out: Path,
    *,
    names: Sequence[str] | None = None,
    eps: float | None = None,
    command: str = "",
) -> Paired:
    """Write a comparison of finished audits into the run folder ``out``: results.json, changed.csv, and its page.

    runs: run folders, or what was read from them, the baseline first. names: of the runs, for people; A, B, C … if not
    given. eps: the reference size, as a fraction of what is shown; by default that of the first run's own report.
    InputError where the runs cannot be compared.
    """
    names = list(names or string.ascii_uppercase[: len(runs)])
    if not 2 <= len(runs) <= len(string.ascii_uppercase):
        raise InputError(f"name 2 to {len(string.ascii_uppercase)} runs to compare, got {len(runs)}")
    if len(names) != len(runs) or len(set(names)) < len(names) or not all(names):
        raise InputError(f"--names wants {len(runs)} different names with commas between, got {', '.join(names)}")
    if len({r.resolve() if isinstance(r, Path) else id(r) for r in runs}) < len(runs):
        raise InputError("the same run is named twice; name the runs of two audits")
    with RunFolder(out, "compare") as run:
        first = audits.read(runs[0], names[0])
        others = [audits.read(r, name, first) for r, name in zip(runs[1:], names[1:], strict=True)]
        paired = pair([first, *others], eps)
        run.begin()
        run.write_text(CHANGED, changed(paired))
        written = with_run(run.path, "results.json", results(paired), command)
        run.write_text("results.json", json.dumps(written, indent=1, allow_nan=False))
        report.write(run.path, locked=True)
    return paired


def results(p: Paired) -> ResultsFile:
    """What results.json holds."""
    audits_ = [side.audit for side in p.sides]
    first = audits_[0]
    info = ComparedInfo(
        runs=[_run_info(audit) for audit in audits_],
        reference=p.reference,
        attacks=[first.attacks[name].title for name in p.attacks],
        by_patient=p.patients is not None,
        notes=list(p.notes),
    )
    conditions = {
        **first.run.conditions.model_dump(include=OF_DATA),
        "study": "compare",
        "model": " and ".join(dict.fromkeys(audit.run.conditions.model for audit in audits_)),
        "classes": list(first.classes),
        "n_test": len(p.names),
        "n_attacked": len(p.attacked),
        "eps": list(p.sizes),
        "versions": versions(),
        "compared": info.model_dump(),
    }
    return {
        "format": FORMAT,
        "kind": "compare",
        "conditions": conditions,
        "rows": [row.plain() for row in rows_of(p)],
        "checks": [],
        "examples": [],
        "left_out": [],
        "seconds": {},
    }


def _run_info(audit: Audit) -> ComparedRun:
    c, run = audit.run.conditions, audit.run
    failed = [line for line in lines(run.checks, run.title) if line.passed is False]
    return ComparedRun(
        name=audit.name,
        model=c.model,
        model_digest=c.model_digest,
        data=c.data,
        id=run.run.id,
        finished=run.run.finished,
        n_test=len(c.test_images),
        n_attacked=audit.arrays["attacked"].size,
        threshold=c.threshold,
        failed=[f"{line.name} ({line.attacks})" for line in failed],
        guesses="no better than guessing" if audit.findings.guessing else "",
    )


def changed(p: Paired) -> str:
    """changed.csv: an image a line, with its class and how each run reads it, before an attack and at the reference.

    Images on which all runs agree are left out. Names of images are codes, unless a run was made with --keep-names.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["image", "label", "eps", *(side.name for side in p.sides)])
    clean, attacked = np.array([side.right for side in p.sides]), np.array([side.held(p.reference) for side in p.sides])
    for eps, images, right in ((0.0, range(len(p.names)), clean), (p.reference, p.attacked.tolist(), attacked)):
        for i, by_run in zip(images, right.T.tolist(), strict=True):
            if len(set(by_run)) > 1:
                answers = ["right" if hit else "wrong" for hit in by_run]
                writer.writerow([p.names[i], _label(p, i), f"{eps:.9g}", *answers])
    return out.getvalue()


def _label(p: Paired, i: int) -> str:
    classes = p.sides[0].audit.classes
    if p.labels.ndim == 1:
        return classes[int(p.labels[i])]
    return ";".join(name for name, label in zip(classes, p.labels[i].tolist(), strict=True) if label == 1)


__all__ = ["CHANGED", "compare", "pair", "results"]
