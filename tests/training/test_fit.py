"""Training: what an epoch shows, what is selected, and that a killed run ends as an uninterrupted one."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from medrobust import Classifier, InputError, private_names
from medrobust.progress import NoProgress
from medrobust.training import Augment, evaluate, fit, score
from medrobust.training.augment import warp
from medrobust.training.pixels import Pixels
from medrobust.training.recipe import MATCHED, Recipe
from medrobust.training.sampling import balanced
from medrobust.training.state import FILE

SMALL = {"model": "small_cnn", "epochs": 4, "batch": 16}


class Toy:
    """A Dataset's face in memory: a bright square, left in class 0 and right in class 1; no test split to be had."""

    name, classes, channels, size, fit = "toy", ("left", "right"), 1, 16, "stretch"

    def __init__(self, n: int = 160, bits: int = 8, labels=None, classes=None) -> None:
        draw = np.random.default_rng(0)
        self.bits, self.classes = bits, classes or self.classes
        self.levels = np.full(n if labels is None else len(labels), 2**bits - 1)
        self.labels = np.arange(n) % 2 if labels is None else np.asarray(labels)
        top = 2**bits - 1
        self.stored = (draw.random((len(self.labels), 1, 16, 16)) * 0.5 * top).round()
        for image, label in zip(self.stored, self.labels, strict=True):
            x, y = (9 if label else 1) + draw.integers(0, 3), draw.integers(2, 10)
            image[0, y : y + 4, x : x + 4] = 0.75 * top // 1
        self.indices = np.arange(len(self.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def digest(self) -> str:
        return f"toy-{len(self)}"

    def images(self, indices) -> torch.Tensor:
        return torch.from_numpy(self.stored[np.asarray(indices)] / (2**self.bits - 1)).float()

    def split(self, name: str) -> Toy:
        assert name in ("train", "val"), "training must never look at the test split"
        part = object.__new__(Toy)
        pair = self.indices // 2 % 4  # whole pairs go together, so that both splits hold both classes
        chosen = pair == 3 if name == "val" else pair < 3
        part.__dict__ = self.__dict__ | {"labels": self.labels[chosen], "stored": self.stored[chosen]}
        return part


NO_FLIP = Augment(flip=False)  # in the toy the side is the class


def train(**changed) -> Classifier:
    return fit(changed.pop("data", None) or Toy(), **{**SMALL, "augment": NO_FLIP, **changed})


def same(a: Classifier, b: Classifier) -> bool:
    pairs = zip(a.net.state_dict().values(), b.net.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def error(call, *args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    return text


# -- learning ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"optimiser": "sgd"}, {"head": "logit"}], ids=str)
def test_what_can_be_separated_is_learnt_without_the_test_split(options):
    clf = train(data=Toy(320), epochs=8, **options)
    assert score(*evaluate(clf, Toy(320).split("val"))).balanced_accuracy > 0.95
    assert clf.provenance["validation"]["balanced_accuracy"] > 0.95
    assert not clf.net.training


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path):
    torch.manual_seed(1)
    first = train(epochs=2)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = train(epochs=2)
    assert torch.equal(torch.get_rng_state(), before)
    other = train(epochs=2, seed=1)
    assert same(first, again)
    assert not same(first, other)
    for name, clf in (("first", first), ("again", again)):
        clf.save(tmp_path / name)
    for file in ("model.safetensors", "model.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "again" / file).read_bytes()


def test_a_saved_training_gives_the_same_logits_to_the_bit(tmp_path):
    clf = train(epochs=2)
    clf.save(tmp_path)
    images = torch.rand(16, 1, 16, 16)
    assert torch.equal(Classifier.load(tmp_path).logits(images), clf.logits(images))
    assert Classifier.load(tmp_path).provenance == private_names.provenance(clf.provenance)


def test_the_best_epoch_is_kept_not_the_last():
    clf = train(epochs=6, lr=0.3, patience=None)
    history, best = clf.provenance["history"], clf.provenance["best_epoch"]
    assert best == max(history, key=lambda row: (row["balanced_accuracy"], -row["loss"]))["epoch"]
    now = score(*evaluate(clf, Toy().split("val")))
    assert now.loss == pytest.approx(history[best - 1]["loss"], rel=1e-6)


def test_patience_ends_a_training_that_gets_no_better():
    labels = np.random.default_rng(3).integers(0, 2, 160)
    data = Toy(labels=labels)
    data.stored[:] = data.stored.mean()  # nothing to learn
    clf = train(data=data, epochs=30, patience=2)
    assert clf.provenance["epochs_run"] == clf.provenance["best_epoch"] + 2


def test_frozen_layers_stay_to_the_bit():
    from medrobust import models

    recipe = Recipe(1, 0.1, 2, "sgd", 0.0, None, None, 0.5, "softmax")
    net = models.build("small_cnn", classes=2, channels=1)
    frozen = recipe.frozen(net)
    assert 0 < len(frozen) < sum(1 for m in net.modules() if next(m.parameters(recurse=False), None) is not None)
    once, more = train(epochs=1, freeze=0.5), train(epochs=3, freeze=0.5, patience=None)
    for key in ("features.0.0.weight", "features.0.1.running_mean", "features.0.1.weight"):
        assert torch.equal(once.net.state_dict()[key], more.net.state_dict()[key])
    assert not torch.equal(once.net.classifier.weight, more.net.classifier.weight)


def test_the_provenance_says_what_the_weights_came_from(tmp_path):
    from safetensors.torch import save_file

    start = train(epochs=1)
    save_file(
        {k: v.contiguous() for k, v in start.net.state_dict().items()},
        tmp_path / "start.safetensors",
        {"mean": "0.5", "std": "0.25"},
    )
    clf = train(epochs=1, pretrained=tmp_path / "start.safetensors")
    told = clf.provenance
    assert told["pretrained"]["file"] == "start.safetensors"
    assert len(told["pretrained"]["sha256"]) == 64
    assert (clf.mean, clf.std) == ((0.5,), (0.25,))
    assert told["data"] == {"name": "toy", "digest": "toy-160", "train": 120, "validation": 40, "fit": "stretch"}
    assert told["architecture"] == "small_cnn"
    assert set(told["versions"]) == {"torch", "timm"}
    assert train(epochs=1, pretrained=tmp_path / "start.safetensors", mean=[0.4], std=[0.2]).mean == (0.4,)


def test_fresh_weights_are_normalised_by_the_training_images():
    pixels = Toy().split("train").images(range(120)).double()
    clf = train(epochs=1)
    assert clf.mean[0] == pytest.approx(float(pixels.mean()), abs=1e-6)
    assert clf.std[0] == pytest.approx(float(pixels.std(correction=0)), abs=1e-6)


# -- resuming ------------------------------------------------------------------------------------------------


class Abort:
    """Progress that stops the run after so many training steps, as Ctrl-C would."""

    def __init__(self, at: int) -> None:
        self.at, self.stopped = at, 0

    def start(self, name, total) -> None:
        self.training = name.startswith("training ")

    def advance(self, n=1, **shown) -> None:
        if self.training and n == 1:  # what an earlier run did comes in one piece
            self.at -= 1
            if self.at < 0:
                raise KeyboardInterrupt

    def stop(self) -> None:
        self.stopped += 1


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
def test_an_aborted_training_ends_as_an_uninterrupted_one(tmp_path, optimiser):
    options = {"optimiser": optimiser, "augment": True, "patience": None}
    whole = train(**options)
    for at in (12, 19):  # in epoch 2, and again in epoch 4, of 8 steps each
        abort = Abort(at)
        with pytest.raises(KeyboardInterrupt):
            train(**options, resume=tmp_path, progress=abort)
        assert abort.stopped == 3  # reading training and validation images, and the training itself
    resumed = train(**options, resume=tmp_path)
    assert same(whole, resumed)
    assert whole.provenance == resumed.provenance
    assert [p.name for p in tmp_path.iterdir()] == [FILE]
    again = train(**options, resume=tmp_path, progress=Abort(0))  # finished: no further step
    assert same(whole, again)


class Slow(NoProgress):
    def advance(self, n: int = 1, **shown: object) -> None:
        time.sleep(0.02)


def train_slowly(folder: str) -> None:
    train(epochs=12, patience=None, resume=Path(folder), progress=Slow())


@pytest.mark.slow  # waits for epochs, then trains twice
def test_a_training_killed_by_sigkill_ends_as_an_uninterrupted_one(tmp_path, processes):
    folder = tmp_path / "killed"
    child = processes.start("tests.training.test_fit:train_slowly", str(folder))
    while not (folder / FILE).exists():
        assert child.poll() is None
        time.sleep(0.01)
    time.sleep(0.3)  # into one of the next epochs of some 0.2 s each
    assert child.kill() == -9
    resumed = train(epochs=12, patience=None, resume=folder, progress=Abort(11 * 8))  # part of it was done already
    assert same(resumed, train(epochs=12, patience=None))


def test_a_state_of_other_settings_or_damaged_is_one_line(tmp_path):
    train(epochs=1, resume=tmp_path)
    assert "other data or settings" in error(train, epochs=2, resume=tmp_path)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:100])
    assert "damaged" in error(train, epochs=1, resume=tmp_path)


# -- sampling and augmentation -------------------------------------------------------------------------------


def test_every_class_is_shown_equally_often():
    labels = np.array([0] * 90 + [1] * 9 + [2])
    shown = np.concatenate([balanced(labels, 0, epoch) for epoch in range(30)])
    assert shown.size == 30 * labels.size
    for epoch in range(5):
        counts = np.bincount(labels[balanced(labels, 0, epoch)])
        assert counts.max() - counts.min() <= 1
    seen = np.bincount(shown, minlength=100)
    assert seen[:90].min() > 0  # every image of the large class has its turn
    assert np.ptp(np.bincount(balanced(labels, 0, 0), minlength=100)[90:99]) <= 1  # none twice before all once
    assert not np.array_equal(balanced(labels, 0, 0), balanced(labels, 0, 1))
    assert np.array_equal(balanced(labels, 7, 4), balanced(labels, 7, 4))


def test_no_augmentation_leaves_the_image_alone():
    images = torch.rand(3, 1, 12, 12)
    torch.testing.assert_close(warp(images, Augment(0, 0, False).maps(3, 0, 0)), images, atol=1e-5, rtol=0)


def test_a_flip_mirrors_left_and_right_of_half_the_images():
    images = torch.rand(64, 1, 8, 8)
    out = warp(images, Augment(0, 0, True).maps(64, 0, 0))
    mirrored = ((out - images.flip(-1)).abs().amax((1, 2, 3)) < 1e-5).double().mean()
    kept = ((out - images).abs().amax((1, 2, 3)) < 1e-5).double().mean()
    assert float(mirrored + kept) == 1
    assert 0.3 < float(mirrored) < 0.7


def test_a_spot_moves_no_further_than_rotation_and_shift_allow():
    images = torch.zeros(200, 1, 41, 41)
    images[:, :, 20, 20] = 1  # the centre: moved by the shift alone
    out = warp(images, Augment(rotation=5, shift=0.05, flip=True).maps(200, 0, 0))
    y = (out.sum((1, 3)) * torch.arange(41)).sum(1) / out.sum((1, 2, 3)) - 20
    assert 1 < float(y.abs().max()) <= 0.05 * 41 + 0.5
    assert out.amin() >= 0
    assert out.amax() <= 1


# -- pixels and scores ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16])
def test_kept_pixels_are_the_decoded_ones_to_the_bit(bits):
    data = Toy(20, bits=bits)
    kept, streamed = Pixels(data, NoProgress(), "toy"), Pixels(data, NoProgress(), "toy", kept=0)
    order = [3, 3, 17, 0]
    assert torch.equal(kept.images(order), data.images(order))
    assert torch.equal(streamed.images(order), data.images(order))
    assert kept.moments() == streamed.moments()


def test_scores_of_known_probabilities():
    labels = np.array([0, 0, 0, 1])
    second = np.array([0.1, 0.2, 0.9, 0.8])
    scores = score(np.stack([1 - second, second], 1).astype(np.float32), labels)
    assert scores.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert scores.auroc == pytest.approx(2 / 3)
    assert scores.n == 4
    expected = -(np.log([0.9, 0.8, 0.1]).mean() + np.log(0.8)) / 2
    assert scores.loss == pytest.approx(expected, rel=1e-6)


# -- refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"lr": -0.1}, "lr must be a positive"),
        ({"lr": float("nan")}, "lr must be a positive"),
        ({"epochs": 0}, "epochs must be 1"),
        ({"batch": 1}, "batch must be 2"),
        ({"optimiser": "lbfgs"}, "sgd or adamw"),
        ({"patience": 0}, "patience"),
        ({"freeze": 1.0}, "freeze"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"head": "multilabel"}, "one class an image"),
        ({"size": 32}, "size=32"),
        ({"mean": [0.0], "std": [0.0]}, "std must be positive"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_one_line(wrong, said):
    assert said in error(train, **wrong)


def test_one_class_only_is_refused():
    assert "left only" in error(train, data=Toy(labels=np.zeros(40, int)))


def test_no_validation_images_are_refused():
    class NoValidation(Toy):
        def split(self, name):
            if name == "val":
                raise InputError("empty split: toy has no val images")
            return super().split(name)

    assert "no val images" in error(train, data=NoValidation())


def test_probabilities_are_refused_before_training(tmp_path, monkeypatch):
    (tmp_path / "my_softmax_net.py").write_text(
        "from torch import nn\n"
        "def make(classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(256, classes), nn.Softmax(1))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert "probabilities already" in error(train, model="my_softmax_net:make", progress=Abort(0))


def test_a_network_of_more_outputs_than_classes_is_refused(tmp_path, monkeypatch):
    (tmp_path / "my_wide_net.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(256, 5))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert "(2, 5)" in error(train, model="my_wide_net:make")


def test_a_training_that_diverges_says_so_and_can_be_tried_again(tmp_path):
    assert "diverged in epoch" in error(train, lr=1e18, resume=tmp_path)
    assert "lr=" in error(train, lr=1e18, resume=tmp_path)
    train(epochs=1, resume=tmp_path)


def test_the_documents_own_network_trains_and_comes_back(tmp_path, monkeypatch):
    guide = (Path(__file__).resolve().parents[2] / "docs" / "add-a-model.md").read_text("utf-8")
    code = next(block for block in guide.split("```python\n")[1:] if block.startswith("# mynet.py")).split("```")[0]
    (tmp_path / "mynet.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    clf = train(model="mynet:make", epochs=1)
    clf.save("model")
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(Classifier.load("model", trust_code=True).logits(images), clf.logits(images))


def test_a_target_keeps_the_epoch_nearest_to_it():
    whole = train(epochs=6, lr=0.3, patience=None)
    reached = [row["balanced_accuracy"] for row in whole.provenance["history"]]
    for target in (0.6, 0.8):
        clf = train(epochs=6, lr=0.3, patience=None, target=target)
        history = clf.provenance["history"]
        assert [row["balanced_accuracy"] for row in history] == reached[: len(history)]
        gaps = [abs(r - target) for r in reached[: len(history)]]
        assert gaps[clf.provenance["best_epoch"] - 1] == min(gaps)
        met = [i for i, r in enumerate(reached) if abs(r - target) <= MATCHED]
        assert len(history) == (met[0] + 1 if met else 6)


def test_a_target_that_is_no_accuracy_is_refused():
    with pytest.raises(InputError, match="target must be a balanced accuracy"):
        train(epochs=1, target=87.0)
