"""What several audits have in common: the same images, sizes and attacks, in one order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from medrobust import private_names
from medrobust.errors import InputError
from medrobust.grey_scale import reported_size
from medrobust.paired.audits import Audit
from medrobust.report.run import same
from medrobust.report.schema import AttackInfo, HeadlineInfo
from medrobust.report.words import listing, number, plural
from medrobust.results import BY_FINDING, withstands

CONDITIONS = {
    "run.conditions.norm": ("the norm of the attacks", "--norm"),
    "several": ("whether an image has several findings", "--head"),
    "run.conditions.size": (
        "the side of the images in pixels",
        "--size, or with --preprocessing, which keeps the files' pixels",
    ),
    "run.conditions.fit": ("how images are made square", "--fit"),
    "run.conditions.channels": ("the channels of the images", "--channels"),
    "run.conditions.grey_scale": ("the stored grey levels", "--window"),
    "run.conditions.on_grid": ("whether attacks stay on stored levels", "data of one kind"),
}
"""Attributes of an Audit that must be the same: what each is, and the option that makes it so."""


@dataclass(frozen=True)
class PairedAudit:
    """One audit on the common images.

    prediction: (n,), or (n, k) of findings. right: bool (n,), read correctly. smallest: (m,), the smallest eps that
    fools. by_finding: (n, k), the smallest eps that turns each finding, NaN where that was not attacked; None where
    findings are not compared under attack.
    """

    audit: Audit
    prediction: np.ndarray
    right: np.ndarray
    smallest: np.ndarray
    by_finding: np.ndarray | None

    @property
    def name(self) -> str:
        return self.audit.name

    def held(self, eps: float) -> np.ndarray:
        """bool (m,): read correctly at that size; at 0, before any attack."""
        return withstands(self.smallest, eps)


@dataclass(frozen=True)
class Paired:
    """sides: one an audit. names, labels, patients: of the n common test images; attacked: positions of the m common
    attacked images among them. sizes: common eps above 0. reference: one of them. notes: what was left out."""

    sides: tuple[PairedAudit, ...]
    names: tuple[str, ...]
    labels: np.ndarray
    patients: np.ndarray | None
    attacked: np.ndarray
    sizes: tuple[float, ...]
    attacks: tuple[str, ...]
    reference: float
    notes: tuple[str, ...]

    @property
    def attacked_patients(self) -> np.ndarray | None:
        return None if self.patients is None else self.patients[self.attacked]

    def doubt(self, side: PairedAudit, eps: float) -> str:
        """Why that side's accuracy is inconclusive at that size, at 0 without an attack; empty where it is believed."""
        return side.audit.doubt(self.attacks, eps) if eps else side.audit.clean_doubt


def pair(audits: Sequence[Audit], eps: float | None = None) -> Paired:
    """Put audits side by side. eps: the reference size, a fraction of what is shown; by default that of the first audit
    by the rule of its report.

    InputError, in one line, where they cannot be compared: other conditions, no image, size or attack in common, the
    same image with another content or label.
    """
    _same_conditions(audits)
    notes: list[str] = []
    tested = _tested(audits, notes)
    _same_images(audits, tested)
    patients = _patients(audits, tested, notes)
    attacked, places = _attacked(audits, tested, notes)
    attacks, sizes = _attacks(audits, notes), _sizes(audits, notes)
    one_by_one = _findings_attacked(audits, notes)
    sides = []
    for audit, images, place in zip(audits, tested, places, strict=True):
        prediction = audit.arrays["test_prediction"][images]
        right = _right(prediction, audit.arrays["test_labels"][images])
        by_finding = audit.arrays[BY_FINDING][images] if one_by_one else None
        sides.append(PairedAudit(audit, prediction, right, audit.smallest(attacks)[place], by_finding))
    names, labels = _names(audits, tested), audits[0].arrays["test_labels"][tested[0]]
    reference = _reference(sides[0], sizes, eps)
    return Paired(tuple(sides), names, labels, patients, attacked, sizes, attacks, reference, tuple(notes))


def _listed(audits: Sequence[Audit]) -> str:
    return listing([audit.name for audit in audits])


def _same_conditions(audits: Sequence[Audit]) -> None:
    first = audits[0]
    for other in audits[1:]:
        for attribute, (what, option) in CONDITIONS.items():
            a, b = map(attrgetter(attribute), (first, other))
            if a != b:
                raise InputError(
                    f"{first.name} and {other.name} differ in {what} ({a} and {b}), so their numbers cannot be paired; "
                    f"audit both with the same {option}"
                )


def _tested(audits: Sequence[Audit], notes: list[str]) -> list[np.ndarray]:
    """For each audit (n,): the positions of the common test images among its own."""
    keys = _keys(audits)
    common = [key for key in keys[0] if all(key in other for other in keys[1:])]
    if not common:
        raise InputError(
            f"{_listed(audits)} have no test image in common by name: audit the same data, on machines with the same "
            "salt (MEDROBUST_SALT) where names are coded"
        )
    for audit, positions in zip(audits, keys, strict=True):
        if len(common) < (n := len(positions)):
            notes.append(
                f"{audit.name} has {n} test images, {len(common)} of them in every run: the others are left out."
            )
    return [np.array([positions[key] for key in common]) for positions in keys]


def _keys(audits: Sequence[Audit]) -> list[dict[str, int]]:
    """For each audit the positions of its test images by a key that all share: in data that are the same the position,
    else the code of the name."""
    conditions = [audit.run.conditions for audit in audits]
    if len({(c.data_digest, len(c.test_images)) for c in conditions}) == 1:
        return [{str(i): i for i in range(len(c.test_images))} for c in conditions]
    return [{private_names.coded(name): i for i, name in enumerate(c.test_images)} for c in conditions]


def _same_images(audits: Sequence[Audit], tested: Sequence[np.ndarray]) -> None:
    first, digest = audits[0], audits[0].run.conditions.data_digest
    for other, images in zip(audits[1:], tested[1:], strict=True):
        changed = first.arrays["test_content"][tested[0]] != other.arrays["test_content"][images]
        if changed.any() and other.run.conditions.data_digest != digest:
            raise InputError(
                f"{int(changed.sum())} images have the same name in {first.name} and {other.name} and are not the same "
                "files; audit both on the same files"
            )
        relabelled = first.arrays["test_labels"][tested[0]] != other.arrays["test_labels"][images]
        if relabelled.any():
            count = int(relabelled.reshape(len(images), -1).any(1).sum())
            raise InputError(
                f"{count} images have other labels in {first.name} than in {other.name}; give both audits the same"
            )


def _patients(audits: Sequence[Audit], tested: Sequence[np.ndarray], notes: list[str]) -> np.ndarray | None:
    """(n,): of the common images, from the first audit that knows them."""
    for audit, images in zip(audits, tested, strict=True):
        if "test_patients" in audit.arrays:
            if not all("test_patients" in other.arrays for other in audits):
                notes.append(f"Patients are those that {audit.name} names.")
            return np.asarray(audit.arrays["test_patients"][images])
    return None


def _attacked(
    audits: Sequence[Audit], tested: Sequence[np.ndarray], notes: list[str]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """(m,): positions of the images that all attacked among the common ones; and for each audit among its attacked."""
    at = []
    for audit, images in zip(audits, tested, strict=True):
        common = {image: i for i, image in enumerate(images.tolist())}
        attacked = audit.arrays["attacked"].tolist()
        at.append({common[image]: j for j, image in enumerate(attacked) if image in common})
    shared = sorted(set.intersection(*map(set, at)))
    if not shared:
        raise InputError(f"{_listed(audits)} attacked no image in common: audit them with the same --limit and --seed")
    for audit in audits:
        if len(shared) < (n := audit.arrays["attacked"].size):
            notes.append(
                f"{audit.name} attacked {n} images, {len(shared)} of them in every run: the others are left out. "
                "The same --limit and --seed attack the same images."
            )
    return np.array(shared), [np.array([positions[i] for i in shared]) for positions in at]


def _attacks(audits: Sequence[Audit], notes: list[str]) -> tuple[str, ...]:
    """Attacks that all have run with the same settings; those of a single size at the same one."""
    by_audit = [audit.attacks for audit in audits]
    titles = {name: info.title for attacks in reversed(by_audit) for name, info in attacks.items()}
    common = tuple(
        name
        for name in by_audit[0]
        if all(name in attacks for attacks in by_audit) and len({_settings(attacks[name]) for attacks in by_audit}) == 1
    )
    if not common:
        raise InputError(
            f"{_listed(audits)} share no attack with the same settings: audit them with the same --attacks"
        )
    if left_out := [title for name, title in titles.items() if name not in common]:
        notes.append(f"Not run alike on all, and left out: {listing(left_out)}.")
    return common


def _findings_attacked(audits: Sequence[Audit], notes: list[str]) -> bool:
    """Whether all hid and invented each finding with the same attack, and store the result of each image."""
    if not audits[0].several:
        return False
    infos = [audit.run.conditions.findings for audit in audits]
    alike = len({(info.title, info.settings) for info in infos if info is not None}) == 1
    if alike and all(infos) and all(BY_FINDING in audit.arrays for audit in audits):
        return True
    notes.append("Not every run attacked each finding in the same way: findings are compared without an attack only.")
    return False


def _settings(info: AttackInfo | HeadlineInfo) -> tuple[object, ...]:
    return (info.title, info.settings, info.eps if isinstance(info, HeadlineInfo) else None)


def _sizes(audits: Sequence[Audit], notes: list[str]) -> tuple[float, ...]:
    grids = [[e for e in audit.run.conditions.eps if e > 0] for audit in audits]
    common = [e for e in grids[0] if all(any(same(e, other) for other in grid) for grid in grids[1:])]
    if not common:
        raise InputError(f"{_listed(audits)} were attacked at no size in common: audit them with the same --eps")
    left_out: list[float] = []
    for e in (e for grid in grids for e in grid):
        left_out += [] if any(same(e, other) for other in (*common, *left_out)) else [e]
    if left_out:
        notes.append(f"Not tested on all, and left out: {plural(len(left_out), 'size')}.")
    return tuple(common)


def _right(prediction: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """bool (n,): the class, or every known finding."""
    hits = prediction == labels
    return np.asarray((hits | (labels < 0)).all(1) if labels.ndim == 2 else hits)


def _names(audits: Sequence[Audit], tested: Sequence[np.ndarray]) -> tuple[str, ...]:
    """Of the common images: as a run that keeps names has them, else as codes."""
    by_audit = ([a.run.conditions.test_images[i] for i in x.tolist()] for a, x in zip(audits, tested, strict=True))
    by_image = zip(*by_audit, strict=True)
    return tuple(next((n for n in names if not private_names.is_code(n)), names[0]) for names in by_image)


def _reference(first: PairedAudit, sizes: tuple[float, ...], eps: float | None) -> float:
    if eps is not None:
        c = first.audit.run.conditions
        size = next((e for e in sizes if same(e, eps / c.span)), None)
        if size is None:
            shown = ", ".join(c.grey_scale.text(e) if c.norm == "Linf" else number(e) for e in sizes)
            raise InputError(f"--eps {number(eps)} is none of the sizes that all were attacked at: {shown}")
        return size
    grey = first.audit.findings.grey
    return reported_size({e: float(first.held(e).mean()) for e in sizes}, float(first.held(0.0).mean()), grey)
