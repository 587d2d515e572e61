"""No sentence contradicts its numbers: what is claimed of generated findings holds in their rows.

Each claim is checked by a rule written here once more from the rows, not by the code that makes the sentence.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medrobust import guessing, ranks, stats
from medrobust.report import (
    black_box_words,
    change_words,
    corruption_words,
    detection_words,
    findings,
    noise_words,
    plain,
    search_words,
    tables,
    universal_words,
    why_words,
)
from medrobust.report.comparison import Share, frequency, in_words, numbers
from medrobust.report.paragraph import Paragraph
from medrobust.report.run import Run
from medrobust.report.schema import Conditions
from medrobust.report.words import bounds, percent, with_interval
from medrobust.results import Check, Kind, Row, Rows

EXAMPLES = int(os.environ.get("MEDROBUST_EXAMPLES", "100"))
"""Generated findings a sentence; some thousands in all. MEDROBUST_EXAMPLES=2000 looks longer."""
hundreds = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
more_of_them = settings(hundreds, max_examples=2 * EXAMPLES)
SIZES = st.one_of(st.integers(1, 3), st.integers(1, 60), st.integers(50, 400))


@st.composite
def shares(draw: st.DrawFn) -> Share:
    """From 1 image to hundreds; sometimes all or none of them, without an interval, or inconclusive."""
    n = draw(SIZES)
    hits = draw(st.one_of(st.integers(0, n), st.sampled_from([0, n])))
    e = stats.proportion(np.arange(n) < hits)
    share = Share(e.value, e.low, e.high, n, draw(st.integers(0, 9)) > 0)
    return replace(share, low=None, high=None) if draw(st.integers(0, 19)) == 0 else share


maybe = st.one_of(st.none(), shares())


def more(a: Share, b: Share | None) -> bool:
    """The interval of a lies above that of b."""
    return b is not None and a.low is not None and b.high is not None and a.low > b.high


# -- one sentence ------------------------------------------------------------------------------------------


@given(shares())
@hundreds
def test_what_is_said_of_a_share_is_its_count_its_interval_and_its_n(share: Share) -> None:
    text = in_words(share).replace("\xa0", " ")
    assert f"n = {share.n}" in text
    assert f"{100 * share.value:.1f} %" in text
    if share.low is not None and share.high is not None:
        assert f"({100 * share.low:.1f}–{100 * share.high:.1f})" in text
    if " of 100 " in text and share.n != 100:
        assert share.n >= 50
    if share.n < 50:
        assert text.startswith(f"{share.hits or 'none'} of {share.n} images")
    elif share.value in (0, 1):
        assert text.startswith(f"all {share.n} images" if share.value else f"none of {share.n} images")


def test_one_of_two_is_no_natural_frequency() -> None:
    e = stats.proportion([True, False])
    assert frequency(Share(e.value, e.low, e.high, e.n)) == "1 of 2 images"
    assert Share.of(Row("clean", "m", None)) is None
    assert Share.of(Row("clean", "m", float("nan"), n=5)) is None


@given(shares(), maybe, maybe, maybe)
@hundreds
def test_one_change_for_all_is_to_blame_only_where_it_beats_random_changes(rate, control, before, after) -> None:
    text = universal_words.fooling(universal_words.Fooling(rate, control, before, after))
    assert ("does the harm" in text) == more(rate, control)
    assert ("not shown to be more than random changes" in text) == (
        control is not None and not more(rate, control) and not more(control, rate)
    )
    assert numbers(rate) in text
    assert control is None or numbers(control) in text


@given(shares(), maybe, st.booleans())
@hundreds
def test_a_change_towards_a_class_is_credited_only_where_it_beats_random_changes(success, control, hides) -> None:
    text = universal_words.towards(universal_words.Towards("benign", success, control, hides))
    assert ("disease that is missed" in text) == (hides and more(success, control))
    assert numbers(success) in text
    if control is None:
        assert "no random change was measured" in text
    else:
        assert numbers(control) in text
        assert more(success, control) or "andom changes do" in text


def test_84_of_100_beside_85_9_per_cent_is_not_shown_to_be_more_than_random_changes() -> None:
    made, chance = (stats.proportion(np.arange(n) < k) for n, k in ((100, 84), (85, 73)))
    text = universal_words.towards(
        universal_words.Towards("benign", Share(*made[:3], made.n), Share(*chance[:3], chance.n), True)
    )
    assert "turns 84 of 100 (84.0" in text
    assert "That is not shown to be more than random changes do." in text
    assert "missed" not in text


@given(shares(), shares(), maybe)
@hundreds
def test_saving_is_judged_only_where_there_was_an_effect(rate, saved, control) -> None:
    text = universal_words.after_saving(rate, saved, control, "8")
    assert bool(text) == more(rate, control)
    assert ("saving is no cure" in text) <= more(saved, control)
    assert ("undoes" in text) <= more(rate, saved)


@given(shares(), maybe, shares(), shares())
@hundreds
def test_a_detector_is_no_protection_only_if_it_sees_plain_attacks(rate, alarms, before, knowing) -> None:
    seen = detection_words.DetectionRate(rate, alarms)
    text = detection_words.seen(seen)
    assert ("So it sees the plain attack" in text) == (rate.ok and more(rate, alarms))
    assert numbers(rate) in text
    assert alarms is None or numbers(alarms) in text
    text = detection_words.evaded(detection_words.EvasionRates(seen, before, knowing), "PGD")
    assert numbers(before) in text
    assert numbers(knowing) in text
    if "no protection" in text:
        assert more(rate, alarms)
        assert knowing.ok
        assert knowing.low is not None
        assert knowing.low > 0.5


@given(shares(), shares(), maybe, maybe)
@hundreds
def test_it_looks_at_the_lesion_only_where_most_maps_are_shown_to(before, area, after, pixels) -> None:
    text = why_words.lesion(why_words.Lesion(before, area, after, pixels))
    looks = before.low is not None and before.low > 0.5 and before.low > area.value
    assert ("So it looks at the lesion" in text) == looks
    assert f"{before.hits} of {before.n} images" in text
    assert numbers(before) in text


def test_five_maps_in_22_do_not_look_at_the_lesion() -> None:
    found, area = stats.proportion(np.arange(22) < 5), Share(0.03, 0.02, 0.05, 22)
    text = why_words.lesion(why_words.Lesion(Share(*found[:3], found.n), area))
    assert "not shown to be most of the images" in text
    assert "So it looks" not in text


@given(shares(), shares(), shares())
@hundreds
def test_reasons_are_told_by_their_intervals(a: Share, b: Share, c: Share) -> None:
    assert ("steep in a few directions" in why_words.steep(a, b)) == more(a, b)
    text = why_words.enough(why_words.LinearEstimate(a, b, c, c))
    assert ("most of what decides" in text) == (c.low is not None and c.low**2 > 0.5)
    assert ("not shown to be less" in why_words.moved(a, b, "1")) == (not more(a, b) and not more(b, a))


@given(shares(), maybe, maybe)
@hundreds
def test_a_secret_model_is_called_unprotected_only_where_queries_beat_random_changes(queries, white, random) -> None:
    told = black_box_words.FromOutside(queries, white, random)
    text = black_box_words.meaning(told)
    if "no protection" in text or "dearer" in text or "much harder" in text or "are enough" in text:
        assert queries.ok
        assert more(queries, random)
    assert ("dearer" in text) <= (white is not None and more(white, queries))
    for control in (white, random):
        assert control is None or numbers(control) in black_box_words.compared(told)


@given(shares(), shares(), shares())
@hundreds
def test_noise_and_attack_are_told_apart_by_their_intervals(before: Share, attack: Share, noise: Share) -> None:
    told = noise_words.BesideNoise(before, attack, noise)
    text, _ = noise_words.against_noise(told, "1 grey level")
    assert f"before it was {numbers(before)}; under" in text
    assert more(before, noise) or "Noise alone does harm" not in text
    if "its aim" in text or "aim of the change" in text or "much of the harm" in text:
        assert more(noise, attack)
    assert ("Noise does more harm" in text) == more(attack, noise)
    assert numbers(noise) in text
    assert numbers(attack) in text
    short = noise_words.beside(told)
    assert percent(noise.value) in short
    assert ("not shown to be more" in short) == (not more(noise, attack) and not more(attack, noise))


# -- a search ----------------------------------------------------------------------------------------------


@given(shares(), shares(), maybe, st.integers(1, 21), st.integers(1, 5))
@hundreds
def test_corruption_and_attack_are_told_apart_by_their_intervals(before, worst, attack, count, severity) -> None:
    record = corruption_words.BesideCorruptions(before, "low dose", worst, count, severity, attack)
    text, warn = corruption_words.beside_attack(record, "1 grey level")
    assert numbers(worst) in text
    assert f"before it was {numbers(before)}." in text
    if not worst.ok:
        assert warn
        assert text.endswith("inconclusive.")
        return
    assert attack is None or numbers(attack) in text
    believed = attack is not None and attack.ok
    assert ("attack does more harm" in text) == (believed and more(worst, attack))
    assert ("more harm than the attack" in text) == (believed and more(attack, worst))
    harms = more(before, worst)
    assert ("not shown to do harm" in text) == (not harms)
    assert ("inconclusive" in text) == (attack is not None and not believed)
    assert warn or not (harms and attack is None)


@given(shares(), st.dictionaries(st.sampled_from(["random", "noise patch", "bright patch"]), shares(), max_size=2))
@hundreds
def test_a_change_is_more_than_chance_only_where_its_interval_lies_above_that_of_every_control(
    turned, controls
) -> None:
    text = change_words.beside_controls(change_words.BesideControls("turned by up to 15 degrees", turned, controls))
    assert text.startswith("Turned by up to 15 degrees: ")
    assert numbers(turned) in text
    assert all(with_interval(one) in text for one in controls.values())
    if not turned.ok:
        assert text.endswith("Inconclusive.")
        return
    assert ("does more than chance." in text) == (bool(controls) and all(more(turned, c) for c in controls.values()))
    assert ("it failed" in text) == any(more(control, turned) for control in controls.values())


@st.composite
def comparisons(draw: st.DrawFn) -> search_words.Compared:
    names = [f"m{i}" for i in range(draw(st.integers(0, 6)))]
    side = {n: draw(st.sampled_from(["better", "worse", "same"])) for n in names}
    by = {s: [n for n in names if side[n] == s] for s in ("better", "worse", "same")}
    least = draw(st.one_of(st.none(), st.floats(0.001, 0.6)))
    return search_words.Compared(*by.values(), least, draw(st.sampled_from(["", "", "no better than guessing: 34 %"])))


@given(comparisons())
@more_of_them
def test_a_search_is_not_confirmed_only_where_an_advantage_would_have_been_found(told: search_words.Compared) -> None:
    _, short = search_words.headline(told, "Adam")
    if not told.total:
        assert told.outcome is search_words.SearchVerdict.CANNOT_SAY
        return
    text = search_words.claimed(told, "such networks", "Adam", told.better, 300)
    outcomes = ("cannot say", "not confirmed", "confirmed for")
    assert sum(o in text for o in outcomes) == 1
    assert "does not hold" not in text + short
    if told.guesses:
        assert "cannot say" in text
        assert "Cannot say" in short
    elif "not confirmed" in text:
        assert not told.better
        assert not told.same or (told.detectable is not None and told.detectable <= search_words.RELEVANT)
    elif "confirmed for" in text:
        assert told.better
        assert f"{len(told.better)} of {told.total}" in text
        assert short.startswith(f"{len(told.better)} of {told.total}")
    assert ("beat" in short and short.startswith("No ")) <= ("not confirmed" in text)


def test_the_detectable_difference_is_detected_at_its_power() -> None:
    """Simulated: independent splits, share 0: the corrected test is Student's."""
    rng, n, spread = np.random.default_rng(0), 12, 0.03
    found = [ranks.corrected_t(rng.normal(0, spread, n), 0.0) for _ in range(200)]
    least = float(np.mean([ranks.detectable(low, high, n) for _, low, high, _ in found]))
    hits = [ranks.corrected_t(rng.normal(least, spread, n), 0.0)[3] < 0.05 for _ in range(2000)]
    assert 0.75 < np.mean(hits) < 0.88
    assert ranks.detectable(-0.1, 0.1, n, 10) > ranks.detectable(-0.1, 0.1, n)
    assert np.isnan(ranks.detectable(np.nan, np.nan, n))
    assert np.isnan(ranks.detectable(0.0, 0.0, 1))


# -- guessing ----------------------------------------------------------------------------------------------


def test_a_network_at_chance_is_no_better_than_guessing_and_one_that_is_better_is() -> None:
    labels = np.arange(100) % 2
    assert "no better than guessing: balanced accuracy 50.0%" in guessing.of(labels == 0, labels).text
    assert guessing.of(np.ones(100, bool), labels).text == ""
    # 97 of 100 right, because 97 are of one class: an answer that never changes
    rare = np.arange(100) < 3
    assert guessing.of(~rare, rare.astype(int)).no_better
    assert "all test images are of one class" in guessing.of(np.ones(9, bool), np.zeros(9, int)).text
    assert guessing.of(np.ones(0, bool), np.zeros(0, int)).no_better


# -- a whole first page ------------------------------------------------------------------------------------

GRID = [e / 255 for e in (0.3, 1.0, 4.0)]


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """Rows of two attacks and a control that need not agree with each other, with few or many images."""
    n, test = draw(SIZES), draw(SIZES)
    classes = draw(st.sampled_from([["normal", "pneumonia"], ["normal", "benign", "malignant"], ["a", "b"]]))
    rows = Rows()

    def add(attack: str, eps: float, metric: str, of: int, status: str = "ok", **more: Any) -> None:
        hits = draw(st.integers(0, of))
        kind = {"none": Kind.CLEAN, "noise": Kind.CONTROL}.get(attack, Kind.ATTACK)
        share = stats.proportion(np.arange(of) < hits)
        rows.add(kind, metric, share, attack=attack, eps=eps, status=status, **more)

    for metric in ("accuracy", "balanced_accuracy"):
        add("none", 0.0, metric, test)
    for metric in ("sensitivity", "specificity"):
        for name in classes:
            add("none", 0.0, metric, test, class_name=name)
    rows.add(Kind.CLEAN, "guessing", stats.Estimate(1 / len(classes), np.nan, np.nan, test))
    attacks = draw(st.sampled_from([["pgd"], ["fgsm", "pgd"]]))
    for attack in [*attacks, *draw(st.sampled_from([[], ["noise"]]))]:
        status = draw(st.sampled_from(["ok", "ok", "ok", "inconclusive"]))
        for eps in GRID:
            add(attack, eps, "accuracy", n, status)
            for a in classes:
                for b in classes:
                    if a != b:
                        add(attack, eps, "flip", draw(st.integers(0, n)), status, class_name=a, target=b)
        if attack == "pgd" and draw(st.booleans()):
            for eps in GRID[1:]:
                add(attack, eps, "accuracy_full", min(n, 32), status)
                add(attack, eps, "accuracy_saved", min(n, 32), status, bits=8)
    passed = st.sampled_from([True, True, True, None, False])
    checks = [
        Check(name, attack, draw(passed), "", "if this fails, no")
        for name in ("gradients are not zero", "success grows with eps", "eps 0 equals clean")
        for attack in attacks
    ]
    sick = [i for i, c in enumerate(classes) if c in ("pneumonia", "malignant")]
    told: dict[str, Any] = {"classes": classes, "n_attacked": n, "n_test": test, "disease_classes": sick, "eps": GRID}
    names = {a: {"title": a.upper()} for a in attacks}
    return Run(conditions=Conditions(**told, data="d", model="m", attacks=names), rows=rows.rows, checks=checks)


CLAIMED = re.compile(r"(\d+\.\d) % \((\d+\.\d)–(\d+\.\d)\), n = (\d+)")


@pytest.mark.slow  # hundreds of generated runs
@given(runs())
@more_of_them
def test_a_first_page_says_what_its_rows_hold(run: Run) -> None:
    f = findings.find(run)
    page, sentences = plain.first_page(f), plain.sentences(f)
    parts = [page.title, page.text, *(p.text for p in sentences), *(f"{x.value} {x.note}" for x in page.facts)]
    parts += [a.text for a in page.advice]
    text = " ".join(parts).replace("\xa0", " ").replace("\u202f", " ")
    assert not re.search(r"\b(None|nan|inf)\b", text)
    assert not re.search(r"\brobust\b", text)
    # every number with its interval and its n is a row, or pooled from rows
    held = {(percent(r.value), bounds(r.low, r.high), r.n) for r in run.rows if r.value is not None}
    held |= _pooled(f)
    for value, low, high, n in CLAIMED.findall(text):
        assert (f"{value}\xa0%", f"({low}–{high})", int(n)) in held
    # natural frequencies only from many images
    if re.search(r"\bof 100 (test )?images\b", text):
        assert max(r.n for r in run.rows) >= 50
    # the sentences count the lines of the table
    lines = {(c.name, c.passed) for c in run.checks}
    good, every = sum(x[1] is True for x in lines), sum(x[1] is not None for x in lines)
    assert f"{good} of {every} sanity checks passed" in text
    assert any(x.value == f"{good} of {every}" for x in page.facts)
    silent = len(lines) - every
    assert (f"{silent} more could not have failed here and were not asked" in text) == (silent > 0)
    _verdict_holds(f, page, sentences, text)


def _pooled(f: findings.Findings) -> set[tuple[str, str, int | None]]:
    sides = ((f.disease, f.normal), (f.normal, f.disease)) if f.directed else ()
    rows = [
        f.turned(a, b, attack, f.reference)
        for a, b in sides
        for attack in [*f.run.attacks, *f.run.controls]
        if f.reference is not None
    ]
    return {(percent(r.value), bounds(r.low, r.high), r.n) for r in rows if r is not None and r.value is not None}


def _verdict_holds(f: findings.Findings, page: plain.FirstPage, sentences: list[Paragraph], text: str) -> None:
    clean = f.clean
    assert clean is not None
    balanced = f.run.find(Kind.CLEAN, "balanced_accuracy")
    assert balanced is not None
    guesses = (balanced.low or 0.0) <= f.guess
    assert ("no better than guessing" in text or "do better than guessing" in page.title) == guesses
    if guesses:
        assert "is fooled" not in text
        assert "What was tested" in [p.title for p in sentences]
        assert "Missed disease" not in [p.title for p in sentences]
        return
    accuracies = [r for a in f.run.attacks for r in f.run.curve(a) if r.value is not None]
    lowest = min(accuracies, key=lambda r: r.value or 0.0)
    if "fooled" in page.title and "Inconclusive" not in page.title:
        assert (lowest.value or 0.0) <= clean.value / 2
    if "No attack tried here had a marked effect" in page.title:
        assert all(
            clean.value - r.value < findings.NOTICED for a in f.believed for r in f.run.curve(a) if r.value is not None
        )
        shown = [r for r in f.run.curve(f.strongest or "") if r.low is not None]
        assert all(clean.value - (r.low or 0.0) <= 0.25 for r in shown if r.value == min(s.value or 0.0 for s in shown))
    # one size on the whole first page: what compares is measured at the reference
    reference = f.reference
    if reference is not None and f.strongest is not None:
        noise = f.run.at("noise", "accuracy", reference)
        attack = f.run.at(f.strongest, "accuracy", reference)
        paragraph = next(p.text for p in sentences if p.title == "Compared with random noise")
        if noise is not None and attack is not None and "its aim" in paragraph:
            assert attack.high is not None
            assert noise.low is not None
            assert attack.high < noise.low


@given(runs())
@hundreds
def test_the_table_of_directions_holds_the_control(run: Run) -> None:
    table = tables.flips(findings.find(run))
    if table is not None and any(r.attack == "noise" for r in run.rows):
        assert "Random noise (±ε)" in [c.text for c in table.head]
        assert "controls" in table.caption
