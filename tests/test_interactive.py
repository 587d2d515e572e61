"""Audits from Python: on a network and images in memory, kept only where a folder is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import medrobust as mr
from medrobust.errors import InputError
from medrobust.results import Kind

SIDE, N = 12, 60
QUICK = {
    "attacks": ["fgsm", "pgd:steps=5"],
    "eps": [2 / 255, 40 / 255],
    "auto": "",
    "limit": 20,
    "universal": False,
    "detect": False,
    "explain": False,
    "stored": False,
    "corruptions": "",
}


class Brightness(nn.Module):
    """Bright images are of the second class: a change of every pixel by half of the gap turns an image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gap = 40 * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([-gap, gap], 1)


def bright(shift: int = 0) -> tuple[mr.Classifier, mr.data.Dataset]:
    """A classifier and images that are 20 grey levels from its boundary."""
    rng = np.random.default_rng(0)
    labels = np.arange(N) % 2
    noise = rng.integers(-3, 4, (N, SIDE, SIDE))
    noise -= noise.mean((1, 2), keepdims=True).round().astype(int)
    images = (np.where(labels, 148, 108)[:, None, None] + noise + shift).astype(np.uint8)
    data = mr.data.from_arrays(images, labels, ["dark", "<b>bright</b>"], splits=["test"] * N)
    return mr.Classifier(Brightness(), ["dark", "<b>bright</b>"], channels=1), data


@pytest.fixture(scope="module")
def results() -> object:
    return mr.audit(*bright(), **QUICK)


def accuracy(results, eps: float) -> float | None:
    rows = [r for r in results.rows if r.kind == Kind.WORST and r.metric == "accuracy" and abs(r.eps - eps) < 1e-6]
    return rows[0].value


def test_the_numbers_are_those_of_the_network(results):
    assert (accuracy(results, 2 / 255), accuracy(results, 40 / 255)) == (1.0, 0.0)
    assert results.folder is None


def test_a_notebook_shows_the_verdict_with_what_comes_from_data_escaped(results):
    shown = results._repr_html_()
    assert results.summary.title in shown
    assert "<table>" in shown
    assert "<b>bright" not in shown + results.page
    assert results.summary.title in str(results)


def test_the_rows_are_a_data_frame(results):
    frame = results.frame()
    assert len(frame) == len(results.rows)
    assert {"kind", "metric", "value", "low", "high", "n"} <= set(frame.columns)


def test_the_page_is_written_where_it_is_wanted_and_over_nothing_else(results, tmp_path):
    page = results.report(tmp_path / "audit.html")
    assert page.read_text() == results.report(page).read_text() == results.page
    (tmp_path / "mine.html").write_text("<p>mine</p>")
    with pytest.raises(InputError, match="is not overwritten"):
        results.report(tmp_path / "mine.html")


def test_a_folder_that_is_named_is_kept_and_gives_the_same_numbers(results, tmp_path):
    required = ["accuracy@2/255 >= 0.8", "accuracy@40/255 >= 0.8"]
    kept = mr.audit(*bright(), out=tmp_path / "run", require=required, **QUICK)
    assert [j.verdict.name for j in kept.criteria.judged] == ["PASS", "FAIL"]
    assert str(kept).startswith(kept.criteria.line)
    assert kept.folder == tmp_path / "run"
    assert (tmp_path / "run/report.html").is_file()
    assert kept.rows == results.rows
    assert "report.html" in kept._repr_html_()
    assert kept.criteria.line in kept._repr_html_()


def test_two_results_are_compared_on_the_same_images(results):
    """The second network decides 12 grey levels further from the dark images: it holds more of those."""
    _, data = bright()

    class Moved(Brightness):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x - 12 / 255)

    moved = mr.audit(mr.Classifier(Moved(), data.classes, channels=1), data, **{**QUICK, "eps": [2 / 255, 25 / 255]})
    first = mr.audit(*bright(), **{**QUICK, "eps": [2 / 255, 25 / 255]})
    both = mr.compare(first, moved, names=["before", "after"], eps=25 / 255)
    (row,) = [
        r for r in both.rows if r.metric == "accuracy" and r.get("when") == "under" and abs(r.eps - 25 / 255) < 1e-6
    ]
    assert row.value == pytest.approx(0.5)
    assert "after" in both._repr_html_()
    with pytest.raises(InputError, match=r"no size in common|sizes that all"):
        mr.compare(results, moved, eps=25 / 255)


@pytest.mark.parametrize(
    ("classifier", "options", "words"),
    [
        (Brightness(), {}, "wrap the network first"),
        (None, {"attacks": ["none-such"]}, "none-such"),
        (None, {"eps": [2, 1]}, "ascending"),
        (None, {"norm": "l3"}, "norm"),
        (None, {"limit": 0}, "limit must be at least 1"),
    ],
)
def test_what_cannot_be_audited_is_said_in_one_line(classifier, options, words):
    own, data = bright()
    with pytest.raises(InputError, match=words) as refused:
        mr.audit(classifier or own, data, **{**QUICK, **options})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": np.zeros((4, 8, 8))}, "must be uint8"),
        ({"images": np.zeros((4, 8, 6), np.uint8)}, "side, side"),
        ({"labels": [0, 1, 0]}, "4 images and 3 labels"),
        ({"labels": [0, 1, 2, 0]}, "from 0 to 1, got 0 to 2"),
        ({"labels": [0.0, 1.0, 0.0, 1.0]}, "whole numbers"),
        ({"name": "phantom:mine"}, "leave the colon out"),
    ],
)
def test_arrays_that_are_no_data_set_are_refused(change, words):
    given = {"images": np.zeros((4, 8, 8), np.uint8), "labels": [0, 1, 0, 1], "classes": ["a", "b"]} | change
    with pytest.raises(InputError, match=words):
        mr.data.from_arrays(**given)


def test_arrays_come_back_as_they_are():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    people = ["p", "p", "q", "q", "r", "r"]
    data = mr.data.from_arrays(images, [0, 1, 1, 0, 1, 0], ["a", "b"], patients=people)
    assert np.array_equal((data.images(range(6)) * 255).round().numpy(), images.transpose(0, 3, 1, 2))
    assert data.labels.tolist() == [0, 1, 1, 0, 1, 0]
    assert all(len(set(data.split_of[i : i + 2])) == 1 for i in (0, 2, 4))
    findings = mr.data.from_arrays(images[..., 0], np.eye(6, 3, dtype=int), ["x", "y", "z"])
    assert findings.multilabel
    assert findings.channels == 1
    with pytest.raises(InputError, match=r"labels must be \(n,\), or \(n, k\)"):
        mr.data.from_arrays(images, None, ["a", "b"])  # type: ignore[arg-type]
