"""Both protocols: what leaks in one does not in the other, and only what should take part does."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import medrobust as mr
from medrobust import stats
from medrobust.detectors import DETECTORS, DeepFeatures, KernelDensity, MaxSoftmax, QuantisedFeatures, evaluate
from medrobust.detectors.splitting import aside, with_copies


def table(x, classes):
    return {"penultimate": x, "logits": 5 * torch.eye(2)[classes]}


def noise(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def twins(n=150, d=12, shift=0.0, seed=0):
    """Clean images and attacked twins that all changed their decision, moved by ``shift`` in every feature."""
    classes = torch.arange(n) % 2
    return table(noise(n, d, seed), classes), table(noise(n, d, seed + 1) + shift, 1 - classes)


@pytest.mark.parametrize("detector", [DeepFeatures(), QuantisedFeatures()], ids=("dfeat", "qfeat"))
def test_on_pure_noise_the_published_protocol_sees_attacks_and_the_clean_one_does_not(detector):
    clean, attacked = twins(200, 30)
    paper = evaluate(detector, clean, attacked, protocol="paper")
    fair = evaluate(detector, clean, attacked)
    assert paper.auroc.low > 0.55
    assert fair.auroc.low < 0.5 < fair.auroc.high
    assert paper.auroc.value > fair.auroc.value + 0.1


def test_two_copies_of_an_image_do_not_fool_the_clean_protocol():
    clean, attacked = twins(100, 30)
    double = [{name: torch.cat([values, values]) for name, values in t.items()} for t in (clean, attacked)]
    fair = evaluate(DeepFeatures(), *double, repeats=5)
    assert fair.auroc.low < 0.5 < fair.auroc.high
    # patients alone would do, where they are known; nothing else is told to the protocol here
    assert len(set(with_copies(np.arange(200).astype(str), double[0]["penultimate"]))) == 100


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_a_shift_that_is_plain_to_see_is_seen_under_both_protocols(name):
    clean, attacked = twins(120, 8, shift=6.0)
    reference = twins(150, 8, seed=7)[0]
    for protocol in ("clean", "paper"):
        found = evaluate(DETECTORS[name](), clean, attacked, protocol, reference=reference)
        if name == "softmax":  # every image here is equally confident
            assert found.auroc.value == 0.5
        elif name == "qfeat":  # 2.8 is a narrow kernel even here: most of what is new looks alike to it
            assert found.auroc.value > 0.9
        else:
            assert found.auroc.value > 0.99
            assert found.tpr_at_5.value > 0.9
        assert found.auroc.low <= found.auroc.value <= found.auroc.high
        assert len(found.repeats) == 3


def test_only_images_classified_right_and_attacks_that_succeeded_take_part():
    clean, attacked = twins(100, 6, shift=1.0)
    labels = torch.arange(100) % 2
    labels[:10] = 1 - labels[:10]  # ten the classifier gets wrong
    attacked["logits"][10:30] = clean["logits"][10:30]  # twenty attacks that failed
    fair = evaluate(DeepFeatures(), clean, attacked, labels=labels)
    assert (fair.n_clean, fair.n_attacked) == (90, 70)
    assert fair.left_out == {"classified wrongly": 10, "attack failed": 20}
    paper = evaluate(DeepFeatures(), clean, attacked, "paper", labels=labels)
    assert (paper.n_clean, paper.n_attacked) == (90, 90)
    for t in fair.tested:
        assert set(t.attacked_at) <= set(t.clean_at)  # twins on one side


def test_borderline_images_do_not_pass_for_attacks_among_twins():
    """Attacks that succeed only where the classifier was unsure: the clean twin is as unsure."""
    n = 200
    classes = torch.arange(n) % 2
    unsure = torch.arange(n) % 4 < 2
    size = torch.where(unsure, 0.5, 6.0)[:, None] * (1 + 0.1 * noise(n, 1, 3))
    clean = {"penultimate": noise(n, 4, 0), "logits": size * torch.eye(2)[classes]}
    wrong = torch.where(unsure, 1 - classes, classes)
    attacked = {"penultimate": noise(n, 4, 1), "logits": size * torch.eye(2)[wrong]}
    found = evaluate(MaxSoftmax(), clean, attacked)
    assert found.auroc.value > 0.7
    assert found.auroc_paired.value == pytest.approx(0.5)


def test_patients_and_twins_stay_on_one_side():
    clean, attacked = twins(120, 6)
    patients = [f"p{i // 6}" for i in range(120)]
    found = evaluate(KernelDensity(), clean, attacked, groups=patients, repeats=2)
    for t in found.tested:
        sides = np.bincount(t.clean_at // 6, minlength=20)
        assert set(sides) <= {0, 6}
        assert 0 < sides.sum() < 60


def test_a_detector_learned_from_one_attack_is_tested_on_another():
    clean, attacked = twins(150, 6, shift=4.0)
    same = evaluate(DeepFeatures(), clean, attacked)
    other = evaluate(DeepFeatures(), clean, attacked, tested_on=twins(150, 6, shift=0.0, seed=50)[1])
    assert same.auroc.value > 0.99
    assert other.auroc.low < 0.5 < other.auroc.high


def test_the_area_does_not_change_with_the_order_of_images_or_a_monotone_change_of_scores():
    clean, attacked = twins(100, 6, shift=1.0)
    found = evaluate(KernelDensity(), clean, attacked, reference=twins(80, 6, seed=9)[0], repeats=1)
    t = found.tested[0]
    positive = np.arange(len(t.clean) + len(t.attacked)) >= len(t.clean)
    scores = np.r_[t.clean, t.attacked]
    area = stats.auroc(scores, positive).value
    assert found.auroc.value == pytest.approx(area)
    assert stats.auroc(np.arctan(scores) * 3 + 1, positive).value == pytest.approx(area)
    assert stats.auroc(-scores, positive).value == pytest.approx(1 - area)


def test_an_interval_of_a_perfect_result_is_not_a_point_and_patients_widen_it():
    found = evaluate(DeepFeatures(), *twins(60, 4, shift=50.0))
    assert found.auroc.value == 1
    assert found.auroc.low < 1
    images = evaluate(KernelDensity(), *twins(160, 6, shift=0.5), repeats=2)
    assert images.auroc.n <= 320
    assert images.auroc.high - images.auroc.low > 0.05


def test_whole_groups_are_put_aside_whatever_their_order():
    groups = np.asarray([f"g{i % 40}" for i in range(200)])
    taken = aside(groups, 0.2, 3, "test")
    assert 30 <= taken.sum() <= 50
    order = np.random.default_rng(0).permutation(200)
    assert (aside(groups[order], 0.2, 3, "test") == taken[order]).all()
    with pytest.raises(mr.InputError, match="two or more"):
        aside(np.asarray(["one"] * 9), 0.2, 0, "test")


def test_what_can_not_be_evaluated_is_refused_with_the_mend():
    clean, attacked = twins(40, 4)
    with pytest.raises(mr.InputError, match="protocol 'fair'"):
        evaluate(DeepFeatures(), clean, attacked, protocol="fair")
    with pytest.raises(mr.InputError, match="give one copy an image"):
        evaluate(DeepFeatures(), clean, {k: v[:20] for k, v in attacked.items()})
    with pytest.raises(mr.InputError, match="larger eps"):
        evaluate(DeepFeatures(), clean, clean)  # no attack changed a decision
    with pytest.raises(mr.InputError, match="give source=classifier"):
        evaluate(DeepFeatures(), torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8))
