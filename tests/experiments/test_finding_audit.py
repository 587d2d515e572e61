"""An audit of a classifier of several findings: on a linear one every smallest change is known."""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import medrobust as mr
from medrobust import report
from medrobust.cli.audit import summary
from medrobust.experiments import ask, risk, suite, system
from medrobust.experiments.auditing import experiments
from medrobust.experiments.context import Context
from medrobust.experiments.finding_cells import occurs
from medrobust.experiments.findings import goal_on
from medrobust.progress import NoProgress
from medrobust.report.run import read
from medrobust.results import Kind, Row, among, find
from medrobust.run_folder import RunFolder
from medrobust.stats import Estimate
from medrobust.store import Store
from medrobust.threat import GoalKind
from tests.nets import Linear

GRID = tuple(e / 255 for e in (0.1, 0.5, 1, 2, 4))


@pytest.fixture(scope="module")
def data() -> mr.data.Dataset:
    """With some findings of some images unknown."""
    loaded = mr.data.load("phantom:chest-findings@32:n=120")
    labels = loaded.labels.copy()
    labels[::7, 0] = -1
    return dataclasses.replace(loaded, labels=labels)


@pytest.fixture(scope="module")
def classifier(data) -> mr.Classifier:
    """A ridge regression on pixels, fitted to all images: it knows the answer of most."""
    images, labels = data.tensors()
    x = torch.cat([images.flatten(1) - 0.5, torch.ones(len(images), 1)], 1).double()
    y = torch.where(labels < 0, 0, labels).double() - 0.4
    weight = torch.linalg.solve(x.T @ x + 0.3 * torch.eye(x.shape[1]), x.T @ y).T.float()
    net = Linear(weight[:, :-1], weight[:, -1] - 0.5 * weight[:, :-1].sum(1))
    return mr.Classifier(net, data.classes, head="multilabel", channels=1)


@pytest.fixture(scope="module")
def run(data, classifier, tmp_path_factory):
    """rows by the audit's own code, and the folder with its report."""
    folder = tmp_path_factory.mktemp("runs") / "findings"
    table = tmp_path_factory.mktemp("risk") / "risks.csv"
    lines = [f"{name},{3 * (name == 'effusion') + 1},{int(name == 'effusion')}" for name in data.classes]
    table.write_text("\n".join(["finding,missed,invented", *lines]))
    config = ask(
        risk=str(table),
        data=data.name,
        model="linear",
        attacks=("pgd:steps=5",),
        eps=GRID,
        limit=10,
        auto="",
        detect=False,
        explain=False,
        stored=False,
        universal=False,
    )
    with RunFolder(folder, "audit", {"spec.json": b"{}"}) as opened:
        opened.begin()
        tested = dataclasses.replace(system.given(data, classifier))
        tested = dataclasses.replace(tested, sample=tested.test.sample(10, 0))
        made = suite.Suite("audit", config, {}, tested, Store(opened.path), NoProgress(), "cpu")
        made.experiments = [e for e in made.experiments if e.name in ("robustness", "findings")]
        results = suite.run(made, opened)
    report.write(folder)
    return SimpleNamespace(
        folder=folder, rows=[Row.read(r) for r in results["rows"]], experiment=made.experiments[-1], tested=tested
    )


def test_a_finding_is_hidden_at_its_logit_over_the_norm_of_its_weights(run, classifier):
    for k, name in enumerate(classifier.classes):
        part = run.experiment.part(k)
        if part is None:
            continue
        images, labels = part.tensors()
        logits = classifier.logits(images)[:, k]
        exact = logits.abs() / classifier.net.weight[k].detach().norm(p=1)
        for goal, value in (("hide", 1), ("invent", 0)):
            mask = labels[:, k] == value
            row = find(run.rows, kind=Kind.FINDING, metric="min_eps_median", goal=goal, class_name=name, alone=None)
            if not mask.any():
                assert row is None
                continue
            assert ((logits > 0) == (value == 1))[mask].all()
            assert row.n == int(mask.sum())
            # pixels that are black or white already cannot all move: no smaller, and not much larger
            assert row.value == pytest.approx(float(exact[mask].median()), rel=0.25)


def test_changing_one_alone_takes_no_less_and_any_change_no_more(run):
    rows = list(among(run.rows, kind=Kind.FINDING, metric="success"))
    alone = [r for r in rows if r.get("alone")]
    assert alone
    for row in alone:
        same = {"goal": row.get("goal"), "class_name": row.get("class_name"), "eps": row.eps}
        whole = find(rows, **same, alone=None)
        assert row.value <= whole.value
        assert row.n == whole.n
    cell = run.experiment.sets_cell.arrays
    anything = run.experiment.outcome().arrays["min_eps.findings"]
    for kind in ("hide-all", "occurring"):
        assert (anything <= cell[f"{kind}.min_eps"] + 1e-6).all()
    sample = run.tested.sample
    for k in range(len(sample.classes)):
        part = run.experiment.part(k)
        arrays = run.experiment.cell(k).arrays
        for i, name in enumerate(part.ids):
            if name in sample.ids:
                assert anything[sample.ids.index(name)] <= arrays["one.min_eps"][i]


def test_the_smallest_change_of_each_finding_is_kept_image_by_image(run):
    """For a comparison with another classifier on the same images."""
    smallest = read(run.folder).arrays["finding_min_eps"]
    assert smallest.shape == run.tested.test.labels.shape
    for k, name in enumerate(run.tested.test.classes):
        part = run.experiment.part(k)
        ids = [] if part is None else part.ids
        attacked = ~np.isnan(smallest[:, k])
        assert [image for image, hit in zip(run.tested.test.ids, attacked, strict=True) if hit] == sorted(
            ids, key=run.tested.test.ids.index
        )
        of_finding = {"kind": Kind.FINDING, "metric": "success", "class_name": name, "alone": None, "eps": GRID[2]}
        for goal, value in (("hide", 1), ("invent", 0)):
            at = attacked & (run.tested.test.labels[:, k] == value)
            if at.any():
                share = (smallest[at, k] <= np.float32(GRID[2])).mean()
                assert find(run.rows, goal=goal, **of_finding).value == pytest.approx(share)


def test_unknown_findings_take_part_in_nothing(run, data):
    unknown = {name for name, label in zip(data.ids, data.labels[:, 0], strict=True) if label < 0}
    assert unknown
    assert not unknown & set(run.experiment.part(0).ids)
    labels, decisions = np.array([[-1, 0, 1]]), np.array([[1, 0, 1]])
    assert occurs(decisions, labels, np.array([[0, 0, 1]])).tolist() == [True]
    assert occurs(decisions, labels, np.array([[1, 1, 1]])).tolist() == [False]


def test_every_goal_stands_beside_noise_of_its_size_and_keeps_its_interval(run):
    for row in among(run.rows, kind=Kind.FINDING, metric="success"):
        assert row.low <= row.value <= row.high
    hidden = find(run.rows, kind=Kind.CONTROL, metric="success", goal="hide", class_name="effusion", eps=GRID[0])
    assert hidden.value == 0
    before = find(run.rows, kind=Kind.FINDING, metric="occurs_before", goal="any")
    after = find(run.rows, kind=Kind.FINDING, metric="occurs_after", goal="occurring")
    assert before.n > 0
    assert after.value == 1


def test_detectors_and_explanations_of_an_audit_see_each_set_as_a_class(run, data):
    context = Context(run.tested, ask(data=data.name, model="linear"), run.experiment.context.store)
    made = {e.name: e for e in experiments(context, {})}
    assert {"findings", "universal", "detection", "evasion", "explanation"} <= made.keys()
    sets = made["explanation"].context.system
    assert len(sets.classifier.classes) == 32
    assert sets.of_findings is run.tested
    assert made["detection"].data[0].context.system is sets
    known = (run.tested.test.labels >= 0).all(1)
    assert sets.test.ids == tuple(np.array(run.tested.test.ids)[known])
    unknown = dataclasses.replace(data, labels=np.where(np.arange(5) == 0, -1, data.labels))
    context = Context(system.given(unknown, run.tested.classifier), context.config, context.store)
    why = f"no image of {data.name} has a known label for every finding"
    left_out = experiments(context, {})[-1].outcome().left_out
    assert left_out == [("detectors", why), ("explanations", why)]


def test_the_risk_of_missing_or_inventing_weighs_the_rates(run, classifier):
    for alone in (None, True):
        at = {"kind": Kind.FINDING, "eps": GRID[3], "alone": alone}
        every = {r.get("class_name", "") + r.get("goal"): r for r in among(run.rows, metric="success", **at)}
        hidden = [
            (every[f"{n}hide"].value, 4 if n == "effusion" else 1) for n in classifier.classes if f"{n}hide" in every
        ]
        total = sum(w * v for v, w in hidden) + every["effusioninvent"].value
        row = find(run.rows, metric="risk", **at)
        assert row.value == pytest.approx(total / (sum(w for _, w in hidden) + 1))
        assert row.low < row.value < row.high
    rates = {("a", GoalKind.HIDE): Estimate(0.5, 0.4, 0.6, 10), ("a", GoalKind.INVENT): Estimate(1.0, 0.9, 1.0, 10)}
    assert risk.weighted(rates, {("a", GoalKind.HIDE): 3.0, ("a", GoalKind.INVENT): 1.0})[:3] == pytest.approx(
        (0.625, 0.525, 0.7)
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("finding,missed\na,1", "no column 'invented'"),
        ("finding,missed,invented\na,1,2\nc,1,1", "no finding 'c'; there are a, b"),
        ("finding,missed,invented\na,1,2", "no row for b"),
        ("finding,missed,invented\na,1,-2\nb,1,1", "weight of a must be a number from 0 up, got '-2'"),
        ("finding,missed,invented\na,0,0\nb,0,0", "every weight is 0"),
    ],
)
def test_a_table_of_risks_that_is_none_is_refused_in_one_line(text, words, tmp_path):
    (tmp_path / "risks.csv").write_text(text)
    with pytest.raises(mr.InputError, match=words):
        risk.read(str(tmp_path / "risks.csv"), ["a", "b"])


def test_a_goal_in_words_concerns_the_images_on_which_it_means_something(run, classifier):
    sample, goal = goal_on(run.tested, "hide:effusion")
    assert (sample.labels[:, classifier.classes.index("effusion")] == 1).all()
    images, _ = sample.tensors()
    ready = goal.prepare(classifier.head, 5, len(sample), images.device)
    assert not ready.reached(classifier.head, classifier.logits(images)).any()
    with pytest.raises(mr.InputError, match="no finding 'mass'; there are cardiomegaly"):
        goal_on(run.tested, "only:mass")


def test_the_page_says_it_for_a_doctor_and_knows_no_classes(run, capsys):
    summary(read(run.folder))
    lines = [line.split("│") for line in capsys.readouterr().out.splitlines() if "effusion" in line]
    hidden = find(run.rows, metric="success", goal="hide", class_name="effusion", eps=GRID[-1], alone=None)
    assert [cells[2].strip() for cells in lines] == [f"{hidden.value:.0%}"]
    page = (run.folder / "report.html").read_text()
    text = page[page.index("<main>") : page.index("<nav")] + page[page.index('id="sentences"') :].split("</section>")[0]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text))
    assert re.search(r"Of \d synthetic images with (\w+) in which it reported \1, \d loses? it after", text)
    assert "nothing else changes" in text
    assert "another set of findings" in text
    assert "exact match" in text
    assert "weighted by the given table of risks" in text
    assert not re.search(r"\bclass(es)?\b", text)
    assert 'id="findings"' in page
    assert 'id="flips"' not in page
    assert "tab:findings-hide" in (run.folder / "tables.tex").read_text()
