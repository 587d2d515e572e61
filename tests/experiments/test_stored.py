"""An audit of what a file can hold: its rows, its sections, and sentences that follow from their numbers."""

from __future__ import annotations

import pytest

from medrobust.experiments import ask, audit
from medrobust.report import write
from medrobust.report.sections.survival import _sentences
from medrobust.results import Row
from medrobust.transformations import TRANSFORMATIONS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("stored") / "run"
    spec = ask(data="phantom:chest@32:n=80", model="small_cnn", epochs=1, attacks=("fgsm",), eps=(4 / 255,), limit=6)
    off = dict.fromkeys(("universal", "detect", "explain"), False)
    results = audit(spec.model_copy(update={**off, "auto": ""}), out, device="cpu")
    write(out)
    return results, (out / "report.html").read_text()


def test_an_audit_measures_the_sparsest_change_and_what_survives(folder):
    rows = [Row.read(r) for r in folder[0]["rows"]]
    sparse = [r for r in rows if r.kind == "stored"]
    assert {r.metric for r in sparse} == {
        "min_eps_median",
        "pixels_median",
        "pixels_turned",
        "not_by_one_level",
        "turned_within",
    }
    assert {r.get("levels") for r in sparse} == {0, 255}
    shares = [r.value for r in sparse if r.metric == "turned_within"]
    assert shares == sorted(shares)
    survival = [r for r in rows if r.kind == "survival" and r.metric == "success"]
    assert {r.get("transformation") for r in survival} == {"none", *TRANSFORMATIONS}
    same = [[r.value for r in survival if r.has(transformation=t, made="plain")] for t in ("none", "8 bits", "16 bits")]
    assert same[0] == same[1] == same[2]  # attacked images are of whole levels: saving changes nothing


def test_the_report_has_both_sections_and_no_longer_says_that_jpeg_was_not_tried(folder):
    for title in ("What a file can hold", "What survives on the way", "JPEG 2000, 20:1", "Not by one level"):
        assert title in folder[1]
    assert "were not tried" not in folder[1]


def rows(**shares):
    """ "plain_none": (value, low, high) and so on."""
    made = []
    for name, (value, low, high) in shares.items():
        how, _, transformation = name.partition("_")
        more = {"made": how, "transformation": transformation}
        made.append(Row("survival", "success", value, low, high, 100, "pgd", more=more))
    return made


def test_a_transformation_is_said_to_undo_an_attack_only_where_intervals_are_apart():
    whole, half, none = (0.9, 0.8, 0.95), (0.7, 0.6, 0.85), (0.1, 0.05, 0.2)
    names = ["none", "jpeg"]
    assert "After none" in _sentences(rows(plain_none=whole, plain_jpeg=half, optimised_jpeg=whole), names)[-1]
    undone = _sentences(rows(plain_none=whole, plain_jpeg=none, optimised_jpeg=none), names)
    assert "Fewer are left after “jpeg”" in undone[1]
    assert "not shown" in undone[2]
    back = _sentences(rows(plain_none=whole, plain_jpeg=none, optimised_jpeg=half), names)
    assert "more again after “jpeg”" in back[2]
    assert "turned no image" in _sentences(rows(plain_none=(0.0, 0.0, 0.04)), ["none"])[0]
