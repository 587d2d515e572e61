"""A study is held against itself before anything runs: every mistyped name is one line, and nothing is computed."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from medrobust import InputError
from medrobust.cli import app
from medrobust.experiments import catalogue, search_catalogue
from medrobust.experiments.task_options import attack_settings
from medrobust.grid import Chart, Data, Model, Node, Part, Published, Study, StudyTable, grid
from medrobust.runner.plan import plan
from medrobust.runner.planned import Place
from medrobust.runner.validation import check

PHANTOM = Data("phantom", "phantom:chest@32:n=36")
MODEL = Model("tiny", PHANTOM, "small_cnn", {"epochs": 1})
CURVES = grid(catalogue.curve, model=MODEL, attack=["fgsm", "pgd"], eps=(1 / 255, 8 / 255), limit=4)
GOOD = StudyTable("Accuracy", {"metric": "accuracy"}, ("model", "eps"), "attack")


def study(*cells: Node, show=(), **more) -> Study:
    return Study("S", "here", [Part("p", "P", list(cells) or CURVES, show, **more)])


def error(made: Study) -> str:
    with pytest.raises(InputError) as caught:
        check(made)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_table_that_fits_its_cells_is_accepted():
    check(study(show=[GOOD, Chart("Curve", {"metric": "accuracy"}, "eps", ("attack",), ("model",))]))


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (
            StudyTable("T", {"metric": "acuracy"}, ("model", "eps"), "attack"),
            "no cell gives metric acuracy; the nearest",
        ),
        (
            StudyTable("T", {"metrik": "accuracy"}, ("model", "eps"), "attack"),
            "no column 'metrik'; the nearest is metric",
        ),
        (StudyTable("T", {"metric": "accuracy"}, ("modle", "eps"), "attack"), "no column 'modle'; the nearest"),
        (
            StudyTable("T", {"metric": "accuracy"}, ("model", "eps"), "atack"),
            "no column 'atack'; the nearest are attack",
        ),
        (StudyTable("T", {"metric": "accuracy", "attack": "pdg"}, ("eps",), "model"), "attack pdg; the nearest is pgd"),
        (
            StudyTable("T", {"metric": "accuracy", "model": "tyni"}, ("eps",), "attack"),
            "model tyni; the nearest is tiny",
        ),
        (StudyTable("T", {"metric": "accuracy"}, ("model",), "attack"), "rows that differ in eps (0.00392"),
        (
            StudyTable("T", {"attack": "pgd"}, ("model", "eps"), "attack"),
            "rows that differ in metric (accuracy, success)",
        ),
        (
            StudyTable("T", {"metric": "accuracy"}, ("model",), "eps"),
            "they differ in attack, which its lines do not name",
        ),
        (Chart("T", {"metric": "accuracy"}, "eps", ("model",)), "they differ in attack, which its lines do not name"),
        (Chart("T", {"metric": "accuracy"}, "epsilon", ("attack",)), "no column 'epsilon'; the nearest is eps"),
    ],
)
def test_a_mistyped_table_is_one_line_before_anything_runs(table, expected, tmp_path):
    assert expected in error(study(show=[table]))
    assert "part 'p'" in error(study(show=[table]))
    for dry in (True, False):
        with pytest.raises(InputError):
            plan(study(show=[table]), Place(tmp_path / "out"), dry=dry)
    assert not list(tmp_path.iterdir())


def test_published_figures_are_held_against_columns_and_metrics():
    def published(**where) -> Study:
        return study(published=[Published("x", "1", "s", "text", "there", where)])

    check(published(metric="accuracy", model="a model of another size of the study"))
    assert "published 'x': its rows have no column 'modle'" in error(published(modle="tiny"))
    assert "no cell gives metric acuracy" in error(published(metric="acuracy"))


def test_cells_whose_rows_are_alike_do_not_share_a_place():
    curves = [catalogue.curve(MODEL, "pgd", (1 / 255,), limit=n) for n in (4, 8)]
    assert "they differ in argument limit" in error(study(*curves, show=[GOOD]))


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (catalogue.curve(MODEL, "pgdd"), "attack 'pgdd' is not known; choose from"),
        (catalogue.curve(MODEL, "pgd:stepps=3"), "takes steps, step, restarts"),
        (catalogue.curve(MODEL, "pgd", (-1.0,)), "eps"),
        (catalogue.curve(MODEL, "pgd", norm="l_inf"), "no norm 'l_inf'; the nearest"),
        (Node("clean", {"limit": 4, "sead": 0}), "clean takes no 'sead'; the nearest is seed"),
        (Node("clean", {"limit": 4}), "clean needs 'seed'"),
        (Node("cleen"), "task 'cleen' is not known"),
        (catalogue.explained(MODEL, measures=("slope-l3",)), "no measure 'slope-l3'; the nearest are slope-l"),
        (catalogue.detectors(MODEL, ("dk",), ("pgd",))[-1], "no detector 'dk'"),
        (
            catalogue.judged(catalogue.universal(MODEL, settings={"pases": 1})),
            "takes no 'pases'; the nearest is passes",
        ),
        (catalogue.judged(catalogue.universal(MODEL, method="sgaa")), "no method 'sgaa'; the nearest are sga"),
        (catalogue.retraining(MODEL, {"runds": 1}), "defence 'retrain' takes no 'runds'; the nearest is rounds"),
        (search_catalogue.minimised("dee", "sphere", False, 2, 30, 2), "no optimiser 'dee'; the nearest"),
        (search_catalogue.compared(search_catalogue.features_table(), ("gwoo",), budget=300, seeds=2), "gwoo"),
        (
            catalogue.clean(Model("m", PHANTOM, "small_cnn", {"epoch": 1})),
            "takes no option 'epoch'; the nearest is epochs",
        ),
        (catalogue.clean(Model("m", PHANTOM, "resnet19")), "no architecture 'resnet19'; the nearest are resnet"),
        (catalogue.clean(Model("m", PHANTOM, "small_cnn", weights="{date}/x.pt")), "{date} in '{date}/x.pt'"),
        (catalogue.clean(Model("m", Data("d", "csv:{root}/x.csv"), "small_cnn")), "{root} in 'csv:{root}/x.csv'"),
    ],
)
def test_what_no_task_takes_is_one_line_before_anything_runs(node, expected):
    assert expected in error(study(node))


def test_two_objects_of_one_name_are_refused():
    other = Data("phantom", "phantom:chest@32:n=54")
    assert "two different data objects have the name 'phantom'" in error(
        study(catalogue.clean(MODEL), catalogue.clean(Model("other", other, "small_cnn")))
    )
    twin = Model("tiny", PHANTOM, "small_cnn", {"epochs": 2})
    assert "two different model objects have the name 'tiny'" in error(
        study(catalogue.clean(MODEL), catalogue.clean(twin))
    )
    check(study(catalogue.clean(MODEL), catalogue.clean(Model("tiny", PHANTOM, "small_cnn", {"epochs": 1}), limit=3)))
    part = Part("p", "P", CURVES)
    assert "two of the study's parts have the name 'p'" in error(Study("S", "here", [part, part]))


def test_a_task_of_one_s_own_may_declare_its_rows():
    node = Node("tests.study_tasks:number", {"value": 1}, labels={"model": "m"}, rows=({"metric": ["number"]},))
    check(study(node, show=[StudyTable("T", {"metric": "number"}, ("model",), "metric")]))
    assert "metric nubmer; the nearest is number" in error(
        study(node, show=[StudyTable("T", {"metric": "nubmer"}, ("model",), "metric")])
    )


def test_settings_of_attacks_hold_their_defaults():
    def of(name: str, norm: str = "linf") -> str:
        return attack_settings(catalogue.curve(MODEL, name, norm=norm))[name]

    assert of("pgd") == "steps=20, step=0.1 eps, restarts=1, loss=cross_entropy"
    assert of("pgd:steps=40:restarts=3", "l2").startswith("steps=40, step=0.0625 eps, restarts=3")
    assert of("bim:steps=10").startswith("steps=10, step=0.1 eps")
    assert of("apgd") != of("apgd-margin")  # they differ in their loss alone
    assert "kappa=100" in of("cw")
    assert attack_settings(catalogue.worst(CURVES))["worst"].startswith("fgsm: steps=1, step=1 eps, restarts=1")


def test_a_changed_default_is_another_cell(tmp_path, monkeypatch):
    from medrobust.attacks import ATTACKS, PGD

    def names() -> set[str]:
        return set(plan(study(), Place(Path(tmp_path)), dry=True).cells)

    before = names()
    monkeypatch.setitem(ATTACKS, "pgd", lambda: PGD(steps=21))
    assert names() != before


def test_tables_that_cannot_be_checked_before_the_run_are_named(tmp_path):
    text = """
from medrobust.grid import Node, Part, Study, StudyTable

def study(size):
    own = [Node("tests.study_tasks:number", {"value": v}, labels={"model": f"m{v}"}, rows=ROWS) for v in (1, 2)]
    table = StudyTable("Numbers", {"metric": "number"}, ("model",), "metric")
    return Study("S", "here", [
        Part("own", "Own", own, [table]), Part("bare", "B", own),
    ])
"""
    said = []
    for rows in ("()", '({"metric": "number"},)'):
        (tmp_path / "own_study.py").write_text(text.replace("ROWS", rows))
        asked = ["study", "run", str(tmp_path / "own_study.py"), "--out", str(tmp_path / "out"), "--dry-run"]
        done = CliRunner().invoke(app, asked, catch_exceptions=False)
        assert done.exit_code == 0
        said.append([line for line in done.output.splitlines() if "cannot be checked" in line])
    assert said == [
        [
            "part 'own': the columns of table 'Numbers' cannot be checked before the run: tests.study_tasks:number "
            "declares no rows (Node(…, rows=…))"
        ],
        [],
    ]
