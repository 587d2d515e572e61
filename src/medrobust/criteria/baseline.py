"""The run that a drop is measured against, and the interval of the drop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medrobust import json_files, stats
from medrobust.errors import InputError
from medrobust.results import FORMAT, Kind, Row, read_arrays, withstands
from medrobust.stats import Estimate

IMAGES = {"test_content": "test images", "test_labels": "labels of the test images", "attacked": "attacked images"}
"""Arrays that say which images a run is about."""


@dataclass(frozen=True)
class FinishedAudit:
    """What a drop needs of one run. arrays: of figures.safetensors. attacks: settings by name."""

    rows: Sequence[Row]
    classes: Sequence[str]
    norm: str
    attacks: Mapping[str, object]
    arrays: Mapping[str, np.ndarray]
    clustered: bool
    """Whether several images may come from one patient."""

    @classmethod
    def read(cls, raw: Mapping[str, object], arrays: Mapping[str, np.ndarray], where: str) -> FinishedAudit:
        """From the content of results.json. InputError, which names ``where``, for another format."""
        conditions, rows = raw.get("conditions"), raw.get("rows")
        if raw.get("format") != FORMAT or not isinstance(conditions, dict) or not isinstance(rows, list):
            raise InputError(f"{where} is not of this version; make that run again with this version")
        if not isinstance(conditions.get("classes") or [], list):
            raise InputError(f"{where} is damaged: its classes are no list; make that run again")
        attacks, headline = conditions.get("attacks"), conditions.get("headline")
        try:
            read = [Row.read(row) for row in rows]
        except InputError as error:
            raise InputError(f"{where}: {error}; make that run again") from None
        return cls(
            read,
            [str(name) for name in conditions.get("classes") or ()],
            str(conditions.get("norm")),
            {"headline": headline, **(attacks if isinstance(attacks, dict) else {})},
            arrays,
            conditions.get("n_patients_attacked") is not None,
        )


@dataclass(frozen=True)
class BaselineRun:
    """Another run. digest: of its results. run: its id. name: the folder as it was given."""

    measured: FinishedAudit
    digest: str
    run: str
    name: str

    @classmethod
    def read(cls, folder: Path) -> BaselineRun:
        """InputError where it is no finished run of this version."""
        path = folder / "results.json"
        if not path.is_file():
            raise InputError(f"--baseline {folder} holds no results.json; give the folder of a finished run")
        raw = json_files.read_results(path, finite=True)
        conditions, record = raw.get("conditions"), raw.get("run")
        if isinstance(conditions, dict) and conditions.get("pending"):
            raise InputError(f"--baseline {folder} is not finished; give its command again, it goes on")
        run = str(record.get("id", "")) if isinstance(record, dict) else ""
        return cls(FinishedAudit.read(raw, read_arrays(folder), str(path)), json_files.digest(raw), run, str(folder))

    def check(self, now: Mapping[str, np.ndarray], norm: str, classes: Sequence[str]) -> None:
        """InputError where the other run has other images, or its classes in another order. now: arrays IMAGES of this
        run."""
        before = self.measured.arrays
        if any(name not in before for name in IMAGES):
            raise InputError(
                f"--baseline {self.name} does not say which images it measured; give its command again with this "
                "version"
            )
        for name, what in IMAGES.items():
            if name not in now or not np.array_equal(before[name], now[name]):
                raise InputError(
                    f"--baseline {self.name} has other {what}; a drop is measured on the same images: make both runs "
                    "with the same --data, --limit and --seed"
                )
        if list(classes) != list(self.measured.classes) and sorted(classes) == sorted(self.measured.classes):
            raise InputError(
                f"--baseline {self.name} has its classes in another order ({', '.join(self.measured.classes)}); make "
                "both runs with the same --classes"
            )
        if self.measured.norm != norm:
            raise InputError(f"--baseline {self.name} has the norm {self.measured.norm}, this run {norm}")


class Drop(NamedTuple):
    """remark: how the interval was made."""

    estimate: Estimate
    remark: str


def drop(before: FinishedAudit, old: Row, now: FinishedAudit, new: Row) -> Drop:
    """The value of ``old`` minus that of ``new``, which are the same quantity of two runs on the same images.

    Paired where both runs hold a result for every image (Tango 1998, Stat Med 17:891); otherwise from the lowest to the
    highest difference of the two intervals, which is too wide, never too narrow.
    """
    pairs = per_image(before, old), per_image(now, new)
    remark = "" if before.attacks == now.attacks or old.kind == Kind.CLEAN else "; the attacks of the two runs differ"
    if pairs[0] is not None and pairs[1] is not None and pairs[0].shape == pairs[1].shape:
        patients = _patients(now, old)
        if patients is not None or not now.clustered:
            return Drop(stats.paired_difference(pairs[1], pairs[0], patients), f"paired, same images{remark}")
    a, b = old.estimate, new.estimate
    apart = Estimate(a.value - b.value, a.low - b.high, a.high - b.low, min(a.n, b.n))
    return Drop(apart, f"not paired, the two intervals set against each other{remark}")


def per_image(run: FinishedAudit, row: Row) -> np.ndarray | None:
    """bool (n,): the images that the share ``row`` counts; None where the run holds no such array for it."""
    labels = _labels(run, row)
    if labels is None or labels.ndim != 1 or row.metric not in ("accuracy", "sensitivity", "specificity"):
        return None
    if row.kind == Kind.CLEAN:
        decisions, k = run.arrays.get("test_prediction"), _class(run, row)
        if decisions is None or decisions.shape != labels.shape:
            return None
        right = decisions == labels if k is None else (decisions == k) == (labels == k)
    elif row.kind in (Kind.WORST, Kind.ATTACK) and (min_eps := run.arrays.get(f"min_eps.{row.attack}")) is not None:
        right = withstands(min_eps, row.eps)
    else:
        return None
    counted = np.asarray(right[_subset(run, row, labels)], dtype=bool)
    # rows with columns that are not covered here count other images
    same = counted.size == row.n and row.value is not None and abs(float(counted.mean()) - row.value) < 1e-6
    return counted if same else None


def _patients(run: FinishedAudit, row: Row) -> np.ndarray | None:
    """int (n,): the patient of each image that ``row`` counts."""
    patients, labels = run.arrays.get("test_patients"), _labels(run, row)
    if patients is None or labels is None:
        return None
    patients = patients if row.kind == Kind.CLEAN else patients[run.arrays["attacked"]]
    return np.asarray(patients[_subset(run, row, labels)])


def _labels(run: FinishedAudit, row: Row) -> np.ndarray | None:
    return run.arrays.get("test_labels" if row.kind == Kind.CLEAN else "labels")


def _class(run: FinishedAudit, row: Row) -> int | None:
    """Of the class that ``row`` is about; None: of all."""
    name = row.get("class_name")
    return list(run.classes).index(name) if name in run.classes else None


def _subset(run: FinishedAudit, row: Row, labels: np.ndarray) -> np.ndarray:
    """bool (n,): of these images the ones that ``row`` is about."""
    k = _class(run, row)
    if k is None:
        return np.ones(len(labels), dtype=bool)
    return np.asarray(labels != k if row.metric == "specificity" else labels == k)
