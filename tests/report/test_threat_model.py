"""Threat model, questions and model card: nothing untested reads as covered, whatever a run holds."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import Any

import pytest
import yaml

from medrobust.crosswalk import NOT_LISTED, crosswalk
from medrobust.report import findings, model_card, section
from medrobust.report.criteria_words import CriteriaInfo
from medrobust.report.findings import Findings
from medrobust.report.questions import EVIDENCE, IN_DOUBT, NO_ANSWER, answers, questions
from medrobust.report.run import Run, read
from medrobust.report.schema import Conditions
from medrobust.report.sections import crosswalk as crosswalk_section
from medrobust.report.sections import threat_model
from medrobust.report.tested import coverage
from medrobust.results import INCONCLUSIVE, Kind, Row
from tests import report_runs

TABLE = crosswalk()
ATTACK_INFO = {"title": "PGD", "settings": "", "source": ""}
EVASION_INFO = {"name": "selective", "attack": "pgd", "evasions": {"selective:steps=20": {"title": "Selective PGD"}}}
DEFENCE_INFO = {"title": "Retraining", "eps": 0.1, "n_judged": 9, "pool": 1, "verdict": ""}


def row(kind: Kind, metric: str, attack: str = "none", value: float | None = 0.4, **more: Any) -> Row:
    return Row(kind, metric, value, 0.2, 0.6, 30, attack, eps=0.0 if attack == "none" else 1 / 255, more=more)


# By experiment: rows as it writes them, what it adds to the conditions, and the kinds of threat that it tests.
EXPERIMENTS: dict[str, tuple[list[Row], dict[str, Any], set[str]]] = {
    "sweeps": (
        [row(Kind.ATTACK, "accuracy", "pgd:steps=100"), row(Kind.CONTROL, "accuracy", "noise")],
        {"attacks": {"pgd:steps=100": ATTACK_INFO}},
        {"gradient"},
    ),
    "scores": ([row(Kind.BLACK_BOX, "success_at", "square", queries=80)], {}, {"scores"}),
    "decisions": ([row(Kind.BLACK_BOX, "median_l2", "cgba", queries=5000)], {}, {"decisions"}),
    "stored": (
        [row(Kind.STORED, "turned_within", "sparsest"), row(Kind.STORED, "pixels_turned", "one shot")],
        {},
        {"sparse"},
    ),
    "survival": ([row(Kind.SURVIVAL, "success", "pgd", made="optimised", transformation="JPEG 90")], {}, {"handling"}),
    "patch": (
        [row(Kind.CHANGE, "success", "patch:side=0.2", made="optimised", change="patch:side=0.2")],
        {"changes": {"patch:side=0.2": {"title": "Patch at a fixed place"}}},
        {"patch"},
    ),
    "spatial": ([row(Kind.CHANGE, "success", "spatial", made="optimised", change="spatial")], {}, {"parameters"}),
    "universal": (
        [row(Kind.UNIVERSAL, "fooling_rate", "sga"), row(Kind.CONTROL, "fooling_rate", "random")],
        {},
        {"universal"},
    ),
    "tile": ([row(Kind.UNIVERSAL, "targeted_success", "tile", target="normal")], {}, {"universal-queries"}),
    "detectors": ([row(Kind.DETECTOR, "auroc", "pgd", detector="kd")], {}, {"detection"}),
    "evasion": (
        [row(Kind.EVASION, "success", "selective", detector="kd"), row(Kind.EVASION, "success", "pgd", detector="kd")],
        {"evasion": EVASION_INFO},
        {"adaptive", "detection"},
    ),
    "corruptions": ([row(Kind.CORRUPTION, "accuracy", corruption="blur", severity=1)], {}, {"corruption"}),
}
NO_TEST = [
    row(Kind.CLEAN, "accuracy"),
    row(Kind.CONTROL, "accuracy", "noise"),
    row(Kind.ATTACK, "gradients_per_image", "pgd"),
    row(Kind.ATTACK, "accuracy", "bim", value=None),
    row(Kind.CORRUPTION, "accuracy", corruption="none", severity=0),
    row(Kind.CHANGE, "success", "random", made="bright patch", change="patch"),
    row(Kind.SURVIVAL, "success", "noise", made="noise"),
    row(Kind.SURVIVAL, "success", "pgd", made="plain", transformation="JPEG 90"),
    row(Kind.SURVIVAL, "success", "pgd", made="optimised", transformation="none"),
    row(Kind.DETECTOR, "auroc", "noise", detector="kd"),
    row(Kind.EVASION, "success", "selective", detector="none"),
    row(Kind.UNIVERSAL, "targeted_base", "sga"),
]
"""Rows of a run in which nothing was tested."""


def found(rows: list[Row], **conditions: Any) -> Findings:
    return findings.find(Run(Conditions.model_validate({"classes": ["normal", "ill"], **conditions}), rows))


def subsets(most: int = len(EXPERIMENTS)) -> list[tuple[str, ...]]:
    return [c for n in range(most + 1) for c in itertools.combinations(EXPERIMENTS, n)]


def test_nothing_untested_reads_as_covered_in_any_subset_of_experiments():
    never = [kind.title for kind in TABLE.not_tested]
    for chosen in subsets():
        rows = [*NO_TEST, *(r for name in chosen for r in EXPERIMENTS[name][0])]
        conditions = {k: v for name in chosen for k, v in EXPERIMENTS[name][1].items()}
        tested = {kind for name in chosen for kind in EXPERIMENTS[name][2]}
        f = found(rows, **conditions)
        assert set(coverage(f).measured) == tested
        table = threat_model.unmeasured(f, coverage(f))
        untested = [t.title for key, t in TABLE.threats.items() if key not in tested]
        assert [line[0].text for line in table.rows] == [*untested, *never]
        told = " ".join(threat_model.untested(f))
        assert all((t.title in told) == (key not in tested) for key, t in TABLE.threats.items())
        assert all(title in told for title in never)
        assert all(line[1].text.startswith("not tested") for line in table.rows)
        done = threat_model.measured(f, coverage(f))
        shown = [] if done is None else [line[0].text for line in done.rows]
        assert len(shown) == len(tested)
        assert all(text.startswith(tuple(TABLE.threats[k].title for k in tested)) for text in shown)


def test_what_was_tested_has_its_attacks_images_queries_and_sizes():
    f = found(EXPERIMENTS["sweeps"][0] + EXPERIMENTS["scores"][0], **EXPERIMENTS["sweeps"][1])
    table = threat_model.measured(f, coverage(f))
    assert table is not None
    gradient, scores = ([cell.text.replace("\xa0", " ") for cell in line] for line in table.rows)
    assert gradient[0] == "Gradient attacks, image by image (PGD; n = 30)"
    assert gradient[3].endswith("(ε 1 grey level, Linf)")
    assert gradient[4] == "NISTAML.022; AML.T0043.000; AML.T0044; FDA: model evasion"
    assert scores[0].endswith("(Square; n = 30, at most 80 queries an image)")


def test_an_attack_from_elsewhere_is_shown_and_said_not_to_be_listed():
    f = found([row(Kind.ATTACK, "accuracy", "mine")], attacks={"mine": {"title": "Decaying steps"}})
    assert coverage(f).measured.keys() == {"Decaying steps"}
    table = threat_model.measured(f, coverage(f))
    assert table is not None
    assert [cell.text for cell in table.rows[0]] == ["Decaying steps (n\xa0=\xa030)", *[NOT_LISTED] * 4]


@pytest.mark.parametrize(("answers_with", "kind"), [("scores", "scores"), ("labels", "decisions"), (None, "gradient")])
def test_the_ensemble_counts_for_what_the_classifier_gave_it(answers_with, kind):
    f = found([row(Kind.ATTACK, "accuracy", "auto")], answers=answers_with, attacks={"auto": {"title": "Auto"}})
    assert set(coverage(f).measured) == {kind}
    why = {r[0].text: r[1].text for r in threat_model.unmeasured(f, coverage(f)).rows}
    lacking = why[TABLE.threats["sparse"].title]
    assert (threat_model.NO_NETWORK in lacking) == (answers_with is not None)


def test_what_is_in_doubt_is_marked_and_no_evidence():
    f = found([replace(row(Kind.ATTACK, "accuracy", "pgd"), status=INCONCLUSIVE)], attacks={"pgd": ATTACK_INFO})
    table = threat_model.measured(f, coverage(f))
    assert table is not None
    assert table.rows[0][0].doubt
    states = {a.question.part: a.state for a in answers(f)}
    assert states["XII, model evasion"] == IN_DOUBT
    assert "inconclusive" in model_card.text(f)


def test_a_run_that_is_not_finished_says_so():
    f = found([], pending=["universal"])
    assert all("not finished" in r[1].text for r in threat_model.unmeasured(f, coverage(f)).rows[: len(TABLE.threats)])


# -- questions -------------------------------------------------------------------------------------------------


def test_questions_are_answered_only_by_rows_of_the_run():
    for chosen in subsets(most=2):
        own = [r for name in chosen for r in EXPERIMENTS[name][0] if r.kind != Kind.CONTROL]
        for answer in answers(found([*own, *NO_TEST])):
            q = answer.question
            has = {w.gives for w in q.rows if any(r.kind == w.kind and w.metric in ("", r.metric) for r in own)}
            has |= {w.gives for w in q.rows if w.kind == Kind.CLEAN}
            if q.always or q.command == "audit":
                has = {q.gives}
            assert (answer.state == EVIDENCE) == bool(has), (chosen, q.part)
            assert set(filter(None, answer.gives.split("; "))) == has, (chosen, q.part)


def test_the_table_of_questions_is_whole():
    table = questions()
    assert {q.source for q in table.questions} == set(table.sources)
    for q in table.questions:
        assert bool(q.gives) == bool(q.always or q.checks or q.criteria or q.command), q.part
        assert bool(q.sections) <= bool(q.gives or q.rows), q.part
        assert not any(";" in which.gives for which in q.rows)
    anchors = {getattr(m, "ANCHOR", "") for m in section.modules()}
    assert {s for q in table.questions for s in q.sections} <= anchors | {"criteria"}


def test_poisoning_privacy_and_the_device_are_never_answered():
    f = found([r for rows, *_ in EXPERIMENTS.values() for r in rows])
    open_parts = ("poisoning", "inversion", "leakage", "overfitting", "bias", "fuzz", "other attacks", "reproducib")
    unanswered = [a for a in answers(f) if any(word in a.question.part for word in open_parts)]
    assert len(unanswered) == len(open_parts)
    assert {a.state for a in unanswered} == {NO_ANSWER}


def test_links_lead_to_sections_that_show_something():
    f = found(EXPERIMENTS["sweeps"][0])
    content = crosswalk_section.build(f, {"accuracy": "Accuracy under attack"})
    links = {link for table in content.tables for _, this_run, _ in table.rows for link in this_run.links}
    assert links == {("accuracy", "Accuracy under attack")}


@pytest.mark.parametrize("before", [True, False])
def test_criteria_say_whether_they_stood_before_the_run(before):
    judged = {"criterion": "accuracy >= 0.8", "verdict": "pass", "reason": "", "value": 0.9, "n": 30}
    stated = {"texts": ["accuracy >= 0.8"], "sha256": "a", "begun_with": "a" if before else "", "judged": [judged]}
    f = found([])
    f = findings.find(replace(f.run, criteria=CriteriaInfo.model_validate(stated)))
    (answer,) = [a for a in answers(f) if a.question.criteria]
    assert answer.state == EVIDENCE
    assert ("stated before the run" in answer.gives) == before
    cells = [cell for table in crosswalk_section.build(f, {}).tables for _, cell, _ in table.rows]
    assert ("criteria", "Acceptance criteria") in [link for cell in cells for link in cell.links]


# -- the model card --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["audit", "hostile", "inconclusive", "minimal"])
def test_the_model_card_of_a_run(name, tmp_path):
    f = findings.find(read(report_runs.make(tmp_path / name, name)))
    _, head, body = model_card.text(f).split("---\n", 2)
    card = yaml.safe_load(head)
    (entry,) = card["model-index"]
    results = entry["results"]
    assert len({result["dataset"]["config"] for result in results}) == len(results)
    for result in results:
        assert result["task"]["type"] == card["pipeline_tag"] == "image-classification"
        assert result["dataset"]["type"] == result["dataset"]["name"] == f.run.conditions.data
    metrics = [metric for result in results for metric in result["metrics"]]
    values = {(r.metric, r.n, round(r.value, 4)) for r in f.run.rows if r.value is not None}
    names = {v: k for k, v in model_card.HUB_METRICS.items()}
    for metric in metrics:
        assert {"type", "value", "name", "args"} == set(metric)
        if not metric["name"].startswith(("Missed", "False")):  # pooled over classes
            assert (names.get(metric["type"], metric["type"]), metric["args"]["n"], metric["value"]) in values
    lines = [line for line in body.splitlines() if line.startswith("| ")][1:]
    assert len(lines) == len(model_card.measured(f)) >= len(metrics) > 0
    assert all(re.search(r"\(\d[\d.]*–\d[\d.]*\)|no interval", line) and re.search(r"\d \|$", line) for line in lines)
    assert body.count(model_card.OPEN) >= 20
    others = [line for line in body.splitlines() if not line.startswith("|")]
    if name != "hostile":  # its classes have a number in their names
        assert not any(re.search(r"\d\s?%", line) for line in others), "no number without its interval and its n"
    assert "<script" not in body.replace("\\<", "")
    for title in ("Device information", "Regulatory status", "Description", "Risk management", "Development"):
        assert f"\n## {title}\n" in body
    assert "Data poisoning" in body[body.index("Not tested in this run") :]
    if name == "inconclusive":
        assert "inconclusive" in body
        assert not any("under attack" in m["name"] for m in metrics)
