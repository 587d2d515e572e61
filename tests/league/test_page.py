"""The page of a league table: every row, nothing from elsewhere, and a script that sorts and filters."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from medrobust.league import adding, page, reading, table
from tests.commands import run
from tests.league.runs import PROVENANCE, audit

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def league(tmp_path_factory: pytest.TempPathFactory) -> table.League:
    """Three entries on two image sets, one of them inconclusive."""
    folder = tmp_path_factory.mktemp("league")
    made = table.League()
    trained = {"method": {"title": "TRADES"}, "training": {"epochs": 2}}
    hardened = {"provenance": {**PROVENANCE, "further": [trained]}}
    large = {"size": 64, "data_digest": "77aa" * 16, "eps": tuple(g / 255 for g in (0.5, 1, 2, 4))}
    runs = [
        (audit(folder / "plain", command="medrobust audit --data <scans>"), None),
        (audit(folder / "hardened", model="66bb", median=9.0, **hardened), None),
        (audit(folder / "large", **large, model_doubts=["in <doubt>"]), "large scans"),
    ]
    for where, name in runs:
        made = adding.add(made, reading.read(where, None, reading.Stated(name=name)), where).league
    first, *rest = made.entries
    doubted = [a.model_copy(update={"inconclusive": "no better than guessing"}) for a in first.accuracy[1:]]
    first = first.model_copy(update={"accuracy": (first.accuracy[0], *doubted)})
    return made.model_copy(update={"entries": (first, *rest)})


@pytest.fixture(scope="module")
def html(league: table.League) -> str:
    return page.html(league)


def body(html: str) -> list[str]:
    """Rows of the league's table."""
    text = html.partition('<table class="league">')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    return re.findall(r"<tr.*?</tr>", text, re.DOTALL)


def test_every_entry_is_a_row_with_all_it_needs(league, html):
    rows = body(html)
    assert len(rows) == len(league.entries) == 3
    for entry in league.ordered():
        (row,) = (r for r in rows if entry.model in r and f">{entry.image_set}<" in r)
        text = unescape(row)
        for wanted in (entry.architecture, entry.training, entry.results, entry.run, *entry.commands, *entry.notes):
            assert wanted in text
        for a in entry.accuracy:
            assert f"{100 * a.value:.1f} <span>{100 * a.low:.0f} to {100 * a.high:.0f}</span>" in row
        assert ("inconclusive" in row) == bool(entry.inconclusive)
    heads = re.findall(r"<th[^>]*>([^<]+)</th>", html.partition('<table class="league">')[2].partition("</thead>")[0])
    assert heads[3:9] == ["No attack", "0.5/255", "1/255", "2/255", "4/255", "8/255"]
    assert all(row.count("<td") == len(heads) for row in rows)


def test_rows_stand_by_set_and_falling_accuracy(league):
    ordered = [(e.image_set, e.training) for e in league.ordered()]
    assert ordered == [("scans", "TRADES"), ("scans", "plain"), ("large scans", "plain")]


def test_nothing_comes_from_elsewhere_and_data_is_escaped(html):
    assert "//" not in re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL).replace("<!DOCTYPE", "")
    assert not re.findall(r'\b(?:src|href)="', html)
    assert "<scans>" not in html
    assert "<doubt>" not in html


def test_the_command_writes_it_once_and_over_nothing_else(league, tmp_path, capsys):
    table.write(tmp_path / "league.json", league)
    out = tmp_path / "league.html"
    for _ in range(2):
        assert run("league", "page", tmp_path / "league.json", out) == 0
        assert out.read_text() == page.html(league)
    out.write_text("<html>mine</html>")
    assert run("league", "page", tmp_path / "league.json", out) == 2
    assert "is not overwritten" in capsys.readouterr().err
    table.write(tmp_path / "empty.json", table.League())
    assert run("league", "page", tmp_path / "empty.json", tmp_path / "empty.html") == 2
    assert run("league", "page", tmp_path / "league.json", tmp_path / "league.pdf") == 2


STEPS = """
const shown = () => rows_().filter((row) => !row.hidden);
const order = () => shown().map((row) => row.cells[2].dataset.sort + " " + row.cells[9].dataset.sort);
const rows_ = () => [...document.querySelector("table.league").tBodies[0].rows];
const head = (column) => document.querySelector("table.league").tHead.rows[0].cells[column];
const said = [];
const say = () => said.push(order().join(", ") + " | " + document.getElementById("count").textContent);
say();
head(2).querySelector("button").click();
say();
head(2).querySelector("button").click();
say();
head(6).querySelector("button").click();
const byAccuracy = rows_().map((row) => Number(row.cells[6].dataset.sort));
said.push(String(byAccuracy.every((value, i) => i === 0 || byAccuracy[i - 1] >= value)));
const input = (element, value) => {
  element[element.type === "checkbox" ? "checked" : "value"] = value;
  element.dispatchEvent(new Event("input", { bubbles: true }));
};
input(document.querySelector("[data-column='2']"), "TRADES");
say();
input(document.querySelector("[data-column='2']"), "");
input(document.querySelector("[data-believed]"), true);
say();
input(document.querySelector("[data-search]"), "no such words");
say();
document.title = JSON.stringify(said);
"""


@pytest.mark.slow  # starts a browser: 2 s and more
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_script_sorts_and_filters(html, tmp_path):
    file: Path = tmp_path / "page.html"
    file.write_text(html.replace("</body>", f"<script>{STEPS}</script></body>"))
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", profile, "--dump-dom", file.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    title = unescape(re.findall(r"<title>(.*?)</title>", dom, re.DOTALL)[0])
    start, rising, falling, sorted_, chosen, believed, nothing = re.findall(r'"((?:[^"\\]|\\.)*)"', title)
    assert start.endswith("| 3 of 3 rows.")
    assert [part.split()[0] for part in rising.partition(" |")[0].split(", ")] == ["plain", "plain", "TRADES"]
    assert [part.split()[0] for part in falling.partition(" |")[0].split(", ")] == ["TRADES", "plain", "plain"]
    assert sorted_ == "true"
    assert chosen.startswith("TRADES ")
    assert chosen.endswith("| 1 of 3 rows.")
    assert believed.endswith("| 2 of 3 rows.")
    assert nothing == " | 0 of 3 rows."
    assert 'aria-sort="descending"' in dom
