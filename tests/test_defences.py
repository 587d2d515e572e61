"""Defences at the input: what they do to an image, and what a known one is under attack."""

from __future__ import annotations

import json

import pytest
import torch

import medrobust as mr
from medrobust import InputError, training
from medrobust.attacks import APGD, run
from medrobust.defences import INPUT_DEFENCES, JPEG, BitDepth, Flips, Median, NoisyVotes, RandomResize, defended
from medrobust.results import Row, find
from medrobust.threat import Linf, Untargeted, margin
from tests.cli.test_main import run as command
from tests.nets import linear

pytestmark = pytest.mark.filterwarnings("ignore:No gradient reaches the image")
NAMES = sorted(INPUT_DEFENCES)
IMAGES = torch.rand(3, 1, 12, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 3])
def test_copies_are_images_and_rows_do_not_depend_on_their_batch(name, channels):
    defence, images = INPUT_DEFENCES[name](), IMAGES.repeat(1, channels, 1, 1)
    draws = (lambda: torch.Generator().manual_seed(7)) if defence.random else (lambda: None)
    copies = defence.copies(images, draws())
    assert copies.shape[1:] == images.shape
    assert copies.min() >= 0
    assert copies.max() <= 1
    for i in range(len(images)):
        assert torch.equal(defence.copies(images[i : i + 1], draws())[:, 0], copies[:, i])


def test_what_each_does():
    assert torch.equal(BitDepth(1).copies(torch.tensor([[[[0.4, 0.6]]]])), torch.tensor([[[[[0.0, 1.0]]]]]))
    assert torch.equal(BitDepth(8).copies(torch.full((1, 1, 2, 2), 100 / 255))[0], torch.full((1, 1, 2, 2), 100 / 255))
    flat = torch.full((1, 1, 16, 16), 128 / 255)
    torch.testing.assert_close(JPEG(90).copies(flat)[0], flat)
    spot = torch.zeros(1, 1, 5, 5)
    spot[0, 0, 2, 2] = 1.0
    assert Median(3).copies(spot).max() == 0  # one bright pixel is no median
    assert torch.equal(Flips().copies(IMAGES)[1].flip(-1), IMAGES)
    resized = RandomResize(0.5).copies(torch.ones(1, 1, 12, 12), torch.Generator().manual_seed(0))
    assert 36 <= float(resized.sum()) < 144  # at least half the side, the rest is black
    noise = NoisyVotes(0.05, copies=400).copies(torch.full((1, 1, 8, 8), 0.5), torch.Generator().manual_seed(0))
    assert float(noise.std()) == pytest.approx(0.05, rel=0.02)


@pytest.mark.parametrize("head", ["softmax", "logit", "multilabel"])
@pytest.mark.parametrize("name", NAMES)
def test_answers_are_those_behind_the_defence_known_or_not(name, head):
    classifier, defence = linear(classes=2, side=12, head=head), INPUT_DEFENCES[name]()
    plain, known = (defended(classifier, defence, known=k, draws=(1, 2)) for k in (False, True))
    torch.testing.assert_close(plain.logits(IMAGES), known.logits(IMAGES))
    leaf = IMAGES.clone().requires_grad_()
    known(leaf)[:, -1].sum().backward()
    assert leaf.grad.abs().sum() > 0
    if name == "flips":
        each = torch.stack([classifier.probabilities(IMAGES), classifier.probabilities(IMAGES.flip(-1))])
        torch.testing.assert_close(plain.probabilities(IMAGES), each.mean(0))


def test_hard_votes_are_shares_and_followed_through_their_probabilities():
    classifier = linear(classes=3, side=12)
    hard = defended(classifier, NoisyVotes(0.3, copies=5, hard=True), draws=(0,))
    shares = hard.probabilities(IMAGES) * 5
    torch.testing.assert_close(shares, shares.round(), atol=1e-3, rtol=0)
    known = defended(classifier, NoisyVotes(0.3, copies=5, hard=True), known=True, draws=(0,))
    torch.testing.assert_close(known.logits(IMAGES), hard.logits(IMAGES), atol=1e-4, rtol=1e-4)
    leaf = IMAGES.clone().requires_grad_()
    known(leaf)[:, -1].sum().backward()
    assert leaf.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["bits", "jpeg"])
def test_who_knows_a_filter_without_a_gradient_breaks_it(name):
    """Its own gradient is zero, so that a blind attack says that it holds."""
    classifier, defence = linear(side=16, scale=0.2), INPUT_DEFENCES[name]()
    images = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    plain, known = (defended(classifier, defence, known=k) for k in (False, True))
    labels, attack, ball = plain.predict(images), APGD(20, loss=margin), Linf(32 / 255)
    blind = run(attack, plain, images, Untargeted(labels), ball, seed=0)
    aware = run(attack, known, images, Untargeted(labels), ball, seed=0)
    assert float(aware.reached.float().mean()) > float(blind.reached.float().mean()) + 0.4


def test_who_knows_jpeg_follows_what_it_keeps():
    images = torch.rand(2, 3, 20, 13, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(JPEG(100).followed(images, 1), images)  # every step is 1: nothing is weighted
    flat = torch.full((1, 1, 16, 16), 0.5)
    checks = flat + 0.1 * (torch.arange(16)[:, None] + torch.arange(16)[None] % 2 - 0.5).sign().view(1, 1, 16, 16) / 2
    for quality in (30, 75):
        jpeg = JPEG(quality)
        kept = jpeg.steps.min() / jpeg.steps[0, 0]
        torch.testing.assert_close(jpeg.followed(flat, 1), flat * kept)
        lost = (checks - checks.mean(), jpeg.followed(checks, 1) - jpeg.followed(checks, 1).mean())
        assert lost[1].norm() < lost[0].norm() * kept  # high frequencies less than the mean
    assert JPEG(50).steps[0].tolist() == [16, 11, 10, 16, 24, 40, 51, 61]
    assert JPEG(1).steps.max() == 255


def test_the_second_way_back_breaks_jpeg_where_the_first_is_led_astray():
    """A classifier that hangs on a chessboard, which JPEG removes, and less on the mean, which it keeps."""
    board = ((torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2 - 1).float().flatten()
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([torch.zeros(256), board + 0.5]))
        net[1].bias.copy_(torch.tensor([0.0, -0.5 * 256 * 0.5]))
    classifier = mr.Classifier(net, ("a", "b"), outputs="logits")
    images, labels = torch.full((1, 1, 16, 16), 134 / 255), torch.tensor([1])
    held = []
    for way in range(JPEG.ways):
        known = defended(classifier, JPEG(30), known=True, way=way)
        attacked = run(APGD(20, loss=margin), known, images, Untargeted(labels), Linf(8 / 255), seed=0)
        held.append(not bool(attacked.reached))
    assert held == [True, False]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("bits", {"bits": 0}), ("jpeg", {"quality": 101}), ("median", {"side": 4}), ("resize", {"share": 1.0})],
)
def test_wrong_settings_are_refused(name, wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        INPUT_DEFENCES[name](**wrong)


def test_the_command_judges_each_defence_by_three_attackers(tmp_path, capsys):
    data = mr.data.load("phantom:chest@16:n=200")
    training.fit(data, "small_cnn:width=4", epochs=10, lr=0.01, augment=False, device="cpu").save(tmp_path / "model")
    how = ("--model", tmp_path / "model", "--data", "phantom:chest@16:n=200", "--limit", 12, "--eps", "4/255")
    assert command("input-defences", *how, "--defences", "bits:bits=3,resize,flips", "--out", tmp_path / "run") == 0
    printed = capsys.readouterr().out.replace("\n", " ")
    rows = [Row.read(r) for r in json.loads((tmp_path / "run" / "results.json").read_text())["rows"]]
    alone = find(rows, metric="accuracy_attacked", defence="none")
    assert alone.n == 12
    for name in ("bits:bits=3", "resize", "flips"):
        unaware, other, aware = (
            find(rows, metric="accuracy_attacked", defence=name, knows=knows)
            for knows in ("the classifier", "another classifier", "the classifier and the defence")
        )
        assert aware.value <= min(unaware.value, other.value)
        assert find(rows, metric="accuracy", defence=name).n > aware.n
    assert "Fewer grey levels (bits 3)" in printed
    page = (tmp_path / "run" / "report.html").read_text()
    assert 'id="input-defences"' in page
    assert command("input-defences", *how, "--defences", "magic", "--out", tmp_path / "other") == 2
    assert "'magic' is not known" in capsys.readouterr().err
