"""A finished audit as a comparison reads it: decisions, and the smallest change that fools, image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from medrobust import manifest
from medrobust.errors import InputError
from medrobust.report import finding_words, findings
from medrobust.report import run as runs
from medrobust.report.findings import Findings
from medrobust.report.run import WORST, Run, same
from medrobust.report.schema import AttackInfo, HeadlineInfo
from medrobust.results import BY_FINDING, FIGURES, group

OF_TEST, OF_ATTACKED = ("test_labels", "test_prediction"), ("labels", "clean_prediction")
"""Arrays of classes or findings, of all test images and of the attacked ones."""
NEEDED = (*OF_TEST, "test_content", *OF_ATTACKED, "attacked")


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

    @cached_property
    def min_eps(self) -> Mapping[str, np.ndarray]:
        """(n attacked,) by attack: the smallest eps that fools; 0 wrong before, inf never."""
        return group(self.arrays, "min_eps")

    @cached_property
    def attacks(self) -> Mapping[str, AttackInfo | HeadlineInfo]:
        """Attacks whose results are known image by image, by name; the ensemble of the headline number among them."""
        every: dict[str, AttackInfo | HeadlineInfo] = {**self.run.conditions.attacks}
        if (headline := self.run.conditions.headline) is not None:
            every.setdefault(headline.attack, headline)
        return {name: info for name, info in every.items() if name != WORST and name in self.min_eps}

    def smallest(self, attacks: Sequence[str]) -> np.ndarray:
        """(n attacked,): the smallest eps at which any of these attacks fools; 0 wrong before, inf never."""
        return np.asarray(np.min([self.min_eps[name] for name in attacks], axis=0))

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

    def finding_doubt(self, goal: str, name: str, eps: float) -> str:
        """Why the share in which a finding is hidden or invented is inconclusive; empty where it is believed."""
        row = finding_words.row(self.findings, "success", goal, eps, class_name=name)
        return "" if row is None or row.ok else row.note or "its row is marked inconclusive"

    @property
    def clean_doubt(self) -> str:
        """Why its numbers without an attack are inconclusive: outputs that are probably swapped, for one."""
        shaken = self.findings.shaken
        return f"the check “{shaken[0]}” failed" if shaken else ""


def read(place: Path | Run, name: str, first: Audit | None = None) -> Audit:
    """The finished audit in a run folder, or read already; classes are numbered as those of ``first``, if given.

    InputError where it is no finished audit of this version, or has other classes than ``first``.
    """
    run, folder = (place, name) if isinstance(place, Run) else (runs.read(place), str(place))
    if run.command != "audit":
        raise InputError(f"{folder} is a run of medrobust {run.command}; compare takes runs of medrobust audit")
    if run.conditions.pending:
        raise InputError(f"{folder} is not finished: give the audit's command again, it goes on")
    if isinstance(place, Path):
        _check_files(place)
    if not run.conditions.test_images or any(k not in run.arrays for k in NEEDED):
        raise InputError(f"{folder} does not say which images it is about; run the audit again with this version")
    audit = Audit(name, run, tuple(run.conditions.classes), run.arrays)
    if not _fits(audit):
        raise InputError(f"{folder}: figures.safetensors does not fit results.json; run the audit again")
    return audit if first is None else _renumbered(audit, first)


def _check_files(folder: Path) -> None:
    """InputError where the files that a comparison reads are not those that the run's manifest lists."""
    if not (folder / manifest.FILE).is_file():
        raise InputError(
            f"{folder} has no {manifest.FILE}, so that a change of its files is not seen; medrobust report {folder} "
            "writes it anew"
        )
    manifest.check(folder, "results.json", FIGURES)


def _fits(audit: Audit) -> bool:
    """Whether the arrays that a comparison reads have the lengths that they must have, and values that can be."""
    arrays, attacked = audit.arrays, audit.arrays["attacked"]
    n, m, k = len(audit.run.conditions.test_images), attacked.size, len(audit.classes)
    columns, values = ((k,), 2) if audit.several else ((), k)
    labels = [*((arrays[x], n) for x in OF_TEST), *((arrays[x], m) for x in OF_ATTACKED)]
    test_images = [arrays[x] for x in ("test_content", "test_patients") if x in arrays]
    sizes = [audit.min_eps[x] for x in audit.attacks]
    by_finding = arrays.get(BY_FINDING)
    return (
        m > 0
        and np.unique(attacked).shape == attacked.shape
        and _whole(attacked, 0, n)
        and all(x.shape == (length, *columns) and _whole(x, -1, values) for x, length in labels)
        and all(x.shape == (n,) for x in test_images)
        and all(x.shape == (m,) and bool((x >= 0).all()) for x in sizes)  # NaN is not
        and (by_finding is None or (by_finding.shape == (n, k) and not bool((by_finding < 0).any())))
    )


def _whole(values: np.ndarray, low: int, end: int) -> bool:
    """Whether all are whole numbers from ``low`` to below ``end``."""
    return values.dtype.kind in "iu" and bool(((values >= low) & (values < end)).all())


def _renumbered(audit: Audit, first: Audit) -> Audit:
    """The same audit with its classes numbered as those of ``first``; findings are columns of (n, k)."""
    if set(first.classes) != set(audit.classes):
        raise InputError(
            f"the classifiers know other classes: {first.name} {', '.join(first.classes)}; {audit.name} "
            f"{', '.join(audit.classes)}. Give both audits the same names with --classes and --map"
        )
    number = np.array([first.classes.index(c) for c in audit.classes])
    labels = {name: audit.arrays[name] for name in (*OF_TEST, *OF_ATTACKED)}
    renumbered = {
        name: x[:, np.argsort(number)] if x.ndim == 2 else np.where(x < 0, x, number[x]) for name, x in labels.items()
    }
    if (by_finding := audit.arrays.get(BY_FINDING)) is not None:
        renumbered[BY_FINDING] = by_finding[:, np.argsort(number)]
    return replace(audit, classes=first.classes, arrays={**audit.arrays, **renumbered})
