"""What several audits have in common: the same images, sizes and attacks, in one order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medrobust import private_names
from medrobust.errors import InputError
from medrobust.grey_scale import reported_size
from medrobust.paired.audits import SEVERAL, Audit
from medrobust.report.run import same
from medrobust.report.schema import HeadlineInfo
from medrobust.report.words import listing, number

FIELDS = {
    "norm": ("the norm of the attacks", "--norm"),
    "head": ("the kind of answer", "--head"),
    "size": ("the side of the images in pixels", "--size, or with --preprocessing, which keeps the files' pixels"),
    "fit": ("how images are made square", "--fit"),
    "channels": ("the channels of the images", "--channels"),
    "grey_scale": ("the stored grey levels", "--window"),
    "on_grid": ("whether attacks stay on stored levels", "data of one kind"),
}
"""Conditions that must be the same: what each is, and the option that makes it so."""


@dataclass(frozen=True)
class PairedAudit:
    """One audit on the common images: which are read correctly, (n,), and the smallest eps that fools, (m,)."""

    audit: Audit
    prediction: np.ndarray
    right: np.ndarray
    smallest: np.ndarray

    @property
    def name(self) -> str:
        return self.audit.name

    def held(self, eps: float) -> np.ndarray:
        """bool (m,): read correctly at that size; at 0, before any attack."""
        return np.asarray(self.smallest > np.float32(eps))


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
        """Why that side's accuracy under attack is inconclusive at that size; empty where it is believed."""
        return side.audit.doubt(self.attacks, eps)


def pair(audits: Sequence[Audit], eps: float | None = None) -> Paired:
    """Put audits side by side. eps: the reference size, a fraction of what is shown; by default that of the first audit
    by the rule of its report.

    InputError, in one line, where they cannot be compared: other conditions, no image, size or attack in common, the
    same image with another content or label.
    """
    _same_conditions(audits)
    keys = _keys(audits)
    notes: list[str] = []
    common = [key for key in keys[0] if all(key in other for other in keys[1:])]
    if not common:
        raise InputError(
            f"{_listed(audits)} have no test image in common by name: audit the same data, on machines with the same "
            "salt (MEDROBUST_SALT) where names are coded"
        )
    places = [np.array([own[key] for key in common]) for own in keys]
    for audit, place in zip(audits, places, strict=True):
        if len(place) < (n := len(audit.run.conditions.test_images)):
            notes.append(
                f"{audit.name} has {n} test images, {len(place)} of them in every run: the others are left out."
            )
    _same_images(audits, places)
    patients = _patients(audits, places, notes)
    attacked = [_attacked(audit, place) for audit, place in zip(audits, places, strict=True)]
    both = sorted(set.intersection(*(set(own) for own in attacked)))
    if not both:
        raise InputError(f"{_listed(audits)} attacked no image in common: audit them with the same --limit and --seed")
    for audit in audits:
        if len(both) < (n := audit.arrays["attacked"].size):
            notes.append(
                f"{audit.name} attacked {n} images, {len(both)} of them in every run: the others are left out. "
                "The same --limit and --seed attack the same images."
            )
    attacks = _attacks(audits, notes)
    sizes = _sizes(audits, notes)
    sides = []
    for audit, place, own in zip(audits, places, attacked, strict=True):
        prediction = audit.arrays["test_prediction"][place]
        right = _right(prediction, audit.arrays["test_labels"][place])
        sides.append(PairedAudit(audit, prediction, right, audit.smallest(attacks)[[own[i] for i in both]]))
    first = audits[0]
    names = _names(audits, places)
    labels = first.arrays["test_labels"][places[0]]
    index = np.array(both)
    reference = _reference(sides[0], sizes, eps)
    return Paired(tuple(sides), names, labels, patients, index, sizes, attacks, reference, tuple(notes))


def _listed(audits: Sequence[Audit]) -> str:
    return listing([audit.name for audit in audits])


def _same_conditions(audits: Sequence[Audit]) -> None:
    first = audits[0]
    for other in audits[1:]:
        for field, (what, option) in FIELDS.items():
            mine, its = (getattr(a.run.conditions, field) for a in (first, other))
            if field == "head":  # logit and softmax answer with one class
                mine, its = mine == SEVERAL, its == SEVERAL
            if mine != its:
                raise InputError(
                    f"{first.name} and {other.name} differ in {what} ({mine} and {its}), so a size is not one change; "
                    f"audit both with the same {option}"
                )


def _keys(audits: Sequence[Audit]) -> list[dict[str, int]]:
    """For each audit its test images by a name that all share: position in data that are the same, else their code."""
    stated = {(a.run.conditions.data_digest, len(a.run.conditions.test_images)) for a in audits}
    if len(stated) == 1:
        return [{str(i): i for i in range(len(a.run.conditions.test_images))} for a in audits]
    return [{private_names.coded(x): i for i, x in enumerate(a.run.conditions.test_images)} for a in audits]


def _same_images(audits: Sequence[Audit], places: Sequence[np.ndarray]) -> None:
    first, digest = audits[0], audits[0].run.conditions.data_digest
    for other, place in zip(audits[1:], places[1:], strict=True):
        changed = first.arrays["test_content"][places[0]] != other.arrays["test_content"][place]
        if changed.any() and other.run.conditions.data_digest != digest:
            raise InputError(
                f"{int(changed.sum())} images have the same name in {first.name} and {other.name} and are not the same "
                "files; audit both on the same files"
            )
        relabelled = first.arrays["test_labels"][places[0]] != other.arrays["test_labels"][place]
        if relabelled.any():
            count = int(relabelled.reshape(len(place), -1).any(1).sum())
            raise InputError(
                f"{count} images have other labels in {first.name} than in {other.name}; give both audits the same"
            )


def _patients(audits: Sequence[Audit], places: Sequence[np.ndarray], notes: list[str]) -> np.ndarray | None:
    """Of the common images, from the first audit that knows them."""
    for audit, place in zip(audits, places, strict=True):
        if "test_patients" in audit.arrays:
            if not all("test_patients" in other.arrays for other in audits):
                notes.append(f"Patients are those that {audit.name} names.")
            return np.asarray(audit.arrays["test_patients"][place])
    return None


def _attacked(audit: Audit, place: np.ndarray) -> dict[int, int]:
    """Position among the common images to position among those that this audit attacked."""
    common = {int(own): i for i, own in enumerate(place)}
    return {common[i]: j for j, i in enumerate(audit.arrays["attacked"].tolist()) if i in common}


def _attacks(audits: Sequence[Audit], notes: list[str]) -> tuple[str, ...]:
    """Attacks that all have run with the same settings; those of a single size at the same one."""
    every = [audit.attacks for audit in audits]
    names = list(dict.fromkeys(name for attacks in every for name in attacks))
    common = [n for n in names if all(n in attacks for attacks in every) and len({_settings(a[n]) for a in every}) == 1]
    left = [next(a[n].title for a in every if n in a) for n in names if n not in common]
    if not common:
        raise InputError(
            f"{_listed(audits)} share no attack with the same settings: audit them with the same --attacks"
        )
    if left:
        notes.append(f"Not run alike on all, and left out: {listing(left)}.")
    return tuple(common)


def _settings(info: object) -> tuple[object, ...]:
    size = info.eps if isinstance(info, HeadlineInfo) else None
    return (getattr(info, "title", ""), getattr(info, "settings", ""), size)


def _sizes(audits: Sequence[Audit], notes: list[str]) -> tuple[float, ...]:
    grids = [[e for e in audit.run.conditions.eps if e > 0] for audit in audits]
    common = [e for e in grids[0] if all(any(same(e, other) for other in grid) for grid in grids[1:])]
    if not common:
        raise InputError(f"{_listed(audits)} were attacked at no size in common: audit them with the same --eps")
    if any(len(grid) > len(common) for grid in grids):
        notes.append(f"Not tested on all, and left out: {max(map(len, grids)) - len(common)} sizes or more.")
    return tuple(common)


def _right(prediction: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """bool (n,): the class, or every known finding."""
    hits = prediction == labels
    return np.asarray((hits | (labels < 0)).all(1) if labels.ndim == 2 else hits)


def _names(audits: Sequence[Audit], places: Sequence[np.ndarray]) -> tuple[str, ...]:
    """Of the common images: as a run that keeps names has them, else as codes."""
    every = [[a.run.conditions.test_images[i] for i in place.tolist()] for a, place in zip(audits, places, strict=True)]
    return tuple(next((n for n in own if not private_names.is_code(n)), own[0]) for own in zip(*every, strict=True))


def _reference(first: PairedAudit, sizes: tuple[float, ...], eps: float | None) -> float:
    if eps is not None:
        c = first.audit.run.conditions
        near = [e for e in sizes if same(e, eps / c.span)]
        if not near:
            shown = ", ".join(c.grey_scale.text(e) if c.norm == "Linf" else number(e) for e in sizes)
            raise InputError(f"--eps {number(eps)} is none of the sizes that all were attacked at: {shown}")
        return near[0]
    grey = first.audit.findings.grey
    return reported_size({e: float(first.held(e).mean()) for e in sizes}, float(first.held(0.0).mean()), grey)
