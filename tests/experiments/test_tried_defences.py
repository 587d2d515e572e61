"""What is tried against attacks: filters, guards and other classifiers, judged alike; what each costs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import medrobust as mr
from medrobust import training
from medrobust.defences import INPUT_DEFENCES
from medrobust.detectors import DETECTORS
from medrobust.experiments import ask, defence_costs
from medrobust.experiments.another_classifier import Surrogate, loaded
from medrobust.experiments.context import Context
from medrobust.experiments.system import assemble
from medrobust.experiments.tried_defences import Answering, Filtered, Guarded
from medrobust.progress import NoProgress
from medrobust.results import Row, Rows, find
from medrobust.run_folder import RunFolder
from medrobust.store import Store
from tests.cli.test_main import run as command

DATA = "phantom:chest@16:n=400"
KNOWS = ("the classifier", "another classifier", "the classifier and the defence")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    data = mr.data.load(DATA)
    training.fit(data, "small_cnn:width=4", epochs=10, lr=0.01, augment=False, device="cpu").save(folder)
    return folder


@pytest.fixture(scope="module")
def context(model, tmp_path_factory):
    spec = ask(model=str(model), data=DATA, train=False).model_copy(update={"limit": 10})
    path = tmp_path_factory.mktemp("run") / "run"
    with RunFolder(path, "input-defences") as folder:
        folder.begin()
    return Context(assemble(spec, None, NoProgress()), spec, Store(path))


def tried(context, name):
    kind, _, which = name.partition(" ")
    if kind == "none":
        return Answering(context, "none", context.classifier, context.attacked, "No defence")
    if kind == "guard":
        return Guarded(context, which, 0.05, 4 / 255)
    return Filtered(context, which, INPUT_DEFENCES[which]())


MEMBERS = ("none", *(f"input {n}" for n in INPUT_DEFENCES), *(f"guard {n}" for n in DETECTORS))


@pytest.mark.parametrize("name", MEMBERS)
def test_every_answer_is_right_wrong_or_referred_and_attacks_only_add_wrong_ones(context, name):
    one = tried(context, name)
    images, labels = context.sample.tensors()
    answers = one.judge(images, labels)
    assert answers.right.shape == answers.referred.shape == (len(images),)
    assert ((answers.right >= 0) & (answers.referred >= 0) & (answers.wrong >= 0)).all()
    logits, referred = one.once(images)
    assert logits.shape == (len(images), 2)
    if not one.random:
        right = (context.classifier.head.decide(logits) == labels) & ~referred
        assert torch.equal(right.float(), answers.right)
        assert torch.equal(referred.float(), answers.referred)
    _, arrays = one.attacked(context.sample.select(range(4)), (8 / 255,), 0, lambda _: None)
    assert arrays["right"].shape == arrays["referred"].shape == (4, 1)
    assert arrays["no_gradient"].shape == (4,)
    assert (arrays["right"] + arrays["referred"] <= 1).all()


def test_a_guard_refers_the_share_that_it_was_set_to(context):
    guard = Guarded(context, "kd", 0.25, 4 / 255)
    referred = guard.guard(guard.validation).referred.float().mean()
    assert 0.15 < float(referred) <= 0.25
    assert not set(guard.fitted_on[0].ids) & set(guard.fitted_on[1].ids)
    assert not set(guard.fitted_on[0].ids) & set(context.test.ids)


def test_a_surrogate_learns_the_answers_and_not_the_labels(context, tmp_path):
    with RunFolder(tmp_path / "run", "input-defences") as folder:
        folder.begin()
        surrogate = Surrogate(context, folder).trained()
        again = Surrogate(context, folder).trained()
    assert surrogate.digest() == again.digest()
    images, _ = context.test.tensors()
    same = (surrogate.predict(images) == context.classifier.predict(images)).float().mean()
    assert float(same) > 0.7
    data = surrogate.provenance["data"]
    assert data["name"].startswith("answers to")
    assert data["digest"] != context.system.data.digest()


def test_what_costs_nothing_is_said_to_cost_nothing():
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    margin = np.array([-2.0, -1, -1, 1, -1, 2, 3, 4])
    logits = np.stack([np.zeros(8), margin], 1)
    probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    alone = {"logits": logits, "probability": probability, "decision": (margin > 0).astype(int)}
    alone["referred"] = np.zeros(8, dtype=bool)

    seconds = {"seconds": np.full(7, 0.5), "alone": np.full(7, 0.25)}

    def rows(arrays, guards=False):
        added = Rows()
        defence_costs.add_rows(added, "d", guards, arrays, alone, labels, None, seconds)
        return {row.metric: row for row in added.rows}

    same = rows(alone)
    assert same["accuracy"].value == same["balanced_accuracy"].value == 0.75
    assert same["accuracy_change"].value == 0
    assert same["sensitivity"].value == 0.75  # three of four are found where the specificity is three of four
    assert same["seconds_per_image"].value == 0.5
    assert same["times_as_long"].value == 2
    assert "referred" not in same
    shifted = rows({**alone, "logits": logits + np.array([0, 5.0]), "decision": np.ones(8, dtype=int)})
    assert shifted["accuracy"].value == 0.5
    assert shifted["sensitivity"].value == 0.75  # another threshold finds them again
    guarded = rows({**alone, "referred": np.arange(8) >= 6}, guards=True)
    assert guarded["referred"].value == 0.25
    assert guarded["accuracy"].value == 0.5  # two right ones went to a person
    assert guarded["wrong_answered"].value == pytest.approx(2 / 6)


def test_the_command_judges_everything_by_three_attackers(model, tmp_path, capsys):
    how = ("--model", model, "--data", DATA, "--limit", 12, "--eps", "4/255", "--surrogate", model)
    run = (*how, "--defences", "bits:bits=3", "--detectors", "kd,softmax", "--hardened", model)
    assert command("input-defences", *run, "--out", tmp_path / "run") == 0
    printed = capsys.readouterr().out
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    rows = [Row.read(r) for r in results["rows"]]
    for name in ("bits:bits=3", "guard:kd", "guard:softmax", "hardened:1"):
        shares = [find(rows, metric="accuracy_attacked", defence=name, knows=k).value for k in KNOWS]
        assert shares[2] <= min(shares[:2])
        for metric in ("accuracy", "accuracy_change", "balanced_accuracy", "sensitivity", "ece", "seconds_per_image"):
            assert find(rows, metric=metric, defence=name).value is not None
    # the surrogate is the classifier itself: who has it knows all
    alone, known = (find(rows, metric="accuracy_attacked", defence="none", knows=k).value for k in KNOWS[1:])
    assert alone <= known + 0.2
    assert find(rows, metric="surrogate_agreement").value == 1
    # the same classifier in the place of itself changes nothing
    assert find(rows, metric="accuracy_change", defence="hardened:1").value == 0
    assert find(rows, metric="accuracy_attacked", defence="hardened:1", knows=KNOWS[2]).value <= known
    for knows in KNOWS:
        referred = find(rows, metric="referred", defence="guard:kd", knows=knows)
        assert 0 <= referred.value <= 1
    assert "referred of 1,000" in printed
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Referred of 1,000" in page
    assert "Pareto front" in page


def test_another_classifier_of_other_classes_is_refused(model, context, tmp_path, capsys):
    other = mr.Classifier.load(model)
    other.classes = ("cat", "dog")
    other.save(tmp_path / "other")
    how = ("--model", model, "--data", DATA, "--limit", 4, "--defences", "flips", "--out", tmp_path / "run")
    for option in ("--hardened", "--surrogate"):
        assert command("input-defences", *how, option, tmp_path / "other") == 2
        assert "give one of the same classes" in capsys.readouterr().err.replace("\n", " ")
    assert loaded(context, str(model)).classes == context.classifier.classes


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--detectors", "magic", "'magic' is not known"), ("--referrals", "0", "--referrals must be a share")],
)
def test_wrong_options_are_refused_in_one_line(model, tmp_path, capsys, option, value, message):
    how = ("--model", model, "--data", DATA, "--limit", 4, "--defences", "flips", "--out", tmp_path / "run")
    assert command("input-defences", *how, option, value) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
