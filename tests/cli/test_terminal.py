"""What is printed cannot command the terminal, is never read as markup, and survives any encoding."""

from __future__ import annotations

import io
import sys

import pytest

from medrobust import cli
from medrobust.cli.bars import Bars
from medrobust.cli.text import complain, say, survive_any_terminal, table
from medrobust.errors import InputError, visible

HOSTILE = [
    "[/nope]",
    "[red]x[/red]",
    "[link=file:///etc]x[/link]",
    "\x1b[2J",
    "a\rb",
    "a\nb",
    "\x00",
    "\x9b31m",
    "‮abc",
    "\udcff.png",
]


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_a_hostile_name_is_printed_as_it_reads(name, capsys):
    table([name, "n"], [[name, "1"]], name)
    with Bars() as bars:
        bars.start(name, 1)
        bars.advance(1, shown=name)
        bars.stop()
    printed = capsys.readouterr()
    for text in (printed.out, printed.err):
        assert visible(name) in text
        assert not set(text) & {"\x1b", "\r", "\x00", "\x9b", "‮", "\udcff"}


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_an_error_stays_one_line(name, capsys):
    complain(f"{name} is not a class")
    assert capsys.readouterr().err.count("\n") == 1


def test_ordinary_words_of_any_script_are_left_alone():
    for text in ("pneumonia", "Lungenentzündung", "肺炎", "التهاب رئوي", "ক‍ষ", "ε* → 1/255 ± 2"):
        assert visible(text) == text


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_terminal_of_any_encoding_gets_every_sign(encoding, monkeypatch):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    survive_any_terminal(stream)
    say("ε* → 1/255 ± 2 肺")
    table(["ε"], [["1 → 2 肺"]], "±")
    stream.flush()
    text = raw.getvalue().decode(encoding)
    assert "1/255" in text
    if encoding == "ascii":
        assert "eps* -> 1/255 +- 2 \\u80ba" in text


@pytest.mark.parametrize(
    "error", [InputError("bad [/x]\nsecond line \x1b[2J"), MemoryError("Unable to allocate"), OSError(28, "full", "x")]
)
def test_what_the_user_can_fix_is_one_line_and_exit_code_2(error, monkeypatch, capsys):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(cli, "survive_any_terminal", lambda *_: None)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("medrobust: ")
    assert printed.err.count("\n") == 1
    assert "\x1b" not in printed.err
