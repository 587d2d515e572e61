"""Training and scores of several findings an image, unknown ones left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from medrobust import Classifier, InputError, guessing
from medrobust.training import Augment, evaluate, fit, score
from medrobust.training.losses import MOST, loss, presence_weights
from tests.training.test_fit import Toy, same

SMALL = {"model": "small_cnn", "epochs": 6, "batch": 16, "augment": Augment(flip=False)}


class Findings(Toy):
    """A bright square on the left, on the right, on both sides or nowhere; a tenth of the labels is unknown."""

    multilabel = True

    def __init__(self, n: int = 240) -> None:
        super().__init__(n, labels=np.zeros(n, int))
        draw = np.random.default_rng(1)
        self.stored = (draw.random((n, 1, 16, 16)) * 100).round()
        self.labels = np.stack([draw.random(n) < 0.5, draw.random(n) < 0.3], 1).astype(np.int64)
        for image, present in zip(self.stored, self.labels, strict=True):
            for side in np.flatnonzero(present):
                x, y = (9 if side else 1) + draw.integers(0, 3), draw.integers(2, 10)
                image[0, y : y + 4, x : x + 4] = 190
        self.labels[::10, 0] = -1


def test_findings_that_can_be_seen_are_learnt_and_saved_with_their_head(tmp_path):
    data = Findings()
    classifier = fit(data, **SMALL)
    probability, labels = evaluate(classifier, data.split("val"))
    assert classifier.head.name == "multilabel"
    assert score(probability, labels).auroc > 0.95
    assert guessing.of((probability > 0.5) == labels, labels).balanced.low > 0.5
    classifier.save(tmp_path)
    images = data.images([0, 1, 2])
    assert torch.equal(Classifier.load(tmp_path).logits(images), classifier.logits(images))


def test_a_killed_training_of_findings_ends_with_the_same_weights(tmp_path):
    class KilledError(Exception):
        pass

    class Dies(Findings):
        def digest(self) -> str:
            return "findings"

    whole = fit(Dies(), **SMALL | {"epochs": 2})
    from medrobust.progress import NoProgress

    class Bar(NoProgress):
        def advance(self, steps=1, **postfix):
            if postfix.get("epoch") == "1/2":
                self.done = True
            elif getattr(self, "done", False):
                raise KilledError

    with pytest.raises(KilledError):
        fit(Dies(), resume=tmp_path, progress=Bar(), **SMALL | {"epochs": 2})
    assert same(fit(Dies(), resume=tmp_path, **SMALL | {"epochs": 2}), whole)


def test_the_loss_is_that_of_the_known_findings_with_the_rare_side_weighing_as_much():
    logits, labels = torch.tensor([[1.0, -2.0], [0.5, 3.0]]), torch.tensor([[1, 0], [-1, 1]])
    plain = loss(logits, labels, presence_weights(labels.numpy(), False))
    expected = (F.softplus(torch.tensor(-1.0)) + F.softplus(torch.tensor(-2.0)) + F.softplus(torch.tensor(-3.0))) / 3
    assert plain == pytest.approx(float(expected), rel=1e-6)
    many = np.zeros((100, 3), int)
    many[:20, 0] = many[:1, 1] = 1
    many[50:, 0] = -1
    assert presence_weights(many, True).tolist() == [1.5, MOST, 1.0]
    assert presence_weights(np.arange(4) % 2, True) is None


def test_scores_are_means_over_findings_of_their_known_images():
    labels = np.array([[0, 1], [0, 0], [1, -1], [1, -1]])
    p = np.array([[0.1, 0.9], [0.6, 0.2], [0.7, 0.5], [0.8, 0.5]], np.float32)
    scores = score(p, labels)
    assert scores.balanced_accuracy == pytest.approx((0.75 + 1) / 2)
    assert scores.auroc == 1
    assert scores.n == 4
    found = guessing.of((p > 0.5).astype(int) == labels, labels)
    assert found.balanced.value == pytest.approx(scores.balanced_accuracy)
    assert found.level == 0.5
    assert guessing.right(np.array([[0, 1], [1, 0], [1, 1], [0, 0]]), labels).tolist() == [True, False, True, False]
    with pytest.raises(InputError, match="a finding that some"):
        score(p[:, :1], labels[:2, :1])
