"""Images that are in memory already, as a Dataset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medrobust import limits
from medrobust.data.dataset import Dataset, assemble
from medrobust.data.medmnist import ArraySource
from medrobust.data.source import Listing, Request
from medrobust.errors import InputError


def from_arrays(
    images: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    classes: Sequence[str],
    *,
    ids: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
    patients: Sequence[str] | None = None,
    name: str = "arrays",
    seed: int = 0,
) -> Dataset:
    """The Dataset of images in memory; InputError, in one line, where they cannot be used.

    images: uint8 (n, side, side) or (n, side, side, 3), 255 being white. labels: int (n,), the number of a class; of
        several findings (n, k) of 0, 1 and -1 (unknown), a column an entry of ``classes``.
    ids: a name an image, by which randomness is keyed; its number if not given. splits: "train", "val" or "test", one
        an image; drawn by ``seed`` if not given, patients as a whole. patients: one an image, "" where unknown.
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8:
        raise InputError(
            f"images must be uint8 from 0 to 255, got {images.dtype}; "
            "of pixels x in [0, 1]: np.rint(255 * x).astype(np.uint8)"
        )
    square = (
        images.ndim in (3, 4) and len(images) and images.shape[1] == images.shape[2] and images.shape[3:] in ((), (3,))
    )
    if not square:
        raise InputError(f"images must be (n, side, side) or (n, side, side, 3), got {images.shape}")
    if labels.ndim not in (1, 2):
        raise InputError(f"labels must be (n,), or (n, k) of several findings, got the shape {labels.shape}")
    n, names = len(images), [str(c) for c in classes]
    limits.check(limits.CLASSES, len(names), "the list of classes")
    for what, column in (("labels", labels), ("ids", ids), ("splits", splits), ("patients", patients)):
        if column is not None and len(column) != n:
            raise InputError(f"there are {n} images and {len(column)} {what}; give one for each image")
    if not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"labels must be whole numbers of classes, got {labels.dtype}")
    if ":" in name:
        raise InputError(f"the name {name!r} would be taken for a data set on disk; leave the colon out")
    several = labels.ndim == 2
    if not several and not (labels.min() >= 0 and labels.max() < len(names)):
        raise InputError(f"labels must be from 0 to {len(names) - 1}, got {labels.min()} to {labels.max()}")
    listing = Listing(
        [str(i) for i in range(n)] if ids is None else [str(i) for i in ids],
        labels.astype(np.int64) if several else [names[k] for k in labels.tolist()],
        tuple(names),
        None if splits is None else [str(s) for s in splits],
        None if patients is None else [str(p) for p in patients],
    )
    return assemble(name, ArraySource([images], images.shape[1], grey=False), listing, Request(seed=seed))
