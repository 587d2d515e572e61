"""Several findings an image: each finding under attack, on the images that both runs attacked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medrobust import paired, ranks, stats
from medrobust.report.compared import ComparedAudits, PairedVerdict, compared
from medrobust.report.findings import find
from medrobust.report.run import read
from medrobust.results import INCONCLUSIVE, Kind, among
from tests.paired.audits import audit

GREY = 1 / 255
N = 120
LABELS = np.random.default_rng(0).integers(-1, 2, (N, 2))


def findings_audit(
    folder: Path, medians: tuple[float, float], wrong: int, *, settings: str = "30 steps", swap: bool = False, **options
) -> Path:
    """An audit of effusion and mass. medians: of the smallest change that turns each, in grey levels. wrong: so many
    images are read wrongly in effusion. swap: the findings in the other order."""
    prediction = np.abs(LABELS)
    prediction[:wrong, 0] ^= 1
    rng = np.random.default_rng(wrong)
    smallest = (rng.lognormal(np.log(medians), 0.7, (N, 2)) * GREY).astype(np.float32)
    smallest[prediction != LABELS] = np.nan
    order = [1, 0] if swap else [0, 1]
    arrays = {"test_labels": LABELS, "test_prediction": prediction, "labels": LABELS, "clean_prediction": prediction}
    return audit(
        folder,
        classes=tuple(np.array(["effusion", "mass"])[order].tolist()),
        head="multilabel",
        arrays={k: v[:, order] for k, v in (arrays | {"finding_min_eps": smallest}).items()},
        findings={"title": "FMN", "settings": settings},
        **options,
    )


def comparison(folder: Path, *runs: Path) -> ComparedAudits:
    paired.compare(runs, folder)
    return compared(find(read(folder)))


@pytest.mark.parametrize("swap", [False, True])
def test_each_finding_is_compared_where_both_attacked_it(swap, tmp_path):
    first = findings_audit(tmp_path / "a", (0.5, 1.0), 30)
    second = findings_audit(tmp_path / "b", (2.0, 1.0), 6, swap=swap)
    c = comparison(tmp_path / "out", first, second)
    a, b = (read(run).arrays["finding_min_eps"] for run in (first, second))
    b = b[:, ::-1] if swap else b
    p_values = []
    for result in c.by_finding:
        k, value = ("effusion", "mass").index(result.name), int(result.goal == "hide")
        both = (LABELS[:, k] == value) & ~np.isnan(a[:, k]) & ~np.isnan(b[:, k])
        held = [x[both, k] > np.float32(GREY) for x in (a, b)]
        assert result.difference.row.estimate == pytest.approx(stats.paired_difference(*held))
        assert result.difference.gained == (held[1] & ~held[0]).sum()
        p_values.append(stats.paired_p_value(*held))
    assert [(r.name, r.goal) for r in c.by_finding] == [
        (n, g) for n in ("effusion", "mass") for g in ("hide", "invent")
    ]
    assert [r.difference.p for r in c.by_finding] == pytest.approx(ranks.holm(np.array(p_values)).tolist())
    verdicts = {r.name: r.difference.verdict for r in c.by_finding}
    assert verdicts == {"effusion": PairedVerdict.BETTER, "mass": PairedVerdict.NOT_TOLD_APART}
    page = (tmp_path / "out/report.html").read_text()
    assert "Finding by finding under attack" in page


def test_a_finding_that_one_run_attacked_in_vain_is_inconclusive(tmp_path):
    first = findings_audit(tmp_path / "a", (0.5, 0.5), 6)
    second = findings_audit(tmp_path / "b", (2.0, 2.0), 6, in_doubt=("hide", "mass"))
    c = comparison(tmp_path / "out", first, second)
    of_pair = {(r.name, r.goal): r.difference for r in c.by_finding}
    assert of_pair["mass", "hide"].verdict is PairedVerdict.INCONCLUSIVE
    assert of_pair["mass", "invent"].verdict is PairedVerdict.BETTER
    doubted = {r.get("run") for r in among(c.f.run.rows, kind=Kind.FINDING, status=INCONCLUSIVE)}
    assert doubted == {"B"}


@pytest.mark.parametrize("other", ["other settings", "not attacked"])
def test_findings_that_were_attacked_otherwise_are_not_compared(other, tmp_path):
    first = findings_audit(tmp_path / "a", (0.5, 0.5), 6)
    second = findings_audit(tmp_path / "b", (2.0, 2.0), 6, settings="100 steps")
    if other == "not attacked":
        arrays = {k: v for k, v in read(second).arrays.items() if "label" in k or "prediction" in k}
        second = audit(tmp_path / "c", classes=("effusion", "mass"), head="multilabel", arrays=arrays)
    c = comparison(tmp_path / "out", first, second)
    assert c.by_finding == []
    assert any("without an attack only" in note for note in c.info.notes)
