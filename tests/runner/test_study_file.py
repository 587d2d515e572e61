"""Every study file: planned at every size without its data, run to the end at its smallest, shown and exported."""

from __future__ import annotations

import copy
import functools
import html
import inspect
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from medrobust import InputError, training
from medrobust.cli import app
from medrobust.experiments import attack_named
from medrobust.experiments.columns import can_match, columns
from medrobust.experiments.search_config import SearchConfig
from medrobust.experiments.tasks import function
from medrobust.explain import MEASURES
from medrobust.grid import SIZES, Model, everything
from medrobust.runner import study_file
from medrobust.runner.plan import plan
from medrobust.runner.planned import Place
from medrobust.store import key
from medrobust.training.evolved import QUESTIONS
from medrobust.universal import DEFENCES, UNIVERSAL

ROOT = Path(__file__).parents[2] / "studies"
NAMES = (
    "ma2020",
    "detection",
    "black_box",
    "explanations",
    "hirano2021",
    "minagi2022",
    "hirano2020",
    "koga2022",
    "jindal2022",
    "league",
    "over_parameterisation",
    "stored",
    "natural_corruptions",
)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NAMES)
def test_everything_that_a_study_asks_for_exists(name, size, tmp_path):
    """A cell that no worker could begin is found now, not after a night on a cluster."""
    study, opening, _, _ = study_file.load(ROOT / f"{name}.py", size)
    assert opening.split("\n")[2].strip().startswith(f"medrobust study run studies/{name}.py")
    fits = set(inspect.signature(training.fit).parameters)
    for _, node in everything(study.parts):
        if isinstance(node, Model):
            assert set(node.options) <= {*fits, "hardening"}
            assert node.data.get or node.data.spec.startswith("phantom:")
            continue
        assert callable(function(node.task))
        if node.task in ("swept", "curve", "transfer") or (node.task == "queried" and node.args["attack"] != "noise"):
            attack_named(node.args["attack"])
        if node.task == "universal":
            UNIVERSAL[node.args["method"]](**node.args["settings"])
        if node.task == "defence":
            DEFENCES[node.args["defence"]](**node.args["settings"])
        if node.task == "explained":
            assert {*node.args["measures"], *node.args["expensive"]} <= set(MEASURES)
        if node.task == "compared":  # what a search has to beat is always there
            about = QUESTIONS[node.args["question"]]
            assert {*about.baselines, about.reference} <= set(node.args["methods"])
            SearchConfig((node.args["question"],), tuple(node.args["methods"]), node.args["budget"])
    laid = plan(study, Place(tmp_path / "out", tmp_path), dry=True)
    assert laid.left
    # workers keep a cell under the key of its spec
    assert all(key(cell.ticket["spec"]) == name for name, cell in laid.cells.items())
    assert all(d.get for d in laid.absent)
    if size == "paper":
        assert laid.absent


@pytest.fixture(scope="module")
def trained_once() -> Iterator[None]:
    """Studies share their smallest classifiers: one is trained for the first study that needs it, and copied."""
    fits: dict[str, Any] = {}

    @functools.wraps(training.fit)
    def fit(data, architecture, *, resume, keep=None, **options):
        key = json.dumps([data.digest(), architecture, options], sort_keys=True)
        if key not in fits:
            fits[key] = real(data, architecture, resume=resume, **options)
        return copy.deepcopy(fits[key])

    real = training.fit
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training, "fit", fit)
        yield


def run(*args: str | Path):
    return CliRunner().invoke(app, ["study", *map(str, args)], catch_exceptions=False)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.slow  # whole studies, 2 to 20 s each
def test_the_smallest_size_runs_to_its_end_and_reads(name, tmp_path, trained_once):
    asked = ("run", ROOT / f"{name}.py", "--size", "smoke", "--out", tmp_path)
    assert run(*asked).exit_code == 0
    told = json.loads((tmp_path / "results.json").read_text())
    assert told["cells"]["done"] == told["cells"]["all"] > 0
    assert not told["failed"]
    assert all(r["n"] is not None for r in told["rows"])
    study = study_file.load(ROOT / f"{name}.py", "smoke").study
    kinds = {p.name: [kind for node in p.cells for kind in columns(node)] for p in study.parts}
    for r in told["rows"]:
        # what tables are held against before the run is what the cells give
        assert any(can_match(kind, {k: v for k, v in r.items() if v is not None}) for kind in kinds[r["part"]]), r
        if r["low"] is not None:
            assert r["low"] <= (r["value"] if r["value"] is not None else math.inf)
            # no upper end: beyond all that was tried, as the number of pixels of an image that nothing turns
            assert r["high"] is None or r["value"] <= r["high"]
    before = (tmp_path / "results.json").read_bytes()
    assert "\n0 cells in" in "\n" + run(*asked).output
    assert (tmp_path / "results.json").read_bytes() == before
    assert run("show", tmp_path).exit_code == 0
    assert run("report", tmp_path).exit_code == 0
    page = (tmp_path / "report.html").read_text()
    assert all(r["settings"] for r in told["rows"] if r["attack"] in ("pgd", "fgsm", "worst", "sga", "simba"))
    assert all(r["settings"] in html.unescape(page) for r in told["rows"])
    assert all(part["title"] in page for part in told["parts"])
    assert "http" not in page.split("<body>")[0]
    assert len((tmp_path / "results.csv").read_text().splitlines()) == len(told["rows"]) + 1
    tables, tex = re.findall('<figcaption id="tab-([^"]+)"', page), (tmp_path / "tables.tex").read_text()
    assert len(tables) == page.count('<figure class="table">') > 0
    assert all(rf"\label{{tab:{name}}}" in tex for name in tables)
    assert all(f">{part['title']}</a>" in page for part in told["parts"])


@pytest.mark.slow  # trains two networks
def test_the_example_of_the_docs_runs_as_it_is_written(tmp_path):
    text = (ROOT.parent / "docs/studies.md").read_text()
    example = text.split("```python\n")[1].split("```")[0]
    (tmp_path / "mine.py").write_text(example)
    assert "medrobust study run mine.py --size smoke" in example
    assert run("run", tmp_path / "mine.py", "--size", "smoke", "--out", tmp_path / "out").exit_code == 0
    told = json.loads((tmp_path / "out/results.json").read_text())
    assert not told["failed"]
    rows = {(r["model_seed"], r["attack"], round(r["eps"] * 255)): r for r in told["rows"] if r["metric"] == "accuracy"}
    assert set(rows) == {(s, "none", 0) for s in (0, 1)} | {
        (s, a, e) for s in (0, 1) for a in ("fgsm", "pgd") for e in (1, 8)
    }
    assert all(rows[s, "none", 0]["low"] > 0.5 for s in (0, 1))  # two classes: better than guessing
    # the numbers that it opens with, within their intervals on any machine
    for seed, clean, left in ((0, 72.5, 40.0), (1, 70.0, 55.0)):
        assert f"{clean} " in example
        assert f"{left} " in example
        for place, value in (((seed, "none", 0), clean), ((seed, "pgd", 1), left), ((seed, "pgd", 8), 0.0)):
            assert rows[place]["low"] <= value / 100 <= rows[place]["high"]
    assert "Accuracy" in run("show", tmp_path / "out").output


def test_the_docs_name_every_study():
    text = (ROOT.parent / "docs/studies.md").read_text()
    assert all(f"| {name}.py |" in text for name in NAMES)


def test_a_file_that_is_no_study_is_one_line(tmp_path):
    def said(text: str, name: str = "mine.py") -> str:
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError) as caught:
            study_file.load(tmp_path / name, "smoke")
        return str(caught.value)

    assert "has no function study(size)" in said("x = 1")
    # each of another length: bytecode is kept by size and time in seconds
    assert "mine.py:1 cannot be used: NameError" in said("x = yy")
    assert "mine.py:2 cannot be used: SyntaxError" in said("x = 1\ndef")
    assert "must return a Study, got int" in said("def study(size): return 1")
    with pytest.raises(InputError, match="--size must be smoke, small or paper, got 'huge'"):
        study_file.load(tmp_path / "mine.py", "huge")
    with pytest.raises(InputError, match="is not a file"):
        study_file.load(tmp_path / "none.py", "smoke")
