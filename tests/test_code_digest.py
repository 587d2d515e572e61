"""A result is used again only while the code that made it is the same: methods, helpers, networks and their answers."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from medrobust import Classifier, attacks, code_digest, errors
from medrobust.models.behaviour import answers
from medrobust.store import Store, counting
from tests.data.test_class_names import FAST, NETWORK, clean, own, run, table  # noqa: F401 - own is a fixture

from .nets import bumpy

CODE = '''
"""What it does."""
from helper_of_mine import double

def twice(x):
    """Twice x."""
    return double(x)  # as said
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "code_of_mine.py").write_text(CODE)
    (tmp_path / "helper_of_mine.py").write_text("def double(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_statements_count_at_any_depth_and_comments_do_not(mine):
    before = code_digest.of_module("code_of_mine")
    text = CODE.replace("# as said", "# otherwise").replace("Twice x.", "Two times x,\n    in words.")
    (mine / "code_of_mine.py").write_text("# a comment\n\n" + text)
    assert code_digest.of_module("code_of_mine") == before
    (mine / "helper_of_mine.py").write_text("def double(x):\n    return 3 * x\n")
    assert code_digest.of_module("code_of_mine") != before


def test_installed_packages_and_python_are_nobodys_own_code():
    assert code_digest.of_module("torch") == code_digest.of_module("json") == code_digest.of_module("nowhere")
    assert code_digest.is_own("medrobust.attacks")
    assert not code_digest.is_own("torch.nn")


def test_every_process_finds_the_same_digest():
    program = (
        "from medrobust import code_digest as c; from medrobust.errors import visible as v; "
        "print(c.of_module('medrobust.experiments.robustness_cells'), c.of_function(v))"
    )
    seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"  # another order of sets and dictionaries
    found = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
    ).stdout
    assert found == (
        f"{code_digest.of_module('medrobust.experiments.robustness_cells')} "
        f"{code_digest.of_function(errors.visible)}\n".encode()
    )


def test_a_method_that_was_replaced_and_a_subclass_are_other_code(monkeypatch):
    pgd, auto = attacks.PGD(), attacks.ATTACKS["auto"]()
    before = code_digest.described(pgd), code_digest.described(auto)

    class Mine(attacks.PGD):
        def step(self, *args: object) -> object:
            return args

    Mine.__name__ = Mine.__qualname__ = "PGD"
    assert repr(Mine()) == repr(pgd)
    assert code_digest.described(Mine()) != before[0]
    monkeypatch.setattr(attacks.PGD, "step", lambda self, rows, *_: rows)
    assert code_digest.described(pgd) != before[0]


def test_a_class_that_was_copied_from_or_documented_is_the_same_code(monkeypatch):
    class Mine(attacks.PGD):
        """Some words."""

    before = code_digest.described(Mine())
    copy.copy(Mine())
    assert "__slotnames__" in vars(Mine)  # where the copy module keeps what it found
    assert code_digest.described(Mine()) == before
    monkeypatch.setattr(Mine, "__doc__", "Other words.")
    assert code_digest.described(Mine()) == before


def test_work_is_read_while_its_code_is_the_same(tmp_path):
    store = Store(tmp_path / "run")

    def one() -> tuple[dict[str, object], dict[str, object]]:
        return {"value": 1}, {}

    with counting() as tally:
        store.once({"a": 1}, one)
        store.once({"a": 1}, one)
    assert tally.words() == "0 of 1 pieces of work reused"
    with counting() as tally:
        assert store.once({"a": 1}, one).facts == {"value": 1}
        store.once({"a": 1, "code": "of another time"}, one)
    assert tally.words() == "1 of 2 pieces of work reused"


class Scaled(nn.Module):
    """Its scale is neither a weight nor a buffer."""

    scale = 1.0

    def __init__(self, turned: bool = False) -> None:
        super().__init__()
        self.turned = turned
        self.body = bumpy().net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(1 - x if self.turned else x) * self.scale


def test_equal_weights_that_compute_something_else_are_another_classifier():
    classes = ("a", "b", "c")
    first, same, turned = (Classifier(net, classes) for net in (Scaled(), Scaled(), Scaled(turned=True)))
    assert first.digest() == same.digest()
    assert first.digest() != turned.digest()
    before = same.digest()
    same.net.scale = 2.0  # type: ignore[assignment]
    assert same.digest() != before
    same.net.scale = 1.0  # type: ignore[assignment]
    assert same.digest() == before
    with torch.no_grad():
        next(same.net.parameters()).add_(0.1)
    assert same.digest() != before


@pytest.mark.parametrize("seed", range(3))
def test_the_digest_is_the_same_with_one_thread_and_two(seed):
    threads = torch.get_num_threads()
    found = set()
    try:
        for count in (1, 2, 1):
            torch.set_num_threads(count)
            found.add(bumpy(seed=seed).digest())
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1


def test_networks_that_give_no_answer_or_another_each_time_have_a_digest():
    class Noisy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            import numpy as np

            return x.flatten(1)[:, :2] + float(np.random.default_rng().random())

    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(35, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x.flatten(1))

    assert answers(Noisy(), lambda x: x, 1, 8) == "other answers each time"
    assert Classifier(Noisy(), "ab").digest() == Classifier(Noisy(), "ab").digest()
    assert answers(Fixed(), lambda x: x, 1, None) == "no answer"
    half = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).bfloat16()
    assert len(Classifier(half, "ab", size=8).digest()) == 64


@pytest.mark.slow  # three audits
def test_the_same_command_after_an_edit_computes_anew(tmp_path, own, capsys, monkeypatch):  # noqa: F811
    data, out = table(tmp_path / "data"), tmp_path / "out"
    asked = ("audit", "--data", f"csv:{data}", "--model", own, "--classes", "pneumonia,normal", "--out", out, *FAST)

    def reused() -> tuple[int, int]:
        assert run(*asked) == 0
        found = re.search(r"(\d+) of (\d+) pieces of work reused", capsys.readouterr().out)
        assert found is not None
        return int(found[1]), int(found[2])

    none, total = reused()
    assert none == 0 < total
    assert clean(out)["accuracy"] == 1
    assert reused() == (total, total)
    # the network: same weights (it has none), another answer
    (tmp_path / "brightness_net.py").write_text(NETWORK.replace("x.mean((1, 2, 3)) - 0.5", "0.5 - x.mean((1, 2, 3))"))
    monkeypatch.delitem(sys.modules, "brightness_net")
    assert reused()[0] == 0
    assert clean(out)["accuracy"] == 0
    # the attack: what it had nothing to do with is read again
    monkeypatch.setattr(attacks.FGSM, "step", lambda self, images, *_: images)
    again, total = reused()
    assert 0 < again < total
