"""Whatever is typed as a spec, an option or a list of numbers is understood, or refused in one line."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from medrobust import data, options
from medrobust.attacks import ATTACKS
from medrobust.cli.text import numbers, words
from medrobust.errors import InputError
from medrobust.experiments import attack_named, parse_eps
from medrobust.experiments.config import AuditSpec, ask
from medrobust.models import is_own
from medrobust.universal import UNIVERSAL

TEXT = st.text(max_size=30)
VALUES = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["", "true", "1e400", "-1", "0", "9" * 4400, "½"]),
    TEXT,
)
SPECS = st.one_of(
    TEXT,
    st.builds(
        lambda name, pairs: ":".join([name, *(f"{k}={v}" for k, v in pairs)]),
        st.sampled_from([*ATTACKS, *UNIVERSAL]),
        st.lists(
            st.tuples(st.sampled_from(["steps", "restarts", "queries", "kappa", "passes", "x"]), VALUES), max_size=3
        ),
    ),
)
# the first example imports torch's parts; later ones take microseconds
quick = settings(max_examples=200, deadline=None)


def one_line(error: InputError) -> None:
    assert str(error)
    assert "\n" not in str(error).strip()


@pytest.mark.slow  # hundreds of generated texts
@quick
@given(SPECS)
@example("pgd:steps=1:steps=2")
@example("pgd:steps=0x10")
def test_an_attack_is_made_or_refused(text):
    try:
        attack = attack_named(text)
    except InputError as error:
        one_line(error)
    else:
        assert attack.steps >= 0
        assert text.partition(":")[0] in ATTACKS


@quick
@given(SPECS)
def test_a_universal_method_is_made_or_refused(text):
    try:
        options.parse(text, UNIVERSAL, "method")
    except InputError as error:
        one_line(error)


@quick
@given(st.one_of(TEXT, st.lists(VALUES, max_size=4).map(",".join), st.tuples(VALUES, VALUES).map("/".join)))
@example("inf")
@example("1/0")
@example("nan/255")
def test_sizes_are_finite_and_not_negative_or_refused(text):
    try:
        sizes = parse_eps(text)
    except InputError as error:
        one_line(error)
    else:
        assert sizes
        assert all(0 <= size < math.inf for size in sizes)


@quick
@given(st.one_of(TEXT, st.lists(VALUES, max_size=4).map(",".join)))
def test_a_list_of_numbers_is_read_or_refused(text):
    assert all(w == w.strip() and w for w in words(text) or ())
    try:
        assert all(isinstance(v, float) for v in numbers(text, "--mean") or ())
    except InputError as error:
        one_line(error)


@quick
@given(
    st.one_of(
        TEXT,
        st.tuples(st.sampled_from(["phantom", "csv", "folder", "medmnist"]), TEXT).map(":".join),
        st.tuples(st.sampled_from(["phantom:chest@", "phantom:skin@8:n="]), VALUES).map("".join),
    )
)
@example("phantom:chest@8:n=4:n=5")
@example("csv:\n")
def test_a_data_spec_is_loaded_or_refused(text):
    where = text.partition(":")[2]
    # a drawn text must not name files of this machine, nor draw thousands of phantoms
    if where.startswith(("/", "~", "..")) or where in ("", "."):
        return
    try:
        if len(found := data.load(text)) > 5000:
            pytest.fail("too many images for a test")
    except InputError as error:
        one_line(error)
    else:
        assert len(found.classes) >= 2


@quick
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "limit": st.integers(),
            "threshold": st.floats(),
            "mean": st.lists(st.floats(), max_size=4).map(tuple),
            "std": st.lists(st.floats(), max_size=4).map(tuple),
            "eps": st.lists(st.floats(), max_size=4).map(tuple),
            "norm": st.one_of(st.sampled_from(["linf", "l2"]), TEXT),
            "head": st.one_of(st.sampled_from(["softmax", "logit"]), TEXT),
            "attacks": st.lists(SPECS, max_size=3).map(tuple),
            "auto": st.one_of(st.just("auto"), TEXT),
            "seed": st.integers(),
        },
    )
)
def test_an_audit_is_understood_or_refused(values):
    try:
        spec = ask(**values)
    except InputError as error:
        one_line(error)
    else:
        assert spec.eps == tuple(sorted(set(spec.eps)))
        assert spec.threshold is None or 0 < spec.threshold < 1
        assert AuditSpec.model_validate(spec.model_dump()) == spec
        assert spec.slug() == ask(**values).slug()


@quick
@given(TEXT)
def test_a_name_is_of_ones_own_or_not(text):
    assert is_own(text) in (True, False)


def test_the_line_of_one_change_is_of_all_images_and_names_each_goal_once():
    from medrobust import stats
    from medrobust.cli.audit import one_change
    from medrobust.grey_scale import GreyScale
    from medrobust.report.schema import UniversalInfo
    from medrobust.results import Kind, Rows

    rows = Rows()
    info = UniversalInfo(title="SGA", name="sga", eps=16 / 4095 / 3, n_made=9, n_judged=10, controls=["signs"])
    for name, kind, count in (("sga", Kind.UNIVERSAL, 8), ("signs", Kind.CONTROL, 2)):
        for of, hits in ((None, count), ("a", 9), ("b", 9)):
            share = stats.proportion([True] * hits + [False] * (10 - hits))
            for columns in ({"metric": "fooling_rate"}, {"metric": "targeted_success", "target": "a"}):
                rows.add(kind, estimate=share, attack=name, class_name=of, **columns)
    line = one_change(rows.rows, info, "Linf", GreyScale(4095, 3))
    assert line.count("to a ") == 1
    assert "16/4095): 80% of 10 test images" in line
    assert "20% under random changes of that size" in line
