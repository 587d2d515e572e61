"""What a study lacks is said by every command, with its reason, and in the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medrobust.cli import app
from medrobust.runner import run_log

STUDY = '''"""Two of four cells fail."""
from medrobust.grid import Node, Part, Study, StudyTable

def study(size):
    def cell(task, value, **more):
        return Node(f"tests.study_tasks:{task}", {"value": value, "fails": 9}, labels={"model": f"m{value}"}, **more)
    bad = cell("flaky", 2)
    cells = [cell("number", 1), bad, cell("number", 3, needs={"on0": bad}), cell("number", 4)]
    return Study("Broken", "here", [Part("numbers", "Numbers", cells, [
        StudyTable("Numbers", {"metric": "number"}, ("model",), "metric"),
        StudyTable("Empty", {"metric": "nubmer"}, ("model",), "metric"),
        StudyTable("Merged", {"metric": "number"}, (), "metric")])])
'''


def run(*args: str | Path):
    return CliRunner().invoke(app, ["study", *map(str, args)], catch_exceptions=False)


@pytest.fixture
def broken(tmp_path) -> Path:
    (tmp_path / "broken.py").write_text(STUDY)
    return tmp_path


@pytest.mark.loopback
@pytest.mark.parametrize("workers", [0, 2])
def test_failed_cells_are_named_with_their_reason_and_end_in_exit_code_1(broken, workers):
    asked = ("run", broken / "broken.py", "--out", broken / "out", "--workers", workers)
    first, again = run(*asked), run(*asked)
    for done in (first, again):
        assert done.exit_code == 1
        lines = done.output.splitlines()
        at = lines.index("2 of 4 cells are missing: 2 failed")
        assert lines[at + 1 : at + 5] == [
            "1 x RuntimeError: no luck with 2",
            "  numbers tests.study_tasks:flaky m2",
            "1 x not begun, because a cell that they need failed",
            "  numbers tests.study_tasks:number m3 (needs numbers tests.study_tasks:flaky m2)",
        ]
        assert "table 'Empty' of part 'numbers' has no row" in lines
        assert any("table 'Merged' of part 'numbers' does not show 1 rows" in line for line in lines)
    if workers:
        return
    left = (broken / "out/report.html").read_bytes()
    for command in (
        ("show", broken / "out"),
        ("report", broken / "out"),
        ("export", broken / "out", "--latex", broken / "t.tex"),
        ("diff", broken / "out", broken / "out"),
    ):
        output = run(*command).output
        assert "2 of 4 cells are missing: 2 failed" in output
    assert (broken / "out/report.html").read_bytes() == left
    page = left.decode()
    assert "RuntimeError: no luck with 2" in page
    assert "has no row" in page
    assert "% 2 of 4 cells are missing" in (broken / "t.tex").read_text().replace("\\", "")


def test_a_complete_study_ends_in_exit_code_0_and_a_changed_file_is_said(tmp_path):
    text = STUDY.split("    bad =")[0] + (
        "    return Study('Whole', 'here', [Part('numbers', 'Numbers', [cell('number', 1), cell('number', 2)])])\n"
    )
    file, out = tmp_path / "whole.py", tmp_path / "out"
    file.write_text(text)
    done = run("run", file, "--out", out)
    assert done.exit_code == 0
    assert "missing" not in done.output
    digest = json.loads((out / "results.json").read_text())["study"]["files"]["whole.py"]
    assert run_log.recorded(out)[0]["files"] == {"whole.py": digest}
    assert "has changed" not in run("run", file, "--out", out).output
    assert len(run_log.recorded(out)) == 1
    file.write_text(text + "# another text\n")
    again = run("run", file, "--out", out)
    assert (
        f"whole.py has changed since the run of {run_log.recorded(out)[0]['begun']}: sha256 {digest[:12]}"
        in again.output
    )
    assert "0 cells in" in again.output  # no cell depends on that text
    assert "has changed" not in run("run", file, "--out", out).output
    run("report", out)
    page = (out / "report.html").read_text()
    assert json.loads((out / "results.json").read_text())["study"]["files"]["whole.py"] in page


def test_a_run_folder_that_is_no_study_is_one_line(tmp_path):
    for text in ("[" * 100_000, "[]", '{"kind": "study"}', "no json"):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(ValueError, match=r"results\.json") as caught:
            run_log.results_of(tmp_path)
        assert "\n" not in str(caught.value)
