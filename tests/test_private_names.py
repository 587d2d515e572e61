"""Codes instead of names: the same for one user, useless to others, and found again by their owner."""

from __future__ import annotations

import hashlib
import hmac
import stat
import sys
import types

import pytest

from medrobust import private_names
from medrobust.cli import main
from medrobust.naming import Naming

from .data_files import cohort


@pytest.fixture
def salt(monkeypatch):
    monkeypatch.setenv(private_names.VARIABLE, "a salt of the tests")


def test_a_code_is_an_hmac_under_the_salt(salt):
    wanted = hmac.new(b"a salt of the tests", b"patient\x1fp7", hashlib.sha256).hexdigest()[:12]
    assert private_names.code("p7", "patient") == wanted
    assert private_names.code("p7", "patient") != private_names.code("p7")
    assert private_names.lasting()


def test_another_salt_gives_other_codes(salt, monkeypatch):
    first = private_names.code("p7")
    monkeypatch.setenv(private_names.VARIABLE, "another salt")
    assert private_names.code("p7") != first


def test_the_salt_is_made_once_and_only_its_owner_reads_it(tmp_path, monkeypatch):
    monkeypatch.delenv(private_names.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    first = private_names.code("p7")
    file = private_names.salt_file()
    assert file == tmp_path / "medrobust" / "salt"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [p.name for p in file.parent.iterdir()] == ["salt"]
    private_names._stored.cache_clear()  # as another process
    assert private_names.code("p7") == first
    assert private_names.lasting()


def test_without_a_place_for_the_salt_codes_hold_for_one_process(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.delenv(private_names.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    first = private_names.code("p7")
    assert private_names.code("p7") == first
    assert not private_names.lasting()


PLACES = {
    "csv:/home/anna/study/labels.csv": "csv:H",
    "csv:labels.csv": "csv:H",
    "folder:scans": "folder:H",
    "medmnist:/data/x.npz": "medmnist:H",
    "medmnist:pneumoniamnist@64": "medmnist:pneumoniamnist@64",
    "phantom:chest@64:n=10": "phantom:chest@64:n=10",
    "/home/anna/net.pth": "H.pth",
    "runs/a/model": "H",
    "resnet18": "resnet18",
    "hub": "hub",
    "vendor.py:make": "H:make",
    "torchvision.models:resnet18": "torchvision.models:resnet18",
    "0.5/255,1/255": "0.5/255,1/255",
    "--out": "--out",
    "--data=csv:a.csv": "--data=csv:H",
    "pgd:steps=40": "pgd:steps=40",
    "small_cnn:width=8": "small_cnn:width=8",
    "C:\\scans\\a.csv": "H.csv",
}


@pytest.mark.parametrize("word", PLACES)
def test_paths_in_what_was_asked(salt, word):
    import re

    pattern = re.escape(PLACES[word]).replace("H", "[0-9a-f]{12}")
    assert re.fullmatch(pattern, private_names.place(word))


def test_a_sentence_without_names_and_paths(salt):
    told = private_names.text("/home/anna/x/007.png: cut; see 007.png, 1/255 and https://doi.org/10.1/2", ["007.png"])
    assert "anna" not in told
    assert "007" not in told
    assert told.count(private_names.code("007.png")) == 1
    assert told.endswith("1/255 and https://doi.org/10.1/2")


def test_provenance_keeps_what_builds_the_network(salt):
    told = private_names.provenance(
        {
            "architecture": "vendor.py:make",
            "data": {"name": "anna/labels.csv", "digest": "ab"},
            "pretrained": "/home/anna/w.pth",
            "seed": 3,
            "history": [{"note": "read from /home/anna/w.pth"}],
        }
    )
    assert told["architecture"] == "vendor.py:make"
    assert told["data"]["digest"] == "ab"
    assert told["seed"] == 3
    assert "anna" not in repr(told)


def test_the_path_of_a_model_is_a_code_beside_phantoms_too(salt):
    data = types.SimpleNamespace(name="phantom:chest", ids=("a",), left_out=(), patients=None)
    info = {"data": data.name, "model": "/home/anna/net.pth", "provenance": {"file": "/home/anna/w/net.pth"}}
    info |= {"data_notes": [], "left_out": [], "config": {"model": "/home/anna/net.pth"}, "options": {}}
    results = {"conditions": info, "rows": [{"data": data.name, "model": info["model"]}], "examples": [{"id": "a"}]}
    written = Naming(data, keep=False).results(results)
    assert "anna" not in repr(written)
    assert written["conditions"]["model"] == written["rows"][0]["model"] == private_names.place("/home/anna/net.pth")
    assert written["conditions"]["data"] == "phantom:chest"
    assert written["examples"] == [{"id": "a"}]
    assert Naming(data, keep=True).results(results)["conditions"]["model"] == "/home/anna/net.pth"


def test_the_owner_finds_an_image_and_a_patient_again(salt, tmp_path, monkeypatch, capsys):
    table = cohort(tmp_path, n=12, patients=4)
    image, patient = private_names.code("007.png"), private_names.code("p2", "patient")
    monkeypatch.setattr(sys, "argv", ["medrobust", "names", image, patient, "--data", f"csv:{table}"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert "007.png" in shown
    assert "p2" in shown
    assert "006.png" not in shown
    monkeypatch.setattr(sys, "argv", ["medrobust", "names", "0123456789ab", "--data", f"csv:{table}"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "0123456789ab is the code of no image or patient" in capsys.readouterr().err
