"""A folder that may not be written to: one clear line, and nothing is lost. In processes that permissions hold."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.results_files import numbers

PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
FILE = """
from medrobust.studies.grid import Node, Part, Study, Table

def study(size):
    cells = [Node("tests.study_tasks:number", {"value": v, "sleep": 0.1}, labels={"model": f"m{v}"}) for v in range(8)]
    table = Table("Numbers", {"metric": "number"}, ("model",), "metric")
    return Study("Read only", "here", [Part("numbers", "Numbers", cells, [table])])
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder with study.py; everything in it may be removed again at the end."""
    (tmp_path / "study.py").write_text(FILE)
    (tmp_path / "closed").mkdir(0o555)
    tried = "open('closed/file', 'w')"
    held = subprocess.run([sys.executable, "-c", tried], cwd=tmp_path, capture_output=True, preexec_fn=obey)
    if held.returncode == 0:
        pytest.skip("permissions hold nobody here, and the superuser's rights can not be given up")
    yield tmp_path
    mode(tmp_path, 0o755, 0o644)


def obey() -> None:
    """Give up, before a process begins, the superuser's right to write where permissions say no (prctl(2))."""
    if os.geteuid() == 0:
        library = ctypes.CDLL(None)
        for right in CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH:
            library.prctl(PR_CAPBSET_DROP, right, 0, 0, 0)


def start(*args: str | Path) -> subprocess.Popen[str]:
    """medrobust study ARGS, by somebody whom permissions hold."""
    return subprocess.Popen(
        [sys.executable, "-m", "medrobust.cli", "study", *map(str, args)], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, preexec_fn=obey,
    )  # fmt: skip


def ran(*args: str | Path) -> tuple[int, str, list[str]]:
    """(exit code, what it printed, the lines of its errors but for its progress)."""
    out, err = (process := start(*args)).communicate(timeout=120)
    return process.returncode, out, [line for line in err.splitlines() if not line.startswith("Cells (")]


def mode(folder: Path, folders: int, files: int) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(folders if path.is_dir() else files)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_read_only_folder_is_one_line_and_loses_nothing(place):
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
    assert out.startswith("4 cells in")
    assert numbers(run / "results.json") == numbers(whole / "results.json")


def test_a_finished_study_in_a_read_only_folder_is_still_read(place):
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


def test_a_folder_that_turns_read_only_in_between_keeps_what_is_finished(place):
    run = place / "run"
    process = start("run", place / "study.py", "--out", run, "--workers", "2")
    end = time.monotonic() + 60
    while not list(run.glob("cells/[0-9a-f]*")) and time.monotonic() < end:
        time.sleep(0.01)
    (run / "cells").chmod(0o555)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    lines = [line for line in err.splitlines() if not line.startswith("Cells (")]
    assert len(lines) == 1
    assert "Permission denied" in lines[0]
    assert not (run / "failed").exists()
    kept = {p.name for p in (run / "cells").glob("[0-9a-f]*")}
    assert 0 < len(kept) < 8
    (run / "cells").chmod(0o755)
    code, out, _ = ran("run", place / "study.py", "--out", run)
    assert code == 0
    assert out.startswith(f"{8 - len(kept)} cells in")
