"""Natural corruptions in an audit and in a study: rows are what the classifier answers on corrupted images."""

from __future__ import annotations

import numpy as np
import pytest

import medrobust as mr
from medrobust import stats
from medrobust.data.corruptions import SEVERITIES, corrupt, corruption_set, medmnist_c, suited
from medrobust.experiments import ask, catalogue, system
from medrobust.experiments.clean import CleanExperiment
from medrobust.experiments.context import Context
from medrobust.experiments.corruptions import CorruptionsExperiment, corruption_rows
from medrobust.grid import Data, Model, Part, Study
from medrobust.models import BlackBoxModel
from medrobust.results import Row, Rows, among, find
from medrobust.store import Store
from tests.data_files import write_table
from tests.experiments.test_own_sizes import SIZES
from tests.runner.test_execute import go

pytestmark = pytest.mark.filterwarnings("ignore:Only answers")


def experiment(data: mr.data.Dataset, classifier: mr.Classifier, folder, chosen: str = "any") -> CorruptionsExperiment:
    context = Context(system.given(data, classifier), ask(data=data.name, corruptions=chosen), Store(folder))
    return CorruptionsExperiment(context, CleanExperiment(context, gradient=False))


@pytest.fixture
def counted(monkeypatch) -> tuple[mr.Classifier, list[int]]:
    """A black box that calls bright images bright, and the images it was given, a call an entry."""
    calls: list[int] = []

    def answer(images: np.ndarray) -> np.ndarray:
        calls.append(len(images))
        return np.where(images.mean((1, 2, 3)) > 0.45, "bright", "dark")

    classes = ("dark", "bright")
    return mr.Classifier(BlackBoxModel(answer, classes), classes), calls


@pytest.fixture
def images(tmp_path) -> mr.data.Dataset:
    """Of two sizes, neither square; each patient has two."""
    from PIL import Image

    draw, rows = np.random.default_rng(0), []
    for i, (width, height) in enumerate(SIZES):
        pixels = np.clip(draw.normal(90 + 50 * (i % 2), 12, (height, width)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        rows.append({"file": f"{i}.png", "label": ("dark", "bright")[i % 2], "patient": f"p{i // 2}"})
    return mr.data.load(f"csv:{write_table(tmp_path, rows)}", fit="none")


def test_a_black_box_of_images_of_several_sizes_is_asked_five_times_an_image(images, counted, tmp_path):
    classifier, calls = counted
    made = experiment(images, classifier, tmp_path / "run", "xray")
    made.before()
    calls.clear()
    outcome = made.outcome()
    names = suited("xray", 1)
    assert sum(calls) == len(images) * len(SEVERITIES) * len(names)
    rows = outcome.rows.rows
    assert outcome.conditions["corruptions"]["titles"].keys() == set(names)
    part = images.for_network(classifier).by_id()
    for name, severity in (("exposure", 5), ("marker", 1)):
        decided = np.concatenate(
            [classifier.predict(corrupt(x, name, severity, ids=ids)).numpy() for x, _, ids in part.batches(100)]
        )
        right = decided == part.labels
        at = {"corruption": name, "severity": severity}
        share = stats.proportion(right, part.patients)
        assert tuple(find(rows, metric="accuracy", **at).estimate) == pytest.approx(tuple(share))
        bright = stats.proportion(right[part.labels == 1], part.patients[part.labels == 1])
        row = find(rows, metric="sensitivity", class_name="bright", **at)
        assert tuple(row.estimate) == pytest.approx(tuple(bright))
        lost = find(rows, metric="accuracy_lost", **at)
        assert lost.value == pytest.approx((made.before() == part.labels).mean() - share.value)


def test_rows_of_several_findings_leave_unknown_ones_out():
    labels = np.array([[1, 0], [1, 1], [0, -1], [0, 0]])
    decisions = np.stack([labels.clip(0)] * 5, 1)
    decisions[0, 4] = [0, 0]  # the first finding of the first image is missed at the largest severity
    rows = Rows()
    corruption_rows(rows, "blur", decisions, labels.clip(0), labels, ("a", "b"), None)
    values = {(r.metric, r.get("class_name"), r.get("severity")): (r.value, r.n) for r in rows.rows}
    assert values["accuracy", None, 4] == (1, 4)
    assert values["accuracy", None, 5] == (0.75, 4)
    assert values["accuracy_lost", None, 5] == (0.25, 4)
    assert values["sensitivity", "a", 5] == (0.5, 2)
    assert values["sensitivity", "b", 5] == (1, 1)
    assert values["balanced_accuracy", None, 5] == (0.875, 4)


def test_a_cell_of_a_study_gives_the_rows_of_an_audit(tmp_path):
    text = "phantom:chest@32:n=120"
    phantom = Data("phantom", text)
    node = catalogue.corrupted(Model("tiny", phantom, "small_cnn", {"epochs": 1}), "xray", limit=8)
    told = go(Study("S", "here", [Part("natural", "Natural corruptions", [node])]), tmp_path)
    (folder,) = (tmp_path / "models").iterdir()
    classifier = mr.Classifier.load(folder)
    test = system.given(mr.data.load(text), classifier).test
    audited = experiment(test.sample(8, 0), classifier, tmp_path / "audit", "xray").outcome().rows.rows
    rows = [Row.read(r) for r in told["rows"]]
    assert len(rows) == len(audited) == 2 + len(suited("xray", 1)) * 5 * 5
    for row in among(audited, metric="balanced_accuracy"):
        at = {"metric": row.metric, "corruption": row.get("corruption"), "severity": row.get("severity")}
        assert find(rows, **at).estimate == row.estimate


def test_balanced_errors_follow_from_the_balanced_accuracies(images, counted, tmp_path):
    classifier, _ = counted
    outcome = experiment(images, classifier, tmp_path / "run", "medmnist-c:pneumoniamnist").outcome()
    rows, baseline = outcome.rows.rows, medmnist_c.ALEXNET["pneumoniamnist"]
    each = []
    for kind, of_alexnet in baseline.corrupted.items():
        at = {"metric": "balanced_accuracy", "corruption": kind}
        error = 1 - np.mean([find(rows, severity=s, **at).value for s in SEVERITIES])
        row = find(rows, metric="balanced_error", corruption=kind)
        assert row.value == pytest.approx(error / of_alexnet)
        assert row.low <= row.value <= row.high
        assert (row.status, row.note[:19]) == ("inconclusive", "images of 44 pixels")
        each.append(row.value)
    whole = find(rows, metric="balanced_error", corruption=None)
    assert whole.value == pytest.approx(np.mean(each))
    relative = find(rows, metric="relative_balanced_error", corruption=None)
    assert relative.low <= relative.value <= relative.high


def test_sets_of_corruptions_are_named_or_refused():
    assert list(corruption_set("any", 1)) == list(suited(None, 1))
    with pytest.raises(mr.InputError, match="corruptions 'mri' are not known; choose from any, xray"):
        ask(corruptions="mri")
