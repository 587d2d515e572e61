"""Honest networks pass the comparison with finite differences, masked ones do not; what failed is marked everywhere."""

from __future__ import annotations

import contextlib
import copy
import csv
import dataclasses
import io
import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from medrobust import Classifier
from medrobust.attacks.derivative import Derivative, Ends, derivative, hidden
from medrobust.cli import main
from medrobust.cli.audit import checked
from medrobust.experiments import checks
from medrobust.experiments.gradient_check import checked as gradient_checked
from medrobust.models import build
from medrobust.report.findings import find
from medrobust.report.run import read
from medrobust.report.verdict import verdict
from medrobust.results import GRADIENT
from tests.nets import bumpy, linear

# -- networks with their own gradient, and with another ------------------------------------------------------


class Changed(nn.Module):
    def __init__(self, net: nn.Module, change: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.change = net, change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.net, x)


class Winners(nn.Module):
    """The largest activations only (Xiao et al. 2020, arXiv:1905.10510)."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        least = flat.topk(flat.shape[1] // 20, 1).values[:, -1:]
        return torch.where(flat >= least, flat, torch.zeros_like(flat)).view_as(x)


class Stairs(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.round(F.relu(x) * 8) / 8


class Shuffled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        order = torch.randperm(gradient[0].numel(), generator=torch.Generator().manual_seed(0))
        return gradient.flatten(1)[:, order].view_as(gradient)


def term(x: Tensor) -> Tensor:
    """Gives attacks a gradient to follow that has nothing to do with the network."""
    return 1e-5 * x.flatten(1).sum(1, keepdim=True) * torch.tensor([[-1.0, 1.0, 2.0]])


def rounded(x: Tensor, steps: int) -> Tensor:
    return torch.round(x * steps) / steps


def blurred(x: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)


def with_activation(net: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
    other = copy.deepcopy(net)
    for i, layer in enumerate(other.body):
        if isinstance(layer, nn.ReLU):
            other.body[i] = make()
    return other


HONEST: dict[str, Callable[[nn.Module], nn.Module]] = {
    "ReLU, BatchNorm, max-pool, dropout": lambda net: net,
    "SiLU": lambda net: with_activation(net, nn.SiLU),
    "logits x 1000": lambda net: Changed(net, lambda n, x: 1000 * n(x)),
    "logits / 1000": lambda net: Changed(net, lambda n, x: n(x) / 1000),
    "log-softmax": lambda net: Changed(net, lambda n, x: n(x).log_softmax(1)),
    "blurred first": lambda net: Changed(net, lambda n, x: n(blurred(x))),
    "rounded, straight through": lambda net: Changed(net, lambda n, x: n(x + (rounded(x, 255) - x).detach())),
    "bfloat16": lambda net: Changed(copy.deepcopy(net).bfloat16(), lambda n, x: n(x.bfloat16()).float()),
}
MASKED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "detached": lambda net: Changed(net, lambda n, x: n(x.detach()) + term(x)),
    "detached, no gradient": lambda net: Changed(net, lambda n, x: n(x.detach())),
    "sign turned": lambda net: Changed(net, lambda n, x: n(2 * x.detach() - x)),
    "gradient shuffled": lambda net: Changed(net, lambda n, x: n(Shuffled.apply(x))),
    "8 bit": lambda net: Changed(net, lambda n, x: n(rounded(x, 255)) + term(x)),
    "16 levels": lambda net: Changed(net, lambda n, x: n(rounded(x, 15)) + term(x)),
    "3 bit": lambda net: Changed(net, lambda n, x: n(rounded(x, 7)) + term(x)),
    "stairs inside": lambda net: Changed(with_activation(net, Stairs), lambda n, x: n(x) + term(x)),
    "k winners": lambda net: with_activation(net, Winners),
    "saturated": lambda net: Changed(net, lambda n, x: 3 * (1e4 * n(x)).softmax(1) + term(x)),
    "hard answer": lambda net: Changed(net, lambda n, x: F.one_hot(n(x).argmax(1), 3) + term(x)),
}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(3))


def around(make: Callable[[nn.Module], nn.Module]) -> Classifier:
    whole = bumpy()
    return Classifier(make(whole.net).eval(), whole.classes, channels=1)


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_gradient_holds(name, images):
    found = derivative(around(HONEST[name]), images)
    assert found.holds
    assert found.cosine > 0.7
    assert not found.range_needed > 0.5


@pytest.mark.parametrize("sign", [1, -1])
def test_a_network_too_steep_for_differences_is_believed_where_its_gradient_leads(sign: int) -> None:
    """Changes of a grey level turn the sine many times; far smaller ones along the gradient turn its sign."""
    weight = torch.randn(2304, generator=torch.Generator().manual_seed(0))
    weight /= weight.norm()

    class Sine(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x if sign > 0 else 2 * x.detach() - x  # the same answers, the gradient turned
            wave = torch.sin(20000 * (x.flatten(1).double() @ weight.double() - 0.1)).float()
            return torch.stack([-wave, wave], 1)

    phase = torch.tensor([0.1, -0.15, 0.2, -0.25, 0.12, -0.2])
    flat = 0.5 * torch.ones(6, 2304)
    flat += (0.1 + phase / 20000 - flat @ weight)[:, None] * weight
    classifier = Classifier(Sine(), ["a", "b"], channels=1, outputs="logits")
    found = derivative(classifier, flat.view(6, 1, 48, 48))
    assert found.cosine < 0.5
    assert found.turned == (1.0 if sign > 0 else 0.0)
    assert found.holds is (sign > 0)


def test_decisions_that_any_change_turns_say_nothing_for_a_gradient() -> None:
    class Brittle(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            wave = torch.sin(1e7 * x.flatten(1).double().sum(1, keepdim=True)).float()
            return torch.cat([wave, -wave], 1)

    classifier = Classifier(Brittle(), ("a", "b"), outputs="logits", channels=1)
    images = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = derivative(classifier, images)
    assert not found.holds
    assert found.turned < 0.1


@pytest.mark.filterwarnings("ignore:No gradient reaches the image")
@pytest.mark.parametrize("name", MASKED)
def test_a_masked_gradient_does_not(name, images):
    assert derivative(around(MASKED[name]), images).holds is False


def test_of_a_linear_network_every_change_is_predicted():
    images = 0.1 + 0.8 * torch.rand(8, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    for head in ("softmax", "logit"):
        found = derivative(linear(head=head), images)
        assert found.cosine == pytest.approx(1, abs=1e-4)
        assert found.compared == found.examined == 8


def test_hidden_copies_answer_alike_and_are_noticed(images):
    whole = bumpy()
    for other in hidden(whole).values():
        torch.testing.assert_close(other.logits(images), whole.logits(images), rtol=1e-2, atol=1e-2)
        assert derivative(other, images).holds is False
    assert derivative(whole, images).holds  # the network itself is untouched


@pytest.mark.filterwarnings("ignore:The network gave the same outputs for all 8 images")
def test_where_no_output_changes_nothing_is_compared(images):
    found = derivative(around(lambda net: Changed(net, lambda n, x: n(0 * x))), images)
    assert found.holds is None
    assert math.isnan(found.cosine)


@pytest.mark.filterwarnings("ignore:No gradient reaches the image")
def test_an_answer_that_moves_in_steps_gives_attacks_nothing(images):
    """Of two grey levels: no small change moves it, while different images have different answers."""
    images = 0.1 + 0.8 * (images > 0.5).float()
    for straight in (False, True):
        other = Changed(bumpy().net, lambda n, x, s=straight: n((x > 0.5).float() + s * (x - x.detach())))
        found = derivative(Classifier(other.eval(), ("a", "b", "c"), channels=1), images)
        assert (found.flat, found.holds, found.compared) == (True, False, 0)
        check = checks.gradient_holds(found, {})
        assert check.passed is False
        assert checks.doubt([check])
        assert "changed the outputs of 0 of 12 images; different images have different outputs" in check.detail


def test_it_ends_where_further_images_would_change_nothing(images):
    asked = []

    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = bumpy().net

        def forward(self, x: Tensor) -> Tensor:
            asked.append(len(x))
            return self.net(x)

    whole = Classifier(Counted().eval(), ("a", "b", "c"), channels=1, batch_size=8)
    whole.ready(images)
    asked.clear()
    ends = Ends(whole, images, 0, list(range(12)))
    found = derivative(whole, images, ends=ends)
    assert found.holds
    assert found.examined < 12
    before = sum(asked)
    assert derivative(whole, images, ends=ends) == found
    assert sum(asked) - before <= 32  # the answers along the directions are kept


def test_few_images_that_agree_by_chance_are_not_sure():
    sure = Derivative(0.97, 0.01, 4, 4)
    assert sure.clear
    assert sure._replace(cosine=0.0).clear
    assert sure._replace(cosine=0.97, range_needed=64.0).clear
    for doubtful in (
        sure._replace(compared=1, examined=1),
        sure._replace(cosine=0.7),
        sure._replace(cosine=0.55),
        sure._replace(range_needed=math.nan),
        sure._replace(range_needed=0.5),
        sure._replace(examined=10),
    ):
        assert not doubtful.clear


# -- the check -----------------------------------------------------------------------------------------------


def test_the_check_says_that_it_was_tested_itself():
    check = checks.gradient_holds(Derivative(0.97, 0.01, 24, 24), {"detached": True, "negated": True})
    assert check.passed
    assert check.decisive
    assert check.detail.endswith(
        "To test the comparison of gradients, the gradient of a copy was hidden in two ways (detached, negated): "
        "both were noticed"
    )


def test_a_check_that_does_not_notice_a_hidden_gradient_was_not_asked():
    check = checks.gradient_holds(Derivative(0.97, 0.01, 24, 24), {"detached": True, "negated": False})
    assert check.passed is None
    assert check.detail.startswith("not asked: ")
    assert "negated" in check.detail


def nothing(n: int = 24) -> np.ndarray:
    return np.zeros(n, bool)


def fallen(count: int, n: int = 24) -> np.ndarray:
    return np.arange(n) < count


EPS = (1 / 255, 2 / 255)
NEVER = np.full(24, np.inf, np.float32)


@pytest.mark.parametrize(
    "check",
    [
        checks.grows_with_eps("pgd", [0.1, 0.2], [nothing(), nothing()]),
        checks.grows_with_steps("pgd", [1, 2], [nothing(), nothing()]),
        checks.confirmed("pgd", 0, 0),
        checks.noise_is_weaker("pgd", EPS, NEVER, np.zeros((24, 2), bool)),
        checks.single_step_is_weaker("pgd", EPS, NEVER, NEVER),
        checks.black_box_is_weaker("pgd", 0.01, nothing(), fallen(3), 80, "Square"),
        checks.black_box_is_weaker("pgd", 0.01, nothing(0), nothing(0), 80, "Square"),
        checks.finds_what_others_find("auto", 0.01, 0, 0, 24),
        checks.square_is_not_needed("auto", 0.01, 0, 2, 24),
        checks.huge_eps("pgd", 0.5, fallen(5, 6), shared="PGD"),
    ],
    ids=lambda check: check.name,
)
def test_a_check_that_could_not_have_failed_was_not_asked(check):
    assert check.passed is None
    assert check.detail.startswith("not asked: ")


@pytest.mark.parametrize(
    ("check", "passed"),
    [
        (checks.black_box_is_weaker("pgd", 0.01, fallen(8), fallen(3), 80, "Square"), False),
        (checks.black_box_is_weaker("pgd", 0.01, fallen(8), fallen(9), 80, "Square"), True),
        (checks.black_box_is_weaker("pgd", 0.01, nothing(), fallen(20), 80, "Square"), True),
        (checks.square_is_not_needed("auto", 0.01, 8, 2, 24), False),
        (checks.square_is_not_needed("auto", 0.01, 0, 20, 24), True),
        (checks.huge_eps("pgd", 0.5, fallen(24)), True),
        (checks.huge_eps("pgd", 0.5, fallen(23)), True),
        (checks.huge_eps("pgd", 0.5, fallen(22)), False),
        (checks.huge_eps("pgd", 0.5, fallen(4, 6)), False),
        (checks.huge_eps("pgd", 0.5, nothing(1)), False),
        (checks.confirmed("pgd", 0, 5), True),
    ],
)
def test_a_check_that_could_have_failed_was_asked(check, passed):
    assert check.passed is passed
    assert "not asked" not in check.detail


def test_only_what_was_asked_is_counted(capsys):
    asked = checks.confirmed("pgd", 0, 5)
    idle = checks.confirmed("bim", 0, 0)
    checked([asked, idle])
    shown = capsys.readouterr().out
    assert shown.startswith("1 of 1 sanity checks passed")
    assert "not asked" in shown


def test_what_a_smaller_size_fools_is_fooled_at_a_huge_one():
    check = checks.huge_eps("pgd", 0.5, fallen(20), smaller=fallen(24), shared="PGD")
    assert check.passed
    assert "100% of 24 images fooled" in check.detail
    assert "(4 of them by what a smaller size gave)" in check.detail
    assert not checks.huge_eps("pgd", 0.5, fallen(20), smaller=fallen(21), shared="PGD").passed


def test_a_huge_eps_speaks_for_all_that_follow_the_gradient():
    check = checks.huge_eps("pgd", 0.5, fallen(3), shared="PGD")
    assert (check.attack, check.decisive) == (GRADIENT, True)
    assert checks.doubt([check]) == "the check “a huge eps reaches 100 %” failed"
    assert not checks.doubt([dataclasses.replace(check, passed=True), dataclasses.replace(check, passed=None)])


# -- an audit of a network that hides its gradient -----------------------------------------------------------

NETWORK = """
import torch

class Net(torch.nn.Module):
    def __init__(self, hide):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(40.0))
        self.hide = hide

    def forward(self, x):
        mean = (x.detach() if self.hide else x).flatten(1).mean(1, keepdim=True)
        if self.hide == "in steps":
            mean = (8 * mean).round() / 8
        return self.gain * (mean - 0.5) + 1e-5 * bool(self.hide) * x.flatten(1)[:, :1]

def open(classes, size):
    return Net("")

def masked(classes, size):
    return Net("in steps")

def detached(classes, size):
    return Net("detached")
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Dark and bright images, and networks that tell them apart by their mean; no small change turns one."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "means_of_the_tests.py").write_text(NETWORK)
    draw = np.random.default_rng(0)
    lines = ["file,label"]
    for i in range(40):
        pixels = draw.normal((110, 145)[i % 2], 10, (16, 16)).round().astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{('ill', 'well')[i % 2]}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def audited(home: Path, network: str, *options: str) -> Path:
    """The run folder; out.txt in it holds what the terminal showed."""
    words = (
        "audit",
        "--data",
        "csv:labels.csv",
        "--model",
        f"means_of_the_tests:{network}",
        "--head",
        "logit",
        "--attacks",
        "fgsm,bim:steps=3,pgd:steps=3",
        "--eps",
        "0.5/255,1/255",
        "--limit",
        "10",
        "--no-explain",
        "--no-stored",
        "--no-detect",
        "--device",
        "cpu",
        "--out",
        network,
        *options,
    )
    shown = io.StringIO()
    with contextlib.chdir(home), pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(shown):
        patched.setattr(sys, "argv", ["medrobust", *words])
        with pytest.raises(SystemExit) as left:
            main()
    assert not left.value.code
    (home / f"{network}.txt").write_text(shown.getvalue(), "utf-8")
    return home / network


@pytest.fixture(scope="module")
def masked(home) -> Path:
    return audited(home, "masked")


@pytest.fixture(scope="module")
def honest(home) -> Path:
    return audited(home, "open", "--no-universal")


def lead(run: Path) -> str:
    """The verdict of the page."""
    title, text, _ = verdict(find(read(run)))
    return f"{title} {text}"


def test_the_doubt_reaches_every_row(masked):
    with (masked / "results.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for attack in ("fgsm", "bim:steps=3", "pgd:steps=3", "auto", "worst", "sgd"):
        numbers = [r for r in rows if r["attack"] == attack and not r["metric"].endswith("_per_image")]
        assert numbers
        numbers = [r for r in numbers if r["metric"] != "inconclusive"]
        assert {r["status"] for r in numbers} == {"inconclusive"}
        assert all("the gradient agrees with finite differences" in r["note"] for r in numbers)
    for attack in ("none", "noise"):
        assert {r["status"] for r in rows if r["attack"] == attack and r["kind"] != "explanation"} == {"ok"}


def test_the_doubt_is_the_first_that_a_person_reads(masked):
    shown = (masked.parent / "masked.txt").read_text("utf-8")
    assert shown.startswith("INCONCLUSIVE: failed: “the gradient agrees with finite differences”")
    assert "headline (inconclusive): " in shown
    assert lead(masked).startswith("Inconclusive: ")
    assert re.search("the checks? “the gradient agrees with finite differences”.* failed", lead(masked))
    assert r"$^\dagger$" in (masked / "tables.tex").read_text("utf-8")


def test_an_honest_network_that_no_attack_turns_is_not_doubted(honest):
    rows = json.loads((honest / "results.json").read_text("utf-8"))["rows"]
    assert {r["status"] for r in rows if r["attack"] in ("fgsm", "pgd:steps=3", "auto", "worst")} == {"ok"}
    assert not find(read(honest)).decisive
    assert "nconclusive" not in lead(honest)
    shown = (honest.parent / "open.txt").read_text("utf-8")
    assert "inconclusive" not in shown.lower()
    assert "not asked" in shown
    page = (honest / "report.html").read_text("utf-8")
    assert "To test the comparison of gradients, the gradient of a copy was hidden in two ways" in page


def test_what_was_asked_is_in_the_results(masked):
    told = json.loads((masked / "results.json").read_text("utf-8"))
    found = next(c for c in told["checks"] if c["name"] == "the gradient agrees with finite differences")
    assert (found["passed"], found["decisive"], found["attack"]) == (False, True, "gradient")


def test_a_masked_gradient_that_attacks_get_past_is_no_doubt(home):
    run = audited(home, "detached", "--no-universal")
    told = json.loads((run / "results.json").read_text("utf-8"))
    found = next(c for c in told["checks"] if c["name"] == "the gradient agrees with finite differences")
    assert found["passed"]
    assert "own gradient is masked" in found["detail"]
    assert "straight through rounding, comparisons and cut gradients" in found["detail"]
    assert {r["status"] for r in told["rows"] if r["attack"] in ("fgsm", "pgd:steps=3", "worst")} == {"ok"}


def test_a_network_as_found_is_checked_in_one_call(images):
    class Part:
        ids = tuple(map(str, range(12)))
        shape = (1, 16, 16)

        def sample(self, n: int, seed: int) -> Part:
            return self

        def tensors(self) -> tuple[Tensor, Tensor]:
            return images, torch.zeros(12, dtype=torch.long)

    assert gradient_checked(bumpy(), Part(), 0).passed


# -- the other commands --------------------------------------------------------------------------------------


def fails(
    classifier: Classifier, few: object, seed: int, seek: bool = False
) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    found = {"cosine": 0.01, "range_needed": 9.0, "compared": 6, "examined": 6, "flat": False}
    return {"derivative": found, "own": found, "noticed": {}, "trials": [], "hidden_by": ""}, {}


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """A saved network."""
    torch.manual_seed(0)
    net = build("small_cnn", classes=2, channels=1, size=32)
    provenance = {"architecture": "small_cnn"}
    whole = Classifier(net, ("normal", "pneumonia"), channels=1, size=32, provenance=provenance)
    return whole.save(tmp_path_factory.mktemp("kept") / "model")


COMMANDS = {
    "attack": ("attack", "--model", "{model}", "--attacks", "fgsm,square:queries=5", "--eps", "1/255", "--limit", "4"),
    "universal": ("universal", "--model", "{model}", "--limit", "8", "--judged", "8", "--out", "{out}"),
    "defend": (
        "defend",
        "--model",
        "{model}",
        "--rounds",
        "1",
        "--epochs",
        "1",
        "--perturbations",
        "1",
        "--limit",
        "8",
        "--judged",
        "8",
        "--out",
        "{out}",
    ),
    "evade": (
        "evade",
        "--model",
        "{model}",
        "--detectors",
        "softmax",
        "--evasions",
        "selective",
        "--eps",
        "1/255",
        "--limit",
        "20",
        "--attacked",
        "4",
        "--attacks",
        "fgsm",
        "--out",
        "{out}",
    ),
    "detect": (
        "detect",
        "--model",
        "{model}",
        "--detectors",
        "softmax",
        "--attacks",
        "fgsm",
        "--corrupted",
        "0",
        "--limit",
        "20",
        "--out",
        "{out}",
    ),
    "explain": (
        "explain",
        "--model",
        "{model}",
        "--attacks",
        "fgsm",
        "--limit",
        "8",
        "--landscapes",
        "1",
        "--measures",
        "slope-l1",
        "--out",
        "{out}",
    ),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.slow  # each command once, 1 to 6 s each
def test_every_command_with_white_box_numbers_says_so(command, kept, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("medrobust.experiments.gradient_check.derived", fails)
    monkeypatch.setattr("medrobust.experiments.context.derived", fails)
    n = 800 if command in ("evade", "detect") else 200
    words = [w.format(model=kept, out=tmp_path / "out") for w in COMMANDS[command]]
    monkeypatch.setattr(sys, "argv", ["medrobust", *words, "--data", f"phantom:chest@32:n={n}", "--device", "cpu"])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    out = capsys.readouterr().out
    assert out.startswith("INCONCLUSIVE: failed: “the gradient agrees with finite differences”")
    if command == "attack":
        assert "fgsm (inconclusive)" in out
        assert "square:queries=5 (inconclusive)" not in out
        return
    assert '"status": "inconclusive"' in (tmp_path / "out" / "results.json").read_text("utf-8")
