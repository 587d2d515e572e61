"""The page for everybody: contrast, alternative texts, headings in order, heads of tables, charts in words."""

from __future__ import annotations

import html
import re
from importlib.resources import files
from itertools import pairwise

import pytest

from medrobust import report
from medrobust.report.column_words import COLUMNS, METRICS, column, metric
from tests import report_runs

LEAST = 4.5
"""Contrast of text, WCAG 2.2, success criterion 1.4.3."""
CSS = (files("medrobust.report") / "page.css").read_text("utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, drawing: set[str]) -> str:
    folder = report_runs.make(tmp_path_factory.mktemp("accessible") / "run", "audit")
    drawing.add("audit")
    text = report.write(folder).read_text("utf-8")
    drawing.clear()
    return text


def colours(dark: bool) -> dict[str, tuple[float, ...]]:
    """By variable, red, green and blue from 0 to 1."""
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.S)[: 2 if dark else 1]
    found = {name: code for block in blocks for name, code in re.findall(r"--(\w+): #([0-9a-f]{6})", block)}
    return {name: tuple(int(code[i : i + 2], 16) / 255 for i in (0, 2, 4)) for name, code in found.items()}


def contrast(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """WCAG's ratio of relative luminances, 1 to 21."""

    def luminance(colour: tuple[float, ...]) -> float:
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    bright, dim = sorted((luminance(a), luminance(b)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_what_is_behind_it(dark: bool) -> None:
    found = colours(dark)
    assert contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    for behind in ("paper", "panel"):
        for text in ("ink", "muted", "bad", "warn", "calm", "link"):
            assert contrast(found[text], found[behind]) >= LEAST, (text, behind, dark)
    full = [0.42 * a + 0.58 * b for a, b in zip(found["heat"], found["panel"], strict=True)]  # of a confusion matrix
    assert contrast(found["ink"], tuple(full)) >= LEAST


def test_every_image_has_an_alternative_and_every_head_a_scope(page: str) -> None:
    images, heads = re.findall(r"<img[^>]*>", page), re.findall(r"<th\b[^>]*>", page)
    assert images
    assert all(re.search(r'alt="[^"]{10,}"', image) for image in images)
    assert heads
    assert all(re.search(r'scope="(row|col)"', head) for head in heads)
    labels = re.findall(r'aria-labelledby="([^"]*)"', page)
    assert set(labels) <= set(re.findall(r'id="([^"]*)"', page))


def test_options_are_not_broken_and_what_marks_them_is_no_text(page: str) -> None:
    assert '<span class="option">--prevalence</span>' in page
    assert "&lt;span" not in page


def test_headings_leave_no_level_out(page: str) -> None:
    levels = [int(level) for level in re.findall(r"<h(\d)\b", page[page.index("<header>") :])]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(levels))


def test_a_chart_says_its_values_with_their_intervals(page: str) -> None:
    """Where the pointer is, and in the table that it belongs to."""
    curves = page[page.index('<section id="accuracy"') :]
    curves = curves[: curves.index("</section>")]
    said = [html.unescape(text) for text in re.findall(r"<title>(.*?)</title></rect>", curves, re.S)]
    assert len(said) == len(report_runs.GRID)
    line = next(text for text in said if text.startswith("ε = 1\n"))
    value, interval = re.search(r"PGD: (\S+\s%) (\([\d.–]+\)), n = 150", line).groups()
    assert f"<td>{value} <span>{interval}</span></td>" in curves
    readings = curves.index('<g class="readings" fill="none" pointer-events="all">')  # unseen, also without page.css
    curves = curves[readings:]
    edges = [(float(x), float(w)) for x, w in re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', curves)]
    assert all(x + w == pytest.approx(after, abs=0.11) for (x, w), (after, _) in pairwise(edges))


def test_heads_of_columns_are_words() -> None:
    for name in (*COLUMNS.values(), *METRICS.values(), column("never_seen"), metric("never_seen")):
        assert "_" not in name


def test_what_folds_away_is_all_there(page: str) -> None:
    assert page.count("<details>") == page.count("</details>") == page.count("<summary>")
    folded = re.findall(r'<section id="(\w+)" class="folded">\n<details>', page)
    assert {"checks", "conditions", "words"} <= set(folded)
    assert set(folded) <= set(re.findall(r'<li><a href="#(\w+)">', page))
    printed = re.search(r'<p class="printed">(.*?)</p>', page)
    assert printed is not None
    assert "Exact conditions" in printed[1]
