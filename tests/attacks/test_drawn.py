"""Random networks: what attacks follow is a mean over draws, what counts are other draws."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file
from scipy.stats import norm
from torch import Tensor, nn

from medrobust import Classifier
from medrobust.attacks import APGD, PGD
from medrobust.attacks.derivative import derivative
from medrobust.attacks.drawn import BUCKETS, CHOSEN, averaged, drawn, followed, held
from medrobust.attacks.substitute import Substitute
from medrobust.draws import Draws
from medrobust.threat import L2, Linf, Untargeted, margin
from tests.commands import run
from tests.data_files import cohort
from tests.defences import DEFENCES, Around, Defence, noisy, quantised
from tests.nets import Linear, bumpy, grey

RANDOM = {name: defence for name, defence in DEFENCES.items() if defence.random}
VOTES = {
    "soft vote over noise": lambda net, x: noisy_votes(net, x).softmax(-1).mean(0).log(),
    "hard vote over noise": lambda net, x: F.one_hot(noisy_votes(net, x).argmax(-1), 3).float().mean(0),
}
EVERY = RANDOM | {
    name: Defence(partial(Around, change=vote), partial(Around, change=VOTES["soft vote over noise"]), True)
    for name, vote in VOTES.items()
}
EPS = 12 / 255


def noisy_votes(net: nn.Module, x: Tensor) -> Tensor:
    """(3, n, k): logits of three noisy copies."""
    return torch.stack([net(noisy(x)) for _ in range(3)])


def images() -> Tensor:
    return torch.rand(16, 1, 16, 16, generator=torch.Generator().manual_seed(3))


def of(net: nn.Module, classes: int = 3, x: Tensor | None = None) -> Classifier:
    """What a run audits: the network as the mean over draws."""
    x = images() if x is None else x
    made = Classifier(net.eval(), [str(i) for i in range(classes)], channels=1, outputs="logits", batch_size=8)
    with pytest.warns(UserWarning, match="random|gradient") as told:
        made.ready(x[:8])
    assert any("The network is random" in str(warning.message) for warning in told)
    return averaged(made, x[:8])


class Noisy(nn.Module):
    """A linear network of images with normal noise."""

    def __init__(self, size: int, sigma: float) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(1)
        weight = torch.randn(2, size, generator=g)
        self.net, self.sigma = Linear(weight, -weight.sum(1) / 2), sigma

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x + self.sigma * torch.randn_like(x))


@pytest.mark.parametrize("ball", [Linf, L2])
def test_of_a_linear_network_behind_noise_the_rate_is_a_normal_distribution(ball: type[Linf]) -> None:
    sigma, eps = 0.1, {"linf": 0.01, "l2": 0.1}[ball.name]
    net, x = Noisy(36, sigma).requires_grad_(False), grey(24)
    labels = net.net(x).argmax(1)
    judged = of(net, 2, x)
    curve = drawn(PGD(4), followed(judged), judged, x, Untargeted(labels), ball, [0.0, eps])
    weight = net.net.weight[0] - net.net.weight[1]
    gap = net.net(x).detach().diff(dim=1)[:, 0].abs()
    reach = eps * float(weight.abs().sum() if ball is Linf else weight.norm())
    for share, lost in zip(curve.held.T, (0.0, reach), strict=True):
        truth = norm.cdf(((gap - lost) / (sigma * weight.norm().detach())).numpy()).mean()
        assert abs(float(share.mean()) - truth) < 3 * math.sqrt(0.25 / (32 * BUCKETS))  # a bucket shares its draws
    assert curve.held[:, 1].mean() < curve.held[:, 0].mean() - 0.1


@pytest.mark.slow  # up to 6 s: 32 draws of every image, again and again
@pytest.mark.parametrize("name", EVERY)
def test_the_number_is_that_of_an_attack_that_knows_the_defence(name: str) -> None:
    whole, x = bumpy(), images()[:6]
    judged = of(EVERY[name].wrap(whole.net))
    labels = judged.predict(x)
    known = Classifier(EVERY[name].known(whole.net).eval(), whole.classes, channels=1, outputs="logits")
    known.inspection = replace(judged.inspection, differentiable=True)
    torch.manual_seed(0)
    goal, best = Untargeted(labels), torch.ones(len(x))
    for attack in (PGD(10), APGD(10, loss=margin)):
        best = best.minimum(held(judged, attack(known, x, goal, Linf(EPS), full=True), goal, range(len(x))))
    through = followed(judged)
    if not derivative(through, x).holds:
        through = through.changed(substitute=Substitute(functions=True))
    curve = drawn(APGD(10, loss=margin), through, judged, x, goal, Linf, [EPS])
    assert curve.held.mean() <= best.mean() + 0.05
    assert best.mean() < 0.8  # there is something to be found


@pytest.mark.parametrize("name", RANDOM)
def test_the_mean_has_a_gradient_that_differences_agree_with(name: str) -> None:
    judged = of(DEFENCES[name].wrap(bumpy().net))
    assert derivative(followed(judged), images()).holds
    assert derivative(judged.changed(draws=None), images()).holds is not True or name == "random resize and pad"


@pytest.mark.parametrize("name", RANDOM)
def test_rows_are_independent_and_repeat_to_the_bit(name: str) -> None:
    judged = of(DEFENCES[name].wrap(bumpy().net))
    whole = judged.logits(images())
    assert torch.equal(judged.logits(images()), whole)
    assert torch.equal(judged.logits(images()[5:7]), whole[5:7])
    torch.manual_seed(7)
    assert torch.equal(judged.logits(images().flip(0)).flip(0), whole)
    assert not torch.equal(judged.changed(draws=CHOSEN).logits(images()), whole)


def test_code_that_cannot_share_a_pass_is_computed_image_by_image_with_the_same_draws() -> None:
    class Read(nn.Module):
        def __init__(self, net: nn.Module, reads: bool) -> None:
            super().__init__()
            self.net, self.reads = net, reads

        def forward(self, x: Tensor) -> Tensor:
            if self.reads:
                float(x.sum())  # a number is not to be had of many images at once
            return self.net(x + 0.05 * torch.randn_like(x))

    made = [of(Read(bumpy().net, reads)).changed(draws=Draws(3, "test")) for reads in (False, True)]
    together, alone = (m.answers(images()) for m in made)
    assert [m._together for m in made] == [True, False]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
    assert not torch.equal(alone[0], alone[1])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_random_network_that_rounds_is_followed_past_the_rounding() -> None:
    rounding = Around(bumpy().net, lambda net, x: net(quantised(noisy(x), 8)))
    through = followed(of(rounding))
    assert derivative(through, images()[:6]).holds is False
    past = through.changed(substitute=Substitute(functions=True))
    assert derivative(past, images()[:6]).holds
    assert past._together  # rows share their passes there, too
    assert torch.equal(past.logits(images()[:2]), through.logits(images()[:2]))


def test_the_callers_random_numbers_are_left_alone() -> None:
    judged = of(Noisy(256, 0.1), 2)
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    judged.logits(images())
    assert torch.equal(torch.rand(1), before)


NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(2, 3 * 16 * 16, generator=torch.Generator().manual_seed(0)) / 8)

    def forward(self, x):
        return (x - 0.5 + 0.3 * torch.randn_like(x)).flatten(1) @ self.weight.T
"""


@pytest.mark.slow  # a short audit: 15 s
def test_an_audit_says_how_it_was_had_and_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "noisy_net_of_the_tests.py").write_text(NETWORK)
    table = cohort(tmp_path / "scans", n=12, patients=6)
    monkeypatch.chdir(tmp_path)
    given = ("--data", f"csv:{table}", "--model", "noisy_net_of_the_tests:Net", "--device", "cpu", "--limit", 4)
    further = ("--attacks", "bim:steps=3", "--eps", "2/255,8/255")
    assert run("audit", *given, *further, "--out", "run") == 0
    assert "gradients averaged over 16 draws, success counted on 32 fresh draws" in capfd.readouterr().err
    told = json.loads(Path("run/results.json").read_text())
    conditions = told["conditions"]
    assert any("Random network" in note for note in conditions["model_notes"])
    assert not any("random" in doubt for doubt in conditions["model_doubts"])
    (check,) = [c for c in told["checks"] if c["name"] == "the gradient agrees with finite differences"]
    assert check["passed"] is True
    shares = load_file("run/figures.safetensors")["right.bim:steps=3"]
    rows = {r["eps"]: r for r in told["rows"] if r["attack"] == "bim:steps=3" and r["metric"] == "accuracy"}
    assert [rows[e]["value"] for e in sorted(rows)] == pytest.approx(shares.mean(0).tolist())
    assert not [c["name"] for c in told["checks"] if c["decisive"] and c["passed"] is False]
    assert ((shares > 0) & (shares < 1)).any()
    assert run("verify", "run") == 0
    assert run("attack", *given, "--attacks", "bim:steps=3", "--eps", "8/255") == 0
    assert "gradients averaged over 16 draws" in capfd.readouterr().err
