"""Classifiers of which only answers can be had."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import medrobust as mr
from medrobust.models import BlackBoxModel, own_network


def brightness(images: np.ndarray) -> np.ndarray:
    mean = images.mean((1, 2, 3))
    return np.stack([0.5 - mean, mean - 0.5], 1)


NAMES = ("dark", "bright")
ANSWERS = {
    "scores": (brightness, False),
    "indices": (lambda x: brightness(x).argmax(1), True),
    "a list of names": (lambda x: [NAMES[k] for k in brightness(x).argmax(1)], True),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_scores_indices_and_names_give_the_same_decisions(kind):
    answer, labels_only = ANSWERS[kind]
    clf = mr.Classifier(BlackBoxModel(answer, NAMES), NAMES)
    images = torch.rand(9, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="Only answers"):
        assert clf.predict(images).tolist() == (images.mean((1, 2, 3)) > 0.5).long().tolist()
    assert clf.labels_only is labels_only
    before = clf.net.queries
    clf.logits(images)
    assert clf.net.queries == before + 9  # every row is a query, and none is added


def test_a_black_box_is_a_function_of_images_or_what_a_function_returns(tmp_path, monkeypatch):
    (tmp_path / "answers_only.py").write_text(
        "def predict(images):\n    return (images.mean((1, 2, 3)) > 0.5).astype(int)\n\n\n"
        "def load(classes):\n    return predict\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in ("predict", "load"):
        net = own_network.make(f"answers_only:{name}", outputs=2, channels=1, size=4)
        assert net(torch.full((1, 1, 4, 4), 0.9)).tolist() == [[-1.0, 1.0]]


def test_what_is_no_answer_is_one_line():
    def error(answer):
        with pytest.raises(mr.InputError) as caught:
            BlackBoxModel(answer, NAMES)(torch.zeros(2, 1, 4, 4))
        return str(caught.value)

    def fail(_):
        raise KeyError("token")

    assert "'token'" in error(fail)
    assert "(3,) for 2 image(s)" in error(lambda _: [0, 1, 1])
    assert "label 'grey'" in error(lambda _: ["dark", "grey"])
    assert "label '2'" in error(lambda _: [0, 2])
    assert "scores (numbers)" in error(lambda _: [["a"], ["b"]])
