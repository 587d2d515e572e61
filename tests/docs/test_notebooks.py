"""Every notebook runs from its first cell to its last, is stored without outputs, and shows what it says."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import matplotlib
import pytest
import torch

NOTEBOOKS = sorted((Path(__file__).parents[2] / "docs/notebooks").glob("*.ipynb"))


def cells(notebook: Path) -> list[dict]:
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def run(source: str, names: dict) -> object:
    """What the last line of a cell is worth, which a notebook shows."""
    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "<cell>", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(notebook, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    matplotlib.use("agg")
    names: dict = {}
    with torch.random.fork_rng():  # a notebook sets the seed of everything
        shown = [run("".join(cell["source"]), names) for cell in cells(notebook)]
    pages = [value._repr_html_() for value in shown if hasattr(value, "_repr_html_") and hasattr(value, "page")]
    if notebook.stem != "read_a_universal_perturbation":
        assert len(pages) == 1
        assert "guessing" not in pages[0]  # a network that does not work shows nothing
        assert len(list(tmp_path.glob("*.html"))) == 1
        return
    judged = names["judged"]
    assert judged.targeted_success.low > judged.targeted_base.high


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(notebook):
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells(notebook))


def test_there_are_notebooks():
    assert len(NOTEBOOKS) == 3
