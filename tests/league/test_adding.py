"""What a league table takes, and what it refuses in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medrobust import InputError, run_info
from medrobust.attacks import ATTACKS
from medrobust.league import IMAGES, adding, reading, rules, sizes, table
from medrobust.run_folder import RunFolder
from tests.commands import run
from tests.league.runs import GRADIENT_CHECK, PROVENANCE, audit, edit


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return audit(tmp_path_factory.mktemp("audit") / "run")


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *options: object) -> str:
    """The line that says why; nothing is written."""
    to = folder / "league.json"
    assert run("league", "add", folder, "--to", to, *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert not to.exists()
    return line


def test_the_rule_is_auto_as_it_comes():
    assert ATTACKS[rules.ATTACK]().settings == rules.SETTINGS
    fields = table.League()
    assert (fields.images, fields.seed, fields.norm) == (rules.IMAGES, rules.SEED, rules.NORM)
    assert all(list(sizes(px)) == sorted(sizes(px)) for px in (8, 32, 33, 224))
    assert sizes(33)[-1] == sizes(32)[-1] / 2


def test_an_audit_becomes_an_entry(finished, tmp_path, capsys):
    to = tmp_path / "league.json"
    assert run("league", "add", finished, "--to", to) == 0
    league = table.read(to)
    (entry,), (image_set,) = league.entries, league.sets
    results = json.loads((finished / "results.json").read_bytes())
    held = {r["eps"]: r for r in results["rows"] if r["metric"] == "accuracy" and r["kind"] in ("clean", "attack")}
    assert [a.eps for a in entry.accuracy] == sorted(held) == [0.0, *sizes(28)]
    for a in entry.accuracy:
        assert (a.value, a.low, a.high, a.n) == tuple(held[a.eps][k] for k in ("value", "low", "high", "n"))
        assert not a.inconclusive
    assert (image_set.digest, image_set.px, image_set.n_test) == ("9f2c" * 16, 28, IMAGES)
    assert (entry.architecture, entry.training, entry.seed, entry.model) == ("small_cnn", "plain", 3, "51ab" * 16)
    assert entry.commands == ("medrobust audit --attacks auto",)
    assert (entry.run, entry.results) == (results["run"]["id"], results["run"]["digest"])
    assert "1 entry on 1 image set" in capsys.readouterr().out


def test_the_same_run_again_changes_nothing(finished, tmp_path, capsys):
    to = tmp_path / "league.json"
    run("league", "add", finished, "--to", to)
    before = to.read_bytes()
    assert run("league", "add", finished, "--to", to) == 0
    assert "in the table already" in capsys.readouterr().out
    assert to.read_bytes() == before


def test_one_classifier_with_two_results_is_refused(finished, tmp_path, capsys):
    to = tmp_path / "league.json"
    run("league", "add", finished, "--to", to)
    other = audit(tmp_path / "other", median=5.0)
    before = to.read_bytes()
    assert run("league", "add", other, "--to", to) == 2
    assert "with other numbers" in capsys.readouterr().err
    assert to.read_bytes() == before


@pytest.mark.parametrize("file", ["results.json", "report.html", "figures.safetensors"])
def test_a_changed_file_is_refused(file, tmp_path, capsys):
    folder = audit(tmp_path / "run")
    with (folder / file).open("ab") as opened:
        opened.write(b" ")
    line = refused(folder, capsys)
    assert "is not as its run left it" in line
    assert file in line


FAILED = {**GRADIENT_CHECK, "passed": False, "detail": "cosine 0.10"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another attack": ({"attack": "pgd"}, "was attacked by pgd, the table wants --attacks auto"),
    "a weaker auto": ({"settings": "steps 15, queries 50"}, "with steps 15, the table wants its default 100"),
    "other sizes": ({"eps": (0.5 / 255, 1 / 255)}, "attacked at 0.5, 1 of 255 grey levels; images of 28 px want 1, 2"),
    "a size left out": ({"eps": sizes(28)[:3]}, "attacked at 1, 2, 4 of 255 grey levels"),
    "fewer images": ({"n": 30, "n_test": 200}, "30 images were tested, scans wants 200"),
    "other images drawn": ({"seed": 1}, "attacked with seed 1, the table wants 0"),
    "a failed check": ({"checks": [FAILED]}, "a decisive check failed: the gradient agrees"),
    "no check of the gradient": ({"checks": []}, "holds no check of the gradient"),
    "an unknown network": ({"provenance": {}}, "does not say which architecture it is; give --architecture NAME"),
    "unfinished": ({"pending": ["robustness"]}, "results.json is not complete"),
    "images of all sizes": ({"size": None}, "several sizes"),
    "another unit": ({"levels": 4095}, "other units than 8-bit grey levels"),
}


@pytest.mark.parametrize(("changes", "why"), REFUSED.values(), ids=REFUSED)
def test_a_run_that_breaks_a_rule_is_refused(changes, why, tmp_path, capsys):
    assert why in refused(audit(tmp_path / "run", **changes), capsys)


def _other_version(results: dict[str, Any]) -> None:
    results["run"]["versions"]["medrobust"] = "0.0.1"


def test_a_run_of_another_version_is_refused(tmp_path, capsys):
    folder = audit(tmp_path / "run")
    edit(folder, _other_version)
    assert "was made with medrobust 0.0.1" in refused(folder, capsys)


def test_what_is_no_run_is_refused(tmp_path, capsys):
    assert "is no run folder of medrobust" in refused(tmp_path, capsys)


def test_what_a_run_does_not_say_is_stated(tmp_path):
    folder, to = audit(tmp_path / "run", provenance={}), tmp_path / "league.json"
    said = ("--architecture", "vendor's", "--training", "unknown", "--set", "clinic")
    assert run("league", "add", folder, "--to", to, *said) == 0
    (entry,) = table.read(to).entries
    assert (entry.architecture, entry.training, entry.image_set, entry.seed) == ("vendor's", "unknown", "clinic", None)


def test_training_is_read_from_the_classifier(tmp_path):
    further = {"method": {"title": "TRADES", "norm": "Linf", "eps": 4 / 255}, "training": {"epochs": 2}}
    folder = audit(tmp_path / "run", provenance={**PROVENANCE, "further": [further]})
    (found,) = reading.read(folder)
    assert isinstance(found, reading.Found)
    entry = found.entry
    assert entry.training == "TRADES"
    assert entry.settings == "5 epochs; then TRADES, norm Linf, eps 0.01569, 2 epochs"


def test_other_images_under_a_name_that_is_taken_are_refused(finished, tmp_path):
    league = adding.add(table.League(), reading.read(finished), finished).league
    other = audit(tmp_path / "run", data_digest="77aa" * 16)
    (why,) = adding.add(league, reading.read(other), other).refused
    assert re.search(r"its images are not those of scans .* give --set NAME", why)
    stated = reading.Stated(name="other scans")
    added = adding.add(league, reading.read(other, None, stated), other).league
    assert [s.name for s in added.sets] == ["scans", "other scans"]


def test_the_same_images_keep_the_name_of_the_table(finished, tmp_path):
    league = adding.add(table.League(), reading.read(finished), finished).league
    again = audit(tmp_path / "run", model="66bb")
    added = adding.add(league, reading.read(again, None, reading.Stated(name="mine")), again)
    assert [e.image_set for e in added.league.entries] == ["scans", "scans"]


CHECKS = [{**GRADIENT_CHECK, "model": name, "data": "chest"} for name in ("plain", "hardened", "masked")]
CHECKS[2] |= {"passed": False, "detail": "cosine 0.10"}
HARDENING = {"method": "pgd:steps=5", "eps": 4 / 255, "epochs": 3, "lr": 0.001}


def study(folder: Path, **of_data: Any) -> Path:
    """A finished study of three classifiers, one of which failed a decisive check."""
    images = dict.fromkeys(("channels", "findings", "separator", "patient", "fit", "each"))
    images |= {"name": "chest", "spec": "csv:{data}/chest/labels.csv", "size": 32, "label": "label", "classes": []}
    images |= {"seed": 0, "digest": "9f2c" * 16, **of_data}
    models, rows = [], []
    for digest, name in zip(("11aa", "22bb", "33cc"), ("plain", "hardened", "masked"), strict=True):
        options = {"epochs": 2} | ({"hardening": HARDENING} if name == "hardened" else {})
        stated = {"name": name, "data": "chest", "architecture": "small_cnn", "options": options}
        models.append({**stated, "weights": None, "given": False, "seed": 0, "digest": digest * 16})
        for eps in (0.0, *sizes(32)):
            row = {"part": "chest", "data": "chest", "model": name, "norm": "linf", "seed": 0, "eps": eps}
            row |= {"kind": "attack" if eps else "clean", "attack": rules.ATTACK if eps else "none"}
            row |= {"settings": "steps=100, restarts=1, queries=1000, loss=cross_entropy", "status": "ok", "note": ""}
            rows.append(row | {"metric": "accuracy", "value": 0.5, "low": 0.4, "high": 0.6, "n": 60 if eps else 90})
    results = {"kind": "study", "data": [images], "models": models, "doubts": [], "checks": CHECKS, "rows": rows}
    with RunFolder(folder, "study") as made:
        made.begin()
        results |= {"versions": {"torch": "2"}}
        results = run_info.with_run(folder, "results.json", results, "medrobust study run x")
        made.write_text("results.json", json.dumps(results))
    return folder


def test_a_study_gives_every_classifier_but_the_one_that_fails(tmp_path, capsys):
    folder, to = study(tmp_path / "run"), tmp_path / "league.json"
    assert run("league", "add", folder, "--to", to) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "masked: a decisive check failed" in line
    plain, hardened = table.read(to).entries
    assert (plain.training, hardened.training) == ("plain", "PGD adversarial training")
    assert hardened.settings == "2 epochs; then PGD adversarial training, steps=5, Linf 4/255, 3 epochs"
    assert [c.split()[1] for c in plain.commands] == ["train", "audit"]
    train, harden, audited = hardened.commands
    assert train == (
        "medrobust train --model small_cnn --data csv:DATA/chest/labels.csv --size 32 --epochs 2 --out chest-small_cnn"
    )
    assert "--model chest-small_cnn " in harden
    assert "--method pgd:steps=5 --eps 4/255 --epochs 3 --lr 0.001" in harden
    assert "--model chest-small_cnn-hardened/model " in audited
    assert "--attacks auto --eps 1/255,2/255,4/255,8/255 --limit 60" in audited


def test_what_no_command_takes_is_repeated_by_the_study(tmp_path):
    found = [f for f in reading.read(study(tmp_path / "run", each=100)) if isinstance(f, reading.Found)]
    assert [f.entry.commands for f in found] == [("medrobust study run x",)] * 2


def test_a_study_that_does_not_state_its_size_is_refused(tmp_path):
    refused_ = reading.read(study(tmp_path / "run", size=None))
    assert all("does not state the size of its images" in r.why for r in refused_ if isinstance(r, reading.Refused))
    assert len(refused_) == 3


def _damage(change: Callable[[dict[str, Any]], object], finished: Path, to: Path) -> str:
    """The line with which a table is refused that was edited by hand."""
    table.write(to, adding.add(table.League(), reading.read(finished), finished).league)
    content = json.loads(to.read_bytes())
    change(content)
    to.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        table.read(to)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda c: c["entries"][0]["accuracy"][1].update(value=1.0), "outside of its interval"),
        (lambda c: c["entries"][0]["accuracy"].pop(), "attacked at 1, 2, 4 of 255"),
        (lambda c: c["entries"][0]["accuracy"][2].update(n=59), "59 images were attacked, scans wants 60"),
        (lambda c: c["entries"].append(c["entries"][0]), "two entries on the same image set"),
        (lambda c: c["entries"][0].update(image_set="none"), "no image set 'none'"),
        (lambda c: c["entries"][0].update(note="best"), "entries.0.note: Extra inputs are not permitted"),
        (lambda c: c["sets"].append(c["sets"][0]), "two image sets have the same name"),
        (lambda c: c.update(settings={"steps": 1, "queries": 1}), "settings must be"),
        (lambda c: c.update(attack="pgd"), "attack must be auto"),
        (lambda c: c.update(images=8), "images must be 60"),
        (lambda c: c.update(format=2), "no league table that this version reads"),
    ],
)
def test_a_table_that_breaks_a_rule_is_not_read(change, why, finished, tmp_path):
    assert why in _damage(change, finished, tmp_path / "league.json")


def test_equal_tables_are_equal_bytes(finished, tmp_path):
    league = adding.add(table.League(), reading.read(finished), finished).league
    table.write(tmp_path / "a.json", league)
    table.write(tmp_path / "b.json", table.read(tmp_path / "a.json"))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
