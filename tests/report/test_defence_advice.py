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
def test_what_is_recommended_is_shown_to_help_against_who_knows_it(every):
    advice, alone = recommended(every), every[0]
    above = [c for c in every[1:] if c.robust.ok and relation(c.robust, alone.robust) is Relation.ABOVE]
    helping = [c for c in above if not c.robust.high < 0.5]
    holding = [c for c in helping if worth(c.judged) is Worth.HOLDS]
    assert all(c.robust.low > 0.5 for c in holding)
    assert (advice.take is None) == (not helping)
    seeming = [c for c in every[1:] if worth(c.judged) is Worth.SEEMS]
    assert ("ooks safe, is not:" in advice.text) == (len(seeming) == 1)
    for one in seeming:
        assert one.robust.high < 0.5 or one not in above
        assert one.title in advice.text.partition("afe, ")[2]
    if advice.take is None:
        assert "none holds" in advice.text
        assert advice.tone in ("bad", "warn")
        return
    take = next(c for c in helping if c.name == advice.take)
    assert not holding or take in holding
    assert all(relation(c.robust, take.robust) is not Relation.ABOVE for c in holding or helping)
    assert ("only" in advice.text) == (len(holding) == 1)
    assert (advice.tone == "calm") == bool(holding)
    assert advice.title.startswith(take.title)
    assert f"{100 * take.robust.value:.1f}" in advice.text


@hundreds
@given(candidates())
def test_what_is_worth_less_than_it_looks_is_not_said_to_hold(every):
    for one in every[1:]:
        test, judged = one.judged.unaware, worth(one.judged)
        shown = relation(test, one.judged.alone) is Relation.ABOVE and relation(one.robust, test) is Relation.BELOW
        if shown and one.robust.ok:
            assert judged in (Worth.SEEMS, Worth.LESS)


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
            assert one.robust.high < 0.5 or relation(one.robust, one.judged.alone) is not Relation.ABOVE


def test_of_equally_robust_ones_the_cheapest_is_taken():
    alone, judged = share(10), Defended("", share(10), share(165), share(160), "2/255")
    dear, cheap = (Candidate(n, n, share(c), share(r), judged) for n, c, r in (("a", 140, 162), ("b", 180, 160)))
    weak = Candidate("c", "c", share(190), share(130), judged._replace(unaware=share(140), aware=share(130)))
    little = Candidate("d", "d", share(190), share(40), judged._replace(unaware=share(50), aware=share(40)))
    every = [Candidate("none", "No defence", share(190), alone), dear, cheap, weak, little]
    assert [worth(c.judged) for c in every[1:]] == [Worth.HOLDS, Worth.HOLDS, Worth.HOLDS, Worth.LITTLE]
    assert chosen(every).name == "b"
    text = recommended(every).text
    assert "3 hold, and b is recommended" in text
    assert "a and c help too" in text


def test_a_defence_that_loses_most_of_what_it_seemed_to_keep_looks_safe_and_is_not():
    one = Defended("Median filter", share(7), share(163), share(50), "4/255")
    assert worth(one) is Worth.SEEMS
    assert worth(one._replace(aware=share(110))) is Worth.LESS
    assert worth(one._replace(aware=share(160))) is Worth.HOLDS
    assert worth(one._replace(unaware=share(60))) is Worth.LITTLE


def test_a_transfer_alone_shows_what_looks_safe():
    one = Defended("JPEG", share(10), share(12), share(11), "2/255", share(180), share(90))
    assert worth(one) is Worth.SEEMS
    assert worth(one._replace(transferred=None)) is Worth.NOT


def test_referrals_are_of_a_thousand():
    assert per_thousand(share(10)) == "50 (27–90) of 1,000\u00a0studies"
