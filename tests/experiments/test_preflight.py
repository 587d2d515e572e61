"""Wrong names and options are found before an image is decoded, and leave no folder; the hub is not waited for."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest

from medrobust import InputError, models
from medrobust import data as data_room
from medrobust.cli import main
from medrobust.models import hub
from tests.data_files import cohort


def run(*words: str | Path) -> int:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["medrobust", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


@pytest.fixture
def undecoded(monkeypatch):
    """Loading images is our own fault here."""

    def load(*_: object, **__: object) -> None:
        raise AssertionError("images were decoded")

    monkeypatch.setattr(data_room, "load", load)


WRONG = {
    "name": ("--model", "resnt18"),
    "option": ("--model", "small_cnn:widht=8"),
    "value": ("--model", "small_cnn:width=0"),
    "tag": ("--model", "resnet18.none"),
    "weights": ("--model", "resnet18", "--weights", "none.pth"),
    "pretrained": ("--model", "resnet18", "--pretrained", "none.pth"),
    "hub-of-ours": ("--model", "small_cnn", "--pretrained", "hub"),
    "epochs": ("--model", "small_cnn", "--epochs", "0"),
    "rate": ("--model", "small_cnn", "--lr", "-1"),
    "device": ("--model", "small_cnn", "--device", "gpu"),
    "attack": ("--attacks", "zap"),
    "attack-option": ("--attacks", "pgd:stepz=3"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_audit_finds_it_before_an_image_is_decoded_and_leaves_no_folder(name, undecoded, tmp_path, capsys):
    assert run("audit", *WRONG[name], "--out", tmp_path / "runs" / "run") == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(error) == 1
    assert error[0].startswith("medrobust: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [n for n in WRONG if n not in ("weights", "attack", "attack-option")])
def test_so_does_train(name, undecoded, tmp_path, capsys):
    assert run("train", "--out", tmp_path / "m", *WRONG[name]) == 2
    assert capsys.readouterr().err.startswith("medrobust: ")
    assert not list(tmp_path.iterdir())


OTHERS = {
    "detect-folder": ("detect", "--model", "none"),
    "detect-detector": ("detect", "--model", ".", "--detectors", "kdd"),
    "detect-no-checkpoint": ("detect", "--model", "."),
    "evade-evasion": ("evade", "--model", ".", "--evasions", "zap"),
    "evade-no-checkpoint": ("evade", "--model", "."),
    "explain-measure": ("explain", "--model", ".", "--measures", "zap"),
    "explain-no-checkpoint": ("explain", "--model", "."),
    "universal-method": ("universal", "--defence", "zap"),
    "universal-model": ("universal", "--model", "resnt18"),
    "defend-method": ("defend", "--model", ".", "--defence", "zap"),
    "defend-no-checkpoint": ("defend", "--model", "."),
    "search-features": ("search", "--features", "zap"),
    "search-method": ("search", "--methods", "zap"),
    "search-model": ("search", "--features", "deep", "--model", "resnt18", "--pretrained", "none.pth"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_so_do_the_other_commands(name, undecoded, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert run(*OTHERS[name], "--out", tmp_path / "run") == 2
    assert capsys.readouterr().err.startswith("medrobust: ")
    assert not (tmp_path / "run").exists()


def test_what_only_the_images_can_tell_leaves_no_folder_either(tmp_path, capsys):
    table = cohort(tmp_path / "data", n=24)
    small = ("--data", f"csv:{table}", "--size", "9", "--epochs", "1", "--device", "cpu")
    assert run("audit", *small, "--model", "vgg11", "--out", tmp_path / "runs" / "run") == 2
    assert "does not take" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


# -- the hub -------------------------------------------------------------------------------------------------


@pytest.mark.loopback
def test_a_hub_that_never_answers_is_given_up(monkeypatch):
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        begin = time.monotonic()
        assert not hub.answers(patience=0.3)
        assert time.monotonic() - begin < 2
    assert hub.PATIENCE < 15


def test_without_the_hub_only_its_cache_is_used(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(hub, "answers", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="the weights of resnet18 could not be downloaded") as caught:
        models.build("resnet18", classes=2, channels=3, pretrained="hub")
    assert "\n" not in str(caught.value)
