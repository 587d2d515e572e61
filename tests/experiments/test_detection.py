"""Evaluation of detectors: areas with intervals that hold, folds that keep patients together, twins that are legal."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import medrobust as mr
from medrobust import InputError, stats
from medrobust.detectors import KernelDensity, Mahalanobis, MaxSoftmax, clustered, embedding
from medrobust.detectors.crossfit import Crossfit, ImageFeatures, by_layer, transfer
from medrobust.experiments import attack_named
from medrobust.experiments.adversarial_pairs import AdversarialPairs
from medrobust.experiments.detector_data import other_images
from medrobust.experiments.features_cache import FeaturesCache
from medrobust.store import Store
from tests.nets import bumpy


def rows(n: int) -> np.ndarray:
    return np.arange(n).astype(str)


def test_folds_keep_groups_together_whatever_the_order():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 40, 200).astype(str)
    fold = clustered.folds(groups, 5, seed=1)
    assert set(fold) == set(range(5))
    assert all(len(set(fold[groups == g])) == 1 for g in set(groups))
    assert np.bincount(fold).max() - np.bincount(fold).min() <= 12
    order = rng.permutation(200)
    assert np.array_equal(clustered.folds(groups[order], 5, seed=1), fold[order])
    assert not np.array_equal(clustered.folds(groups, 5, seed=2), fold)
    with pytest.raises(InputError, match="5 folds"):
        clustered.folds(["a", "b"], 5)


def test_without_clusters_or_folds_the_area_is_delong_s():
    rng = np.random.default_rng(1)
    clean, attacked = rng.normal(0, 1, 80), rng.normal(1, 1, 60)
    one = np.zeros(140, int)
    ours = clustered.auroc(clean, attacked, one[:80], one[:60], rows(80), rows(140)[80:])
    theirs = stats.auroc(np.r_[clean, attacked], np.r_[np.zeros(80), np.ones(60)] > 0)
    assert ours.value == pytest.approx(theirs.value, abs=1e-12)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=2e-3)


def test_only_pairs_of_one_fold_count_so_each_fold_may_have_its_own_scale():
    rng = np.random.default_rng(2)
    clean, attacked, fold = rng.normal(0, 1, 100), rng.normal(1, 1, 100), np.arange(100) % 5
    args = (fold, fold, rows(100), rows(100))
    plain = clustered.auroc(clean, attacked, *args)
    shifted = clustered.auroc(clean * 2**fold + 10.0 * fold, attacked * 2**fold + 10.0 * fold, *args)
    assert shifted == pytest.approx(plain)


def test_copies_of_patients_do_not_narrow_the_interval():
    rng = np.random.default_rng(3)
    clean, attacked, one = rng.normal(0, 1, 60), rng.normal(1, 1, 60), np.zeros(60, int)
    alone = clustered.auroc(clean, attacked, one, one, rows(60), rows(60))
    four = [np.repeat(v, 4) for v in (clean, attacked, one, one, rows(60), rows(60))]
    copied = clustered.auroc(*four)
    assert copied.value == pytest.approx(alone.value)
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.02)


def test_the_interval_covers_the_true_area():
    """95 % intervals of 300 experiments with twins in patients of three; the true area is 0.76."""
    rng = np.random.default_rng(4)
    held = 0
    for _ in range(300):
        patient = np.repeat(rng.normal(0, 0.7, 30), 3)
        noise = rng.normal(0, 0.5**0.5, (2, 90))
        clean, attacked = patient + noise[0], patient + noise[1] + 1.0
        groups, fold = np.repeat(rows(30), 3), np.repeat(np.arange(30) % 3, 3)
        found = clustered.auroc(clean, attacked, fold, fold, groups, groups)
        # clean and attacked images of different patients: sd of the difference is sqrt(2 * (0.49 + 0.5))
        held += found.low <= 0.7613 <= found.high
    assert 0.9 <= held / 300 <= 0.99


def test_perfect_and_constant_scores_have_honest_intervals():
    one = np.zeros(20, int)
    perfect = clustered.auroc(np.zeros(20), np.ones(20), one, one, rows(20), rows(20))
    assert perfect.value == perfect.high == 1
    assert 0.7 < perfect.low < 0.95
    constant = clustered.auroc(np.zeros(20), np.zeros(20), one, one, rows(20), rows(20))
    assert constant.value == 0.5
    assert constant.low < 0.4 < 0.6 < constant.high
    assert clustered.auroc(np.zeros(3), np.zeros(0), one[:3], one[:0], rows(3), rows(0)).n == 0
    with pytest.raises(InputError, match="not finite"):
        clustered.auroc(np.array([np.nan]), np.zeros(1), one[:1], one[:1], rows(1), rows(1))


def test_alarms_in_a_thousand_and_their_predictive_value():
    detected, alarms = stats.proportion([True] * 90 + [False] * 10), stats.proportion([True] * 5 + [False] * 95)
    assert clustered.per_thousand(alarms).value == pytest.approx(50)
    worth = clustered.predictive_value(detected, alarms, 0.01)
    assert worth.value == pytest.approx(0.009 / (0.009 + 0.0495))
    assert worth.low < worth.value < worth.high
    with pytest.raises(InputError, match="prevalence"):
        clustered.predictive_value(detected, alarms, 0)


def test_an_embedding_keeps_apart_what_is_apart(tmp_path):
    g = torch.Generator().manual_seed(0)
    features = torch.randn(60, 20, generator=g) + 12 * (torch.arange(60) % 2)[:, None]
    points = embedding.embed(features, seed=0)
    assert np.array_equal(points, embedding.embed(features, seed=0))
    even, odd = points[::2], points[1::2]
    within = max(np.linalg.norm(p - p.mean(0), axis=1).max() for p in (even, odd))
    assert np.linalg.norm(even.mean(0) - odd.mean(0)) > within
    labels, attacked = np.arange(60) % 2, np.arange(60) >= 30
    for name in ("a.png", "b.png"):
        embedding.draw(tmp_path / name, points, labels, attacked, ("normal", "ill"))
    embedding.draw(tmp_path / "c.png", points, np.arange(60), attacked, [f"class {i}" for i in range(1000)])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with pytest.raises(InputError, match="at least 8"):
        embedding.embed(features[:5])


def seen(mean: float, n: int, seed: int, pair_of: bool = True, noise: float = 1.0) -> ImageFeatures:
    """Images of two classes in eight features; attacked ones are moved by ``mean`` in the last."""
    g = torch.Generator().manual_seed(seed)
    classes = torch.arange(n) % 2
    x = noise * torch.randn(n, 8, generator=g)
    x[:, 0] += 6 * classes
    x[:, 7] += mean
    names = np.arange(n).astype(str) if pair_of else np.array([f"other {seed} {i}" for i in range(n)])
    features = {
        "penultimate": x,
        "early": torch.randn(n, 8, generator=g),
        "logits": torch.stack([-x[:, 0], x[:, 0] - 6], 1),
    }
    return ImageFeatures(features, features["logits"].argmax(1), names, np.arange(n) if pair_of else np.full(n, -1))


CLEAN, BANK, OTHER = seen(0, 120, 1), seen(0, 200, 2, pair_of=False), seen(0, 200, 3, pair_of=False)


def test_a_crossfitted_detector_meets_the_known_area_and_keeps_its_promise():
    """One feature moves by five of its standard deviations."""
    far = Crossfit(Mahalanobis(("penultimate",)), CLEAN, seen(5, 120, 4), BANK, reference=OTHER)
    rates = far.against(seen(5, 120, 4))
    assert rates.auroc.value > 0.97
    # 24 clean images a fold: one false alarm is allowed at 5 %, none at 1 %
    assert np.mean(far.clean_scores > far.own[0.05][far.fold]) == pytest.approx(1 / 24)
    assert rates.seen[0.01].value <= rates.seen[0.05].value
    assert rates.paired == rates.auroc  # every image has its twin here
    few = far.against(seen(5, 120, 4).take(np.arange(30)))
    assert (few.auroc.n, few.paired.n) == (150, 60)
    none = far.against(seen(0, 120, 5)).auroc  # fresh images that were not attacked
    assert none.low < 0.5 < none.high
    kept = [
        Crossfit(
            Mahalanobis(("penultimate",)),
            seen(0, 120, s),
            seen(5, 120, s + 1),
            seen(0, 400, s + 2, pair_of=False),
            reference=OTHER,
        ).false_alarms()[0.05]
        for s in range(100, 160, 3)
    ]
    assert kept[0].n == 120
    # 20 x 120 images: the mean's standard error is about 0.005
    assert np.mean([k.value for k in kept]) == pytest.approx(0.05, abs=0.02)


def test_each_image_is_scored_by_a_detector_that_never_saw_it():
    """Features of pure noise: a detector tested on what it was fitted on would find an area near 1."""
    attacked = seen(0, 120, 6)
    found = Crossfit(KernelDensity(), CLEAN, attacked, BANK, reference=OTHER).against(attacked)
    assert found.auroc.low < 0.5 < found.auroc.high


def test_few_reference_images_a_class_serve_as_one_class():
    """One image of each of many classes: a density of a class would know those decided as its own image from others."""
    many = ImageFeatures(BANK.features, torch.arange(len(BANK)) // 2, BANK.groups, BANK.pair_of)
    assert many.pooled
    assert not BANK.pooled
    assert torch.equal(BANK.classes, BANK.predicted)
    fitted = Crossfit(Mahalanobis(layers=("penultimate",)), CLEAN, seen(2, 120, 4), OTHER, reference=many)
    x = BANK.features["penultimate"].double()
    mean = fitted.detectors[0].arrays_["means/penultimate"]
    assert mean.shape[0] == 1
    torch.testing.assert_close(mean[0], x.mean(0) @ fitted.detectors[0].arrays_["whiten/penultimate"].T)
    assert fitted.against(seen(2, 120, 4)).auroc.low > 0.5


def test_transfer_and_layers_tell_where_an_attack_shows():
    attacks = {"a": seen(5, 120, 7), "b": seen(5, 120, 8), "none": seen(0, 120, 9)}
    table = transfer(Mahalanobis(("penultimate",)), CLEAN, attacks, BANK, reference=OTHER)
    assert len(table) == 9
    assert table["a", "b"].auroc.value > 0.95
    assert table["a", "none"].auroc.low < 0.5 < table["a", "none"].auroc.high
    layers = by_layer(Mahalanobis(), ("early", "penultimate"), CLEAN, attacks["a"], BANK, reference=OTHER)
    assert layers["penultimate"].auroc.value > 0.95
    assert layers["early"].auroc.low < 0.5 < layers["early"].auroc.high
    assert by_layer(MaxSoftmax(), ("early",), CLEAN, attacks["a"], BANK) == {}
    with pytest.raises(InputError, match="only 4 attacked images"):
        Crossfit(KernelDensity(), CLEAN, attacks["a"].take(np.arange(4)), BANK, reference=OTHER)


@pytest.fixture(scope="module")
def toy():
    """A classifier and images that it gets right by construction: labels are its own decisions, a tenth changed."""
    import dataclasses

    images = mr.data.load("phantom:chest@16:n=300")
    clf = bumpy(classes=2)
    decided = clf.predict(images.images(range(300))).numpy()
    labels = np.where(np.arange(300) % 10 == 0, 1 - decided, decided)
    return clf, dataclasses.replace(images, labels=labels, classes=clf.classes)


def test_twins_are_right_before_legal_after_and_made_once(toy, tmp_path):
    clf, images = toy
    store, ball = Store(tmp_path), mr.Linf(4 / 255)
    pairs = AdversarialPairs(store, clf, images, limit=60)
    assert np.array_equal(clf.predict(pairs.part.images(range(60))).numpy(), pairs.part.labels)
    assert pairs.accuracy == pytest.approx(0.9, abs=0.01)
    fgsm = attack_named("fgsm")
    for part in pairs.shards():
        clean, made = part.images(range(len(part))), pairs.attacked(part, "fgsm", fgsm, ball)
        assert bool(ball.legal(clean, made.images).all())
        assert np.array_equal(made.reached, clf.predict(made.images).numpy() != part.labels)
        noisy = pairs.noisy(part, ball).images - clean
        assert float(noisy.abs().max()) == pytest.approx(4 / 255, abs=1e-6)
    cells = sorted(p.name for p in store.cells.iterdir())
    # a larger study keeps the shards of a smaller one, and knows the same images
    more = AdversarialPairs(store, clf, images, limit=100)
    assert set(pairs.part.ids) <= set(more.part.ids)
    more.attacked(next(more.shards()), "fgsm", fgsm, ball)
    assert sorted(p.name for p in store.cells.iterdir()) == cells


def test_other_images_are_other_patients_and_right(toy, tmp_path):
    clf, images = toy
    pairs = AdversarialPairs(Store(tmp_path), clf, images, limit=60)
    reference, held_out = other_images(images, images, pairs)
    assert not set(reference.ids) & set(held_out.ids)
    assert not set(pairs.part.ids) & {*reference.ids, *held_out.ids}
    bench = FeaturesCache(pairs, ("penultimate",))
    bank = bench.further(held_out)
    assert set(bank.groups) <= set(held_out.ids)
    assert (bank.pair_of == -1).all()
    clean = bench.clean()
    assert clean.features["penultimate"].shape == (60, 64)
    assert torch.equal(clean.features["logits"].argmax(1), torch.from_numpy(pairs.part.labels))
    assert len(bench.corrupted("contrast", 1, 20)) <= 20
    train, val = other_images(
        images, images.split("test"), AdversarialPairs(Store(tmp_path), clf, images.split("test"))
    )
    assert (set(train.split_of), set(val.split_of)) == ({"train"}, {"val"})
    with pytest.raises(InputError, match="of other patients, 40 are needed"):
        bench.further(pairs.part)
