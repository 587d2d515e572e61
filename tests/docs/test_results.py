"""The tables of the documentation come from the CSV files in docs/results."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
from tools import results_pages

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FILES = sorted((DOCS / "results").glob("*.csv"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_table_is_what_its_file_gives(page):
    text = page.read_text()
    assert text.count("<!-- table ") == len(results_pages.MARK.findall(text)), "a table has no end mark"
    assert results_pages.render(text) == text, "run python tools/results_pages.py"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_file_is_well_formed_and_in_a_page(file):
    with file.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    assert rows
    assert all(header)
    assert len(set(header)) == len(header)
    assert {len(row) for row in rows} == {len(header)}
    assert any(f"{file.name})" in text or f"<!-- table {file.name}" in text for text in map(Path.read_text, PAGES))


def test_documentation_stays_short():
    assert sum(len(page.read_text().splitlines()) for page in PAGES) <= 2500


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "t.csv").write_text('set,eps,PGD\n"chest, 64 px",1/255,4 %\n"chest, 64 px",2/255,0 %\nskin,1/255,9 %\n')
    return tmp_path


def page(spec: str, body: str = "") -> str:
    return f"before\n<!-- table {spec} -->\n{body}<!-- end -->\nafter\n"


@pytest.mark.parametrize(
    ("spec", "table"),
    [
        ("t.csv; where set = skin", "| eps | PGD |\n| --- | --- |\n| 1/255 | 9 % |\n"),
        ("t.csv; where eps = 2/255; columns set", "| set |\n| --- |\n| chest, 64 px |\n"),
        (
            "t.csv; where eps = 1/255; where set = chest, 64 px | skin",
            "| set | PGD |\n| --- | --- |\n| chest, 64 px | 4 % |\n| skin | 9 % |\n",
        ),
    ],
)
def test_rows_and_columns_are_chosen(folder, spec, table):
    written = results_pages.render(page(spec), folder)
    assert written == page(spec, table)
    assert results_pages.render(written, folder) == written
    assert results_pages.render(page(spec, table.replace("|", "!")), folder) == written, "a table edited by hand stays"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("t.csv; columns CW", "no column CW"),
        ("t.csv; where norm = L2", "no column norm"),
        ("t.csv; where set = fundus", "no row has set = fundus"),
        ("t.csv; sorted by eps", "begins with"),
    ],
)
def test_what_a_file_does_not_hold_is_refused(folder, spec, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        results_pages.render(page(spec), folder)
