"""Which images a run is about, so that another run on the same ones can be compared with it, image by image.

Names are codes, as everywhere in what is written for others; patients are numbers that mean nothing elsewhere.
"""

from __future__ import annotations

import hashlib

import numpy as np

from medrobust import private_names
from medrobust.data import Dataset
from medrobust.experiments.context import ExperimentResult
from medrobust.experiments.system import groups
from medrobust.naming import image_code, public

HEX = 15
"""Digits of a hash that fit into an int64."""


def identify(outcome: ExperimentResult, test: Dataset, sample: Dataset) -> None:
    """Add the names of the test images to the conditions; and as arrays, one entry a test image, what each is made of
    (test_content) and whose it is (test_patients, where patients are known), and which are attacked (attacked)."""
    outcome.conditions["test_images"] = [image_code(test, i) for i in range(len(test))]
    outcome.arrays |= images(test, sample)


def images(test: Dataset, sample: Dataset) -> dict[str, np.ndarray]:
    """The arrays of ``identify``."""
    place = {name: i for i, name in enumerate(test.ids)}
    arrays = {
        "attacked": np.array([place[name] for name in sample.ids], dtype=np.int64),
        "test_content": np.array([_content(test, i) for i in range(len(test))], dtype=np.int64),
    }
    if (owners := groups(test)) is not None:
        arrays["test_patients"] = np.unique(owners, return_inverse=True)[1].astype(np.int64)
    return arrays


def _content(part: Dataset, i: int) -> int:
    """A number for the content of image i: of private images under the user's salt, as their names are."""
    fingerprint = part.source.fingerprint(int(part.rows[i]))
    if public(part):
        return int(hashlib.sha256(fingerprint.encode()).hexdigest()[:HEX], 16)
    return int(private_names.code(fingerprint, "content")[:HEX], 16)
