"""A perturbation whose making was killed between two passes comes out the same to the byte, with the same numbers."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

import medrobust as mr
from medrobust.universal import DFUAP, SGA, SGDUAP, Sequential, TileSearch, Universal, USimBA
from tests.nets import bumpy, grey, linear
from tests.processes import Process

METHODS = [
    SGDUAP(passes=3),
    SGA(passes=3),
    DFUAP(passes=3),
    SGA(passes=3, repeats=2),
    Sequential(step=0.02, passes=2),
    TileSearch(1500, pairs=16, patience=1),
    USimBA(2600, frequencies=4),
]
MAKINGS = [(m, mr.Untargeted()) for m in METHODS] + [(m, mr.Targeted(1)) for m in METHODS[-3:]]


class StopError(Exception):
    pass


class Rationed:
    """Images that are handed out ``reads`` times, then never again: as a kill, at a moment that can be chosen."""

    def __init__(self, images: torch.Tensor, reads: int) -> None:
        self.images_, self.left = images, reads

    def __len__(self) -> int:
        return len(self.images_)

    def images(self, index):
        self.left -= 1
        if self.left < 0:
            raise StopError
        return self.images_[torch.as_tensor(index)]


def pictures(n: int = 37) -> torch.Tensor:
    return torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def same(a: Universal, b: Universal) -> bool:
    known = {"images"}  # their name says what they came in
    told = [{k: v for k, v in u.provenance.items() if k not in known} for u in (a, b)]
    return torch.equal(a.delta, b.delta) and a.history == b.history and a.why == b.why and told[0] == told[1]


@pytest.mark.parametrize(("method", "goal"), MAKINGS, ids=[f"{m}-{type(goal).__name__}" for m, goal in MAKINGS])
def test_stopped_anywhere_and_given_again_it_is_the_same(method, goal, tmp_path):
    check_resumes(method, bumpy(), pictures(), goal, mr.L2(0.4), tmp_path / "v.safetensors")


def test_the_second_perturbation_is_resumed_too(tmp_path):
    v = check_resumes(SGDUAP(passes=4), linear(2), grey(40), mr.Untargeted(), mr.L2(2.0), tmp_path / "v.safetensors")
    assert sorted(entry["pass"] for entry in v.history) == [1, 1, 2, 2]  # all images were in one class after two


def check_resumes(method, clf, x, goal, ball, file) -> Universal:
    whole = method(clf, x, goal, ball, seed=3)
    reads, stopped, kept = 3, 0, 0
    while True:  # each time a little further, from where it stood
        source = Rationed(x, reads)
        try:
            v = method(clf, source, goal, ball, seed=3, checkpoint=file)
            break
        except StopError:
            stopped, kept, reads = stopped + 1, kept + file.exists(), reads + 2 + stopped
    assert stopped > 1
    assert kept > 0
    assert same(v, whole)
    return whole


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_a_pass_that_is_kept_is_not_made_again(method, tmp_path):
    clf, x, file = bumpy(), pictures(), tmp_path / "v.safetensors"
    whole = method(clf, x, mr.Untargeted(), mr.L2(0.4), checkpoint=file)
    told: list[int] = []
    again = Rationed(x, 10**6)
    v = method(clf, again, mr.Untargeted(), mr.L2(0.4), checkpoint=file, advance=told.append)
    assert same(v, whole)
    assert 10**6 - again.left < 40  # the fingerprint, the clean predictions, rates, and what is behind the last look
    assert sum(told) == max(method.work(len(x)), v.provenance["queries"])


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"goal": mr.Targeted(0)},
        {"ball": mr.L2(0.3)},
        {"images": pictures(36)},
        {"clf": bumpy(seed=4)},
        {"method": SGA(passes=2)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_another_making_left_is_not_used(change, tmp_path):
    told = {
        "method": SGA(passes=1),
        "clf": bumpy(),
        "images": pictures(),
        "goal": mr.Untargeted(),
        "ball": mr.L2(0.4),
        "seed": 0,
    }
    file = tmp_path / "v.safetensors"

    def made(checkpoint, method, clf, images, goal, ball, seed):
        return method(clf, images, goal, ball, seed=seed, checkpoint=checkpoint)

    made(file, **told)
    asked = told | change
    assert same(made(file, **asked), made(None, **asked))


def test_a_damaged_file_counts_for_nothing(tmp_path):
    file = tmp_path / "v.safetensors"
    whole = SGA(passes=2)(bumpy(), pictures(), mr.Untargeted(), mr.L2(0.4), checkpoint=file)
    file.write_bytes(file.read_bytes()[:-100])
    assert same(SGA(passes=2)(bumpy(), pictures(), mr.Untargeted(), mr.L2(0.4), checkpoint=file), whole)


def test_a_disk_that_takes_nothing_gets_one_line(tmp_path):
    (tmp_path / "no").write_text("a file where a folder is wanted")
    with pytest.raises(mr.InputError, match=r"cannot write to"):
        SGA(passes=1)(bumpy(), pictures(), mr.Untargeted(), mr.L2(0.4), checkpoint=tmp_path / "no" / "v.safetensors")


def make(folder: str, die: bool) -> None:
    """Prints how often the rate was looked at. die: in the middle."""
    seen = 0

    def watch(rate: float) -> None:
        nonlocal seen
        seen += 1
        if die and seen == 12:
            os.kill(os.getpid(), signal.SIGKILL)

    half = Path(folder) / "half"
    made = SGA(passes=3)(bumpy(), pictures(), mr.Untargeted(), mr.L2(0.4), checkpoint=half, watch=watch)
    made.save(f"{folder}/v.safetensors")
    print(seen)  # noqa: T201


@pytest.mark.slow  # three makings in processes
def test_sigkill_after_a_pass_then_the_same_bytes(tmp_path, processes):
    def go(name: str, die: bool) -> Process:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        process = processes.start("tests.universal.test_checkpoint:make", str(folder), die)
        assert process.wait() == (-signal.SIGKILL if die else 0), process.err.read_text()
        return process

    whole = go("whole", False)
    go("killed", True)
    assert (tmp_path / "killed" / "half").exists()
    resumed = go("killed", False)
    assert int(resumed.out.read_text()) < int(whole.out.read_text())
    a, b = ((tmp_path / name / "v.safetensors").read_bytes() for name in ("whole", "killed"))
    assert a == b
