"""What every source promises, whatever the images come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medrobust import data
from medrobust.data import SOURCES, Dataset
from medrobust.data.words import natural
from medrobust.errors import InputError
from tests import dicom_files
from tests.data import test_nifti
from tests.data_files import class_folders, cohort, npz

KINDS = sorted(SOURCES)


def volumes(root: Path) -> Path:
    """30 NIfTI volumes of floating-point numbers in each of two class folders."""
    for name in ("ill", "well"):
        for i in range(30):
            values = np.random.default_rng(i).random((16, 16, 3), np.float32) + (name == "ill")
            test_nifti.volume(root / name / f"{i}.nii", values)
    return root


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    specs = {
        "phantom": lambda: "phantom:skin@16:n=54",
        "csv": lambda: f"csv:{cohort(tmp_path / 'csv')}",
        "folder": lambda: f"folder:{class_folders(tmp_path / 'folder', ('train', 'val', 'test'))}",
        "dicom": lambda: f"dicom:{dicom_files.folders(tmp_path / 'dicom', n=30)}",
        "nifti": lambda: f"nifti:{volumes(tmp_path / 'nifti')}",
        "medmnist": lambda: f"medmnist:{npz(tmp_path / 'toy.npz', colour=True)}",
    }
    return data.load(specs[request.param]())


def test_every_source_gives_images_on_its_grid_with_labels_and_ids(source: Dataset) -> None:
    images, labels = source.tensors()
    n = len(source)
    assert images.shape == (n, source.channels, source.size, source.size)
    assert images.dtype == torch.float32
    assert labels.dtype == torch.int64
    assert labels.tolist() == source.labels.tolist()
    assert len(set(source.ids)) == n
    top = 2**source.bits - 1
    levels = images.double() * top
    assert (levels - levels.round()).abs().max() < 1e-4 * 255
    assert set(source.levels.tolist()) == {top}
    assert torch.equal((levels.round() / top).float(), images)


def test_splits_are_disjoint_and_cover_everything(source: Dataset) -> None:
    parts = [source.split(name) for name in ("train", "val", "test")]
    ids = [i for part in parts for i in part.ids]
    assert sorted(ids) == sorted(source.ids)
    assert all(set(part.labels) == {0, 1} for part in parts)
    assert all(part.classes == source.classes for part in parts)


def test_streaming_equals_loading_at_once(source: Dataset) -> None:
    images, labels = source.tensors()
    for size in (1, 7, 1000):
        batches = list(source.batches(size))
        assert torch.equal(torch.cat([b[0] for b in batches]), images)
        assert torch.equal(torch.cat([b[1] for b in batches]), labels)
        assert tuple(i for b in batches for i in b[2]) == source.ids
        assert max(len(b[1]) for b in batches) <= size


def test_a_sample_is_stratified_in_the_order_of_ids_and_does_not_depend_on_the_order_of_rows(source: Dataset) -> None:
    part = source.sample(10, seed=3)
    assert len(part) == 10
    assert abs(int((part.labels == 0).sum()) - 5) <= 1
    assert list(part.ids) == sorted(part.ids, key=natural)
    backwards = source.select(np.arange(len(source))[::-1]).sample(10, seed=3)
    assert backwards.ids == part.ids
    assert set(source.sample(10, seed=4).ids) != set(part.ids)
    for limit in (None, 10**6):
        assert list(source.sample(limit, seed=0).ids) == sorted(source.ids, key=natural)


def test_selected_images_are_the_images_themselves(source: Dataset) -> None:
    part = source.select([5, 2])
    assert part.ids == (source.ids[5], source.ids[2])
    assert torch.equal(part.images([0, 1]), source.images([5, 2]))


def test_digest_tells_parts_apart_and_not_orders(source: Dataset) -> None:
    digest = source.digest()
    assert len(digest) == 64
    assert source.select(np.arange(len(source))[::-1]).digest() == digest
    assert source.split("test").digest() != digest


def test_resizing_stays_on_the_grid(source: Dataset, tmp_path: Path) -> None:
    specs = {"csv": tmp_path / "csv" / "labels.csv", "folder": tmp_path / "folder", "medmnist": tmp_path / "toy.npz"}
    kind = next((k for k, path in specs.items() if path.exists()), None)
    resized = data.load(f"{kind}:{specs[kind]}" if kind else "phantom:skin:n=54", size=24)
    images, _ = resized.tensors(6)
    assert images.shape[2:] == (24, 24)
    assert torch.equal((images * 255).round() / 255, images)


def test_colour_becomes_grey_on_request() -> None:
    grey = data.load("phantom:skin@16:n=54", channels=1)
    assert grey.images([0]).shape == (1, 1, 16, 16)


def test_the_example_of_the_documentation_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "add-a-data-source.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(text.split("```python\n")[1].split("```")[0], names)
    monkeypatch.setitem(SOURCES, "npy", names["open_npy"])
    np.save(tmp_path / "images.npy", np.arange(20 * 64, dtype=np.uint8).reshape(20, 8, 8))
    (tmp_path / "labels.txt").write_text("ill\nwell\n" * 10)
    found = data.load(f"npy:{tmp_path}", size=16)
    assert found.images(range(20)).shape == (20, 1, 16, 16)
    assert len(found.split("train")) == pytest.approx(14, abs=1)


def test_some_classes_of_a_data_set_are_numbered_anew(tmp_path: Path) -> None:
    everything = data.load("phantom:fundus@16:n=60")
    a, *_, z = everything.classes
    part = everything.of_classes((z, a))
    assert part.classes == (z, a)
    by_id = dict(zip(everything.ids, everything.labels.tolist(), strict=True))
    assert [part.classes[k] for k in part.labels] == [everything.classes[by_id[i]] for i in part.ids]
    assert set(part.ids) == {i for i, k in by_id.items() if everything.classes[k] in (a, z)}
    for wrong, said in (((a, "flu"), "no class 'flu'"), ((a,), "two classes or more"), ((a, a), "each once")):
        with pytest.raises(InputError, match=said):
            everything.of_classes(wrong)


def test_fewer_training_images_leave_the_other_sides_alone(source: Dataset) -> None:
    few = source.train_on(3, seed=1)
    train = few.split("train")
    assert np.bincount(train.labels).tolist() == [3] * len(source.classes)
    for side in ("val", "test"):
        assert few.split(side).ids == source.split(side).ids
    more = source.train_on(5, seed=1).split("train")
    assert set(train.ids) < set(more.ids)
    backwards = source.select(np.arange(len(source))[::-1]).train_on(3, seed=1)
    assert set(backwards.ids) == set(few.ids)
    assert source.train_on(10**6, seed=1).ids == source.ids


def test_a_source_that_is_registered_by_half_is_one_line(monkeypatch):
    monkeypatch.setitem(SOURCES, "half", lambda where, request: [where])
    with pytest.raises(InputError, match="the data source 'half' gave list instead of a Dataset"):
        data.load("half:x")
