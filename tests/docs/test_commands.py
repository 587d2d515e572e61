"""Every command that the documents show exists, with the options that they give it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from medrobust.cli import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
PARSER = typer.main.get_command(app)
PROMPT = r"(?:\$ )?(?:\.venv/bin/)?(?:[A-Z_]+=\S+ )*"


def lines(page: Path) -> list[str]:
    """Lines of fenced and indented code, and code within sentences; continued lines are joined."""
    text = page.read_text()
    fenced = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in joined(block)]
    indented = [line.strip() for line in joined(text) if line.startswith("    ")]
    inline = [re.sub(r"\s+", " ", code) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", text)]
    return fenced + indented + inline


def joined(text: str) -> list[str]:
    return text.replace("\\\n", " ").splitlines()


def commands() -> list[tuple[str, str]]:
    """(page, arguments of medrobust)."""
    shown = set()
    for page in PAGES:
        for line in lines(page):
            match = re.match(PROMPT + r"medrobust ((?:[a-z]+\b|--help).*)", line)
            if match:
                shown.add((str(page.relative_to(ROOT)), match[1]))
    return sorted(shown)


def test_there_are_commands_to_look_at():
    words = {arguments.split()[0] for _, arguments in commands()}
    assert {"audit", "train", "detect", "evade", "universal", "defend", "explain", "search", "study"} <= words


@pytest.mark.parametrize(("page", "arguments"), commands())
def test_a_shown_command_is_understood(page, arguments):
    words = ["1" if word == "N" else word for word in shlex.split(arguments, comments=True)]
    if "--help" in words or words[-1] in ("…", "..."):
        return
    command, context = PARSER, None
    while hasattr(command, "get_command"):
        context = context or typer.Context(command, info_name="medrobust")
        if not words:  # the command is only named
            return
        name = words.pop(0)
        inner = command.get_command(context, name)
        assert inner is not None, f"{page}: medrobust has no command {name}"
        command = inner
    if not words:
        return
    if words[0].endswith(".yaml"):  # options in a file
        words.pop(0)
    command.make_context("medrobust", words)  # raises on an option that is not there or an argument that is missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shown_scripts_are_there(page):
    for line in lines(page):
        for script in re.findall(r"\b((?:studies|benchmarks|tools|fuzz)/\w+\.py)\b", line):
            assert (ROOT / script).is_file(), f"{page.name} shows {script}"
