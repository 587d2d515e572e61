"""What every detector promises, whatever it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import medrobust as mr
from medrobust.detectors import DETECTORS, Detector, Features, detector_named, kinds
from medrobust.detectors.features import rows
from medrobust.errors import InputError
from tests.nets import bumpy, grey

ROWS = 64


class Decoded:
    """Images that are decoded when asked for, as a Dataset's are."""

    def __init__(self, images):
        self.pixels = images

    def __len__(self):
        return len(self.pixels)

    def images(self, indices):
        return self.pixels[list(indices)]


@pytest.fixture(scope="module")
def world():
    """A classifier, clean images, the same with strong noise, and the features of both."""
    clf = bumpy()
    clean = grey(ROWS, 16, spread=0.2)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(4))
    attacked = (clean + 0.08 * noise.sign()).clamp(0, 1)
    features = Features(clf, ("penultimate", "body.3"))
    return clf, clean, attacked, features, features(clean), features(attacked)


@pytest.fixture(scope="module", params=sorted(DETECTORS))
def fitted(request, world):
    return DETECTORS[request.param]().fit(world[3], world[4], world[5], seed=1)


def test_the_attacked_images_it_was_fitted_on_look_more_suspicious_or_it_learns_nothing_from_attacks(fitted, world):
    clean, attacked = fitted.score_features(world[4]), fitted.score_features(world[5])
    assert clean.dtype == torch.float64
    assert clean.shape == (ROWS,)
    assert bool(torch.isfinite(torch.cat([clean, attacked])).all())
    if fitted.needs_attacks or fitted.uses_bank:
        assert attacked.mean() > clean.mean()


def test_a_row_scores_the_same_to_the_bit_alone_and_in_any_batch_and_order(fitted, world):
    whole = fitted.score_features(world[4])
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fitted.score_features(rows(world[4], order)), whole[order])
    for i in (0, 13, ROWS - 1):
        assert torch.equal(fitted.score_features(rows(world[4], torch.tensor([i]))), whole[i : i + 1])
    assert torch.equal(fitted.score_features(rows(world[4], torch.arange(5, 40))), whole[5:40])


def test_images_score_as_their_features_do_streamed_or_not(fitted, world):
    images = world[1][:20]
    expected = fitted.score_features(rows(world[4], torch.arange(20)))
    assert torch.equal(fitted.score(images), expected)
    assert torch.equal(fitted.score(Decoded(images)), expected)
    assert torch.equal(fitted.score(images[7:8]), expected[7:8])


def test_the_plain_formula_agrees_and_has_a_gradient_where_the_detector_is_smooth(fitted, world):
    table = {name: values[:30].clone().requires_grad_() for name, values in world[4].items()}
    suspicion = fitted.suspicion(table)
    # LID is scored in float32 where that is right to 1e-4
    near = 1e-4 if type(fitted).__name__ == "LID" else 1e-9
    torch.testing.assert_close(suspicion.detach().double(), fitted.score_features(world[4])[:30], rtol=near, atol=near)
    if type(fitted).__name__ in ("KernelDensity", "LID", "Mahalanobis", "MaxSoftmax"):
        suspicion.sum().backward()
        gradients = [table[name].grad for name in fitted.layers_]
        assert all(bool(torch.isfinite(g).all()) and bool(g.any()) for g in gradients)


def test_fitting_is_the_same_twice_and_saving_gives_the_same_bytes_and_scores(fitted, world, tmp_path):
    again = fitted.blank().fit(world[3], world[4], world[5], seed=1)
    assert repr(again) == repr(fitted)
    for detector, name in ((fitted, "a"), (again, "b")):
        detector.save(tmp_path / name)
    for file in ("detector.safetensors", "detector.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    loaded = Detector.load(tmp_path / "a", world[0])
    assert type(loaded) is type(fitted)
    assert loaded.settings == fitted.settings
    assert torch.equal(loaded.score_features(world[5]), fitted.score_features(world[5]))
    assert torch.equal(loaded.score(world[1][:3]), fitted.score(world[1][:3]))
    loaded.save(tmp_path / "c")
    assert (tmp_path / "a" / "detector.json").read_bytes() == (tmp_path / "c" / "detector.json").read_bytes()
    assert {f.name for f in (tmp_path / "a").iterdir()} == {"detector.safetensors", "detector.json"}


def test_it_refuses_another_classifier_than_it_was_fitted_on(fitted, world, tmp_path):
    fitted.save(tmp_path)
    with pytest.raises(mr.InputError, match="fitted on another classifier"):
        Detector.load(tmp_path, bumpy(seed=5))
    with pytest.raises(mr.InputError, match="attach"):
        Detector.load(tmp_path).score(world[1])


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_unfitted_it_says_so_and_without_attacks_it_fits_or_says_why_not(name, world):
    detector = DETECTORS[name]()
    assert kinds()[type(detector).__name__] is type(detector)
    assert detector.title
    assert "20" in detector.source
    with pytest.raises(mr.InputError, match="not fitted yet"):
        detector.score_features(world[4])
    with pytest.raises(mr.InputError, match="not fitted yet"):
        detector.save("nowhere")
    if detector.needs_attacks:
        with pytest.raises(mr.InputError, match="learns from attacked images"):
            detector.fit(world[3], world[4])
    else:
        scores = detector.fit(world[3], world[4]).score_features(world[4])
        # the boundary is the 95th percentile of the clean images it was not compared with
        assert 0 < float((scores > 0).double().mean()) <= 0.1


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_too_few_images_or_none_attacked_or_no_numbers_are_one_clear_line(name, world):
    def fit(clean, attacked):
        DETECTORS[name]().fit_features(
            rows(world[4], slice(clean)), rows(world[5], slice(attacked)), reference=world[4]
        )

    with pytest.raises(mr.InputError, match="at least 5 images a kind, got 20 clean and 0 attacked; give more"):
        fit(20, 0)
    with pytest.raises(mr.InputError, match="got 3 clean and 20 attacked"):
        fit(3, 20)
    broken = {key: torch.full_like(value, torch.nan) for key, value in world[5].items()}
    with pytest.raises(mr.InputError, match="finite features"):
        DETECTORS[name]().fit_features(world[4], broken, reference=world[4])


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_images_of_one_class_are_enough(name, world):
    """A density or a mean of the one class there is; nothing here asks for a second."""
    one = torch.zeros(ROWS, dtype=torch.long)
    same = {**world[4], "logits": torch.eye(world[4]["logits"].shape[1])[one] * 3}
    detector = DETECTORS[name]().fit_features(same, world[5], reference=same)
    assert bool(torch.isfinite(detector.score_features(world[5])).all())


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_the_bank_holds_no_image_it_is_fitted_on_nor_one_of_its_patient(name, world):
    if not DETECTORS[name]().uses_bank:
        pytest.skip("has no bank")
    groups = [f"p{i // 4}" for i in range(ROWS)]
    detector = DETECTORS[name]().fit(world[3], world[4], world[5], groups=groups)
    assert detector.info_["clean"] + detector.info_["bank"] == ROWS
    assert detector.info_["clean"] == detector.info_["adversarial"]
    assert detector.info_["clean"] % 4 == 0


def test_a_broken_detector_on_disk_is_refused_by_name(world, tmp_path):
    detector = DETECTORS["dfeat"]().fit(world[3], world[4], world[5])
    detector.save(tmp_path)
    with pytest.raises(mr.InputError, match="no detector in"):
        Detector.load(tmp_path / "elsewhere")
    (tmp_path / "detector.safetensors").write_bytes(b"something else")
    with pytest.raises(mr.InputError, match="sha256 differs"):
        Detector.load(tmp_path)
    (tmp_path / "detector.json").write_text("{}")
    with pytest.raises(mr.InputError, match="describes no detector"):
        Detector.load(tmp_path)


def test_a_threshold_lets_through_what_was_promised_and_not_one_more():
    scores = np.random.default_rng(0).normal(size=200)
    for fpr in (0.0, 0.01, 0.05, 0.5):
        threshold = Detector.threshold_at(scores, fpr)
        assert (scores > threshold).sum() == round(fpr * 200)
    assert Detector.threshold_at([1.0, 3.0, 2.0], 0.05) == 3.0  # too few images to allow an alarm
    assert (np.ones(50) > Detector.threshold_at(np.ones(50), 0.05)).sum() == 0  # ties raise none
    for bad in ([], [float("nan")]):
        with pytest.raises(mr.InputError, match="scores of clean images"):
            Detector.threshold_at(bad)


class _Half(Detector):
    """A rule is missing."""

    title, source = "Half", "none"

    def represent(self, table, predicted):
        return table[self.layer]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (_Half, "cannot be made from what DETECTORS holds"),
        (lambda: object(), "has no title"),
        (lambda: _titled(), "it is SimpleNamespace, no Detector"),
        (lambda x: x, "cannot be made"),
    ],
)
def test_a_detector_that_is_registered_by_half_is_one_line(entry, said, monkeypatch):
    monkeypatch.setitem(DETECTORS, "half", entry)
    with pytest.raises(InputError, match=said) as caught:
        detector_named("half")
    assert "\n" not in str(caught.value)


def _titled():
    from types import SimpleNamespace

    return SimpleNamespace(title="Half", source="none")
