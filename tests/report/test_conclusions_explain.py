"""Sentences of explanations hold what their numbers hold: value, interval, n, direction, control; so do captions."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medrobust import stats
from medrobust.report import explanation, explanation_tables
from medrobust.report import explanation_words as words
from medrobust.report.comparison import Share
from medrobust.report.explained import Explained
from medrobust.report.schema import ExplainedInfo
from medrobust.results import Kind, Row, Rows
from tests.report.test_conclusions import SIZES, hundreds, more_of_them

NUMBER = r"[−\d.,e\-\u202f\u00a0]+"
TOLD = re.compile(rf"({NUMBER}?)(?:\u00a0%)? \((?:({NUMBER}) ?(?:–|to) ?({NUMBER})|no interval)\)")


@st.composite
def medians(draw: st.DrawFn, n: int | None = None, share: bool = False) -> Share:
    """Of positive numbers of any size, or of shares; without an interval of fewer than 6 images."""
    n = draw(SIZES) if n is None else n
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    values = rng.uniform(0, 1, n) if share else 10 ** draw(st.floats(-5, 4)) * rng.lognormal(0, 1, n)
    e = stats.median(values)
    low, high = (None if np.isnan(v) else float(v) for v in e[1:3])
    return Share(float(e.value), low, high, n)


@st.composite
def pairs(draw: st.DrawFn) -> Share:
    """A share of pairs, as ``stats.auroc`` gives it."""
    n, m = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    scores = np.concatenate([rng.normal(0, 1, m), rng.normal(draw(st.floats(-2, 2)), 1, n)])
    e = stats.auroc(scores, np.arange(n + m) >= m)
    low, high = (None if np.isnan(v) else float(v) for v in e[1:3])
    return Share(float(e.value), low, high, n)


def claimed(text: str) -> list[tuple[str, ...]]:
    return [found.groups("") for found in TOLD.finditer(text)]


def expected(share: Share, percent: bool = False) -> tuple[str, ...]:
    scale = 100 if percent else 1
    ends = ("", "")
    if share.low is not None and share.high is not None:
        ends = (explanation_tables.signed(scale * share.low), explanation_tables.signed(scale * share.high))
    return (explanation_tables.signed(scale * share.value), *ends)


def holds(text: str, *numbers: tuple[Share, bool]) -> None:
    """These numbers stand in the text, in this order, and no other; nothing has an interval that does not exist."""
    assert claimed(text) == [expected(share, percent) for share, percent in numbers], text
    assert text.count("no interval") == sum(share.low is None for share, _ in numbers)
    assert not re.search(r"\b(None|nan|inf)\b", text)


@given(st.data())
@hundreds
def test_sentences_of_one_classifier_hold_their_numbers(data) -> None:
    slope, half, rank = data.draw(medians()), data.draw(medians(share=True)), data.draw(medians())
    text = words.steep(slope, None)
    holds(text, (slope, False))
    assert f"(median of {slope.n}\u00a0image" in text
    n = data.draw(SIZES)
    walk = words.Walk(*(data.draw(medians(n)) for _ in range(3)))
    text = words.steep(slope, walk)
    holds(text, (slope, False), (walk.clean, False), (walk.rise, False), (walk.random, False))
    assert f"(n\u00a0=\u00a0{n})" in text
    text = words.wide(half)
    holds(text, (half, True))
    assert f"(median of {half.n}\u00a0image" in text
    share = data.draw(medians(rank.n, share=True))
    text = words.simple("layer3", rank, share)
    holds(text, (rank, False), (share, True))
    assert f"(n\u00a0=\u00a0{rank.n})" in text


@given(st.data())
@hundreds
def test_what_an_attack_moves_is_told_beside_its_control_or_that_there_is_none(data) -> None:
    n = data.draw(SIZES)
    reached = data.draw(st.integers(0, n))
    shift = data.draw(medians(data.draw(st.integers(1, reached)), share=True)) if reached else None
    asked = data.draw(st.one_of(st.none(), medians(share=True))) if shift else None
    noise = data.draw(st.one_of(st.none(), medians(share=True))) if shift else None
    text = words.moved(words.Moved("PGD of 1 grey level", reached, n, shift, asked, noise))
    holds(text, *((s, True) for s in (shift, asked, noise) if s is not None))
    assert ("Noise of the same size" in text) == (noise is not None)
    assert text.startswith(f"PGD of 1 grey level turned {reached} of {n}\u00a0image")
    assert (shift is None) == ("diagonal" not in text)
    if shift is not None:
        assert f"diagonal (n\u00a0=\u00a0{shift.n})" in text
        assert ("was not measured" in text) == (asked is None)
    if asked is not None:
        assert f"(n\u00a0=\u00a0{asked.n})." in text
    before, area = data.draw(medians(share=True)), data.draw(medians(share=True))
    change = data.draw(st.one_of(st.none(), medians(share=True)))
    text = words.in_lesion(words.InLesion(before, area, change))
    holds(text, *((s, True) for s in (before, area, change) if s is not None))
    assert ("changed" in text) == (change is not None)


@pytest.mark.slow  # hundreds of generated runs
@given(st.lists(pairs(), max_size=3))
@more_of_them
def test_one_classifier_is_steeper_than_another_only_where_its_pairs_say_so(found: list[Share]) -> None:
    told = [words.Beside(f"ResNet{i}", larger, 7) for i, larger in enumerate(found)]
    text = words.beside(told, "steeper")
    holds(text, *((larger, True) for larger in found))
    assert bool(text) == bool(found)
    for other in told:
        larger = other.larger
        (part,) = re.findall(rf"[Bb]eside {other.name}: ([^(]*) \(", text)
        above = larger.low is not None and larger.low > 0.5
        below = larger.high is not None and larger.high < 0.5
        assert part == ("steeper" if above else "not steeper, on the contrary" if below else "no clear difference")
        assert not (above and larger.value <= 0.5)


@given(st.lists(SIZES, min_size=1, max_size=3), st.integers(1, 6), st.integers(1, 3), st.booleans())
@hundreds
def test_captions_promise_no_interval_and_no_class_that_is_not_there(sizes, shown, classes, lesion) -> None:
    text = words.medians(sizes)
    assert ("with its 95 % interval" in text) == (max(sizes) >= 6)
    assert ("none" in text) == (min(sizes) < 6)
    text = words.gallery(words.Gallery("a", "1 grey level", shown, 10, classes, lesion))
    assert ("every class in turn" in text) == (classes > 1)
    assert ("lesion" in text) == lesion
    assert f"{shown} of n\u00a0=\u00a010 images" in text
    text = words.embedded("a", 10, shown, "1 grey level")
    assert f"turned (n\u00a0=\u00a0{shown})" in text


# -- a whole page ------------------------------------------------------------------------------------------


def a_run(name: str, rng: np.random.Generator) -> Explained:
    """Rows of one classifier, some of them missing or empty."""
    n = int(rng.choice([1, 2, 5, 6, 7, 30, 200]))
    reached = int(rng.integers(0, n + 1))
    rows = Rows()

    def add(metric: str, of: int, share: bool = False, when: str = "clean", **columns: object) -> None:
        kind = rng.choice(["ok", "empty", "missing"], p=[0.8, 0.1, 0.1])
        values = rng.uniform(0, 1, of) if share else 10 ** rng.uniform(-5, 4) * rng.lognormal(0, 1, of)
        e = stats.median(values) if kind == "ok" else stats.NOTHING
        if kind != "missing":
            rows.add(Kind.EXPLANATION, metric, e, when=when, **columns)

    for metric in ("slope-l1", "effective-rank"):
        add(metric, n)
    for metric in ("saliency-half", "relative-rank"):
        add(metric, n, share=True)
    add("loss", n, at=0.0)
    for level in (1, 2, 4, 8):
        for along in ("gradient", "random"):
            add("loss", n, at=level / 255, direction=along)
    for metric in ("cam-shift", "cam-shift-asked"):
        add(metric, reached, share=True, when="change")
    add("cam-shift", n, share=True, when="noise")
    add("lesion-area", n, share=True)
    add("lesion-share", n, share=True, map="cam")
    add("lesion-share", reached, share=True, when="change", map="cam")
    measures = {m: {"title": m} for m in ("slope-l1", "saliency-half", "effective-rank", "relative-rank")}
    facts = {"n": n, "reached": reached, "eps": 1 / 255, "attack": "pgd", "attack_title": "PGD", "middle": "l"}
    return Explained(name, ExplainedInfo(**facts, measures=measures), rows.rows)


def shown_in(found: list[Explained], pairs: list[Row]) -> set[tuple[str, ...]]:
    """Every number with its interval that a table of the page holds."""
    made = [
        explanation_tables.measures(found, pairs),
        explanation_tables.cam(found),
        explanation_tables.lesion(found),
        explanation_tables.landscape(found),
    ]
    cells = [cell.text for table in made if table is not None for row in table.rows for cell in row]
    held = {number for text in cells for number in claimed(text)}
    # the table of measures has shares, the sentences the same in %
    for share in (Share.of(run.find(m)) for run in found for m in ("saliency-half", "relative-rank")):
        if share is not None and expected(share) in held:
            held.add(expected(share, percent=True))
    return held


@pytest.mark.slow  # draws a page for each example
@given(st.integers(0, 10**9), pairs())
@more_of_them
def test_a_page_says_what_its_tables_hold(seed: int, larger: Share) -> None:
    rng = np.random.default_rng(seed)
    found = [a_run(name, rng) for name in ("Net A", "Net B")]
    e = stats.Estimate(larger.value, *(np.nan if v is None else v for v in (larger.low, larger.high)), larger.n)
    compared = Rows()
    compared.add(Kind.EXPLANATION, "larger", e, measure="slope-l1", when="clean", than=1, n_other=9)
    text = " ".join(claim.text for claim in explanation.sentences(found, compared.rows))
    held = shown_in(found, compared.rows)
    # the change of what lies in the lesion has no column: it stands in results.csv
    change = Share.of(found[0].find("lesion-share", "change", map="cam"))
    for number in claimed(text):
        assert number in held or (change is not None and number == expected(change, True)), (number, text)
    assert not re.search(r"\b(None|nan|inf)\b", text)
    assert ("no interval" in text) <= any(r.n and r.low is None for r in [*found[0].rows, *compared.rows])
    if "Net B" in text:
        assert ("Net B: steeper" in text) == (larger.low is not None and larger.low > 0.5)
