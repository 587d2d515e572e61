"""Nothing stale: what was computed before is used again only where all that made it is the same."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import medrobust as mr
from medrobust import code_digest, training
from medrobust.experiments.adversarial_pairs import AdversarialPairs
from medrobust.experiments.detector_data import other_images
from medrobust.progress import NoProgress
from medrobust.store import Store
from medrobust.training import evolved
from tests.data.test_class_names import FAST, run, table

MODEL = "small_cnn:width=2"


class Abort(NoProgress):
    """A step of training fails: what is reused takes none."""

    def advance(self, n: int = 1, **shown: object) -> None:
        raise RuntimeError("trained")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    data = table(folder / "data", n=60)
    training.fit(mr.data.load(f"csv:{data}"), MODEL, epochs=1, device="cpu", keep=folder / "model")
    return folder


def again(folder: Path, **changed: object) -> mr.Classifier:
    data = mr.data.load(f"csv:{folder / 'data' / 'labels.csv'}")
    options = {"model": MODEL, "epochs": 1, "device": "cpu", "keep": folder / "model", "progress": Abort()} | changed
    return training.fit(data, **options)  # type: ignore[arg-type]


def test_a_trained_network_is_read_again_where_nothing_changed(trained):
    assert again(trained).digest() == mr.Classifier.load(trained / "model").digest()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 1}, "seed (it was 0, now 1)"),
        ({"epochs": 2}, "epochs (it was 1, now 2)"),
        ({"model": "small_cnn:width=3"}, "architecture (it was 'small_cnn:width=2', now 'small_cnn:width=3')"),
        ({"augment": False}, "augment"),
        ({"mean": (0.4,)}, "mean or std"),
    ],
)
def test_another_recipe_is_refused_by_name_and_overwrites_nothing(trained, changed, said):
    before = (trained / "model" / "model.safetensors").read_bytes()
    with pytest.raises(mr.InputError) as refused:
        again(trained, **changed)
    assert said in str(refused.value)
    assert str(refused.value).endswith("choose another --out")
    assert (trained / "model" / "model.safetensors").read_bytes() == before


def test_other_training_images_are_refused_and_other_test_images_are_not(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "copy")
    folder = tmp_path / "copy"
    data = mr.data.load(f"csv:{folder / 'data' / 'labels.csv'}")
    name = {side: data.split(side).ids[0] for side in ("train", "val", "test")}

    def paint(side: str) -> None:
        pixels = np.asarray(Image.open(folder / "data" / name[side]))
        Image.fromarray(255 - pixels).save(folder / "data" / name[side])

    paint("test")
    again(folder)
    for side in ("train", "val"):
        paint(side)
        with pytest.raises(mr.InputError, match="training images, labels or split"):
            again(folder)
        paint(side)
    again(folder)
    rows = (folder / "data" / "labels.csv").read_text().splitlines()
    (folder / "data" / "labels.csv").write_text("\n".join([rows[0], *rows[:0:-1]]) + "\n")
    again(folder)  # the order of rows is no change
    (folder / "data" / "labels.csv").write_text("\n".join(rows[:-12]) + "\n")
    with pytest.raises(mr.InputError, match="training images, labels or split"):
        again(folder)


def test_other_code_is_another_training(trained, monkeypatch):
    monkeypatch.setattr(code_digest, "of_module", lambda name: "changed")
    with pytest.raises(mr.InputError, match="version of the code that trains"):
        again(trained)


@pytest.mark.slow  # two audits
def test_an_audit_never_takes_another_network_for_the_one_that_was_asked(trained, tmp_path, capsys):
    out = tmp_path / "out"
    data = f"csv:{trained / 'data' / 'labels.csv'}"
    asked = ("audit", "--data", data, "--out", out, "--epochs", "1", "--model", "small_cnn:width=4", *FAST)
    assert run(*asked) == 0
    for name in ("model.json", "model.safetensors"):
        shutil.copy(trained / "model" / name, out / "model" / name)
    before = (out / "model" / "model.json").read_bytes()
    assert run(*asked) == 2
    assert "trained with another architecture (it was 'small_cnn:width=2', now 'small_cnn:width=4')" in (
        capsys.readouterr().err
    )
    assert (out / "model" / "model.json").read_bytes() == before


def test_a_command_that_trains_does_not_overwrite_another_network(trained, tmp_path, capsys):
    data = f"csv:{trained / 'data' / 'labels.csv'}"
    asked = ("train", "--out", tmp_path / "model", "--data", data, "--model", MODEL, "--device", "cpu")
    assert run(*asked, "--epochs", "1") == 0
    before = (tmp_path / "model" / "model.json").read_bytes()
    assert run(*asked, "--epochs", "1") == 0
    assert run(*asked, "--epochs", "3") == 2
    assert (tmp_path / "model" / "model.json").read_bytes() == before
    assert "epochs (it was 1, now 3)" in capsys.readouterr().err


def turned(data: mr.data.Dataset, seed: int = 0) -> mr.data.Dataset:
    return data.select(np.random.default_rng(seed).permutation(len(data)))


def test_nothing_that_is_made_of_a_data_set_depends_on_the_order_of_its_rows(trained, tmp_path):
    """Training, universal perturbations, detectors, folds: the same bits from shuffled rows."""
    data = mr.data.load(f"csv:{trained / 'data' / 'labels.csv'}")
    shuffled = turned(data)
    assert shuffled.ids != data.ids
    assert shuffled.digest() == data.digest()
    options = {"model": MODEL, "epochs": 2, "device": "cpu", "augment": True}
    first, second = (training.fit(d, **options) for d in (data, shuffled))
    for name, value in first.net.state_dict().items():
        assert torch.equal(value, second.net.state_dict()[name])
    ball, way = mr.Linf(8 / 255), mr.universal.SGA(passes=2)
    made = [way(first, d.split("train").sample(20, 0), mr.Untargeted(), ball, seed=0).delta for d in (data, shuffled)]
    assert torch.equal(*made)
    tables = [evolved.of_images(first, d.sample(None, 0)) for d in (data, shuffled)]
    assert tables[0].digest() == tables[1].digest()
    clf = mr.Classifier.load(trained / "model")
    found = []
    for k, d in enumerate((data, shuffled)):
        test = d.by_id() if k == 0 else d
        pairs = AdversarialPairs(Store(tmp_path / str(k)), clf, test, limit=None, least=1)
        found.append((pairs.part.ids, *(part.ids for part in other_images(d, test, pairs))))
    assert found[0] == found[1]


def test_a_shuffled_table_is_the_same_data_set(trained, tmp_path):
    shutil.copytree(trained / "data", tmp_path / "data")
    table_file = tmp_path / "data" / "labels.csv"
    before = mr.data.load(f"csv:{table_file}")
    head, *rows = table_file.read_text().splitlines()
    table_file.write_text("\n".join([head, *np.random.default_rng(0).permutation(rows)]) + "\n")
    after = mr.data.load(f"csv:{table_file}")
    assert after.ids == before.ids
    assert (after.labels == before.labels).all()
    assert after.digest() == before.digest()
    assert before.split("train").ids == turned(after).split("train").ids
    assert before.sample(9, 0).ids == turned(after).sample(9, 0).ids
