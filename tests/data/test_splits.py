"""A patient stays on one side; the split does not depend on the order of the rows; a given split is kept."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from medrobust import data
from medrobust.data import splits
from medrobust.errors import InputError
from tests.data_files import REAL, class_folders, cohort, needs_real, write_table


def split_of(dataset: data.Dataset) -> dict[str, str]:
    return dict(zip(dataset.ids, dataset.split_of.tolist(), strict=True))


def test_shares_are_met_and_classes_keep_their_proportion(tmp_path: Path) -> None:
    found = data.load(f"csv:{cohort(tmp_path, 200)}")
    for name, share in splits.SHARES.items():
        part = found.split(name)
        assert len(part) == pytest.approx(200 * share, abs=2)
        assert (part.labels == 0).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_patient_is_never_on_two_sides(tmp_path: Path, seed: int) -> None:
    found = data.load(f"csv:{cohort(tmp_path, 90, patients=23)}", seed=seed)
    assert found.patients is not None
    for patient in set(found.patients):
        assert len(set(found.split_of[found.patients == patient])) == 1
    assert {name: len(found.split(name)) for name in splits.SPLITS} == pytest.approx(
        {name: 90 * share for name, share in splits.SHARES.items()}, abs=5
    )


def test_shuffled_rows_give_the_same_split_sample_and_digest(tmp_path: Path) -> None:
    table = cohort(tmp_path, 60, patients=25)
    with table.open() as stream:
        rows = list(csv.DictReader(stream))
    np.random.default_rng(0).shuffle(rows)
    first, second = data.load(f"csv:{table}"), data.load(f"csv:{write_table(tmp_path, rows, 'shuffled.csv')}")
    assert first.ids == second.ids
    assert split_of(first) == split_of(second)
    assert first.digest() == second.digest()


def test_the_seed_draws_another_split(tmp_path: Path) -> None:
    table = cohort(tmp_path, 60)
    assert split_of(data.load(f"csv:{table}")) != split_of(data.load(f"csv:{table}", seed=1))


def test_one_image_a_class_still_fills_every_split() -> None:
    labels = np.arange(200)
    found = splits.assign_groups([str(i) for i in labels], labels, splits.SHARES, seed=0)
    assert {name: int((found == name).sum()) for name in splits.SPLITS} == pytest.approx(
        {"train": 140, "val": 20, "test": 40}, abs=2
    )


def test_unknown_patients_are_not_one_patient(tmp_path: Path) -> None:
    found = data.load(f"csv:{cohort(tmp_path, 60, patient=[''] * 60)}")
    assert len(found.split("test")) == pytest.approx(12, abs=2)


def test_a_given_split_is_kept_under_its_synonyms_and_validation_is_carved_from_training(tmp_path: Path) -> None:
    given = ["Training"] * 40 + ["testing"] * 20
    found = data.load(f"csv:{cohort(tmp_path, 60, split=given)}")
    assert found.split("test").ids == tuple(f"{i:03d}.png" for i in range(40, 60))
    assert len(found.split("val")) == 4
    assert any("set aside" in note for note in found.notes)
    whole = data.load(f"csv:{cohort(tmp_path / 'b', 60, split=['train', 'valid', 'test'] * 20)}")
    assert [len(whole.split(name)) for name in splits.SPLITS] == [20, 20, 20]
    assert whole.notes == ()


def test_patients_on_both_sides_of_a_given_split_are_counted_and_left_there(tmp_path: Path) -> None:
    given = ["train"] * 30 + ["val"] * 15 + ["test"] * 15
    patient = [str(i) for i in range(60)]
    patient[50] = patient[3]
    patient[51] = patient[4]
    found = data.load(f"csv:{cohort(tmp_path, split=given, patient=patient)}")
    assert any(
        note.startswith("2 patients stand on both sides of the given train/test split (4") for note in found.notes
    )
    assert found.split_of.tolist() == given


def test_a_test_only_set_serves_its_test_and_says_what_is_missing(tmp_path: Path) -> None:
    found = data.load(f"csv:{cohort(tmp_path, 20, split=['test'] * 20)}")
    assert len(found.split("test")) == 20
    with pytest.raises(InputError, match=r"empty split.*no train images, only test \(20\)"):
        found.split("train")


def test_folders_named_after_splits_are_splits(tmp_path: Path) -> None:
    found = data.load(f"folder:{class_folders(tmp_path / 'd', ('train', 'test'))}")
    assert found.split("test").ids[0] == "test/ill/0.png"
    assert len(found.split("val")) == pytest.approx(24 * 0.1, abs=1)
    flat = data.load(f"folder:{class_folders(tmp_path / 'flat')}")
    assert flat.classes == ("ill", "well")
    assert len(flat.split("train")) == pytest.approx(24 * 0.7, abs=2)


@needs_real
@pytest.mark.slow  # reads 5,856 X-rays
def test_the_published_split_of_the_chest_x_rays_is_kept_and_its_shared_patients_are_reported() -> None:
    found = data.load(f"csv:{REAL / 'chest_xray' / 'labels.csv'}", size=32)
    test = found.split("test")
    assert len(test) == 624
    assert np.bincount(test.labels).tolist() == [234, 390]
    assert found.channels == 1  # stored as RGB with R = G = B
    with (REAL / "chest_xray" / "labels.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    train = {row["patient"] for row in rows if row["split"] == "train"}
    both = train & {row["patient"] for row in rows if row["split"] == "test"}
    text = f"{len(both)} patients stand on both sides of the given train/test split"
    assert any(note.startswith(text) for note in found.notes)
    val = found.split("val")
    assert not set(val.patients) & set(found.split("train").patients)


@needs_real
def test_pneumoniamnist_has_its_published_numbers_and_class_names() -> None:
    found = data.load(f"medmnist:{REAL / 'pneumoniamnist.npz'}")
    assert found.classes == ("normal", "pneumonia")
    assert [len(found.split(name)) for name in splits.SPLITS] == [4708, 524, 624]
    assert found.images([0]).shape == (1, 1, 28, 28)


@needs_real
def test_cifar_in_the_same_layout_keeps_its_class_numbers() -> None:
    found = data.load(f"medmnist:{REAL / 'cifar10_test3000.npz'}")
    assert found.channels == 3
    with np.load(REAL / "cifar10_test3000.npz") as arrays:
        assert found.labels.tolist() == arrays["test_labels"].ravel().tolist()
        assert (found.images([7])[0].permute(1, 2, 0) * 255).round().byte().numpy().tolist() == arrays["test_images"][
            7
        ].tolist()
