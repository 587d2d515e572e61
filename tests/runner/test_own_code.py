"""Cells of one's own beside the study file: found in every process, and made anew after an edit of their code."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medrobust import InputError, own_code
from medrobust.cli import app
from medrobust.grid import Node, Part, Study
from medrobust.runner.perform import perform
from medrobust.runner.plan import plan
from medrobust.runner.planned import Place

STUDY = """
from medrobust.grid import Node, Part, Study, StudyTable
import own_shared

def beside(work):
    return own_shared.result(work.args["value"])

class AsClass:
    def __call__(self, work):
        return own_shared.result(work.args["value"] + 10)

def study(size):
    rows = ({"metric": "own"},)
    names = ("own_study:beside", "own_study:AsClass", "own_cells:elsewhere", "own_package.inner:deep")
    cells = [Node(n, {"value": i}, labels={"model": n}, rows=rows) for i, n in enumerate(names)]
    table = StudyTable("Own", {"metric": "own"}, ("model",), "metric")
    return Study("Own", "here", [Part("own", "Own", cells, [table])])
"""
SHARED = """
def result(value):
    row = {"attack": "none", "norm": "", "eps": 0.0, "metric": "own", "value": value + 0, "low": None, "high": None,
           "n": 1, "status": "ok", "note": ""}
    return {"rows": [row]}, {}
"""
CELLS = """
def elsewhere(work):
    import own_late  # once it runs, not at import
    return own_late.result(work.args["value"])
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    for name, text in {
        "own_study.py": STUDY,
        "own_shared.py": SHARED,
        "own_late.py": SHARED,
        "own_cells.py": CELLS,
        "own_package/__init__.py": "",
        "own_package/inner.py": "from .other import deep\n",
        "own_package/other.py": "import own_shared\ndef deep(work): return own_shared.result(work.args['value'])\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def values(out: Path) -> list[float]:
    return [r["value"] for r in json.loads((out / "results.json").read_text())["rows"]]


@pytest.mark.loopback
@pytest.mark.parametrize("workers", [0, 1])
def test_functions_classes_and_modules_beside_the_file_are_found_and_made_anew(folder, workers, monkeypatch):
    monkeypatch.chdir("/")  # not the folder of the study

    def run(done: int) -> list[float]:
        asked = ["study", "run", str(folder / "own_study.py"), "--out", str(folder / "out"), "--workers", str(workers)]
        finished = CliRunner().invoke(app, asked, catch_exceptions=False)
        assert finished.exit_code == 0, finished.output
        assert f"\n{done} cells in" in "\n" + finished.output
        return values(folder / "out")

    assert run(4) == [0, 11, 2, 3]
    assert run(0) == [0, 11, 2, 3]
    # of the same length and in the same second: neither size nor time tells that it has changed
    (folder / "own_shared.py").write_text(SHARED.replace("value + 0", "value + 5"))
    assert run(3) == [5, 16, 2, 8]
    (folder / "own_late.py").write_text(SHARED.replace("value + 0", "value + 7"))
    assert run(1) == [5, 16, 9, 8]
    assert not list(folder.glob("**/__pycache__"))
    assert str(folder) not in sys.path


def test_code_that_changed_since_the_plan_is_not_computed_under_the_old_name(folder):
    """A worker on another machine may read the file later than the plan did."""
    node = Node("own_cells:elsewhere", {"value": 1})
    laid = plan(Study("S", "here", [Part("p", "P", [node])]), Place(folder / "out", code=folder))
    (cell,) = laid.left
    (folder / "own_late.py").write_text(SHARED.replace("value + 0", "value + 9"))
    with pytest.raises(InputError, match="the code of own_cells:elsewhere has changed since the study was planned"):
        perform(cell.ticket)


def test_what_is_not_there_is_one_line(folder):
    (folder / "random.py").write_text("def f(work): return {}, {}\n")
    for name, expected in {
        "own_cells:nowhere": "has no attribute 'nowhere'",
        "own_celles:elsewhere": "No module named 'own_celles'",
        "random:f": "rename the file|has no attribute 'f'",
        "own_cells:__doc__": "it must be a function",
    }.items():
        with pytest.raises(InputError, match=expected):
            own_code.callable_named(name, folder)


def test_a_digest_is_of_the_sources_that_are_imported_and_of_no_others(folder):
    before = own_code.digest(folder, "own_package.inner:deep")
    (folder / "own_cells.py").write_text("# not imported there\n")
    (folder / "notes.txt").write_text("x")
    assert own_code.digest(folder, "own_package.inner:deep") == before
    (folder / "own_package/other.py").write_text("x = 1\n")
    assert own_code.digest(folder, "own_package.inner:deep") != before
    assert own_code.digest(folder, "no_such_module:f") is None
