"""The report's section on one change for every image: its words follow from the rows, and old runs still render."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from medrobust import report, stats
from medrobust.report import findings
from medrobust.report.run import read
from medrobust.report.sections import universal
from medrobust.results import Kind, Rows
from tests import report_runs
from tests.report.test_report import Checker

N = 100


def with_universal(
    folder: Path,
    scenario: str = "audit",
    *,
    matrices: np.ndarray | None = None,
    noise: int = 4,
    why: str = "",
    targets: bool = True,
) -> Path:
    """A made-up run with one change for every image. matrices: (1 + classes, k, k), of 100 images each."""
    report_runs.make(folder, scenario)
    told = json.loads((folder / "results.json").read_text())
    classes = told["conditions"]["classes"]
    k = len(classes)
    matrices = two_classes() if matrices is None else matrices
    status, eps = ("inconclusive", 0.03) if why else ("ok", 0.03)

    rows = Rows("audit", "d", "m", "Linf", 0)

    def add(attack: str, metric: str, hits: int, of: int = N, note: str = why, **more: Any) -> None:
        e, mine = stats.proportion(np.arange(of) < hits), attack == "sga"
        kind = Kind.UNIVERSAL if mine else Kind.CONTROL
        doubt = {"status": status, "note": note} if mine else {}
        rows.add(kind, metric, e, attack=attack, eps=eps, **doubt, **more)

    fooled = N - int(np.trace(matrices[0]))
    add("sga", "fooling_rate", fooled)
    add("sga", "fooling_rate_saved", fooled, bits=8)
    add("sga", "fooling_cap", N - int(matrices[0].sum(1).min()))
    add("sga", "accuracy_before", 90)
    add("sga", "accuracy_after", 20)
    for i, name in enumerate(classes if targets else []):
        before, there, stayed = (
            int(x) for x in (matrices[0].sum(1)[i], matrices[1 + i].sum(0)[i], matrices[1 + i][i, i])
        )
        add("sga", "targeted_success", there, target=name)
        add("sga", "targeted_base", before, target=name)
        add("sga", "targeted_success_new", there - stayed, N - before, target=name)
        add("sga", "targeted_success_saved", there, target=name, bits=8)
        add("random signs", "targeted_success", before, target=name)
        add("random signs", "targeted_success_new", 2, N - before, target=name)
    add("random signs", "fooling_rate", noise)
    add("random uniform", "fooling_rate", max(0, noise - 1))
    goals = [None, *range(k)] if targets else [None]
    told["conditions"]["universal"] = {
        "title": "SGA",
        "source": "Liu et al. 2023, arXiv:2308.06015",
        "settings": {"passes": 3, "balance": True},
        "zeta": 0.04,
        "eps": eps,
        "made_from": "training images",
        "n_made": 200,
        "n_judged": N,
        "bits": 8,
        "controls": ["random signs", "random uniform"],
        "goals": [{"target": t, "nonzero": not why, "why": why, "legal": True, "gradients": 600} for t in goals],
        "examples": [{"target": t, "id": f"x{t}.png", "label": 1, "before": 1, "after": 0} for t in goals[:2]],
    }
    told["rows"] += rows.plain()
    (folder / "results.json").write_text(json.dumps(told))
    arrays, rng = load_file(folder / "figures.safetensors"), np.random.default_rng(0)
    clean = rng.random((len(goals[:2]), 1, 16, 16), np.float32)
    delta = np.sign(rng.standard_normal(clean.shape, np.float32)) * np.float32(0 if why else eps)
    arrays |= {"universal.clean": clean, "universal.delta": delta, "universal.attacked": (clean + delta).clip(0, 1)}
    arrays["universal.confusion"] = matrices[: len(goals)]
    save_file(arrays, folder / "figures.safetensors")
    (folder / "manifest.json").unlink()  # it lists the arrays before
    return folder


def two_classes(fooled: tuple[int, int] = (35, 45)) -> np.ndarray:
    """40 images read as the first class and 60 as the second; of each so many are fooled."""
    free = [[40 - fooled[0], fooled[0]], [fooled[1], 60 - fooled[1]]]
    return np.array([free, [[40, 0], [57, 3]], [[1, 39], [0, 60]]])


def text_of(folder: Path) -> str:
    """The section as a reader sees it: one line of text."""
    page = report.write(folder).read_text("utf-8")
    part = page[page.index('<section id="universal"') :]
    return plain(part[: part.index("</section>")])


def first_page(folder: Path) -> str:
    """The first page and its sentences."""
    page = (folder / "report.html").read_text("utf-8")
    sentences = page[page.index('<section id="sentences"') :]
    return plain(
        page[page.index('<section id="summary"') : page.index("<nav")] + sentences[: sentences.index("</section>")]
    )


def plain(part: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", part)).replace("\xa0", " ").split())


def test_an_older_run_renders_and_says_that_it_was_not_measured(tmp_path):
    folder = report_runs.make(tmp_path / "old", "audit")
    assert "Not measured in this run." in text_of(folder)
    assert "One change for all images" not in first_page(folder)
    assert "fooling rate" not in (folder / "tables.tex").read_text()


@pytest.mark.parametrize("scenario", ["audit", "fragile"])
@pytest.mark.slow  # draws whole pages
def test_the_page_stays_valid_with_it(tmp_path, scenario, drawn):
    folder = with_universal(tmp_path / "run", scenario)
    checker = Checker()
    page = report.write(folder).read_text("utf-8")
    checker.feed(page)
    assert not checker.open
    assert len(checker.ids) == len(set(checker.ids))
    assert all(t.startswith("#") and t[1:] in checker.ids for t in checker.targets)
    assert all(s.startswith("data:image/png;base64,") for s in checker.sources)
    assert sum("The one change for every image, towards" in alt for alt in checker.pictures) == 2
    assert all(len(alt) > 20 for alt in checker.pictures)
    assert " nan" not in " ".join(checker.text).lower()
    assert report.write(folder).read_text("utf-8") == page


def test_sentences_follow_from_the_rows(tmp_path):
    said = text_of(with_universal(tmp_path / "run"))
    assert "computed from 200 images (training images)" in said
    assert "tried on 100 test images that had no part in it" in said
    assert "80 of 100 images (80.0 % (71.1–86.7), n = 100) get another answer" in said
    assert "with a random change of the same size, 4 of 100 images (4.0 % (1.6–9.8), n = 100) do" in said
    assert "the aim of the change that does the harm, much less its size" in said
    assert "reads 90 of 100 correctly without it and 20 of 100 with it" in said
    # 60 of 100 were read as pneumonia: no pile of one class changes more
    assert "sending all images into one of them changes at most 60 of 100 images (60.0 % (50.2–69.1)" in said
    assert "Of the images that were not read as normal, a change made towards normal turns 95 of 100 (95.0 %" in said
    assert "into it; a random change of the same size turns 3 of 100 (3.3 %" in said
    assert "n = 60). This is disease that is missed. Of 2 goals, 2 are reached by more images than under random" in said
    assert "80 of 100 changed images (80.0 % (71.1–86.7), n = 100) still get another answer: saving is no cure" in said


def test_the_first_page_has_it_in_short(tmp_path):
    folder = with_universal(tmp_path / "run")
    report.write(folder)
    said = first_page(folder)
    assert "One change for all images One single change (7.65 grey levels), computed once, was added" in said
    assert "80 of 100 images (80.0 % (71.1–86.7), n = 100) get another answer" in said
    assert "disease that is missed" in said
    assert "Of 2 goals" not in said


def test_what_is_no_better_than_chance_is_called_so(tmp_path):
    said = text_of(with_universal(tmp_path / "run", matrices=two_classes((3, 4)), noise=5))
    assert "That is not shown to be more than random changes do; a better method may find one that does more" in said
    assert "does the harm" not in said
    assert "saving is" not in said
    assert not re.search(r"\brobust\b", said)


def test_images_that_pile_up_in_one_class_are_said_to(tmp_path):
    said = text_of(with_universal(tmp_path / "run", matrices=two_classes((0, 58))))
    assert "Nearly all images end in one class: 98 of 100 are read as normal, 40 before." in said
    assert "Nearly all" not in text_of(with_universal(tmp_path / "other"))


def test_a_perturbation_that_stayed_zero_is_no_sign_of_strength(tmp_path):
    why = "the gradient was zero for every image, so the perturbation stayed zero"
    folder = with_universal(tmp_path / "run", matrices=two_classes((0, 0)), why=why)
    said = text_of(folder)
    assert f"Inconclusive: {why}. Do not quote these numbers as strength." in said
    assert "That is no sign of strength." in said
    assert "does the harm" not in said
    assert "turns" not in said
    page = (folder / "report.html").read_text("utf-8")
    assert re.search(r'<div class="warn"><dt>One change for all images', page)
    assert r"$^\dagger$" in (folder / "tables.tex").read_text()


def test_the_table_is_the_rows_and_stands_in_latex_too(tmp_path):
    folder = with_universal(tmp_path / "run")
    report.write(folder)
    found = findings.find(read(folder))
    section = universal.section(found)
    assert section is not None
    lines = {row[0].text: [c.value for c in row[1:]] for row in section.table.rows}
    expected = ["97.0 %", "40.0 %", "97.0 %", "40.0 %", "95.0 %", "3.3 %"]
    assert [v.replace("\xa0", " ") for v in lines["Read as normal"]] == expected
    assert lines["Another answer (fooling rate)"][3:] == ["–", "–", "–"]
    assert section.confusion is not None
    assert section.confusion.counts.tolist() == [[5, 35], [45, 15]]
    assert r"\label{tab:universal}" in (folder / "tables.tex").read_text()


def test_without_targets_and_with_many_classes(tmp_path):
    matrix = np.full((1, 10, 10), 1)
    folder = with_universal(tmp_path / "run", "ten", matrices=matrix, targets=False)
    said = text_of(folder)
    assert "90 of 100 images (90.0 %" in said
    assert "towards class" not in said
    assert "With two classes" not in said


def test_in_l2_sizes_are_not_called_grey_levels_of_a_pixel(tmp_path):
    folder = with_universal(tmp_path / "run")
    told: dict[str, Any] = json.loads((folder / "results.json").read_text())
    told["conditions"]["norm"] = "L2"
    told["conditions"]["universal"]["eps"] = 2.0
    for row in told["rows"]:
        row["norm"] = "L2"
        row["eps"] = 2.0 if row["kind"] == "universal" or "random" in row["attack"] else row["eps"]
    (folder / "results.json").write_text(json.dumps(told))
    said = text_of(folder)
    # 64 x 64 pixels of one channel
    assert "Its size: L2 size 2, on average 7.97 grey levels out of 255 a pixel (4 % of the norm" in said
