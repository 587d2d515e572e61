"""Data with several findings an image: labels (n, k) of 0, 1 and -1 (unknown) through everything a Dataset does."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from medrobust import InputError, data
from medrobust.data import splits
from medrobust.data.findings import check
from medrobust.data.phantom import render
from medrobust.data.phantom_findings import FINDINGS, SETS

FIVE = tuple(FINDINGS)


@pytest.fixture(scope="module")
def phantom() -> data.Dataset:
    return data.load("phantom:chest-findings@32:n=180")


def with_labels(phantom: data.Dataset, labels: np.ndarray) -> data.Dataset:
    return dataclasses.replace(phantom, labels=labels)


def test_the_phantom_has_its_sets_at_their_stated_frequencies_in_every_split(phantom: data.Dataset) -> None:
    assert phantom.multilabel
    assert phantom.classes == FIVE
    assert [sum(len(s) == m for s in SETS) for m in range(4)] == [6, 8, 5, 1]
    for name in splits.SPLITS:
        part = phantom.split(name)
        assert dict(zip(FIVE, (part.counts / len(part)).round(2).tolist(), strict=True)) == {
            "cardiomegaly": 0.2,
            "consolidation": 0.2,
            "effusion": 0.35,
            "nodule": 0.15,
            "pneumothorax": 0.15,
        }


@pytest.mark.parametrize("finding", FIVE)
def test_a_finding_changes_its_mask_and_leaves_the_others_as_they_are(finding: str) -> None:
    place = FIVE.index(finding)
    healthy, empty = render("chest-findings", 0, 3, 64, present=[False] * 5)
    ill, masks = render("chest-findings", 0, 3, 64, present=[k == place for k in range(5)])
    every = render("chest-findings", 0, 3, 64, present=[True] * 5)[1]
    assert empty.sum() == 0
    assert np.array_equal(masks[place], every[place])
    assert masks.sum((1, 2)).nonzero()[0].tolist() == [place]
    change = np.abs(ill.astype(int) - healthy)
    assert change[masks[place] > 0.5].mean() > 4 * change[masks[place] < 0.5].mean() + 4


def test_masks_of_one_finding_lie_within_those_of_all(phantom: data.Dataset) -> None:
    together, alone = phantom.masks([3], None), phantom.masks([3], "effusion")
    assert together is not None
    assert alone is not None
    assert together.shape == alone.shape == (1, 1, 32, 32)
    assert 0 < alone.sum() < together.sum()
    assert (alone <= together).all()
    assert phantom.masks([3], "mass") is None


def test_a_sample_keeps_the_frequencies_and_one_image_of_each_finding(phantom: data.Dataset) -> None:
    part = phantom.sample(60, 0)
    assert len(part) == 60
    assert np.abs(part.counts / 60 - phantom.counts / 180).max() <= 1 / 60
    assert (phantom.sample(5, 0).counts >= 1).all()
    turned = phantom.for_classes(FIVE[::-1])
    assert (
        turned.sample(20, 0).ids == phantom.select(np.arange(180)[::-1]).sample(20, 0).ids == phantom.sample(20, 0).ids
    )


def test_patients_with_sets_of_findings_are_dealt_out_in_proportion() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((600, 4)) < (0.4, 0.2, 0.05, 0.01)).astype(np.int64)
    patients = [f"p{k}" for k in rng.integers(0, 250, 600)]
    side = splits.assign_groups(patients, labels, splits.SHARES, 0)
    assert all(len(set(side[np.array(patients) == p])) == 1 for p in set(patients))
    for name, share in splits.SHARES.items():
        assert np.abs(labels[side == name].sum(0) - share * labels.sum(0)).max() <= 3
        assert abs((side == name).sum() - share * 600) <= 6


def test_the_digest_knows_labels_and_not_the_order_of_findings(phantom: data.Dataset) -> None:
    assert phantom.for_classes(FIVE[::-1]).digest() == phantom.digest()
    other = phantom.labels.copy()
    other[5, 2] = -1
    assert with_labels(phantom, other).digest() != phantom.digest()


def test_a_finding_of_the_classifier_alone_is_unknown_and_one_of_the_data_alone_is_refused(
    phantom: data.Dataset,
) -> None:
    wide = phantom.for_classes(("hernia", *FIVE))
    assert (wide.labels[:, 0] == -1).all()
    assert wide.digest() == phantom.digest()
    assert "hernia" in wide.notes[-1]
    with pytest.raises(InputError, match=r"with finding 'pneumothorax'.*--leave-out pneumothorax"):
        phantom.for_classes(FIVE[:4])


def test_findings_are_renamed_merged_and_left_out(phantom: data.Dataset) -> None:
    labels = phantom.labels.copy()
    labels[0, :2] = (-1, 0)
    labels[1, :2] = (-1, 1)
    part = with_labels(phantom, labels).renamed({"cardiomegaly": "dense", "consolidation": "dense"}, ["nodule"])
    assert part.classes == ("dense", "effusion", "pneumothorax")
    assert part.labels[:2, 0].tolist() == [-1, 1]
    assert part.of_classes(["effusion"]).labels.shape == (180, 1)
    assert part.label_text(3) == "dense + effusion"
    assert part.label_text(8) == "no finding"


def test_unknown_findings_are_counted_and_an_image_of_which_nothing_is_known_has_no_label() -> None:
    labels = np.array([[1, 0], [0, -1], [-1, -1], [0, 1]])
    classes, kept, notes = check("some", labels, ("a", "b"))
    assert kept.shape == (4, 2)
    assert classes == ("a", "b")
    assert "1 findings of images are unknown" in notes[0]
    assert "b 1" in notes[0]
    for wrong in (np.array([[2, 0], [0, 1]]), np.zeros((4, 2)), np.full((4, 2), -1)):
        with pytest.raises(InputError):
            check("some", wrong, ("a", "b"))
