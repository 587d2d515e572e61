"""What an evasion calls fooled and not flagged, classifier and detector confirm from the images as they are stored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import medrobust as mr
from medrobust import evasion as room
from medrobust.detectors import DETECTORS, Detector, Features
from medrobust.evasion import EVASIONS, run, smallest, strongest
from tests.nets import bumpy, grey

BALL = mr.Linf(10 / 255)
FPRS = (0.01, 0.05)


class World:
    """A classifier, detectors of every kind as loaded from disk, and images that none of them has seen."""

    def __init__(self, folder) -> None:
        self.classifier = bumpy()
        clean = grey(80, 16, spread=0.2)
        features = Features(self.classifier, ("penultimate",))
        self.reference, fit_on, held_out = (features(clean[i : i + n]) for i, n in ((0, 30), (30, 30), (60, 20)))
        goal = mr.Untargeted(self.classifier.predict(clean[30:60]))
        twins = features(mr.attacks.PGD(steps=3)(self.classifier, clean[30:60], goal, BALL, full=True))
        self.detectors, self.thresholds = {}, {}
        for name, make in DETECTORS.items():
            made = make().fit(features, fit_on, twins, reference=self.reference)
            made.save(folder / name)
            self.detectors[name] = Detector.load(folder / name, self.classifier)
            scores = made.score_features(held_out)
            self.thresholds[name] = {fpr: made.threshold_at(scores, fpr) for fpr in FPRS}
        self.images = grey(6, 16, spread=0.2, seed=3)
        self.images[0, :, 0], self.images[1, :, -1] = 0.0, 1.0
        self.labels = self.classifier.predict(self.images)

    def goal(self, wanted: str) -> mr.threat.Goal:
        return mr.Untargeted(self.labels) if wanted == "untargeted" else mr.Targeted((self.labels + 1) % 3)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("detectors"))


def stored(images: torch.Tensor, folder) -> torch.Tensor:
    save_file({"images": images}, folder / "images.safetensors")
    return load_file(folder / "images.safetensors")["images"]


def confirmed(world, name, wanted, images, fooled, score, folder) -> None:
    """The claims of an evasion, image by image, against everybody who was not in the search."""
    clf, detector, goal = world.classifier, world.detectors[name], world.goal(wanted)
    again = stored(images, folder)
    decision = clf.predict(again)
    reached = decision != world.labels if wanted == "untargeted" else decision == (world.labels + 1) % 3
    assert torch.equal(fooled, reached)
    seen = detector.score(again)
    torch.testing.assert_close(score[fooled], seen[fooled], rtol=1e-9, atol=1e-12)
    outcome = room.judge(clf, detector, world.images, again, goal, BALL, world.thresholds[name])
    assert np.array_equal(outcome.after.fooled, fooled.numpy())
    for fpr, threshold in world.thresholds[name].items():
        past = fooled & (score <= threshold)
        assert np.array_equal(outcome.evaded(fpr), past.numpy())
        assert outcome.success(fpr).value == pytest.approx(float(past.float().mean()))
        flagged = outcome.detected(fpr)
        assert flagged.n == int(fooled.sum())
        if flagged.n:
            assert outcome.success(fpr).value == pytest.approx(outcome.fooled.value * (1 - flagged.value))
        guard = mr.detectors.Guard(clf, detector, threshold)(again)
        assert torch.equal(guard.label, decision)
        assert torch.equal(reached & ~guard.referred, past)


@pytest.mark.parametrize(
    ("name", "wanted"), [(name, "untargeted") for name in sorted(DETECTORS)] + [("kd", "targeted"), ("lid", "targeted")]
)
@pytest.mark.parametrize("kind", sorted(EVASIONS))
def test_what_an_evasion_claims_is_confirmed(kind, name, wanted, world, tmp_path):
    made = EVASIONS[kind]()
    made.steps = 4
    threshold = world.thresholds[name][0.05]
    found = run(
        made,
        world.classifier,
        world.detectors[name],
        world.images,
        world.goal(wanted),
        BALL,
        threshold,
        reference=world.reference,
    )
    confirmed(world, name, wanted, found.images, found.fooled, found.score, tmp_path)


@pytest.mark.parametrize("name", ["kd", "softmax"])
def test_what_the_worst_of_several_and_the_smallest_eps_claim_is_confirmed(name, world, tmp_path):
    clf, detector, threshold = world.classifier, world.detectors[name], world.thresholds[name][0.05]

    def quick(kind: str):
        def make():
            made = EVASIONS[kind]()
            made.steps = 4
            return made

        return make

    few = {kind: quick(kind) for kind in ("selective", "matching")}
    asked = {"evasions": few, "reference": world.reference}
    worst = strongest(clf, detector, world.images, world.goal("untargeted"), BALL, threshold, **asked)
    confirmed(world, name, "untargeted", worst.images, worst.fooled, worst.score, tmp_path)

    grid = [mr.Linf(e / 255) for e in (1, 10)]
    needed = smallest(clf, detector, world.images, world.goal("untargeted"), grid, threshold, **asked)
    again = stored(needed.images, tmp_path)
    past = (clf.predict(again) != world.labels) & (detector.score(again) <= threshold)
    assert np.array_equal(np.isfinite(needed.eps), past.numpy())
    for i, eps in enumerate(needed.eps):
        if np.isfinite(eps):
            assert bool(mr.Linf(eps).legal(world.images[i : i + 1], again[i : i + 1]).all())
