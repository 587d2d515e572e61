"""Each detector against what is known: another library's numbers, a closed form, a dimension."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import medrobust as mr
from medrobust.detectors import LID, KernelDensity, Mahalanobis, MaxSoftmax
from medrobust.detectors.density import likeliest_bandwidth
from medrobust.detectors.forest import Forest
from medrobust.detectors.lid import dimension, nearest, quick_dimension
from medrobust.detectors.rule import Logistic, Sum
from medrobust.detectors.support_vectors import SupportVectors


def normal(n, d, seed=0, scale=1.0):
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def table(x, classes=None):
    """Features with decisions: every row of class 0 unless said."""
    classes = torch.zeros(len(x), dtype=torch.long) if classes is None else classes
    return {"penultimate": x, "logits": torch.eye(3, dtype=torch.float64)[classes] * 5}


def fitted_density(points, classes=None, bandwidth: float | str = 1.0):
    detector = KernelDensity(bandwidth)
    return detector.fit_features(table(points), reference=table(points), labels=classes)


@pytest.mark.parametrize("bandwidth", [0.5, 1.0, 2.0])
def test_kernel_density_is_scikit_learn_s(bandwidth):
    from sklearn.neighbors import KernelDensity as Theirs

    points, x = normal(80, 6), normal(20, 6, seed=1, scale=2)
    classes = torch.arange(80) % 2
    detector = fitted_density(points, classes, bandwidth)
    for c in (0, 1):
        theirs = Theirs(bandwidth=bandwidth).fit(points[classes == c].numpy()).score_samples(x.numpy())
        ours = detector.log_density(table(x), torch.full((20,), c))
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-9)


def test_kernel_density_is_scipy_s_in_one_dimension():
    from scipy.stats import gaussian_kde

    points, x = normal(50, 1), normal(9, 1, seed=1)
    theirs = gaussian_kde(points[:, 0].numpy(), bw_method=1 / points[:, 0].numpy().std(ddof=1))
    ours = fitted_density(points).log_density(table(x), torch.zeros(9, dtype=torch.long))
    np.testing.assert_allclose(ours.exp().numpy(), theirs(x[:, 0].numpy()), rtol=1e-9)


@pytest.mark.parametrize("bandwidth", [0.3, 1.0, "likelihood"])
def test_kernel_density_integrates_to_one_in_one_dimension(bandwidth):
    points = torch.cat([normal(30, 1), normal(20, 1, seed=1) + 4])
    classes = torch.arange(50) // 30
    grid = torch.linspace(-15, 20, 4001, dtype=torch.float64)[:, None]
    detector = fitted_density(points, classes, bandwidth)
    for c in (0, 1):
        density = detector.log_density(table(grid), torch.full((4001,), c)).exp()
        assert float(torch.trapezoid(density, grid[:, 0])) == pytest.approx(1, abs=1e-6)


def test_a_block_of_one_decision_has_the_density_of_the_plain_formula():
    """Also of a class without an image, and where blocks are sorted by class and not full."""
    points, x = normal(60, 6), normal(300, 6, seed=1)
    classes, decided = torch.arange(60) % 2, torch.arange(300) % 3
    detector = fitted_density(points, classes)
    plain = detector.represent(table(x), decided)
    np.testing.assert_allclose(detector.numbers(table(x), decided).numpy(), plain.numpy(), rtol=1e-12)


def test_a_density_of_1280_features_does_not_underflow():
    points, x = normal(40, 1280), normal(5, 1280, seed=1, scale=1.5)
    log = fitted_density(points).log_density(table(x), torch.zeros(5, dtype=torch.long))
    assert bool(torch.isfinite(log).all())
    assert bool((log.exp() == 0).all())  # what taking the logarithm afterwards would have to work with
    assert len(log.unique()) == 5


def test_the_density_is_the_predicted_class_s_and_of_all_where_that_class_has_no_image():
    points = torch.cat([normal(30, 4), normal(30, 4, seed=1) + 20])
    classes = torch.arange(60) // 30
    detector = fitted_density(points, classes)
    x = normal(1, 4, seed=2)
    near, far, unknown = (float(detector.log_density(table(x), torch.tensor([c]))) for c in (0, 1, 2))
    assert near > far + 100
    assert unknown == pytest.approx(near - math.log(2), abs=1e-9)


def test_the_likeliest_bandwidth_falls_with_more_images_and_follows_their_scale():
    few, many = (likeliest_bandwidth(normal(n, 2), torch.zeros(n)) for n in (40, 1500))
    assert many < few
    assert likeliest_bandwidth(10 * normal(40, 2), torch.zeros(40)) == pytest.approx(10 * few)
    # copies would make 0 likeliest
    twice = torch.cat([normal(40, 2)] * 2)
    assert likeliest_bandwidth(twice, torch.zeros(80)) > 0.5 * few


def ball(n, d, radius, seed):
    """Uniform in a ball of that dimension."""
    x = normal(n, d, seed)
    u = torch.rand(n, 1, generator=torch.Generator().manual_seed(seed + 99), dtype=torch.float64)
    return radius * x / x.norm(dim=1, keepdim=True) * u ** (1 / d)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_lid_of_a_uniform_ball_is_its_dimension(d):
    bank = ball(4000, d, 1.0, 1)
    inner = ball(300, d, 0.3, 2)  # far from the edge
    hidden = torch.nn.functional.pad  # the ball may lie in more dimensions than it has
    detector = LID(batch=4000)
    detector.layers_ = ("penultimate",)
    detector.learn(table(hidden(bank, (0, 7))), torch.zeros(4000), 0)
    found = detector.represent(table(hidden(inner, (0, 7))), torch.zeros(300))
    assert float(found.mean()) == pytest.approx(d, rel=0.06)


@pytest.mark.parametrize("d", [2, 4, 8])
def test_lid_of_a_gaussian_is_near_its_dimension(d):
    """Near its middle, where the density is almost flat; further out it falls, and so does what is seen."""
    bank, middle = normal(6000, d, 1), 0.5 * normal(400, d, 2)
    detector = LID(batch=6000)
    detector.layers_ = ("penultimate",)
    detector.learn(table(torch.nn.functional.pad(bank, (0, 3))), torch.zeros(6000), 0)
    found = detector.represent(table(torch.nn.functional.pad(middle, (0, 3))), torch.zeros(400))
    assert float(found.mean()) == pytest.approx(d, rel=0.12)


def test_both_ways_to_the_nearest_agree():
    """By partition where no gradient is asked for, by topk where one is."""
    far = normal(50, 100, 3) ** 2
    for k, skipped in ((20, 0), (21, 1)):
        quick, smooth = nearest(far, k, skipped), nearest(far.clone().requires_grad_(), k, skipped)
        assert torch.equal(quick.sort(1).values, smooth.detach())
        assert torch.equal(quick[:, -1], smooth.detach()[:, -1])
        torch.testing.assert_close(dimension(quick), dimension(smooth).detach(), rtol=1e-12, atol=0)


WORLDS = {
    "round": lambda n, seed: normal(n, 40, seed),
    "far from 0": lambda n, seed: 1e3 + normal(n, 40, seed),
    "two clusters": lambda n, seed: normal(n, 40, seed) + 300 * (torch.arange(n) % 2)[:, None],
    "many alike": lambda n, seed: normal(n, 3000, seed),
    "tiny": lambda n, seed: 1e-30 * normal(n, 40, seed),
    "huge": lambda n, seed: 1e25 * normal(n, 40, seed),
    "copies": lambda n, seed: normal(n // 2, 40, 0).repeat(2, 1) + 0 * seed,
}


@pytest.mark.parametrize("name", WORLDS)
def test_lid_in_float32_is_right_to_a_share_of_1e_4_or_is_not_used(name):
    bank, rows = WORLDS[name](120, 1), WORLDS[name](300, 2)
    detector = LID(batch=120)
    detector.layers_ = ("penultimate",)
    detector.learn(table(bank.float()), torch.zeros(120), 0)
    seen = table(rows.float())
    torch.testing.assert_close(detector.numbers(seen), detector.represent(seen, torch.zeros(300)), rtol=1e-4, atol=0)
    _, sure = quick_dimension(rows.float()[None], detector._singles["penultimate"], 20)
    expected = {"round": 1.0, "far from 0": 1.0, "tiny": 0.0, "huge": 0.0, "copies": 0.6}
    if name in expected:
        assert float(sure.double().mean()) == pytest.approx(expected[name])


@pytest.mark.parametrize("name", WORLDS)
def test_lid_as_published_in_float32_is_right_to_a_share_of_1e_4(name):
    clean, attacked = WORLDS[name](260, 1).float(), WORLDS[name](260, 2).float()
    for found, images in zip(LID().represent_published(table(clean), table(attacked)), (clean, attacked), strict=True):
        parts = [
            dimension(nearest(torch.cdist(images[i:j].double(), clean[i:j].double()) ** 2, 21, skipped=1))
            for i, j in ((0, 100), (100, 260))
        ]
        if name != "copies":  # their distances are 0 by a rule, not by cdist
            torch.testing.assert_close(found[:, 0], torch.cat(parts), rtol=1e-4, atol=0)
        assert bool(torch.isfinite(found).all())


def test_lid_as_published_is_biased_upwards_on_fresh_images_and_ours_is_not():
    """The published code drops the nearest neighbour as "itself"; a fresh image loses a true one."""
    own, fresh, ours = [], [], []
    for seed in range(30):
        batch, other = normal(100, 5, seed), normal(100, 5, seed + 1000)
        calm, stirred = LID().represent_published(table(batch), table(other))
        own.append(float(calm.mean()))
        fresh.append(float(stirred.mean()))
        detector = LID()
        detector.layers_ = ("penultimate",)
        detector.learn(table(batch), torch.zeros(100), 0)
        both = [float(detector.represent(table(normal(100, 5, seed + s)), torch.zeros(1)).mean()) for s in (2000, 3000)]
        ours.append(both[0] / both[1])
    assert np.mean(fresh) / np.mean(own) == pytest.approx(1.14, abs=0.03)
    assert np.mean(ours) == pytest.approx(1.0, abs=0.02)


def test_lid_knows_a_scale_from_a_dimension():
    near = torch.sort(torch.rand(4, 20, dtype=torch.float64) + 0.1).values
    assert torch.allclose(dimension(near), dimension(7.5 * near))


def test_a_forest_is_scikit_learn_s():
    from sklearn.ensemble import RandomForestClassifier

    x, y = normal(150, 12), torch.arange(150) % 3 == 0
    x[y] += 0.5
    forest = Forest(30)
    forest.fit(x, y, seed=3)
    theirs = RandomForestClassifier(30, class_weight="balanced", random_state=3).fit(x.float().numpy(), y.numpy())
    new = torch.cat([x, normal(100, 12, seed=5)])
    expected = theirs.predict_proba(new.float().numpy())[:, 1]
    np.testing.assert_allclose(forest.decide(new).numpy() + 0.5, expected, atol=1e-12)


@pytest.mark.parametrize("gamma", [2.8, "scale"])
def test_support_vectors_are_scikit_learn_s(gamma):
    from sklearn.svm import SVC

    x, y = normal(120, 8), torch.arange(120) % 3 == 0
    x[y] += 0.7
    machine = SupportVectors(gamma)
    machine.fit(x, y, seed=0)
    theirs = SVC(gamma=gamma, class_weight="balanced").fit(x.numpy(), y.numpy())
    new = torch.cat([x, normal(50, 8, seed=5)])
    np.testing.assert_allclose(machine.decide(new).numpy(), theirs.decision_function(new.numpy()), atol=1e-6)


def test_logistic_regression_is_scikit_learn_s_on_scaled_numbers():
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import MinMaxScaler

    x, y = 100 * normal(90, 3), torch.arange(90) % 2 == 0
    x[y] += 60
    rule = Logistic()
    rule.fit(x, y, seed=0)
    scaler = MinMaxScaler().fit(x.numpy())
    theirs = LogisticRegression(C=100.0, class_weight="balanced", max_iter=5000)
    theirs.fit(scaler.transform(x.numpy()), y.numpy())
    np.testing.assert_allclose(
        rule.decide(x).numpy(), theirs.decision_function(scaler.transform(x.numpy())), atol=1e-6, rtol=1e-6
    )


def test_the_boundary_of_what_learns_nothing_parts_clean_from_attacked_best():
    x = torch.tensor([[0.0], [1.0], [2.0], [6.0], [8.0], [9.0]], dtype=torch.float64)
    rule = Sum()
    rule.fit(x, torch.arange(6) >= 3, seed=0)
    assert (rule.decide(x) > 0).tolist() == [False] * 3 + [True] * 3
    assert rule.decide(torch.tensor([[4.0]], dtype=torch.float64)).item() == pytest.approx(0)


def test_mahalanobis_is_the_distance_to_the_nearest_class_in_the_shrunk_covariance():
    from sklearn.covariance import ledoit_wolf

    x = torch.cat([normal(100, 5), normal(100, 5, seed=1) + 4])
    x[:, 1] = x[:, 0] + 0.1 * x[:, 1]
    classes = torch.arange(200) // 100
    detector = Mahalanobis().fit_features(table(x, classes), reference=table(x, classes))
    means = np.stack([x[classes == c].numpy().mean(0) for c in (0, 1)])
    inverse = np.linalg.inv(ledoit_wolf(x.numpy() - means[classes], assume_centered=True)[0])
    new = normal(10, 5, seed=3, scale=3).numpy()
    gap = new[:, None] - means
    expected = np.einsum("nci,ij,ncj->nc", gap, inverse, gap).min(1)
    ours = detector.represent(table(torch.from_numpy(new)), torch.zeros(10)).numpy()[:, 0]
    np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_mahalanobis_stands_more_features_than_images_and_features_that_never_change():
    x = normal(30, 200)
    x[:, :50] = 0
    detector = Mahalanobis().fit_features(table(x), table(3 * x))
    assert bool(torch.isfinite(detector.score_features(table(normal(4, 200, seed=1)))).all())


def test_maximum_softmax_orders_images_by_confidence_even_where_it_rounds_to_one():
    detector = MaxSoftmax().fit_features({"logits": normal(50, 3)})
    logits = torch.tensor([[0.1, 0.0, 0.0], [3.0, 0.0, 0.0], [60.0, 0.0, 0.0], [0.0, 90.0, 0.0]])
    scores = detector.score_features({"logits": logits})
    assert (scores.diff() < 0).all()
    expected = (1 - logits[:2].double().softmax(1).amax(1)).log()
    found = detector.represent({"logits": logits[:2]}, torch.zeros(2))[:, 0]
    torch.testing.assert_close(found, expected)


def test_hyper_parameters_out_of_range_are_refused():
    for make in (
        lambda: KernelDensity(0),
        lambda: KernelDensity("auto"),
        lambda: KernelDensity(layers=("a", "b")),
        lambda: LID(k=2),
        lambda: LID(k=100),
        lambda: mr.detectors.DeepFeatures(trees=0),
        lambda: mr.detectors.QuantisedFeatures(gamma=-1),
    ):
        with pytest.raises(mr.InputError):
            make()
