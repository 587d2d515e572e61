"""Train, validation and test: stratified by class, a patient on one side, the same whatever the order of rows.

Groups (patients) are dealt out by error diffusion: each split runs up a deficit in each class as images
arrive, and the next group goes where the deficit is largest. Class shares are then met within about one
group, totals too, even where a class has a single image.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from medrobust.errors import InputError

SPLITS = ("train", "val", "test")
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
CARVED = {"train": 0.9, "val": 0.1}
"""Shares of a given training part that comes without validation."""

SYNONYMS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}


def key(seed: int, purpose: str, name: str) -> bytes:
    """A number to sort by that is random for each (seed, purpose, name) and free of order."""
    return hashlib.blake2b(f"{int(seed)}\x1f{purpose}\x1f{name}".encode(), digest_size=16).digest()


def assign_groups(groups: Sequence[str], labels: np.ndarray, shares: dict[str, float], seed: int) -> np.ndarray:
    """str (n,): the split of each image; images of one group share it. Deterministic in (seed, groups, labels)."""
    members: dict[str, list[int]] = defaultdict(list)
    for image, group in enumerate(groups):
        members[group].append(image)
    names, parts = list(shares), list(shares.values())
    short: dict[object, list[float]] = defaultdict(
        lambda: [0.0] * len(names)
    )  # by class: what each split is owed; "all": over all classes
    side = np.empty(len(groups), dtype="<U5")
    for group in sorted(members, key=lambda g: (-len(members[g]), key(seed, "split", g))):
        images = members[group]
        counts: dict[object, int] = defaultdict(int)
        for image in images:
            counts[int(labels[image])] += 1
        counts["all"] = len(images)
        for name, count in counts.items():
            short[name] = [owed + count * part for owed, part in zip(short[name], parts, strict=True)]
        pull = [sum(count * short[name][s] for name, count in counts.items()) for s in range(len(names))]
        winner = max(range(len(names)), key=pull.__getitem__)
        for name, count in counts.items():
            short[name][winner] -= count
        side[images] = names[winner]
    return side


def assign(
    labels: np.ndarray, ids: Sequence[str], patients: np.ndarray | None, given: Sequence[str] | None, seed: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The split of each image, and notes on it. A given split is kept as it is; missing validation is carved."""
    groups = group_names(ids, patients)
    if given is None:
        side = assign_groups(groups, labels, SHARES, seed)
        kind = "patients" if patients is not None else "images"
        shares = ", ".join(f"{round(100 * part)} % {name}" for name, part in SHARES.items())
        return side, (f"The {kind} were split at random, stratified by class: {shares} (seed {seed}).",)
    side = normalise(given)
    notes = shared_patients(side, patients)
    train = np.flatnonzero(side == "train")
    if train.size and not (side == "val").any():
        side[train] = assign_groups([groups[i] for i in train], labels[train], CARVED, seed)
        kind = "patient-wise" if patients is not None else "image-wise"
        notes.append(
            f"The given split has no validation part: {int((side == 'val').sum())} of its {train.size} training "
            f"images were set aside for it ({kind}, stratified by class, seed {seed})."
        )
    return side, tuple(notes)


def group_names(ids: Sequence[str], patients: np.ndarray | None) -> list[str]:
    """The patient of each image; an image whose patient is unknown is a group of its own."""
    if patients is None:
        return [f"image {i}" for i in ids]
    return [f"patient {p}" if p else f"image {i}" for i, p in zip(ids, patients, strict=True)]


def normalise(given: Sequence[str]) -> np.ndarray:
    """train, val or test for each value as it was written; InputError for any other word."""
    words = [str(word).strip().lower() for word in given]
    unknown = sorted({str(g) for g, word in zip(given, words, strict=True) if word not in SYNONYMS})
    if unknown:
        examples = ", ".join(repr(word) for word in unknown[:3])
        raise InputError(
            f"the split column has {examples}{' …' if len(unknown) > 3 else ''} in "
            f"{sum(word not in SYNONYMS for word in words)} rows; use train, val or test in every row"
        )
    return np.array([SYNONYMS[word] for word in words], dtype="<U5")


def shared_patients(side: np.ndarray, patients: np.ndarray | None) -> list[str]:
    """A sentence for the report where a given split has a patient on two sides; it is not changed."""
    if patients is None:
        return []
    splits: dict[str, set[str]] = defaultdict(set)
    for patient, where in zip(patients, side, strict=True):
        if patient:
            splits[patient].add(str(where))
    both = {patient for patient, where in splits.items() if len(where) > 1}
    if not both:
        return []
    names = [s for s in SPLITS if any(s in splits[p] for p in both)]
    images = sum(patient in both for patient in patients)
    count = "1 patient stands" if len(both) == 1 else f"{len(both)} patients stand"
    return [
        f"{count} on both sides of the given {'/'.join(names)} split ({images} images). The split was kept as it "
        "was given; accuracy on the test images of such patients may be too good."
    ]
