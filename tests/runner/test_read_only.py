"""A folder that may not be written to: one clear line, and nothing is lost. In processes that permissions hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import Process, Server, obey
from tests.results_files import numbers

FILE = """
from medrobust.grid import Node, Part, Study, StudyTable

def study(size):
    cells = [Node("tests.study_tasks:number", {"value": v, "sleep": 0.1}, labels={"model": f"m{v}"}) for v in range(8)]
    table = StudyTable("Numbers", {"metric": "number"}, ("model",), "metric")
    return Study("Read only", "here", [Part("numbers", "Numbers", cells, [table])])
"""


@pytest.fixture
def place(tmp_path: Path, processes: Server) -> Iterator[Path]:
    """A folder with study.py; everything in it may be removed again at the end."""
    (tmp_path / "study.py").write_text(FILE)
    (tmp_path / "closed").mkdir(0o555)
    if processes.start("tests.runner.test_read_only:write", str(tmp_path / "closed")).wait() == 0:
        pytest.skip("permissions hold nobody here, and the superuser's rights cannot be given up")
    yield tmp_path
    mode(tmp_path, 0o755, 0o644)


def write(folder: str) -> None:
    obey()
    (Path(folder) / "file").write_text("")


@pytest.fixture
def start(processes: Server) -> Callable[..., Process]:
    """medrobust study ARGS, by somebody whom permissions hold."""
    return lambda *args: processes.medrobust("study", *args, obey=True)


@pytest.fixture
def ran(start: Callable[..., Process]) -> Callable[..., tuple[int, str, list[str]]]:
    """(exit code, what it printed, the lines of its errors but for its progress)."""

    def run(*args: str | Path) -> tuple[int, str, list[str]]:
        process = start(*args)
        return process.wait(), process.out.read_text(), process.lines()

    return run


def mode(folder: Path, folders: int, files: int) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(folders if path.is_dir() else files)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_read_only_folder_is_one_line_and_loses_nothing(place, ran):
    whole, run = place / "whole", place / "run"
    assert ran("run", place / "study.py", "--out", whole)[0] == 0
    # half of a study, then a folder that takes nothing more
    assert ran("run", place / "study.py", "--out", run)[0] == 0
    for cell in sorted((run / "cells").iterdir())[:4]:
        for file in cell.iterdir():
            file.unlink()
        cell.rmdir()
    (run / "results.json").unlink()
    mode(run, 0o555, 0o444)
    before = contents(run)
    for workers in ("0", "2"):
        code, _, said = ran("run", place / "study.py", "--out", run, "--workers", workers)
        assert code == 2
        assert len(said) == 1
        assert f"cannot write to {run}" in said[0]
        assert "Permission denied" in said[0]
        assert contents(run) == before
    mode(run, 0o755, 0o644)
    code, out, _ = ran("run", place / "study.py", "--out", run)
    assert code == 0
    assert "4 cells in" in out
    assert numbers(run / "results.json") == numbers(whole / "results.json")


def test_a_finished_study_in_a_read_only_folder_is_still_read(place, ran):
    run = place / "run"
    assert ran("run", place / "study.py", "--out", run)[0] == 0
    mode(run, 0o555, 0o444)
    before = contents(run)
    assert "m7" in ran("show", run)[1]
    assert ran("export", run, "--csv", place / "rows.csv")[0] == 0
    assert (place / "rows.csv").read_text().count("\n") == 9
    code, _, said = ran("report", run)
    assert (code, len(said)) == (2, 1)
    assert f"cannot write to {run}" in said[0]
    assert contents(run) == before


def test_a_folder_that_turns_read_only_in_between_keeps_what_is_finished(place, start, ran):
    run = place / "run"
    process = start("run", place / "study.py", "--out", run, "--workers", "2")
    end = time.monotonic() + 60
    while not list(run.glob("cells/[0-9a-f]*")) and time.monotonic() < end:
        time.sleep(0.01)
    (run / "cells").chmod(0o555)
    assert process.wait() == 2
    lines = process.lines()
    assert len(lines) == 1
    assert "Permission denied" in lines[0]
    assert not (run / "failed").exists()
    kept = {p.name for p in (run / "cells").glob("[0-9a-f]*")}
    assert 0 < len(kept) < 8
    (run / "cells").chmod(0o755)
    code, out, _ = ran("run", place / "study.py", "--out", run)
    assert code == 0
    assert f"{8 - len(kept)} cells in" in out
