"""A finished audit as a comparison reads it: decisions, and the smallest change that fools, image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from medrobust.errors import InputError
from medrobust.report import findings
from medrobust.report import run as runs
from medrobust.report.findings import Findings
from medrobust.report.run import WORST, Run, same
from medrobust.report.schema import AttackInfo, HeadlineInfo

NEEDED = ("test_labels", "test_prediction", "test_content", "labels", "clean_prediction", "attacked")


@dataclass(frozen=True)
class Audit:
    """name: for people, "A" or "before". arrays: those of the run, classes numbered as ``classes``."""

    name: str
    run: Run
    classes: tuple[str, ...]
    arrays: Mapping[str, np.ndarray]

    @cached_property
    def findings(self) -> Findings:
        """What its own report says of its numbers."""
        return findings.find(self.run)

    @property
    def several(self) -> bool:
        """Whether an image has several findings."""
        return self.findings.several

    @property
    def attacks(self) -> Mapping[str, AttackInfo | HeadlineInfo]:
        """Attacks whose results are known image by image, by name; the ensemble of the headline number among them."""
        headline = self.run.conditions.headline
        known: dict[str, AttackInfo | HeadlineInfo] = {
            name: info for name, info in self.run.conditions.attacks.items() if name != WORST
        }
        if headline is not None and headline.attack not in known:
            known[headline.attack] = headline
        return {name: info for name, info in known.items() if f"min_eps.{name}" in self.arrays}

    def smallest(self, attacks: Sequence[str]) -> np.ndarray:
        """(n attacked,): the smallest eps at which any of these attacks fools; 0 wrong before, inf never."""
        return np.asarray(np.min([self.arrays[f"min_eps.{name}"] for name in attacks], axis=0))

    def doubt(self, attacks: Sequence[str], eps: float) -> str:
        """Why the accuracy under these attacks is inconclusive at that size; empty where it is believed."""
        rows = [r for r in self.run.of_attacks("accuracy") if same(r.eps, eps)]
        worst = [r for r in rows if r.attack == WORST]
        used = [r for r in rows if r.attack in attacks]
        doubted = [r for r in worst if not r.ok] or (used if not any(r.ok for r in used) else [])
        if doubted:
            return doubted[0].note or "its rows are marked inconclusive"
        if findings.in_doubt(self.findings, WORST if worst else attacks[0]):
            return findings.doubts_together(self.findings)[0]
        return ""

    @property
    def clean_doubt(self) -> str:
        """Why its numbers without an attack are inconclusive: outputs that are probably swapped, for one."""
        shaken = self.findings.shaken
        return f"the check “{shaken[0]}” failed" if shaken else ""


def read(place: Path | Run, name: str, first: Audit | None = None) -> Audit:
    """The finished audit in a run folder, or read already; classes are numbered as those of ``first``, if given.

    InputError where it is no finished audit of this version, or knows other classes than ``first``.
    """
    run, folder = (place, name) if isinstance(place, Run) else (runs.read(place), str(place))
    if run.command != "audit":
        raise InputError(f"{folder} is a run of medrobust {run.command}; compare takes runs of medrobust audit")
    if run.conditions.pending:
        raise InputError(f"{folder} is not finished: give the audit's command again, it goes on")
    lacking = [k for k in NEEDED if k not in run.arrays]
    n = len(run.conditions.test_images)
    if lacking or not n:
        raise InputError(f"{folder} does not say which images it is about; run the audit again with this version")
    if not all(_fits(run, k, n) for k in run.arrays):
        raise InputError(f"{folder}: figures.safetensors does not fit results.json; run the audit again")
    classes = tuple(run.conditions.classes)
    order = classes if first is None else first.classes
    if set(order) != set(classes):
        raise InputError(
            f"the classifiers know other classes: {first and first.name} {', '.join(order)}; {name} "
            f"{', '.join(classes)}. Give both audits the same names with --classes and --map"
        )
    number = np.array([order.index(c) for c in classes])
    arrays = {k: _renumbered(v, number) if k in LABELS else v for k, v in run.arrays.items()}
    return Audit(name, run, order, arrays)


SEVERAL = "multilabel"
LABELS = ("test_labels", "test_prediction", "labels", "clean_prediction")


def _fits(run: Run, name: str, n: int) -> bool:
    """Whether an array has the length that it must have, and values that can be."""
    array, attacked = run.arrays[name], run.arrays["attacked"]
    k = len(run.conditions.classes)
    if name in LABELS:
        rows = n if name in ("test_labels", "test_prediction") else attacked.size
        shape = (rows, k) if run.conditions.head == SEVERAL else (rows,)
        return array.shape == shape and array.dtype.kind in "iu" and bool(((array >= -1) & (array < k)).all())
    if name in ("test_content", "test_patients"):
        return array.shape == (n,)
    if name == "attacked":
        fits = array.ndim == 1 and array.dtype.kind in "iu" and bool(array.size)
        return fits and array.min() >= 0 and array.max() < n and np.unique(array).size == array.size
    if name.startswith("min_eps.") and name != "min_eps.findings":
        return array.shape == attacked.shape and bool((array >= 0).all())  # NaN is not
    return True


def _renumbered(labels: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Labels (n,) by the new number of their class, (n, k) of findings with their columns in the new order."""
    if labels.ndim == 2:
        return labels[:, np.argsort(number)]
    return np.where(labels < 0, labels, number[labels])
