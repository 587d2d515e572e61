"""One perturbation: applied, resized, saved, drawn; graded against the clean prediction; controls of its size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import medrobust as mr
from medrobust import stats
from medrobust.universal import Universal, controls, fooling_rate, judge
from tests.nets import grey, linear


class Shade(nn.Module):
    """Three classes by mean brightness: dark below 0.4, light above 0.6, grey between."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([40 * (0.4 - mean), torch.zeros_like(mean), 40 * (mean - 0.6)], 1)


def shades(classes: int = 3) -> mr.Classifier:
    return mr.Classifier(Shade(), ["dark", "grey", "light"][:classes], channels=1)


def flat(*levels: float) -> torch.Tensor:
    return torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 1, 8, 8).contiguous()


def brighter(by: float, goal: mr.threat.Goal | None = None, side: int = 8) -> Universal:
    return Universal(torch.full((1, side, side), by), mr.Linf(0.25), goal or mr.Untargeted(), {"method": "by hand"})


def test_fooling_is_against_the_clean_prediction_not_the_label():
    images = flat(0.3, 0.35, 0.5, 0.55, 0.7, 0.9)  # dark dark grey grey light light
    labels = np.array([0, 1, 1, 2, 2, 0])  # the 2nd, 4th and 6th are wrong from the start
    outcome = judge(shades(), images, brighter(0.2), labels)  # all but 'light' go one class up
    assert outcome.clean.tolist() == [0, 0, 1, 1, 2, 2]
    assert outcome.after.tolist() == [1, 1, 2, 2, 2, 2]
    assert outcome.fooling_rate == stats.proportion([1, 1, 1, 1, 0, 0])
    assert outcome.fooling_rate == fooling_rate(shades(), images, brighter(0.2))
    assert outcome.accuracy_before == stats.proportion([1, 0, 1, 0, 1, 0])
    assert outcome.accuracy_after == stats.proportion([0, 1, 0, 1, 1, 0])
    assert {c: e.value for c, e in outcome.fooling_rate_per_class.items()} == {"dark": 1, "grey": 1, "light": 0}
    assert {c: e.value for c, e in outcome.recall_after.items()} == {"dark": 0, "grey": 0.5, "light": 1}
    assert outcome.confusion.tolist() == [[0, 2, 0], [0, 0, 2], [0, 0, 2]]
    name, before, after = outcome.dominant[0]
    assert (name, before.value, after.value) == ("light", 1 / 3, 2 / 3)
    assert outcome.targeted_success is None


def test_a_target_has_its_base_rate_beside_it():
    images = flat(0.3, 0.5, 0.55, 0.7)
    outcome = judge(shades(), images, brighter(0.12, mr.Targeted(2)))
    assert outcome.target == 2
    assert outcome.targeted_base.value == 0.25
    assert outcome.targeted_success.value == 0.75
    assert outcome.targeted_success_new == stats.proportion([0, 1, 1])
    assert outcome.targeted_success_per_class["grey"].value == 1
    assert outcome.accuracy_before is None
    assert outcome.sensitivity is None


def test_two_classes_have_sensitivity_specificity_and_a_cap():
    clf, images = linear(2), grey(40)
    labels = clf.predict(images).numpy()
    v = mr.universal.SGA()(clf, images, mr.Targeted(1), mr.L2(3.0))
    outcome = judge(clf, images, v, labels, groups=[i // 2 for i in range(40)])
    before, after = outcome.sensitivity
    assert before.value == after.value == 1
    assert [e.value for e in outcome.specificity] == [1, 0]
    assert outcome.cap.value == max(labels.mean(), 1 - labels.mean())
    # images of one patient: the interval is no narrower
    alone = judge(clf, images, v, labels)
    assert outcome.fooling_rate.value == alone.fooling_rate.value
    assert outcome.fooling_rate.high - outcome.fooling_rate.low >= alone.fooling_rate.high - alone.fooling_rate.low


def test_what_saving_undoes_is_told():
    images = flat(*(np.round(0.3999 * 255) / 255,) * 4)  # one grey level below the boundary
    small = brighter(0.3 / 255)
    low = flat(0.4 - 0.2 / 255)
    assert judge(shades(), low, small).fooling_rate.value == 1
    assert judge(shades(), low, small, bits=1).fooling_rate_saved.value == 0
    assert judge(shades(), images, small).fooling_rate_saved.value == 0


def test_known_clean_decisions_save_a_pass_and_change_nothing():
    clf, images = linear(4), grey(20)
    v = Universal(0.1 * torch.randn(1, 6, 6), mr.L2(1.0), mr.Untargeted())
    first = judge(clf, images, v)
    assert np.array_equal(judge(clf, images, v, clean=first.clean).fooled, first.fooled)
    with pytest.raises(mr.InputError, match="20 images but 3 labels"):
        judge(clf, images, v, labels=[0, 1, 2])


def test_a_perturbation_beyond_its_ball_is_illegal():
    assert not judge(shades(), flat(0.5), Universal(torch.full((1, 8, 8), 0.2), mr.Linf(0.1), mr.Untargeted())).legal
    assert judge(shades(), flat(0.5), brighter(0.25)).legal


def test_findings_of_a_multi_label_head_are_judged_as_sets():
    clf, images = linear(3, head="multilabel"), grey(20)
    v = mr.universal.SGA()(clf, images, mr.Targeted(1), mr.Linf(0.2))
    outcome = judge(clf, images, v)
    assert outcome.targeted_success.value == 1
    w = mr.universal.SGA()(clf, images, mr.Untargeted(), mr.Linf(0.2))
    changed = (clf.predict(w.apply(images)) != clf.predict(images)).any(1)
    assert judge(clf, images, w).fooling_rate == stats.proportion(changed.numpy())
    assert outcome.cap.n == 0
    assert outcome.confusion.size == 0


def test_saved_and_loaded_it_is_the_same(tmp_path):
    clf, images = linear(3), grey(24)
    v = mr.universal.SGA()(clf, images, mr.Targeted(2), mr.L2.relative(0.1, images), seed=7)
    w = Universal.load(v.save(tmp_path / "deep" / "v.safetensors"))
    assert torch.equal(v.delta, w.delta)
    assert (v.ball, v.target, v.provenance, v.history, v.why) == (w.ball, w.target, w.provenance, w.history, w.why)
    assert isinstance(Universal.load(brighter(0.1).save(tmp_path / "u")).goal, mr.Untargeted)


def test_what_is_no_perturbation_is_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(mr.InputError, match="no perturbation at"):
        Universal.load(tmp_path / "nothing.safetensors")
    (tmp_path / "text").write_text("not a tensor")
    with pytest.raises(mr.InputError, match="no readable safetensors"):
        Universal.load(tmp_path / "text")
    save_file({"delta": torch.zeros(1, 2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(mr.InputError, match="holds no universal perturbation"):
        Universal.load(tmp_path / "other.safetensors")
    with pytest.raises(mr.InputError, match="must be finite"):
        Universal(torch.full((1, 2, 2), torch.nan), mr.Linf(0.1), mr.Untargeted())


@pytest.mark.parametrize("norm", [mr.Linf, mr.L2])
@pytest.mark.parametrize("side", [8, 32])
def test_at_another_size_it_keeps_its_relative_norm_and_says_how(norm, side):
    images, other = grey(4, side=16), grey(4, side=side)
    zeta = 0.1
    ball = norm.relative(zeta, images)
    v = Universal(ball.project(torch.randn(1, 1, 16, 16))[0], ball, mr.Untargeted())
    with pytest.raises(mr.InputError, match="load the data with size=16, or give resize=True"):
        v.apply(other)
    w = v.resized(side, side)
    factor = 1 if norm is mr.Linf else side / 16
    assert w.ball.eps == pytest.approx(ball.eps * factor)
    assert w.size == pytest.approx(v.size * factor, rel=1e-5)
    assert w.provenance["resized"]["from"] == [16, 16]
    assert torch.equal(v.apply(other, resize=True), w.apply(other))
    with pytest.raises(mr.InputError, match="channels=1"):
        v.apply(grey(2, side=16, channels=3))


def test_the_picture_is_magnified_around_mid_grey(tmp_path):
    delta = torch.zeros(1, 8, 8)
    delta[0, 0, 0], delta[0, 1, 1] = 0.02, -0.01
    gain = Universal(delta, mr.Linf(0.02), mr.Untargeted()).picture(tmp_path / "v.png")
    pixels = np.asarray(Image.open(tmp_path / "v.png"))
    assert gain == pytest.approx(25)
    assert (pixels[0, 0], pixels[1, 1], pixels[5, 5]) == (255, 64, 128)
    assert brighter(0.0).picture(tmp_path / "zero.png") == 1
    assert Universal(torch.ones(3, 8, 8), mr.Linf(1), mr.Untargeted()).picture(tmp_path / "colour.png") == 0.5


@pytest.mark.parametrize("norm", [mr.Linf, mr.L2])
def test_controls_have_the_size_of_the_ball(norm):
    clf, images = linear(3, side=10), grey(6, side=10)
    ball = norm.relative(0.05, images)
    made = controls(clf, images, ball, seed=1)
    assert len(made) == 3
    assert len({v.provenance["method"] for v in made}) == 3
    for v in made:
        assert v.size == pytest.approx(ball.eps, rel=0.05 if norm is mr.Linf else 1e-5)
        assert v.size <= ball.eps + 1e-6
    again = controls(clf, images, ball, seed=1)
    assert all(torch.equal(a.delta, b.delta) for a, b in zip(made, again, strict=True))
    assert not torch.equal(made[0].delta, controls(clf, images, ball, seed=2)[0].delta)
    assert made[1].delta.abs().unique().numel() == 1  # sign noise


def test_relative_eps_has_both_conventions():
    images = torch.stack([torch.full((1, 4, 4), 0.2), torch.full((1, 4, 4), 0.6)])
    images[0, 0, 0, 0] = 1.0
    norms = images.flatten(1).norm(dim=1)
    assert mr.L2.relative(0.1, images).eps == pytest.approx(0.1 * float(norms.mean()), rel=1e-6)
    assert mr.L2.relative(0.1, images, of="mean image").eps == pytest.approx(
        0.1 * float(images.mean(0).norm()), rel=1e-6
    )
    assert mr.Linf.relative(0.1, images).eps == pytest.approx(0.08)
    assert mr.Linf.relative(0.1, images, of="mean image").eps == pytest.approx(0.08)
    noise = mr.universal.Noise(70, (1, 4, 4))
    everything = noise.images(range(70))
    assert mr.L2.relative(0.1, noise).eps == pytest.approx(mr.L2.relative(0.1, everything).eps)
    with pytest.raises(mr.InputError, match="mean norm"):
        mr.L2.relative(0.1, images, of="median")
