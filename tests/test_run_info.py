"""Every results file says which run made it; all else in it is the same to the bit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medrobust import json_files, run_info
from medrobust.cli import app
from medrobust.cli.command_line import command_line, without_folders
from medrobust.errors import InputError
from medrobust.report import run_line
from medrobust.report.schema import RunInfo
from medrobust.run_folder import RunFolder


def test_a_result_says_which_run_when_by_what_and_where(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", "audit") as run:
        run.begin()
        told = run_info.with_run(run.path, "results.json", {"rows": [1.5]}, "medrobust audit", "cpu")
        record = told["run"]
        assert record["id"] == run.id
        assert record["begun"] == run.created <= record["finished"]
        assert record["command"] == "medrobust audit"
        assert {"python", "medrobust", "torch", "timm"} <= set(record["versions"])
        assert record["machine"]["cores"] >= 1
        assert record["machine"]["threads"] >= 1
        assert record["machine"]["processor"]
        assert told["rows"] == [1.5]


def test_the_record_stays_while_the_results_do_and_a_resumed_run_keeps_its_id(tmp_path, monkeypatch) -> None:
    moments = iter(range(10))
    monkeypatch.setattr(run_info.time, "strftime", lambda *_: f"moment {next(moments)}")
    with RunFolder(tmp_path / "run", "audit") as run:
        run.begin()
        first = run_info.with_run(run.path, "results.json", {"rows": [0.1, None]}, "one")
        run.write_text("results.json", json.dumps(first))
    with RunFolder(tmp_path / "run", "audit") as run:
        same = run_info.with_run(run.path, "results.json", {"rows": [0.1, None]}, "two")
        other = run_info.with_run(run.path, "results.json", {"rows": [0.2, None]}, "two")
    assert same == first
    assert other["run"]["command"] == "two"
    assert other["run"]["finished"] != first["run"]["finished"]
    assert [other["run"][k] for k in ("id", "begun")] == [first["run"][k] for k in ("id", "begun")]


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("csv:/home/ann lee/study/labels.csv", "csv:labels.csv"),
        ("--out=/data/x/run", "--out=run"),
        ("runs/chest/model/", "model"),
        ("C:\\Users\\Ann\\labels.csv", "C:labels.csv"),
        ("0.5/255,1/255", "0.5/255,1/255"),
        ("1/255", "1/255"),
        ("phantom:chest@64", "phantom:chest@64"),
        ("pgd:steps=40,fgsm", "pgd:steps=40,fgsm"),
    ],
)
def test_the_command_line_tells_no_folders(typed: str, kept: str) -> None:
    assert without_folders(typed) == kept


def test_the_command_line_can_be_given_again() -> None:
    shown = command_line(["audit", "--data", "csv:/a/b c.csv", "--keep-names"])
    assert shown == "medrobust audit --data 'csv:b c.csv' --keep-names"


def test_the_command_line_names_no_file_unless_that_is_asked_for() -> None:
    assert re.fullmatch("medrobust audit --data csv:[0-9a-f]{12}", command_line(["audit", "--data", "csv:/a/b c.csv"]))


def test_a_page_says_it(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", "search") as run:
        run.begin()
        told = run_info.with_run(run.path, "results.json", {}, "medrobust search", "cpu")
    said = run_line.line(told)
    assert said.startswith(f"Run {told['run']['id']}, begun 20")
    assert "Command: medrobust search." in said
    assert "cores" in said
    items = dict(run_line.items(RunInfo.model_validate(told["run"])))
    assert items["Command"] == "medrobust search"
    assert items["Finished"].endswith(" UTC")
    assert run_line.line({}) == run_line.line({"run": 3}) == ""


def edited(value: object) -> object:
    """The first number in it is another one."""
    if isinstance(value, dict):
        for k in value:
            if edited(value[k]) is not value[k]:
                return value | {k: edited(value[k])}
    if isinstance(value, list):
        for i, x in enumerate(value):
            if edited(x) is not x:
                return [*value[:i], edited(x), *value[i + 1 :]]
    return value + 1 if type(value) in (int, float) else value


def test_results_that_were_edited_are_refused_until_the_run_writes_them_anew(tmp_path: Path) -> None:
    rows = {"rows": [{"eps": 1 / 3, "value": 0.25, "note": "ü"}], "n": (1, 2), "undefined": None}
    with RunFolder(tmp_path / "run", "audit") as run:
        run.begin()
        told = run_info.with_run(run.path, "results.json", rows, "medrobust audit")
        run.write_text("results.json", json.dumps(told, indent=3))
        file = run.path / "results.json"
        assert json_files.read_results(file) == told
        run.write_text("results.json", json.dumps(dict(reversed(told.items()))))
        assert json_files.read_results(file) == told  # the order of keys and the layout say nothing
        run.write_text("results.json", json.dumps(edited(told)))
        with pytest.raises(InputError, match=r"results\.json is not what the run wrote, it was edited or damaged"):
            json_files.read_results(file)
        anew = run_info.with_run(run.path, "results.json", rows, "medrobust audit")
    assert {k: v for k, v in anew.items() if k != "run"} == {k: v for k, v in told.items() if k != "run"}


@pytest.mark.parametrize("command", [["report"], ["study", "report"], ["study", "show"]])
def test_commands_refuse_edited_results(command, tmp_path) -> None:
    with RunFolder(tmp_path / "run", command[0]) as run:
        run.begin()
        told = run_info.with_run(
            run.path, "results.json", {"format": 1, "kind": command[0], "rows": [{"value": 1}]}, ""
        )
        run.write_text("results.json", json.dumps(edited(told)))
    result = CliRunner().invoke(app, [*command, str(tmp_path / "run")])
    assert isinstance(result.exception, InputError)
    assert "edited or damaged" in str(result.exception)
