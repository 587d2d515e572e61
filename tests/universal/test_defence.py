"""Defences against universal perturbations: what training sees, what a round says, and that a killed one goes on."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import medrobust as mr
from medrobust import InputError, training
from medrobust.progress import NoProgress
from medrobust.stats import Estimate
from medrobust.training.state import FILE as TRAINING
from medrobust.universal import SGDUAP, Universal
from medrobust.universal.defence import DEFENCES, Hardened, Retraining, Round, UniversalTraining
from medrobust.universal.defence.hardening import FILE
from medrobust.universal.defence.retraining import Pool
from medrobust.universal.defence.rounds import HeldOutImages
from medrobust.universal.defence.universal_training import Climber
from tests.nets import linear

QUICK = {"rounds": 2, "epochs": 1, "perturbations": 2, "limit": 24}
METHOD = SGDUAP(passes=2)
BALL = mr.L2(1.5)


@pytest.fixture(scope="module")
def data():
    return mr.data.load("phantom:chest@32:n=120")


@pytest.fixture(scope="module")
def clf(data):
    return training.fit(data, "small_cnn", epochs=4, seed=0, device="cpu")


@pytest.fixture(scope="module")
def whole(clf, data, tmp_path_factory):
    """Each defence from beginning to end, and the folder it left."""
    made = {}
    for name, make in DEFENCES.items():
        folder = tmp_path_factory.mktemp(name)
        made[name] = make(**QUICK)(clf, data, mr.Untargeted(), BALL, method=METHOD, folder=folder), folder
    return made


def files(folder: Path) -> dict[str, object]:
    """What every file holds, to the bit; safetensors writes its header's entries in any order."""

    def content(path: Path) -> object:
        if path.suffix != ".safetensors":
            return path.read_bytes()
        with safe_open(path, "np") as opened:
            tensors = {k: opened.get_tensor(k) for k in opened.keys()}  # noqa: SIM118
            return opened.metadata(), {k: (v.shape, v.dtype, v.tobytes()) for k, v in tensors.items()}

    return {str(p.relative_to(folder)): content(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def weights(classifier: mr.Classifier) -> list[torch.Tensor]:
    return list(classifier.net.state_dict().values())


def same(a: mr.Classifier, b: mr.Classifier) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


def universal(delta: torch.Tensor, ball: mr.L2 | mr.Linf = BALL, rate: float = 0.5, target: int | None = None):
    goal = mr.Untargeted() if target is None else mr.Targeted(target)
    return Universal(delta, ball, goal, {}, [{"rate": rate}])


# -- training further ----------------------------------------------------------------------------------------


def test_training_further_leaves_the_classifier_that_was_given(clf, data):
    before = [w.clone() for w in weights(clf)]
    after = training.further(clf, data, epochs=1)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(clf), strict=True))
    assert not same(after, clf)
    assert after.provenance["architecture"] == "small_cnn"
    assert [t["from"] for t in after.provenance["further"]] == [clf.digest()]
    assert "further" not in clf.provenance


def test_the_last_epoch_or_the_best_is_kept(clf, data):
    settings = {"epochs": 4, "lr": 0.05, "seed": 1}
    best, last = (training.further(clf, data, keep=k, **settings) for k in ("best", "last"))
    told = [c.provenance["further"][0] for c in (best, last)]
    assert told[0]["history"] == told[1]["history"]
    rank = [(h["balanced_accuracy"], -h["loss"]) for h in told[0]["history"]]
    assert told[0]["epoch_kept"] == 1 + rank.index(max(rank))
    assert told[1]["epoch_kept"] == 4
    seen = training.score(*training.evaluate(last, data.split("val")))
    assert seen.loss == pytest.approx(told[1]["history"][-1]["loss"], rel=1e-6)
    with pytest.raises(InputError, match="keep must be best or last"):
        training.further(clf, data, keep="first")


def test_grey_images_train_a_network_for_colour(data):
    net = mr.models.build("small_cnn", classes=2, channels=3)
    clf = mr.Classifier(net, data.classes, provenance={"architecture": "small_cnn"})
    after = training.further(clf, data, epochs=1)
    assert not same(clf, after)
    assert after.channels == 3


def test_classes_of_other_data_are_refused(clf):
    with pytest.raises(
        InputError, match="30 images of class 'diabetic retinopathy', which the classifier does not know"
    ):
        training.further(clf, mr.data.load("phantom:fundus@32:n=60"), epochs=1)


# -- what training sees --------------------------------------------------------------------------------------


def test_half_of_the_images_get_a_perturbation_each_one_of_the_pool():
    vs = [universal(torch.full((1, 4, 4), level)) for level in (0.1, 0.2, -0.6)]
    pool = Pool(vs, 0.5, seed=3)
    pool.begin(0, 400)
    images = torch.full((400, 1, 4, 4), 0.5)
    shown = pool.before(images, np.arange(400))
    levels, counts = np.unique(shown[:, 0, 0, 0].numpy().round(4), return_counts=True)
    assert levels.tolist() == pytest.approx([0, 0.5, 0.6, 0.7])  # 0.5 - 0.6 is clipped
    assert counts[1] == 200
    assert min(counts) > 40
    parts = torch.cat([pool.before(images[i : i + 7], np.arange(i, min(i + 7, 400))) for i in range(0, 400, 7)])
    assert torch.equal(parts, shown)
    pool.begin(1, 400)
    assert not torch.equal(pool.before(images, np.arange(400)), shown)
    pool.begin(0, 400)
    assert torch.equal(pool.before(images, np.arange(400)), shown)


@pytest.mark.parametrize("ball", [mr.L2(0.3), mr.Linf(0.05)], ids=["l2", "linf"])
@pytest.mark.parametrize("target", [None, 0], ids=["nontargeted", "targeted"])
def test_the_perturbation_that_climbs_goes_where_a_linear_network_says(ball, target):
    clf = linear(side=6, scale=0.1)
    goal = mr.Untargeted() if target is None else mr.Targeted(target)
    climber = Climber(torch.zeros(1, 6, 6), goal, ball, 1.0, 0.5, 9.0, seed=0)
    images, labels = torch.full((5, 1, 6, 6), 0.5), torch.ones(5, dtype=torch.int64)
    for _ in range(3):
        climber.after(clf, images, labels)
    towards = (clf.net.weight[0] - clf.net.weight[1]).detach().view(1, 6, 6)  # away from label 1 is towards class 0
    best = ball.eps * ball.ascent(towards[None])[0]
    assert torch.allclose(climber.delta, best, atol=1e-6)
    assert float(ball.size(climber.delta[None])) <= ball.eps + 1e-6
    climber.begin(0, 5)
    assert torch.equal(climber.before(images, np.arange(5)), (images + climber.delta).clamp(0, 1))
    kept = climber.tensors()
    climber.after(clf, images, labels)
    climber.restore(kept)
    assert torch.equal(climber.delta, kept["delta"])
    climber.restore({})
    assert not climber.delta.any()
    assert clf.net.weight.requires_grad


# -- what a round says ---------------------------------------------------------------------------------------


def test_a_pool_is_judged_as_the_mean_of_its_perturbations():
    clf = linear(side=6, scale=1.0)
    images = 0.5 + 0.02 * torch.randn(40, 1, 6, 6, generator=torch.Generator().manual_seed(5))
    labels = np.arange(40) % 2
    towards = (clf.net.weight[1] - clf.net.weight[0]).detach().view(1, 6, 6)
    deltas = [a * towards / towards.norm() for a in (-0.4, 0.1, 0.5)]
    vs = [universal(d, rate=r, target=1) for d, r in zip(deltas, (0.2, 0.9, 0.1), strict=True)]
    clean = clf.predict(images).numpy()
    after = np.stack([clf.predict((images + d).clamp(0, 1)).numpy() for d in deltas])
    got = HeldOutImages(clf, images, labels, None, 1).pool(vs)
    assert got.fooling.value == pytest.approx((after != clean).mean())
    assert got.success.value == pytest.approx((after == 1).mean())
    assert got.base.value == pytest.approx((clean == 1).mean())
    assert got.new.value == pytest.approx((after[:, clean != 1] == 1).mean())
    assert got.strongest.value == pytest.approx((after[1] == 1).mean())  # best where it was made, not here
    assert got.accuracy.value == pytest.approx((after[1] == labels).mean())
    assert got.fooling.n == 40
    assert (got.pool, got.zero) == (3, 0)
    plain = HeldOutImages(clf, images, labels, None, None).pool(vs)
    assert plain.success is None
    assert plain.rate == plain.fooling
    patients = [i // 10 for i in range(40)]
    wide = HeldOutImages(clf, images, labels, patients, None).pool(vs).fooling
    assert wide.high - wide.low >= plain.fooling.high - plain.fooling.low


def test_numbers_of_a_round_are_those_of_the_classifier_it_left(whole, data, tmp_path):
    test = data.split("test")
    images, labels = test.tensors()
    for name, (hardened, folder) in whole.items():
        assert [r.number for r in hardened.rounds] == [0, 1, 2]
        place = hardened.classifier.save(tmp_path / name)
        saved = mr.Classifier.load(place)
        decided, last = saved.predict(images), hardened.rounds[-1]
        assert last.accuracy.value == pytest.approx(float((decided == labels).float().mean()))
        assert last.accuracy.n == len(test)

        def rate(number: int, folder=folder, saved=saved, decided=decided) -> float:
            vs = [Universal.load(p) for p in sorted((folder / f"round-{number:02d}").glob("perturbation-*"))]
            assert len(vs) == 2
            assert all(v.size <= BALL.eps + 1e-6 for v in vs)
            return float(np.mean([(saved.predict(v.apply(images)) != decided).float().mean() for v in vs]))

        pools = (last.fresh, last.old, last.first)
        for number, pool in zip((2, 1, 0), pools, strict=True):
            assert pool.fooling.value == pytest.approx(rate(number))
        assert hardened.rounds[0].old is None
        assert hardened.rounds[1].old == hardened.rounds[1].first
        assert Round.of(json.loads(json.dumps(last.plain()))) == last
        assert [v.target for v in hardened.pool] == [None, None]


def test_the_perturbations_of_a_round_differ_in_their_images_and_their_result(whole, data):
    _, folder = whole["retrain"]
    a, b = (Universal.load(p) for p in sorted((folder / "round-00").glob("perturbation-*")))
    assert not torch.equal(a.delta, b.delta)
    assert a.provenance["seed"] != b.provenance["seed"]
    assert a.provenance["images"] == {"name": data.name, "n": 24}


@pytest.mark.parametrize("name", DEFENCES)
def test_one_logit_and_a_target_and_the_other_norm(name, data):
    clf = training.fit(data, "small_cnn", epochs=2, seed=0, head="logit", device="cpu")
    ball = mr.Linf(12 / 255)
    hardened = DEFENCES[name](**QUICK | {"rounds": 1})(clf, data, mr.Targeted(0), ball, method=METHOD)
    last = hardened.rounds[-1].fresh
    images, _ = data.split("test").tensors()
    base = float((hardened.classifier.predict(images) == 0).float().mean())
    assert last.base.value == pytest.approx(base)
    reached = [float((hardened.classifier.predict(v.apply(images)) == 0).float().mean()) for v in hardened.pool]
    assert last.rate.value == pytest.approx(np.mean(reached))
    assert hardened.rounds[-1].control.success is not None
    assert all(v.target == 0 and v.size <= ball.eps + 1e-6 for v in hardened.pool)


def test_without_a_perturbation_that_moves_it_stops_and_says_why(clf, data):
    class Still(SGDUAP):
        def find(self, task, seed):
            found = super().find(task, seed)
            return type(found)(torch.zeros_like(found.delta), found.history)

    hardened = Retraining(**QUICK)(clf, data, mr.Untargeted(), BALL, method=Still(passes=1))
    assert len(hardened.rounds) == 1
    assert hardened.rounds[0].fresh.inconclusive
    assert hardened.verdict.startswith("Inconclusive: in round 0 no perturbation moved")
    assert hardened.classifier is clf


def test_retraining_closes_the_old_perturbation_of_a_network_that_can_learn_it(data):
    """The toy's class is a bright side; a constant change of the other side can be learnt away."""
    clf = training.fit(data, "small_cnn", epochs=6, seed=1, device="cpu")
    hardened = Retraining(rounds=1, epochs=6, perturbations=2, limit=40, lr=1e-3)(
        clf, data, mr.Untargeted(), mr.L2(3.0), method=METHOD
    )
    first, last = hardened.rounds
    assert first.fresh.fooling.value > 0.3
    assert last.old.fooling.value < first.fresh.fooling.value


@pytest.mark.parametrize(
    ("before", "after", "noise", "said"),
    [
        ((0.6, 0.5, 0.7), (0.3, 0.2, 0.4), (0.1, 0.05, 0.15), "less than before, yet more than random"),
        ((0.6, 0.5, 0.7), (0.1, 0.05, 0.2), (0.1, 0.05, 0.15), "no more than random"),
        ((0.6, 0.5, 0.7), (0.55, 0.45, 0.65), (0.1, 0.05, 0.15), "work again; that they do less"),
        ((0.3, 0.2, 0.4), (0.6, 0.5, 0.7), (0.1, 0.05, 0.15), "do more than before"),
    ],
)
def test_the_verdict_follows_from_the_intervals(whole, before, after, noise, said):
    hardened, _ = whole["retrain"]

    def at(number: int, fresh: tuple) -> Round:
        base = hardened.rounds[number]
        pools = {
            "fresh": dataclasses.replace(base.fresh, fooling=Estimate(*fresh, 100)),
            "control": dataclasses.replace(base.control, fooling=Estimate(*noise, 100)),
        }
        return dataclasses.replace(base, accuracy=Estimate(0.9, 0.8, 1.0, 100), **pools)

    first, last = at(0, before), dataclasses.replace(at(1, after), accuracy=Estimate(0.5, 0.4, 0.6, 100))
    made = Hardened(hardened.classifier, [first, last])
    verdict = made.verdict
    assert said in verdict
    assert made.protects == ("no more than random" in said)
    assert "on 100 untouched images fell from 90.0 % (80.0–100.0)" in verdict
    value, low, high = (f"{100 * share:.1f}" for share in after)
    assert f"{value} % ({low}–{high}) after round 1" in verdict


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Retraining(rounds=0), "at least 1"),
        (lambda: Retraining(limit=0), "limit must be at least 1"),
        (lambda: Retraining(share=0), "share"),
        (lambda: UniversalTraining(share=1.5), "share"),
        (lambda: UniversalTraining(step=0), "step and beta"),
    ],
)
def test_bad_settings_are_one_line(make, said):
    with pytest.raises(InputError, match=said):
        make()


# -- resuming ------------------------------------------------------------------------------------------------


class Abort(NoProgress):
    """Stops the work after so many reports of progress, as Ctrl-C would."""

    def __init__(self, at: int) -> None:
        self.left = at

    def advance(self, n=1, **shown) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("name", DEFENCES)
def test_an_aborted_defence_ends_as_an_uninterrupted_one(name, whole, clf, data, tmp_path):
    unbroken, folder = whole[name]
    run = DEFENCES[name](**QUICK)
    aborted = 0
    for at in (9, 30, 45, 60):
        try:
            run(clf, data, mr.Untargeted(), BALL, method=METHOD, folder=tmp_path, progress=Abort(at))
        except KeyboardInterrupt:
            aborted += 1
    assert aborted >= 3
    resumed = run(clf, data, mr.Untargeted(), BALL, method=METHOD, folder=tmp_path)
    assert same(resumed.classifier, unbroken.classifier)
    assert resumed.rounds == unbroken.rounds
    assert files(tmp_path) == files(folder)


def test_a_finished_defence_trains_no_more(whole, clf, data, tmp_path):
    unbroken, folder = whole["universal-training"]
    shutil.copytree(folder, tmp_path / "again")
    before = files(folder)

    class NoTraining(NoProgress):
        def start(self, name, total):
            self.training = name.startswith("training")

        def advance(self, n=1, **shown):
            assert not (self.training and n == 1 and not shown), "a step of training"

    again = UniversalTraining(**QUICK)(
        clf, data, mr.Untargeted(), BALL, method=METHOD, folder=tmp_path / "again", progress=NoTraining()
    )
    assert same(again.classifier, unbroken.classifier)
    assert files(tmp_path / "again") == before


def test_a_folder_of_another_defence_is_refused(whole, clf, data, tmp_path):
    _, folder = whole["retrain"]
    with pytest.raises(InputError, match="holds a defence with another eps"):
        Retraining(**QUICK)(clf, data, mr.Untargeted(), mr.L2(1.0), method=METHOD, folder=folder)
    with pytest.raises(InputError, match="another target"):
        Retraining(**QUICK)(clf, data, mr.Targeted(1), BALL, method=METHOD, folder=folder)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(InputError, match="no readable JSON"):
        Retraining(**QUICK)(clf, data, mr.Untargeted(), BALL, method=METHOD, folder=tmp_path)


def retrain(model: str, place: str) -> None:
    data = mr.data.load("phantom:chest@32:n=120")
    made = Retraining(rounds=2, epochs=1, perturbations=2, limit=24)
    made(mr.Classifier.load(model), data, mr.Untargeted(), mr.L2(1.5), method=SGDUAP(passes=2), folder=place)


@pytest.mark.slow  # three defences
def test_a_defence_killed_by_sigkill_ends_as_an_uninterrupted_one(whole, clf, data, tmp_path, processes):
    unbroken, folder = whole["retrain"]
    clf.save(tmp_path / "model")
    place = tmp_path / "killed"
    child = processes.start("tests.universal.test_defence:retrain", str(tmp_path / "model"), str(place))
    assert child.kill_when((place / "round-01" / TRAINING).exists) == -9
    assert (place / "round-01" / TRAINING).exists()
    resumed = Retraining(**QUICK)(clf, data, mr.Untargeted(), BALL, method=METHOD, folder=place)
    assert same(resumed.classifier, unbroken.classifier)
    kept, there = files(folder), files(place)
    assert {k: there[k] for k in kept} == kept  # a killed write may leave a temporary file, no half of a real one
