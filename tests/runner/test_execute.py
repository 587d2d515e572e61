"""Grids of cells: named by all they depend on, computed once, tried again, and never lost."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from medrobust import InputError
from medrobust.atomic import DiskError
from medrobust.errors import CellWarning
from medrobust.grid import Data, Model, Node, Part, Published, Study, StudyTable, grid, matches
from medrobust.runner import execute, executors
from medrobust.runner.collect import write
from medrobust.runner.executors import Serial
from medrobust.runner.plan import plan
from medrobust.runner.planned import Place
from tests.processes import Process
from tests.results_files import measured, numbers

pytestmark = pytest.mark.loopback

MINE = "tests.study_tasks"


def cell(task: str, value: float, *on: Node, **args) -> Node:
    needs = {f"on{i}": n for i, n in enumerate(on)}
    return Node(f"{MINE}:{task}", {"value": value, **args}, needs=needs, labels={"data": "d", "model": f"m{value}"})


def a_study(*cells: Node, **more) -> Study:
    view = StudyTable("Numbers", {"metric": "number"}, ("model",), "metric")
    return Study("A study", "nowhere", [Part("numbers", "Numbers", list(cells), **{"show": [view], **more})])


def go(study: Study, folder: Path, executor=None, workers: int = 0, **options) -> dict:
    laid = plan(study, Place(folder))
    # begun after the plan, as the command does: what it writes belongs to the run
    executor = executor or executors.make(folder, workers, **options)
    try:
        execute.run(laid, executor)
    finally:
        executor.close()
    return write(laid, "", "smoke")


def values(told: dict) -> dict:
    return {r["model"]: r["value"] for r in told["rows"]}


def diamond(**last) -> Study:
    bottom = cell("number", 1)
    sides = [cell("number", v, bottom) for v in (10, 100)]
    return a_study(bottom, *sides, cell("number", 1000, *sides, **last))


# -- names ---------------------------------------------------------------------------------------------------


def test_a_cell_is_named_by_everything_it_depends_on_and_by_nothing_else(tmp_path):
    def names(study: Study) -> list[str]:
        return list(plan(study, Place(tmp_path), dry=True).cells)

    first = names(diamond())
    assert names(diamond()) == first
    assert len(first) == 4
    deeper = names(a_study(cell("number", 1000, cell("number", 10, cell("number", 2)))))
    assert not set(first) & set(deeper)  # what lies below the below changes the name
    other = Data("phantom", "phantom:chest@32:n=36")
    node = Node(f"{MINE}:number", {"value": 1}, other, labels={"data": "x"})
    relabelled = Node(f"{MINE}:number", {"value": 1}, Data("renamed", "phantom:chest@32:n=36"))
    assert names(a_study(node)) == names(a_study(relabelled))
    assert names(a_study(Node(f"{MINE}:number", {"value": 1}, Data("p", "phantom:chest@32:n=54")))) != names(
        a_study(node)
    )


def test_the_same_ask_is_one_cell(tmp_path):
    assert len(plan(a_study(cell("number", 1), cell("number", 1)), Place(tmp_path), dry=True).cells) == 1


def test_a_grid_has_a_cell_for_every_combination():
    made = grid(lambda a, b, c: (a, b, c), a=[1, 2], b=(3, 4), c=[5, 6, 7])
    assert made == [(a, (3, 4), c) for a in (1, 2) for c in (5, 6, 7)]


def test_rows_are_found_by_their_columns():
    row = {"eps": 1 / 255, "attack": "pgd", "goal": None}
    assert matches(row, {"eps": 0.00392156862, "attack": ["pgd", "bim"], "goal": None})
    assert not matches(row, {"eps": 2 / 255})
    assert not matches(row, {"absent": "x"})


def test_what_can_not_be_planned_is_one_line(tmp_path):
    with pytest.raises(InputError, match="task 'swim' is not known; choose from train, "):
        plan(a_study(Node("swim")), Place(tmp_path))
    away = Data("xrays", "csv:{data}/x/labels.csv", get="Ask the hospital.")
    with pytest.raises(InputError, match=r"not there: xrays \(.*/x/labels.csv\); give --data FOLDER .* Ask the hosp"):
        plan(a_study(Node(f"{MINE}:number", {"value": 1}, away)), Place(tmp_path, tmp_path))
    assert plan(a_study(Node(f"{MINE}:number", {"value": 1}, away)), Place(tmp_path), dry=True).absent == (away,)
    with pytest.raises(InputError, match="kind must be one of code, text, recalled, got 'heard'"):
        Published("x", "1", "s", "heard", "")


def test_a_dry_plan_writes_nothing(tmp_path):
    model = Model("m", Data("phantom", "phantom:chest@32:n=36"), "small_cnn", {"epochs": 1})
    plan(
        a_study(Node("clean", {"limit": 8, "seed": 0}, model.data, {}, {"model": model}), show=()),
        Place(tmp_path / "o"),
        dry=True,
    )
    assert not list(tmp_path.iterdir())


# -- running -------------------------------------------------------------------------------------------------


def test_what_stands_on_others_comes_after_them(tmp_path):
    told = go(diamond(), tmp_path)
    assert values(told) == {"m1": 1, "m10": 11, "m100": 101, "m1000": 1112}
    assert told["cells"] == {"all": 4, "done": 4, "failed": 0, "left": 0}


def test_finished_cells_are_not_computed_again(tmp_path):
    study = a_study(*(cell("flaky", v, fails=0) for v in range(3)))
    first = go(study, tmp_path)
    again = go(study, tmp_path)
    assert first == again
    assert all(p.stat().st_size == 1 for p in tmp_path.glob("begun-*"))


def test_here_and_in_workers_the_bytes_are_the_same(tmp_path):
    go(diamond(), tmp_path / "here")
    go(diamond(), tmp_path / "there", workers=2)
    assert numbers(tmp_path / "here/results.json") == numbers(tmp_path / "there/results.json")


def test_each_finished_cell_is_reported_when_it_is_done(tmp_path):
    laid, reported = plan(diamond(), Place(tmp_path)), []

    def finished(key: str) -> None:
        assert key in laid.done
        reported.append(key)

    execute.run(laid, Serial(), finished=finished)
    assert reported == list(laid.cells)


def test_a_cell_is_tried_three_times_then_the_study_goes_on(tmp_path):
    lucky, hopeless = cell("flaky", 1, fails=2), cell("flaky", 2, fails=9)
    study = a_study(lucky, hopeless, cell("number", 3, hopeless), cell("number", 4, lucky))
    told = go(study, tmp_path)
    assert values(told) == {"m1": 1, "m4": 5}
    assert [f["error"] for f in told["failed"]] == [
        "RuntimeError: no luck with 2",
        "not begun: it needs numbers tests.study_tasks:flaky d m2, which failed",
    ]
    assert sorted(p.stat().st_size for p in tmp_path.glob("begun-*")) == [3, 3]
    assert go(study, tmp_path)["failed"] == told["failed"]  # not tried again unless asked for
    assert sorted(p.stat().st_size for p in tmp_path.glob("begun-*")) == [3, 3]
    assert execute.forget_failures(tmp_path) == 2
    (tmp_path / f"begun-{plan(study, Place(tmp_path)).left[0].key}").write_bytes(b"." * 9)
    assert values(go(study, tmp_path)) == {"m1": 1, "m2": 2, "m3": 5, "m4": 5}


def test_what_is_of_no_use_to_repeat_is_not_repeated(tmp_path):
    told = go(
        a_study(
            Node(
                "clean",
                {"limit": 1, "seed": 0},
                Data("p", "phantom:chest@32:n=36"),
                needs={"model": Model("m", Data("p", "phantom:chest@32:n=36"), "small_cnn:width=0", {"epochs": 1})},
            ),
            show=(),
        ),
        tmp_path,
    )
    assert [f["task"] for f in told["failed"]] == ["train", "clean"]
    assert "width must be 1 or more" in told["failed"][0]["error"]
    assert [f["cause"] for f in told["failed"]] == [None, "numbers train p m 0"]


def test_a_worker_that_dies_loses_its_cell_only(tmp_path):
    study = a_study(cell("deadly", 1, kills=1), cell("deadly", 2, kills=9), cell("number", 3))
    told = go(study, tmp_path, workers=2)
    assert values(told) == {"m1": 1, "m3": 3}
    assert told["failed"][0]["error"] == f"the worker process that computed it died; see {tmp_path / 'log'}"
    assert sorted(p.stat().st_size for p in tmp_path.glob("begun-*")) == [2, 3]  # each death is one try


def test_workers_have_their_share_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    go(a_study(*(cell("told", v, sleep=0.3) for v in range(4))), tmp_path, workers=2, threads=1)
    seen = [json.loads(p.read_text()) for p in tmp_path.glob("seen-*.json")]
    assert {s["gpu"] for s in seen} == {"3", "5"}
    assert len({s["pid"] for s in seen}) == 2
    assert {s["omp"] for s in seen} == {"1"}
    assert Counter(s["pid"] for s in seen).most_common()[0][1] < 4
    assert "a library that prints" in "".join(p.read_text() for p in (tmp_path / "log").iterdir())


def alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def workers_of(folder: Path) -> set[int]:
    written = [p.read_text() for p in folder.glob("seen-*.json")]
    return {json.loads(text)["pid"] for text in written if text.endswith("}")}  # a file is there before its content


def gone_after(pids: set[int], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(alive, pids))


def test_workers_end_with_the_executor(tmp_path):
    go(a_study(cell("told", 1)), tmp_path, workers=1)
    pids = workers_of(tmp_path)
    assert len(pids) == 1
    assert gone_after(pids, 5)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.slow  # waits for workers to start and to end
def test_no_worker_goes_on_once_the_main_process_is_gone(tmp_path, how, processes):
    """Each is in the middle of a cell that would take a minute."""
    (tmp_path / "long.py").write_text(SCRIPT.replace("number", "told").replace("0.15", "60"))
    process = processes.medrobust("study", "run", tmp_path / "long.py", "--workers", "2", "--out", tmp_path / "run")
    code = process.kill_when(lambda: len(workers_of(tmp_path / "run")) == 2, how, every=0.05)
    assert code == (130 if how == signal.SIGINT else -how)
    assert gone_after(workers_of(tmp_path / "run"), 10)
    assert not list((tmp_path / "run").glob("cells/[0-9a-f]*"))


def test_a_cell_that_vanished_is_made_again_for_those_that_need_it(tmp_path):
    bottom = cell("number", 1)
    go(a_study(bottom), tmp_path)
    (gone,) = (tmp_path / "cells").iterdir()
    study = a_study(bottom, cell("number", 10, bottom))
    laid = plan(study, Place(tmp_path))
    (gone / "arrays.safetensors").write_bytes(b"damaged, and found out only when it is read")
    with pytest.warns(CellWarning, match="sha256"):
        execute.run(laid, Serial())
    assert values(write(laid, "", "smoke")) == {"m1": 1, "m10": 11}


# -- disks ---------------------------------------------------------------------------------------------------


def test_a_full_disk_stops_the_study_and_loses_nothing(tmp_path):
    """Files may not grow beyond a limit: what a disk says that takes no more, superuser or not."""
    resource = pytest.importorskip("resource")
    big = a_study(cell("number", 1), Node(f"{MINE}:number", {"value": 2.0, "long": "x" * 30000}))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, hard))
    try:
        with pytest.raises(DiskError, match=r"cannot write to .*: File too large"):
            go(big, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    laid = plan(big, Place(tmp_path))
    assert len(laid.done) == 1
    assert not laid.failed
    assert len(go(big, tmp_path)["rows"]) == 2


def test_a_folder_that_takes_no_file_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write to .*file"):
        go(diamond(), tmp_path / "file")


# -- killing the main process ----------------------------------------------------------------------------------

SCRIPT = """
from medrobust.experiments import catalogue
from medrobust.grid import Node, Part, Study, StudyTable

def study(size):
    cells = [Node("tests.study_tasks:number", {"value": v, "sleep": 0.15}, labels={"model": f"m{v}"}) for v in range(8)]
    return Study("Killed", "here", [Part("numbers", "Numbers", cells)])
"""


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.slow  # a study in processes that are killed
def test_killed_and_started_again_it_ends_in_the_same_bytes(tmp_path, workers, processes):
    (tmp_path / "killed.py").write_text(SCRIPT)

    def start(out: str) -> Process:
        return processes.medrobust(
            "study", "run", tmp_path / "killed.py", "--workers", str(workers), "--out", tmp_path / out
        )

    def cells_there() -> int:
        return len(list((tmp_path / "killed").glob("cells/[0-9a-f]*")))

    whole = start("whole")
    assert start("killed").kill_when(cells_there) == -signal.SIGKILL
    assert 0 < cells_there() < 8
    assert not (tmp_path / "killed/results.json").exists()
    assert start("killed").wait() == 0
    assert whole.wait() == 0
    assert numbers(tmp_path / "killed/results.json") == numbers(tmp_path / "whole/results.json")


def test_two_mains_may_share_a_folder(tmp_path):
    study = a_study(*(cell("number", v, sleep=0.02) for v in range(10)))
    found: list[dict] = []
    threads = [threading.Thread(target=lambda: found.append(go(study, tmp_path))) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(30)
    # both write the results; only the second in which they ended may differ
    assert measured(found[0]) == measured(found[1])
    assert len(found[0]["rows"]) == 10


def test_planning_does_not_wait_for_the_heavy_parts(tmp_path):
    import subprocess
    import sys

    code = "import sys\nfrom medrobust.runner import plan, execute, collect, study_file, executors\n"
    code += "from medrobust.experiments import catalogue\n"
    code += "print(*(m for m in ('torch', 'timm', 'distributed', 'scipy') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_results_are_whole_or_old(tmp_path):
    go(a_study(cell("number", 1)), tmp_path)
    told = go(diamond(), tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == told["rows"]


def test_a_cell_of_two_parts_has_rows_in_both_and_is_computed_once(tmp_path):
    node = cell("flaky", 1, fails=0)
    told = go(Study("S", "here", [Part("a", "A", [node]), Part("b", "B", [node])]), tmp_path)
    assert [(r["part"], r["value"]) for r in told["rows"]] == [("a", 1), ("b", 1)]
    assert [p.stat().st_size for p in tmp_path.glob("begun-*")] == [1]


def test_what_changed_beyond_its_interval_is_told_from_what_did_not():
    from medrobust.runner.diff import diff

    def rows(*values):
        return [
            {
                "model": f"m{i}",
                "eps": 1 / 255,
                "metric": "accuracy",
                "value": v,
                "low": v - 0.1,
                "high": v + 0.1,
                "n": 90,
                "status": "ok",
                "note": "",
            }
            for i, v in enumerate(values)
        ]

    found = diff(rows(0.5, 0.5, 0.5), rows(0.5, 0.63, 0.66, 0.9))
    # independent intervals of +-0.1 make one of +-0.141 for the difference
    assert [round(c.gap[0], 2) for c in found.beyond] == [0.16]
    assert [round(c.gap[1], 3) for c in found.beyond] == [round(0.16 - 0.02**0.5, 3)]
    assert (len(found.changes), len(found.only_a), len(found.only_b)) == (3, 0, 1)
    other = [r | {"model": "v2"} for r in rows(0.5)]
    assert not diff(rows(0.5), other).changes
    assert len(diff(rows(0.5), other, ignore=("model",)).changes) == 1
    assert diff(rows(0.5), [rows(0.5)[0] | {"status": "inconclusive"}]).beyond


def test_a_number_without_an_interval_is_not_said_to_have_changed_beyond_it():
    from medrobust.runner.diff import diff, told

    row = {"model": "m", "seed": 0, "metric": "ece", "value": 0.1, "low": None, "high": None, "n": 9, "status": "ok"}
    found = diff([row, row | {"model": "k", "low": 0.0, "high": 0.2}], [row | {"value": 0.2}, row | {"model": "k"}])
    assert not found.beyond
    assert [c.after["model"] for c in found.bare] == ["m"]
    assert found.held == 0
    # the surest first, whatever the unit
    before, after = ([("small", 0.1, 0.01), ("large", 10, 9)], [("small", 0.2, 0.01), ("large", 40, 9)])
    sides = [
        [row | {"metric": m, "value": v, "low": v - w, "high": v + w} for m, v, w in some] for some in (before, after)
    ]
    assert [c.after["metric"] for c in diff(*sides).beyond] == ["small", "large"]
    assert told([row, row | {"model": "k", "value": 3}]) == [("ece", {"model": "m"}), ("ece", {"model": "k"})]
