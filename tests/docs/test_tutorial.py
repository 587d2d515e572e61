"""The tutorial, word for word: every command is run, and its output is the one shown, up to the numbers."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medrobust.cli import app
from tests.data_files import REAL, needs_real

TEXT = (Path(__file__).parents[2] / "docs/tutorial.md").read_text()
STEPS = re.findall(r"```(sh|python)\n(.*?)```\n\n```text\n(.*?)```", TEXT, re.DOTALL)
FRAMES = re.compile(r"[\s─-╿]+")


def flat(text: str) -> str:
    """Without frames of tables and line breaks, which follow the width of the terminal."""
    return FRAMES.sub(" ", text).strip()


def pattern(shown: str) -> str:
    """An expression for an output as it is shown: numbers may differ, ``…`` is anything."""
    parts = [flat(part) for part in shown.split("…")]
    return ".*".join(re.sub(r"\d(?:[\d,]|\\\.)*", r"\\d[\\d.,]*", re.escape(part)) for part in parts)


def run(command: str) -> str:
    done = CliRunner(env={"COLUMNS": "110"}).invoke(
        app, shlex.split(command.replace("\\\n", " "))[1:], catch_exceptions=False
    )
    assert done.exit_code == 0, f"{command}\n{done.output}"
    return done.stdout


def execute(code: str) -> str:
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream):
        exec(code, {})
    return stream.getvalue()


def test_every_command_of_the_tutorial_is_followed_by_its_output():
    assert len(STEPS) == len(re.findall(r"```(?:sh|python)\n", TEXT)) == 11
    assert all(command.startswith("medrobust ") for kind, command, _ in STEPS if kind == "sh")


@pytest.mark.parametrize(
    ("shown", "output", "matches"),
    [
        ("n = 40: 5% (1% to 17%)\n", "n = 40: 12.5% (4% to 30%)", True),
        ("a 1\n…\nb 2\n", "┃ a 3 │\nmuch\n│ b 4 │", True),
        ("│ PGD │ 80% │\n", "PGD \n inconclusive", False),
        ("model runs/x\n", "model runs/y", False),
    ],
)
def test_outputs_are_compared_up_to_numbers(shown, output, matches):
    assert bool(re.search(pattern(shown), flat(output))) is matches


def images(folder: Path) -> None:
    """The images of the tutorial; of the chest X-rays every fourth, which takes a quarter of the time."""
    (folder / "chest_xray").mkdir(parents=True)
    for name in ("pneumoniamnist.npz", "chest_xray/images"):
        (folder / name).symlink_to(REAL / name)
    head, *rows = (REAL / "chest_xray/labels.csv").read_text().splitlines()
    (folder / "chest_xray/labels.csv").write_text("\n".join([head, *rows[::4], ""]))


@needs_real
@pytest.mark.slow  # trains two networks, and runs every command
def test_the_tutorial_runs_as_it_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images(tmp_path / "data")
    for kind, code, shown in STEPS:
        output = run(code) if kind == "sh" else execute(code)
        assert re.search(pattern(shown), flat(output)), f"{code}\nshows\n{shown}\nbut gave\n{output}"
    assert (tmp_path / "runs/before/report.html").is_file()
    assert (tmp_path / "runs/universal/v.png").is_file()
