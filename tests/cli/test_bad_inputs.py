"""Every bad input of the corpus gets exit code 2 and one line, changes nothing and leaves nothing behind."""

from __future__ import annotations

import re

import pytest

from tests.bad_inputs import CASES, contents
from tests.cli.test_main import BAD, OTHERS, one_line, run


def test_the_corpus_has_two_hundred_cases():
    assert len(CASES) + len(BAD) + len(OTHERS) >= 200


@pytest.mark.filterwarnings("default")  # what a decoder warns of is not what this test is about
@pytest.mark.parametrize("name", CASES)
def test_a_bad_input_is_one_line_and_changes_nothing(name, tmp_path, monkeypatch, capsys):
    make, said = CASES[name]
    monkeypatch.chdir(tmp_path)
    arguments = make(tmp_path)
    before = contents(tmp_path)
    capsys.readouterr()
    code = run(*arguments)
    error = capsys.readouterr().err
    assert code == 2, error
    line = one_line(error)
    assert re.search(said, line), line
    assert not set(line) & set(map(chr, range(32)))
    assert len(line) < 1000
    assert contents(tmp_path) == before
