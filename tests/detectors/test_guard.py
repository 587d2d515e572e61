"""A guarded classifier: the classifier's answers, the detector's verdict, one pass."""

from __future__ import annotations

import pytest
import torch

import medrobust as mr
from medrobust import models
from medrobust.detectors import Guard, KernelDensity
from tests.nets import bumpy, grey


@pytest.fixture
def guarded():
    net = models.build("small_cnn", classes=2, channels=1, size=16)
    clf = mr.Classifier(net, ("normal", "pneumonia"), size=16, provenance={"architecture": "small_cnn"})
    clean = grey(60, 16, spread=0.2)
    attacked = (clean + 0.3 * torch.rand(clean.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    detector = KernelDensity().fit(clf, clean, attacked)
    threshold = detector.threshold_at(detector.score(clean), 0.05)
    return clf, detector, Guard(clf, detector, threshold), clean


def test_it_answers_as_the_classifier_does_and_refers_what_the_detector_suspects(guarded):
    clf, detector, guard, clean = guarded
    out = guard(clean)
    assert torch.equal(out.label, clf.predict(clean))
    torch.testing.assert_close(out.confidence, clf.probabilities(clean).amax(1))
    assert torch.equal(out.suspicion, detector.score(clean))
    assert out.referred.sum() == 3  # 5 % of 60
    assert out.verdict == tuple("refer" if s > guard.threshold else "accept" for s in out.suspicion.tolist())
    alone = guard(clean[7:8])
    assert torch.equal(alone.suspicion, out.suspicion[7:8])
    assert torch.equal(alone.confidence, out.confidence[7:8])


def test_one_forward_pass_an_image(guarded):
    clf, _, guard, clean = guarded
    calls = []
    handle = clf.net.register_forward_hook(lambda *_: calls.append(1))
    guard(clean[: clf.batch_size(clean.shape)])
    handle.remove()
    assert len(calls) == 1


def test_saved_and_loaded_it_says_the_same(guarded, tmp_path):
    _, _, guard, clean = guarded
    loaded = Guard.load(guard.save(tmp_path / "guard"))
    before, after = guard(clean), loaded(clean)
    for name in ("label", "confidence", "suspicion", "referred"):
        assert torch.equal(getattr(before, name), getattr(after, name))
    (tmp_path / "guard" / "guard.json").unlink()
    with pytest.raises(mr.InputError, match="no guard in"):
        Guard.load(tmp_path / "guard")


def test_a_suspicion_that_is_no_number_is_referred(guarded):
    _, detector, guard, clean = guarded
    detector.rule_.arrays["bias"] = torch.tensor([float("nan")], dtype=torch.float64)
    assert set(guard(clean[:4]).verdict) == {"refer"}


def test_it_refuses_a_detector_of_another_classifier_an_unfitted_one_and_no_threshold(guarded):
    clf, detector, _, clean = guarded
    with pytest.raises(mr.InputError, match="another classifier"):
        Guard(bumpy(), detector, 0.0)
    with pytest.raises(mr.InputError, match="not fitted"):
        Guard(clf, KernelDensity(), 0.0)
    with pytest.raises(mr.InputError, match="finite"):
        Guard(clf, detector, float("nan"))
    with pytest.raises(mr.InputError, match="at least one"):
        Guard(clf, detector, 0.0)(clean[:0])
