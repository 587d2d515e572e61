"""Evolved networks: batched equals one by one, baselines equal their libraries, nothing leaks, budgets are exact."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from medrobust import Classifier, InputError, data, models, search
from medrobust.training import evolved
from medrobust.training.evolved import QUESTIONS, FeatureTable, Shape, linear, mlp
from medrobust.training.evolved.folds import inner
from medrobust.training.evolved.problem import DECAY, balanced, prepared
from medrobust.training.evolved.weights import Weights


def table(n=120, d=12, classes=2, informative=True, seed=0, patients=None) -> FeatureTable:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    features = rng.normal(size=(n, d)) + (1.2 * labels[:, None] * (np.arange(d) < 3) if informative else 0)
    groups = np.array([f"group {i if patients is None else i % patients}" for i in range(n)])
    return FeatureTable("made", features, labels, groups, tuple(f"c{i}" for i in range(classes)), (0,))


@pytest.fixture(scope="module")
def two() -> FeatureTable:
    return table()


# -- one tensor for all -----------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [2, 4])
def test_the_batched_network_equals_torch_s_weight_for_weight(classes):
    shape = Shape(5, 3, classes)
    generator = torch.Generator().manual_seed(0)
    candidates = torch.randn(2, 4, shape.size, generator=generator)
    x = torch.randn(2, 7, 5, generator=generator)
    labels = torch.randint(classes, (2, 7), generator=generator)
    share = torch.rand(2, 7, generator=generator)
    layers = shape.layers(candidates)
    found = mlp.logits(layers, x)
    worth = mlp.cross_entropy(found, labels, share)
    squares = mlp.penalty(layers)
    for s in range(2):
        for p in range(4):
            net = torch.nn.Sequential(
                torch.nn.Linear(5, 3), torch.nn.Tanh(), torch.nn.Linear(3, shape.outputs)
            ).requires_grad_(False)
            for module, w, b in ((net[0], layers.w1, layers.b1), (net[2], layers.w2, layers.b2)):
                module.weight.copy_(w[s, p])
                module.bias.copy_(b[s, p])
            z = net(x[s])
            torch.testing.assert_close(found[s, p].T, z)
            two_sided = torch.cat([torch.zeros_like(z), z], 1) if classes == 2 else z
            each = torch.nn.functional.cross_entropy(two_sided, labels[s], reduction="none")
            torch.testing.assert_close(worth[s, p], (each * share[s]).sum())
            torch.testing.assert_close(squares[s, p], net[0].weight.square().sum() + net[2].weight.square().sum())


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_candidate_s_worth_does_not_depend_on_its_batch_mates(question):
    made = table(classes=3)
    tasks = evolved.tasks(made, (0, 1), 2)
    problem = QUESTIONS[question].problem(made, tasks)
    x = search.RandomSearch(population=9).start(problem.space, problem.seeds, 9).ask()
    together = problem(problem.space.decode(x))
    assert together.shape == (4, 9)
    alone = torch.cat([problem(problem.space.decode(x[:, i : i + 1])) for i in range(9)], 1)
    torch.testing.assert_close(together, alone, rtol=2e-5, atol=1e-6)
    # nor on the other seeds and folds
    other = QUESTIONS[question].problem(made, tasks[2:3])
    torch.testing.assert_close(together[2:3], other(other.space.decode(x[2:3])), rtol=2e-5, atol=1e-6)


def test_a_mask_is_worth_what_least_squares_on_these_features_is_worth(two):
    task = evolved.tasks(two, (0,), 2)[0]
    problem = QUESTIONS["masks"].problem(two, [task])
    mask = torch.zeros(1, 1, problem.features, dtype=torch.bool)
    mask[0, 0, [0, 2, 5]] = True
    errors = []
    for a, b in inner(two, task, 3):
        p = prepared(two, a, b, 64)
        rows, wanted, share = (
            np.c_[p.fitted.x[:, [0, 2, 5]], np.ones(len(a))],
            2.0 * p.fitted.labels - 1,
            p.fitted.share,
        )
        w = np.linalg.solve(rows.T * share @ rows + DECAY * np.eye(4), rows.T * share @ wanted)
        held = np.c_[p.held.x[:, [0, 2, 5]], np.ones(len(b))] @ w
        errors.append((p.held.share * (held - (2.0 * p.held.labels - 1)) ** 2).sum())
    assert float(problem({"mask": mask})) == pytest.approx(np.mean(errors) + 0.01 * 3 / 12)


def test_the_scan_finds_the_exact_optimum_of_the_threshold(two):
    problem = QUESTIONS["threshold"].problem(two, evolved.tasks(two, (0, 1), 2))
    best = problem.scanned()
    everywhere = torch.linspace(-4, 4, 4001, dtype=torch.float64)[None, :, None].expand(4, -1, -1)
    scanned = problem(best[:, None])[:, 0]
    assert bool((scanned <= problem(everywhere).min(1).values).all())


def test_the_scan_of_several_classes_is_no_worse_than_not_moving():
    made = table(classes=4)
    problem = QUESTIONS["threshold"].problem(made, evolved.tasks(made, (0,), 2))
    best = problem.scanned()
    assert best.shape == (2, 3)
    assert bool((problem(best[:, None]) <= problem(torch.zeros(2, 1, 3, dtype=torch.float64))).all())


def test_a_switched_off_unit_is_a_smaller_network(two):
    problem = QUESTIONS["hyper"].problem(two, evolved.tasks(two, (0,), 2))
    chosen = {
        "decay": torch.tensor([1e-3] * 2),
        "rate": torch.tensor([0.05] * 2),
        "hidden": torch.tensor([3] * 2),
        "inputs": torch.tensor([4] * 2),
    }
    network = problem.judged(chosen)[0]
    assert [w.shape for w, _ in network.layers] == [(3, 4), (1, 3)]
    features = two.features[problem.tasks[0].test]
    features_changed = features.copy()
    features_changed[:, 4:] += 5  # standardised one by one, and the first four are kept
    np.testing.assert_allclose(network.logits(features), network.logits(features_changed))


# -- baselines --------------------------------------------------------------------------------------------


def test_logistic_regression_is_scikit_learn_s(two):
    task = evolved.tasks(two, (0,), 2)[0]
    problem = Weights(two, [task])
    (network,) = evolved.method("weights", "logistic")(problem, 100).fitted
    scaler = StandardScaler().fit(two.features[task.train])
    n = len(task.train)
    expected = LogisticRegression(C=1 / (2 * n * DECAY), class_weight="balanced", max_iter=2000)
    expected.fit(scaler.transform(two.features[task.train]), two.labels[task.train])
    held = two.features[task.test]
    np.testing.assert_allclose(network.probabilities(held), expected.predict_proba(scaler.transform(held)), atol=2e-4)


def test_logistic_regression_has_the_least_worth_of_all_linear_networks(two):
    """Its objective is the networks': no weights near it do better."""
    side = prepared(two, np.arange(120), np.arange(2), 32).fitted
    model = linear.logistic(side, DECAY)

    def worth(w: np.ndarray) -> float:
        z = side.x @ w[:-1] + w[-1]
        each = np.logaddexp(0, np.where(side.labels == 1, -z, z))
        return float((side.share * each).sum() + DECAY * (w[:-1] ** 2).sum())

    best = np.r_[model.coef_[0], model.intercept_]
    rng = np.random.default_rng(0)
    assert all(worth(best + 0.05 * rng.normal(size=13)) > worth(best) for _ in range(50))


def test_components_are_scikit_learn_s_up_to_sign():
    from sklearn.decomposition import PCA

    x = table(n=60, d=12).features
    found = evolved.Reduction.fit(x, 5)(x)
    expected = PCA(5, whiten=True).fit_transform(StandardScaler().fit_transform(x))
    np.testing.assert_allclose(np.abs(found), np.abs(expected) * np.sqrt(60 / 59), rtol=1e-6)
    np.testing.assert_allclose(found.std(0), 1)


def test_scores_by_hand_and_by_scikit_learn():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    p = rng.dirichlet(np.ones(3), 60)
    found = evolved.scored(p, labels, healthy=(1,))
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, p, multi_class="ovr", average="macro"))
    decided = p.argmax(1)
    assert found["sensitivity"] == pytest.approx(np.mean(decided[labels != 1] != 1))
    assert found["specificity"] == pytest.approx(np.mean(decided[labels == 1] == 1))
    assert np.isnan(evolved.scored(p, labels, None)["specificity"])
    one = evolved.scored(np.c_[1 - p[:, 1], p[:, 1]], labels % 2, 0)
    assert one["auroc"] == pytest.approx(roc_auc_score(labels % 2, p[:, 1]))


# -- protocol ---------------------------------------------------------------------------------------------


def test_patients_are_never_on_both_sides_and_every_image_is_tested_once():
    made = table(n=200, patients=50)
    for task in (tasks := evolved.tasks(made, range(3), 4)):
        assert not set(made.groups[task.train]) & set(made.groups[task.test])
        for a, b in inner(made, task, 3):
            assert not set(made.groups[a]) & set(made.groups[b])
            assert set(a) | set(b) == set(task.train)
    for seed in range(3):
        tested = np.concatenate([t.test for t in tasks if t.seed == seed])
        assert sorted(tested) == list(range(200))
    assert not np.array_equal(tasks[0].test, tasks[4].test)


@pytest.mark.slow  # fits every method
def test_what_is_fitted_never_sees_the_other_side():
    made = table(n=60, d=6)
    task = evolved.tasks(made, (0,), 3)[0]
    changed = made.features.copy()
    changed[task.test] += 100
    other = FeatureTable(made.name, changed, made.labels, made.groups, made.classes, made.healthy)
    for question, about in QUESTIONS.items():
        for name in (*about.baselines, "random"):
            one, two = (evolved.method(question, name)(about.problem(t, [task]), 60).fitted[0] for t in (made, other))
            for (w, b), (v, c) in zip(one.layers, two.layers, strict=True):
                np.testing.assert_array_equal(w, v, err_msg=f"{question} {name}")
                np.testing.assert_array_equal(b, c)


@pytest.mark.parametrize("question", ["weights", "masks", "threshold"])
def test_random_labels_give_chance(question):
    """20 features of noise: selection outside the folds would reach 0.6 and more."""
    found = []
    for seed in range(4):
        made = table(n=100, d=20, informative=False, seed=seed)
        tasks = evolved.tasks(made, (seed,), 2)
        problem = QUESTIONS[question].problem(made, tasks)
        for name in ("ga", *QUESTIONS[question].baselines):
            for task, network in zip(tasks, evolved.method(question, name)(problem, 150).fitted, strict=True):
                p = network.probabilities(made.features[task.test])
                found.append(evolved.scored(p, made.labels[task.test], 0)["balanced_accuracy"])
    assert abs(np.mean(found) - 0.5) < 0.05


@pytest.mark.parametrize("name", [*search.OPTIMISERS, "adam", "multi-start-adam", "pso+adam"])
def test_every_method_spends_exactly_the_same(two, name):
    problem = Weights(two, evolved.tasks(two, (0,), 2), hidden=2)
    spent = [0, 0]
    real = problem._block

    def counted(candidates, x, labels, share):
        spent[candidates.requires_grad] += candidates.shape[1]
        return real(candidates, x, labels, share)

    problem._block = counted
    found = evolved.method("weights", name)(problem, 301)
    assert found.evaluations == 301
    assert spent[0] + 3 * spent[1] == 301
    assert bool(spent[1]) == evolved.needs_gradient(name)
    assert found.at[-1] == 301
    assert bool((np.diff(found.curve, axis=1) <= 0).all())
    np.testing.assert_allclose(found.curve[:, -1], found.worth)
    np.testing.assert_allclose(problem(found.best[:, None])[:, 0], found.worth, rtol=1e-5)


def test_a_budget_that_does_not_part_evenly_among_the_starts_is_spent_too(two):
    problem = Weights(two, evolved.tasks(two, (0,), 2), hidden=2)
    assert evolved.method("weights", "multi-start-adam")(problem, 100).evaluations == 100


def test_all_searches_begin_at_the_same_points(two):
    problem = Weights(two, evolved.tasks(two, (0,), 2), hidden=2)
    first = [evolved.method("weights", n)(problem, 64).curve[:, 0] for n in ("random", "pso", "adam", "gwo")]
    for other in first[1:]:
        np.testing.assert_allclose(other, first[0], rtol=1e-6)


def test_wrong_names_are_told_with_what_there_is():
    with pytest.raises(InputError, match="'magic' is not known; choose from logistic"):
        evolved.method("weights", "magic")
    with pytest.raises(InputError, match="needs gradients"):
        evolved.method("masks", "pso+adam")
    with pytest.raises(InputError, match="2 folds or more"):
        evolved.tasks(table(), (0,), 1)
    with pytest.raises(InputError, match="every class on both sides"):
        evolved.tasks(table(n=6, classes=3), (0,), 5)
    with pytest.raises(InputError, match="no image of class"):
        FeatureTable("t", np.ones((4, 2)), np.zeros(4, dtype=np.int64), np.arange(4).astype(str), ("a", "b"))


def test_classes_weigh_the_same_however_many_images_they_have():
    share = balanced(np.array([0, 0, 0, 1]), 2)
    assert share.sum() == pytest.approx(1)
    assert share[:3].sum() == pytest.approx(share[3])


# -- from images and back -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phantom():
    return data.load("phantom:chest@32:n=60")


def test_an_evolved_network_is_a_classifier_that_attacks_reach(phantom, tmp_path):
    torch.manual_seed(0)
    net = models.build("small_cnn", classes=2, channels=1, size=32).eval()
    source = Classifier(net, phantom.classes, channels=1, size=32, provenance={"architecture": "small_cnn"})
    made = evolved.of_images(source, phantom, 0)
    task = evolved.tasks(made, (0,), 2)[0]
    images, _ = phantom.tensors()
    for question, name in (("weights", "pso"), ("weights", "logistic"), ("masks", "random"), ("threshold", "scan")):
        (network,) = evolved.method(question, name)(QUESTIONS[question].problem(made, [task]), 64).fitted
        clf = network.as_classifier(source)
        expected = network.probabilities(made.features)
        np.testing.assert_allclose(clf.probabilities(images).numpy(), expected, atol=2e-4)
        again = Classifier.load(clf.save(tmp_path / f"{question}-{name}"))
        assert again.digest() == clf.digest()
        images.requires_grad_()
        (gradient,) = torch.autograd.grad(clf(images)[:, 1].sum(), images)
        images.requires_grad_(False)
        assert float(gradient.abs().max()) > 0
    assert clf.provenance["architecture"] == "small_cnn"
    with pytest.raises(InputError, match="ends in an MLP already"):
        network.as_classifier(Classifier.load(tmp_path / "weights-pso"))


@pytest.mark.filterwarnings("ignore:No gradient reaches the image")
@pytest.mark.parametrize("kind", models.HANDMADE)
def test_hand_made_features_see_what_they_are_made_for(kind, phantom):
    source = evolved.extractor(kind, phantom)
    images, _ = phantom.select(range(6)).tensors()
    read = evolved.of_images(source, phantom.select([*range(6), *range(54, 60)])).features
    assert np.isfinite(read).all()
    assert (read.std(0) > 0).mean() > 0.8
    assert source.logits(torch.zeros(1, 1, 32, 32)).isfinite().all()  # a black image
    features = models.HANDMADE[kind]
    one = images[0].double().numpy()
    turned = np.rot90(one, axes=(1, 2)).copy()
    if kind == "hu":  # moments do not change when the image is turned
        np.testing.assert_allclose(features(one), features(turned), atol=0.05)
    if kind == "texture":  # nor do mean and range over directions
        np.testing.assert_allclose(features(one), features(turned), atol=1e-8)
    if kind == "wavelet":  # fine structure shows in the finest bands, and most there
        fine = np.clip(one + 0.1 * (np.indices((32, 32)).sum(0) % 2 * 2 - 1), 0, 1)
        difference = features(fine)[:9] - features(one)[:9]
        assert difference.argmax() in (6, 7, 8)


def test_deep_features_need_to_know_of_what(phantom, tmp_path):
    for arguments, says in (
        (("deep",), "deep features need a network"),
        (("deep", "resnet18"), "needs weights"),
        (("magic",), "features 'magic' are not known"),
    ):
        with pytest.raises(InputError, match=says):
            evolved.extractor(arguments[0], phantom, *arguments[1:])
