"""Train, validation and test: stratified by class, a patient on one side, the same whatever the order of rows.

Groups (patients) of one class an image are dealt out by error diffusion: each split runs up a deficit in each class as
images arrive, and the next group goes where the deficit is largest. Class shares are then met within about one group,
totals too, even where a class has a single image. Those of several findings are dealt out by iterative stratification
(Sechidis et al. 2011, doi:10.1007/978-3-642-23808-6_10): the rarest finding first, each group to the split that lacks
it most.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

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
    if labels.ndim == 2:
        return _of_findings(members, labels, shares, seed)
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


def _of_findings(
    members: Mapping[str, list[int]], labels: np.ndarray, shares: Mapping[str, float], seed: int
) -> np.ndarray:
    """The same for labels (n, k): images with each finding, and images, in these shares."""
    order = sorted(members, key=lambda g: (-len(members[g]), key(seed, "split", g)))
    counts = np.array([(labels[members[g]] == 1).sum(0) for g in order])
    sizes = np.array([len(members[g]) for g in order])
    wanted = np.array(list(shares.values()))[:, None] * np.append(counts.sum(0), sizes.sum())
    side = np.empty(len(labels), dtype="<U5")
    for group, place in zip(order, iterative(counts, sizes, wanted), strict=True):
        side[members[group]] = list(shares)[place]
    return side


def iterative(counts: np.ndarray, sizes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """int (g,): the part that each group goes to, by iterative stratification.

    counts: (g, k) images with each finding, in the order in which equal groups are dealt out. sizes: (g,) images.
    wanted: (parts, k + 1) images with each finding that each part shall have, then of all images. A part that has no
    room left for a group gets it only where no part has.
    """
    short = wanted.astype(float)
    part = np.full(len(sizes), -1)
    totals = np.column_stack([counts, sizes])
    while (left := np.flatnonzero(part < 0)).size:
        remaining = counts[left].sum(0)
        # the images without a finding come last, by their number alone
        label = min((k for k in range(len(remaining)) if remaining[k]), key=lambda k: remaining[k], default=-1)
        for group in left[counts[left, label] > 0] if label >= 0 else left:
            room = short[:, -1] >= sizes[group] - 0.5
            place = max(range(len(short)), key=lambda p: (room[p], round(short[p, label], 9), round(short[p, -1], 9)))
            part[group] = place
            short[place] -= totals[group]
    return part


def sampled(ids: Sequence[str], labels: np.ndarray, by_name: np.ndarray, limit: int, seed: int) -> list[int]:
    """``limit`` of the images, classes in their proportions, keyed by (seed, id). by_name: classes, for ties."""
    counts = np.bincount(labels, minlength=len(by_name))
    quota = np.empty_like(counts)
    quota[by_name] = _apportion(counts[by_name], limit)
    chosen: list[int] = []
    for image in sorted(range(len(ids)), key=lambda i: key(seed, "sample", ids[i])):
        if quota[labels[image]] > 0:
            quota[labels[image]] -= 1
            chosen.append(image)
    return chosen


def sampled_findings(ids: Sequence[str], labels: np.ndarray, by_name: np.ndarray, limit: int, seed: int) -> list[int]:
    """The same of findings (n, k), one image of each where that is possible."""
    order = sorted(range(len(ids)), key=lambda i: key(seed, "sample", ids[i]))
    counts = (labels[order][:, by_name] == 1).astype(np.int64)
    whole = np.append(counts.sum(0), len(ids))
    chosen = np.minimum(np.maximum(whole * (limit / len(ids)), 1), whole)
    chosen[-1] = limit
    parts = iterative(counts, np.ones(len(ids), dtype=np.int64), np.stack([chosen, whole - chosen]))
    return [i for i, part in zip(order, parts, strict=True) if part == 0]


def _apportion(counts: np.ndarray, limit: int) -> np.ndarray:
    """How many of each class: in proportion, largest remainder first, one of each class where limit allows."""
    share = counts * limit / counts.sum()
    quota: np.ndarray = np.floor(share).astype(np.int64)
    if limit >= np.count_nonzero(counts):
        quota = np.maximum(quota, counts > 0)
    while quota.sum() != limit:
        short = np.where(quota < counts, share - quota, -np.inf) if quota.sum() < limit else quota - share
        if quota.sum() < limit:
            quota[int(np.argmax(short))] += 1
        else:
            quota[int(np.argmax(np.where(quota > 1, short, -np.inf)))] -= 1
    return quota


def assign(
    labels: np.ndarray, ids: Sequence[str], patients: np.ndarray | None, given: Sequence[str] | None, seed: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The split of each image, and notes on it. A given split is kept as it is; missing validation is carved."""
    groups = group_names(ids, patients)
    if given is None:
        side = assign_groups(groups, labels, SHARES, seed)
        kind = "patients" if patients is not None else "images"
        shares = ", ".join(f"{round(100 * part)} % {name}" for name, part in SHARES.items())
        by = "finding" if labels.ndim == 2 else "class"
        return side, (f"The {kind} were split at random, stratified by {by}: {shares} (seed {seed}).",)
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
