"""Acceptance criteria: what they say, which number answers them, and the verdict."""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
import pytest

from medrobust import stats
from medrobust.criteria import Criteria, Criterion, PlannedRows, exit_code, summary
from medrobust.criteria.baseline import IMAGES, BaselineRun, FinishedAudit, drop
from medrobust.criteria.choosing import NoRowError, chosen
from medrobust.criteria.judging import judged
from medrobust.criteria.language import digest
from medrobust.errors import InputError
from medrobust.grey_scale import EIGHT_BIT, in_whole_levels
from medrobust.results import FORMAT, Kind, Row
from medrobust.stats import Estimate

GRID = (1 / 255, 4 / 255)


def words(eps: float) -> str:
    return EIGHT_BIT.text(eps)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("accuracy@1.0/255>=80 %", "accuracy@1/255 >= 0.8"),
        (" sensitivity [ class = pneumonia ]@1/255 ≥ 0.70 ", "sensitivity[class=pneumonia]@1/255 >= 0.7"),
        (
            "success[kind=finding, finding=mass, goal=hide]@4lv<.3",
            "success[class=mass, goal=hide, kind=finding]@4lv < 0.3",
        ),
        ("drop[Balanced accuracy] <= 5%", "drop[balanced_accuracy] <= 0.05"),
        ("drop[sensitivity, class=a]@5hu <= -0.1", "drop[sensitivity, class=a]@5hu <= -0.1"),
        ('success[transformation="JPEG 2000, 10:1"] < 1/2', 'success[transformation="JPEG 2000, 10:1"] < 1/2'),
        ("sensitivity[class='a]b'] > 0", 'sensitivity[class="a]b"] > 0'),
    ],
)
def test_a_criterion_has_one_canonical_text(text, canonical):
    assert str(Criterion.read(text)) == canonical
    assert Criterion.read(canonical) == Criterion.read(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy = 0.8", "cannot be read; write METRIC"),
        ("", "cannot be read"),
        ("accuracy@x >= 1", "@x is no size"),
        ("accuracy@-1/255 >= 1", "@-1/255 is no size"),
        ("accuracy@1/0 >= 1", "@1/0 is no size"),
        ("accuracy >= most", "'most' is no number"),
        ("accuracy >= nan", "'nan' is no number"),
        ("accuracy >= 0_8", "'0_8' is no number"),
        ("success@1/255 <= 30", "success is from 0 to 1, the limit is 30; for a percentage write 30 %"),
        ("accuracy >= -0.1", "accuracy is from 0 to 1, the limit is -0.1"),
        ("drop[accuracy] <= 5", "for a percentage write 5 %"),
        ("drop >= 0.1", "drop names its metric first"),
        ("drop[accuracy@1/255] <= 0.1", "drop names its metric first"),
        ("sensitivity[pneumonia] >= 0.7", "'pneumonia' is no COLUMN=VALUE"),
        ("sensitivity[class=a@1/255] >= 0.7", "a size stands after the bracket"),
        ("sensitivity[class=a, finding=b] >= 0.7", "names a column twice"),
    ],
)
def test_what_is_no_criterion_is_refused_in_one_line(text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Criterion.read(text)


def test_the_digest_knows_what_is_required_and_not_how_it_is_written():
    texts = ["accuracy@1/255 >= 0.8", "auroc >= 0.9"]
    same = Criteria.read(["auroc>=90 %", " accuracy @ 1/255 >= .8", "auroc >= 0.9"])
    assert same.sha256 == Criteria.read(texts).sha256 == digest(texts)
    assert Criteria.read(["accuracy@1/255 >= 0.79", texts[1]]).sha256 != same.sha256
    assert digest(texts, "ab") != digest(texts)


def test_a_size_above_0_is_at_least_one_whole_level():
    assert [in_whole_levels(size / 4095, 4095) * 4095 for size in (0, 0.2, 2.4, 2.6)] == [0, 1, 2, 3]


# -- which number ----------------------------------------------------------------------------------------------


def row(kind: Kind, metric: str, eps: float = 0.0, attack: str = "none", **more: object) -> Row:
    return Row(kind, metric, 0.5, 0.4, 0.6, 10, attack=attack, eps=eps, more=more)


ROWS = [
    row(Kind.CLEAN, "accuracy"),
    row(Kind.CLEAN, "auroc"),
    *(row(Kind.CLEAN, metric, class_name=c) for metric in ("sensitivity", "auroc") for c in ("well", "ill")),
    *(row(Kind.ATTACK, "accuracy", e, a) for e in GRID for a in ("fgsm", "pgd")),
    *(row(Kind.WORST, "accuracy", e, "worst") for e in GRID),
    *(row(Kind.WORST, "sensitivity", e, "worst", class_name=c) for e in GRID for c in ("well", "ill")),
    *(row(Kind.CONTROL, "accuracy", e, "noise") for e in GRID),
    row(Kind.UNIVERSAL, "fooling_rate", 0.03, "sga"),
    row(Kind.UNIVERSAL, "fooling_rate", 0.03, "sga", target="ill"),
    row(Kind.UNIVERSAL, "targeted_success", 0.03, "sga", target="ill"),
    row(Kind.CONTROL, "fooling_rate", 0.03, "random signs"),
    *(row(Kind.DETECTOR, "auroc", 0.01, a, detector="kd", protocol="clean") for a in ("pgd", "noise")),
    row(Kind.EVASION, "auroc", 0.01, "pgd", detector="kd"),
    row(Kind.DETECTOR, "alarms", 0.01, "none", detector="kd", at_fpr=0.05),
]


def answer(text: str) -> Row:
    criterion = Criterion.read(text)
    return chosen(criterion, ROWS, criterion.size and criterion.size.value, words)


@pytest.mark.parametrize(
    ("text", "kind", "columns"),
    [
        ("accuracy > 0", Kind.CLEAN, {}),
        ("accuracy@1/255 > 0", Kind.WORST, {"eps": 1 / 255}),
        ("accuracy[attack=pgd]@4/255 > 0", Kind.ATTACK, {"attack": "pgd", "eps": 4 / 255}),
        ("accuracy[attack=noise]@4/255 > 0", Kind.CONTROL, {"attack": "noise"}),
        ("auroc > 0", Kind.CLEAN, {"class_name": None}),
        ("sensitivity[class=ill] > 0", Kind.CLEAN, {"class_name": "ill"}),
        ("sensitivity[class=ill]@1/255 > 0", Kind.WORST, {"class_name": "ill", "eps": 1 / 255}),
        ("success[kind=universal] > 0", Kind.UNIVERSAL, {"metric": "fooling_rate", "target": None}),
        ("success[kind=universal, target=ill] > 0", Kind.UNIVERSAL, {"metric": "targeted_success"}),
        ("fooling rate > 0", Kind.UNIVERSAL, {"target": None}),
        ("auroc[kind=detector, detector=kd, attack=pgd] > 0", Kind.DETECTOR, {"attack": "pgd"}),
        ("alarms[at_fpr=5 %] > 0", Kind.DETECTOR, {"detector": "kd"}),
    ],
)
def test_one_number_answers(text, kind, columns):
    row_ = answer(text)
    assert row_.kind == kind
    assert row_.has(**columns)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy@2/255 > 0", "there is no number at 2/255; there are: 1/255, 4/255"),
        ("accuracy[kind=clean]@1/255 > 0", "this number has no size; leave out @1/255"),
        ("sensitivity > 0", "2 numbers answer it; also give class=well or class=ill"),
        ("auroc[detector=kd, attack=pgd] > 0", "also give kind=detector or kind=evasion"),
        ("auroc[kind=detector] > 0", "also give attack=pgd or attack=noise"),
        ("accuracy[attack=cw]@1/255 > 0", "accuracy has no attack=cw; it has: fgsm, pgd, worst, noise"),
        ("ece > 0", "no number is called ece; there are: accuracy, auroc"),
        ("accuracy[kind=stored] > 0", "no number of kind stored is called accuracy; there are: none"),
        ("accuracy[kind=worst] > 0", "there is no kind 'worst'; there are: clean, attack"),
        ("accuracy[bits=8] > 0", "accuracy has no column bits; it has: kind, attack"),
    ],
)
def test_no_number_or_several_is_said_with_what_there_is(text, message):
    with pytest.raises(NoRowError, match=re.escape(message)):
        answer(text)


def test_the_number_of_the_only_attack_is_the_worst_case():
    rows = [r for r in ROWS if r.kind != Kind.WORST and r.attack != "fgsm"]
    assert chosen(Criterion.read("accuracy@1/255 > 0"), rows, 1 / 255, words).attack == "pgd"


# -- before the run --------------------------------------------------------------------------------------------

PLANNED = PlannedRows(
    ["well", "ill"], ["fgsm", "pgd"], GRID, False, False, ("auto", "sga"), {Kind.UNIVERSAL: "--no-universal"}
)


def check(text: str) -> None:
    PLANNED.check(Criteria.read([text]), lambda size: size.value, words)


@pytest.mark.parametrize(
    "text",
    [
        "accuracy >= 0.9",
        "accuracy@1/255 >= 0.8",
        "sensitivity[class=ill]@4/255 >= 0.7",
        "accuracy[attack=auto]@2/255 >= 0.7",
        "auroc[detector=kd, attack=pgd, kind=detector] >= 0.7",
        "success[transformation=8 bits, made=plain] <= 0.5",
        "accuracy[corruption=blur, severity=3] >= 0.7",
        "flip[class=ill, target=well]@1/255 <= 0.2",
        "min_eps_median >= 2/255",
    ],
)
def test_what_a_run_will_measure_may_be_required(text):
    check(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("acuracy >= 0.9", "no number is called acuracy; did you mean accuracy?"),
        ("accuracy@2/255 >= 0.8", "no number at 2/255; there are: 1/255, 4/255"),
        ("accuracy[attack=pgd]@2/255 >= 0.8", "no number at 2/255; there are: 1/255, 4/255"),
        ("sensitivity[class=sick]@1/255 >= 0.7", "there is no class 'sick'; there are: well, ill"),
        ("sensitivity@1/255 >= 0.7", "also give class=well or class=ill"),
        ("sensitivity[class=ill, attack=pgd]@1/255 >= 0.7", "sensitivity has no attack=pgd; it has: worst"),
        ("accuracy[attack=cw]@1/255 >= 0.7", "attack 'cw' is not among fgsm, pgd"),
        ("accuracy[kind=worst]@1/255 >= 0.7", "there is no kind 'worst'; there are: clean"),
        ("accuracy[metric=b]@1/255 >= 0.7", "there is no column metric; there are: kind, attack, class"),
        ("success[kind=universal] <= 0.3", "no numbers of kind universal (--no-universal)"),
        ("fooling rate <= 0.3", "no numbers of kind universal (--no-universal)"),
        ("accuracy[class=ill]@1/255 >= 0.7", "accuracy is of all classes; write sensitivity[class=ill]"),
    ],
)
def test_what_a_run_cannot_measure_is_refused_before_it(text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check(text)


def test_of_a_finished_run_its_own_rows_may_be_required_and_what_may_mean_several_is_refused():
    finished = dataclasses.replace(PLANNED, measured=[*ROWS, row(Kind.EXPLANATION, "cam-shift")])
    for text in ("cam-shift <= 0.3", "ece <= 0.1"):  # measured, and left out of this run
        finished.check(Criteria.read([text]), lambda size: size.value, words)
    with pytest.raises(InputError, match=re.escape("'auroc[kind=detector] > 0': 2 numbers answer it; also give")):
        finished.check(Criteria.read(["auroc[kind=detector] > 0"]), lambda size: size.value, words)


def test_of_several_findings_hiding_and_inventing_are_required():
    findings = dataclasses.replace(PLANNED, several=True)
    for text in ("success[finding=ill, goal=hide]@1/255 <= 0.2", "sensitivity[finding=ill] >= 0.9"):
        findings.check(Criteria.read([text]), lambda size: size.value, words)
    for metric, goal in (("sensitivity", "hide"), ("specificity", "invent")):
        with pytest.raises(InputError, match=re.escape(f"write 'success[class=ill, goal={goal}]@1/255 <= LIMIT'")):
            findings.check(Criteria.read([f"{metric}[finding=ill]@1/255 >= 0.9"]), lambda size: size.value, words)


def test_a_drop_needs_a_baseline():
    with pytest.raises(InputError, match=r"'drop\[accuracy\] <= 0.05' needs a run to compare with: give --base"):
        Criteria.read(["drop[accuracy] <= 0.05"])


# -- the verdict -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "low", "high", "verdict"),
    [
        ("accuracy >= 0.8", 0.8, 0.9, "pass"),
        ("accuracy >= 0.8", 0.7999, 0.9, "inconclusive"),
        ("accuracy >= 0.8", 0.7, 0.8, "inconclusive"),
        ("accuracy >= 0.8", 0.7, 0.7999, "fail"),
        ("accuracy > 0.8", 0.8, 0.9, "inconclusive"),
        ("accuracy > 0.8", 0.7, 0.8, "fail"),
        ("accuracy <= 0.8", 0.7, 0.8, "pass"),
        ("accuracy <= 0.8", 0.8, 0.9, "inconclusive"),
        ("accuracy <= 0.8", 0.8001, 0.9, "fail"),
        ("accuracy < 0.8", 0.7, 0.8, "inconclusive"),
        ("accuracy < 0.8", 0.8, 0.9, "fail"),
        ("accuracy >= 0.8", math.nan, math.nan, "inconclusive"),
        ("min_eps_median >= 2/255", 0.02, math.inf, "pass"),
        ("min_eps_median <= 2/255", 0.02, math.inf, "fail"),
        ("min_eps_median >= 9/255", 0.02, math.inf, "inconclusive"),
    ],
)
def test_the_bound_that_is_unfavourable_decides(text, low, high, verdict):
    result = judged(Criterion.read(text), Estimate(0.8, low, high, 50), "")
    assert result.verdict == verdict
    assert judged(Criterion.read(text), Estimate(0.8, low, high, 50), "", "no gradient").verdict == "inconclusive"


def test_a_number_in_doubt_is_inconclusive_for_its_reason():
    rows = [Row(Kind.WORST, "accuracy", 1.0, 0.95, 1.0, 80, eps=GRID[0], status="inconclusive", note="zero gradients")]
    measured = FinishedAudit(rows, ["a"], "Linf", {}, {}, False)
    criteria = Criteria.read(["accuracy@1/255 >= 0.5", "accuracy >= 0.5"])
    doubted, missing = (criteria.judge(c, measured, lambda size: size.value, words) for c in criteria.entries)
    assert (doubted.verdict, doubted.reason) == ("inconclusive", "zero gradients")
    assert (doubted.value, doubted.n) == (1.0, 80)
    # without a size only the worst case is there, at one size: it is what is shown to answer
    assert "worst case, accuracy, 1/255" in missing.of


def test_inconclusive_never_passes_and_a_failure_outweighs_it():
    assert exit_code([]) == 0
    assert exit_code(["pass", "pass"]) == 0
    assert exit_code(["pass", "inconclusive"]) == 4
    assert exit_code(["inconclusive", "fail", "pass"]) == 3
    assert summary(["pass", "fail", "pass", "inconclusive"]) == (
        "acceptance criteria: 2 pass, 1 fails, 1 cannot be judged"
    )


# -- drops -----------------------------------------------------------------------------------------------------


def measured(min_eps: np.ndarray, attacks: dict[str, object] | None = None, patients: bool = False) -> FinishedAudit:
    """A run of images with labels 0 and 1 in turn."""
    labels = np.arange(min_eps.size) % 2
    rows = [
        Row(Kind.WORST, "accuracy", *stats.proportion(min_eps > np.float32(e)), attack="worst", eps=e) for e in GRID
    ]
    ill = min_eps[labels == 1] > np.float32(GRID[0])
    more = {"class_name": "ill"}
    rows.append(Row(Kind.WORST, "sensitivity", *stats.proportion(ill), attack="worst", eps=GRID[0], more=more))
    arrays = {"labels": labels, "min_eps.worst": min_eps.astype(np.float32)}
    return FinishedAudit(rows, ["well", "ill"], "Linf", attacks or {}, arrays, patients)


def test_the_drop_of_the_same_images_is_paired():
    n = 400
    before = measured(np.full(n, 1.0))
    after = measured(np.where(np.arange(n) < 20, 0.0, 1.0))
    apart = drop(before, before.rows[0], after, after.rows[0])
    assert apart.remark == "paired, same images"
    assert apart.estimate.value == pytest.approx(0.05)
    # no image is gained, so the score interval is Wilson's of the 20 of 400 that are lost
    lost = stats.proportion(np.arange(n) < 20)
    assert (apart.estimate.low, apart.estimate.high) == pytest.approx((lost.low, lost.high))
    assert apart.estimate.high < before.rows[0].estimate.high - after.rows[0].estimate.low


def test_images_of_one_patient_widen_the_interval_of_a_drop():
    held = np.where(np.arange(40) < 10, 0.0, 1.0)
    before, after = (measured(np.repeat(m, 2), patients=True) for m in (np.full(40, 1.0), held))
    own = {"test_patients": np.arange(80) // 2, "attacked": np.arange(80)}
    after = dataclasses.replace(after, arrays={**after.arrays, **own})
    apart = drop(before, before.rows[0], after, after.rows[0]).estimate
    alone = stats.paired_difference(held > 0, np.ones(40))
    assert (apart.value, apart.n) == (pytest.approx(alone.value), 80)
    assert apart.high - apart.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_the_drop_in_a_class_counts_its_images():
    before, after = measured(np.full(40, 1.0)), measured(np.where(np.arange(40) < 10, 0.0, 1.0))
    apart = drop(before, before.rows[2], after, after.rows[2])
    assert (apart.estimate.value, apart.estimate.n) == (pytest.approx(0.25), 20)
    assert apart.remark == "paired, same images"


def test_without_a_result_for_every_image_the_intervals_are_set_against_each_other():
    before, after = (
        measured(np.full(40, 1.0), {"pgd": 20}),
        measured(np.where(np.arange(40) < 10, 0.0, 1.0), patients=True),
    )
    old, new = before.rows[0], after.rows[0]
    apart = drop(before, old, after, new)
    assert apart.remark == "not paired, the two intervals set against each other; the attacks of the two runs differ"
    assert apart.estimate.low == pytest.approx(old.estimate.low - new.estimate.high)
    assert apart.estimate.high == pytest.approx(old.estimate.high - new.estimate.low)


def test_a_baseline_that_is_damaged_or_has_another_order_of_classes_is_refused():
    content: dict[str, object] = {
        "format": FORMAT,
        "conditions": {"classes": ["well", "ill"], "norm": "Linf"},
        "rows": [],
    }
    for change, message in (({"rows": [7]}, "x: a row is not of"), ({"conditions": {"classes": 5}}, "are no list")):
        with pytest.raises(InputError, match=message):
            FinishedAudit.read({**content, **change}, {}, "x")
    arrays = {name: np.arange(2) for name in IMAGES}
    before = BaselineRun(FinishedAudit.read(content, arrays, "x"), "", "", "b")
    before.check(arrays, "Linf", ["well", "ill"])
    with pytest.raises(InputError, match=r"has its classes in another order \(well, ill\)"):
        before.check(arrays, "Linf", ["ill", "well"])
