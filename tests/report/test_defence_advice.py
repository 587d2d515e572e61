"""Which defence is recommended, and what is said of it: held to generated numbers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medrobust import stats
from medrobust.report.comparison import Relation, Share, relation
from medrobust.report.defence_advice_words import Candidate, Costs, chosen, front, per_thousand, recommended
from medrobust.report.input_defence_words import Defended, Worth, sentence, worth
from tests.report.test_conclusions import hundreds


def share(hits: int, n: int = 200, *, ok: bool = True) -> Share:
    e = stats.proportion(np.arange(n) < hits)
    return Share(e.value, e.low, e.high, n, ok)


HITS = st.integers(0, 200).map(share)


@st.composite
def candidates(draw: st.DrawFn) -> list[Candidate]:
    alone = draw(HITS)
    every = [Candidate("none", "No defence", draw(HITS), alone)]
    for i in range(draw(st.integers(1, 5))):
        aware = draw(st.builds(share, st.integers(0, 200), ok=st.sampled_from([True, True, False])))
        judged = Defended(f"defence {i}", alone, draw(HITS), aware, "2/255", draw(HITS), draw(HITS))
        every.append(Candidate(f"d{i}", judged.title, draw(HITS), aware, judged, Costs(draw(HITS))))
    return every


@hundreds
@given(candidates())
def test_what_is_recommended_holds_against_who_knows_it(every):
    advice, alone = recommended(every), every[0]
    holding = [c for c in every[1:] if c.robust.ok and relation(c.robust, alone.robust) is Relation.ABOVE]
    assert (advice.take is None) == (not holding)
    seeming = [c for c in every[1:] if worth(c.judged) is Worth.SEEMS]
    assert ("ooks safe, is not" in advice.text) == (len(seeming) == 1)
    for one in seeming:
        assert one.title in advice.text.partition("afe, ")[2]
    if advice.take is None:
        assert "none is shown to hold" in advice.text
        assert advice.tone in ("bad", "warn")
        return
    take = next(c for c in holding if c.name == advice.take)
    assert all(relation(c.robust, take.robust) is not Relation.ABOVE for c in holding)
    assert ("only" in advice.text) == (len(holding) == 1)
    assert advice.title.startswith(take.title)
    assert f"{100 * take.robust.value:.1f}" in advice.text


@hundreds
@given(candidates())
def test_the_front_is_what_nothing_beats(every):
    best = set(front(every))
    for one in every:
        better = [
            o
            for o in every
            if o.clean.value >= one.clean.value
            and o.robust.value >= one.robust.value
            and (o.clean.value, o.robust.value) != (one.clean.value, one.robust.value)
        ]
        assert (one.name in best) == (one.robust.ok and not better)


@hundreds
@given(candidates())
def test_a_sentence_says_what_its_numbers_say(every):
    for one in every[1:]:
        text, judged = sentence(one.judged), worth(one.judged)
        assert judged.value in text
        assert f"{100 * one.judged.aware.value:.1f}" in text
        if judged is Worth.SEEMS:
            assert relation(one.judged.aware, one.judged.alone) is not Relation.ABOVE


def test_of_equally_robust_ones_the_cheapest_is_taken():
    alone, judged = share(10), Defended("", share(10), share(180), share(120), "2/255")
    dear, cheap = (Candidate(n, n, share(c), share(r), judged) for n, c, r in (("a", 140, 122), ("b", 180, 120)))
    weak = Candidate("c", "c", share(190), share(60), judged._replace(aware=share(60)))
    every = [Candidate("none", "No defence", share(190), alone), dear, cheap, weak]
    assert chosen(every).name == "b"
    text = recommended(every).text
    assert "3 hold, and b is recommended" in text
    assert "a and c hold too" in text


def test_a_transfer_alone_shows_what_looks_safe():
    one = Defended("JPEG", share(10), share(12), share(11), "2/255", share(180), share(90))
    assert worth(one) is Worth.SEEMS
    assert worth(one._replace(transferred=None)) is Worth.NOT


def test_referrals_are_of_a_thousand():
    assert per_thousand(share(10)) == "50 (27–90) of 1,000\u00a0studies"
