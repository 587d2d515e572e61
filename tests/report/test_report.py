"""The report: what it says is right in every case, holds nothing from outside, and is the same bytes each time."""

from __future__ import annotations

import csv
import html
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from medrobust import report
from medrobust.errors import InputError
from medrobust.report import charts as drawn
from medrobust.report import check_lines, findings, latex, pictures, plain, tables, words
from medrobust.report import section as sections
from medrobust.report.glossary import GLOSSARY
from medrobust.report.run import read
from medrobust.results import Check
from tests import report_runs

VOID = {"meta", "img", "br", "link", "input", "hr", "col"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, drawing: set[str]) -> dict[str, Path]:
    """Every scenario written once; figures are drawn where names, sizes or gaps could break them."""
    root = tmp_path_factory.mktemp("reports")
    made = {name: report_runs.make(root / name, name) for name in report_runs.SCENARIOS}
    for name, folder in made.items():
        drawing.update({name} & {"fragile", "hostile", "few", "inconclusive", "audit"})
        report.write(folder)
        drawing.clear()
    return made


@pytest.mark.parametrize("pending", [True, False])
def test_every_section_that_a_run_may_lack_says_so(pages, pending):
    """A page is also written while a run is under way, of any command."""
    f = findings.find(read(pages["audit"]))
    values = {"f": f, "run": f.run, "c": f.run.conditions, "doubts": []}
    lacking = [m for m in sections.modules() if "None" in m.build.__annotations__["return"]]
    assert len(lacking) > 15
    for module in lacking:
        text = sections.Built(module, None, pending).html(values)
        assert len(re.sub("<[^>]*>", "", text).strip()) > 20, module.__name__


def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def summary(folder: Path) -> str:
    """The first page and its sentences as a reader sees them: one line of text."""
    return f"{first_page(folder)} {section(folder, 'sentences')}"


def first_page(folder: Path) -> str:
    """The first page alone."""
    text = page(folder)
    return shown(text[text.index('<section id="summary"') : text.index("<nav")])


def section(folder: Path, name: str) -> str:
    """A section below the first page, as ``summary``; the page is written first."""
    text = page(folder)
    text = text[text.index(f'<section id="{name}"') :]
    return shown(text[: text.index("</section>")])


def shown(text: str) -> str:
    """HTML as a reader sees it: one line of text."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", text)).split())


class Checker(HTMLParser):
    """Balanced tags, unique ids, links that lead somewhere, nothing loaded from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.sources: list[str] = []
        self.pictures: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {k: v or "" for k, v in attrs}
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            assert not attrs  # its own, inline
        assert tag not in ("iframe", "object", "embed", "link", "base", "form")
        assert not any(k.startswith("on") for k in values)
        if "id" in values:
            self.ids.append(values["id"])
        if "href" in values:
            self.targets.append(values["href"])
        if "src" in values:
            self.sources.append(values["src"])
        if tag == "img":
            self.pictures.append(values.get("alt", ""))
        if tag == "svg":
            assert values.get("role") == "img"
            self.pictures.append(values.get("aria-label", ""))
        self.targets += re.findall(r"url\(([^)]*)\)", values.get("style", "") + " " + values.get("clip-path", ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize("name", report_runs.SCENARIOS)
def test_page_is_valid_and_self_contained(pages: dict[str, Path], name: str) -> None:
    text = page(pages[name])
    checker = Checker()
    checker.feed(text)
    assert text.startswith("<!DOCTYPE html>")
    assert not checker.open
    assert len(checker.ids) == len(set(checker.ids))
    assert all(t.startswith("#") and t[1:] in checker.ids for t in checker.targets)
    assert all(s.startswith("data:image/png;base64,") for s in checker.sources)
    assert "@import" not in text
    assert "url(http" not in text
    assert all(len(alt) > 20 for alt in checker.pictures)
    assert "None" not in re.sub(r"<pre>.*?</pre>", "", " ".join(checker.text))
    assert " nan" not in " ".join(checker.text).lower()
    for section in ("clean", "accuracy", "smallest", "flips", "saving", "examples", "checks", "conditions", "limits"):
        assert section in checker.ids


def test_every_figure_has_an_alternative_text(pages: dict[str, Path]) -> None:
    checker = Checker()
    checker.feed(page(pages["fragile"]))
    shown = 2 + 4 * 3  # the pair on the first page, three images an example
    charts = 5
    assert len(checker.pictures) == shown + charts
    assert any("PGD" in alt and "93.0\u00a0%" in alt for alt in checker.pictures)


@pytest.mark.slow  # a new interpreter imports matplotlib
def test_same_input_gives_same_bytes(pages: dict[str, Path], tmp_path: Path) -> None:
    """Also in another process, with another hash seed, from another folder."""
    folder = report_runs.make(tmp_path / "again", "fragile")
    code = "import sys, medrobust.report as r; r.write(sys.argv[1]); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, env=os.environ | {"PYTHONHASHSEED": "7"})
    for name in ("report.html", "results.csv", "tables.tex"):
        assert (folder / name).read_bytes() == (pages["fragile"] / name).read_bytes()


# what it says

KEY = {
    "fragile": "This classifier is easily fooled.",
    "robust": "No attack tried here had a marked effect on this classifier.",
    "weakened": "The attacks weaken this classifier, but do not halve its accuracy.",
    "inconclusive": "Inconclusive: this audit cannot say how easily this classifier is fooled.",
    "one-in-doubt": "This classifier is easily fooled.",
    "multi-class": "This classifier is easily fooled.",
    "unknown-disease": "No class is known to stand for health",
    "audit": "This classifier is easily fooled.",
    "ten": "This classifier is easily fooled.",
    "thousand": "This classifier is easily fooled.",
    "chance": "This classifier does no better than guessing.",
    "few": "Only 8 images were attacked, so every number here is rough",
    "minimal": "No attack was measured in this run.",
    "hostile": "This classifier is easily fooled.",
}


@pytest.mark.parametrize("name", report_runs.SCENARIOS)
def test_key_sentence_and_no_other_verdict(pages: dict[str, Path], name: str) -> None:
    said = summary(pages[name])
    assert KEY[name] in said
    verdicts = {v for v in KEY.values() if v.startswith(("This", "No attack", "The attacks", "Inconclusive"))}
    assert sum(v in said for v in verdicts) == 1
    assert not re.search(r"\brobust\b", said)


def test_inconclusive_never_reads_as_strength(pages: dict[str, Path]) -> None:
    said = summary(pages["inconclusive"])
    for praise in (
        "withstood",
        "marked effect",
        "no proof",
        "did not halve",
        "too little harm",
        "nor the attack does harm",
    ):
        assert praise not in said
    assert said.count("nconclusive") >= 6
    assert "FAILED: gradients are not zero (FGSM and PGD). That means: the attack was blind." in said
    assert "INCONCLUSIVE: FGSM and PGD; on 100\xa0% of the images" in said.replace("100 %", "100\xa0%")
    whole = page(pages["inconclusive"])
    for section in ("accuracy", "smallest", "flips", "saving", "examples"):
        part = whole[whole.index(f'<section id="{section}"') :]
        assert '<p class="doubt">' in part[: part.index("</section>")]


def test_a_success_stands_though_another_attack_is_in_doubt(pages: dict[str, Path]) -> None:
    said = summary(pages["one-in-doubt"])
    assert "(PGD, 150 images)" in said
    assert "Some numbers are marked inconclusive" in said
    assert "INCONCLUSIVE: FGSM;" in said
    assert re.search(r'<th scope="col">FGSM <span class="flag">inconclusive', page(pages["one-in-doubt"]))
    assert not re.search(r'<th scope="col">PGD <span class="flag">', page(pages["one-in-doubt"]))


def test_phantoms_are_called_synthetic_and_real_images_are_not(pages: dict[str, Path]) -> None:
    assert "say nothing about patients" in summary(pages["fragile"])
    assert "Synthetic images." in page(pages["fragile"])
    assert "ynthetic images." not in page(pages["robust"])
    assert "synthetic" not in summary(pages["robust"])


def test_natural_frequencies_follow_from_the_rows(pages: dict[str, Path]) -> None:
    run = read(pages["fragile"])
    row = run.at("pgd", "flip", 1 / 255, class_name="pneumonia", target="normal")
    assert row is not None
    assert row.value is not None
    sentence = f"labelled pneumonia that it had read correctly, {round(100 * row.value)} are read as normal"
    assert sentence in summary(pages["fragile"])
    assert f"n = {row.n}); what random noise of that size does was not measured" in summary(pages["fragile"]).replace(
        "\u00a0", " "
    )


def test_directions_are_pooled_over_the_disease_classes(pages: dict[str, Path]) -> None:
    """240 images, 4 classes: the pooled share is the flips to normal over all correctly read diseased images."""
    found = findings.find(read(pages["multi-class"]))
    arrays = found.run.arrays
    right = arrays["labels"] == arrays["clean_prediction"]
    assert found.reference is not None
    row = found.turned(found.disease, found.normal, "pgd", found.reference)
    assert row is not None
    assert row.value is not None
    assert row.n == int((right & (arrays["labels"] > 0)).sum())
    parts = [found.run.at("pgd", "flip", found.reference, class_name=c, target="normal") for c in found.disease]
    hits = sum(round((p.value or 0) * p.n) for p in parts if p)
    assert row.value == pytest.approx(hits / row.n)
    assert "diabetic_retinopathy, cataract or glaucoma" in summary(pages["multi-class"])


@pytest.mark.parametrize(
    ("value", "said"), [(0.004, "fewer than 1"), (0.005, "1"), (0.975, "98"), (0.9949, "99"), (0.996, "more than 99")]
)
def test_of_hundred(value: float, said: str) -> None:
    assert words.of_hundred(value) == said


def test_numbers_as_people_read_them() -> None:
    assert words.number(0.3000001) == "0.3"
    assert words.number(1.25) == "1.25"
    assert words.number(200.0) == "200"
    assert words.grey_levels(1.0) == "1\u00a0grey level"
    assert words.grey_levels(0.4) == "0.4\u00a0grey levels"
    assert words.listing(["a", "b", "c"]) == "a, b and c"


# changes of one run


def changed(folder: Path, change) -> findings.Findings:
    """The findings after `change` was made to results.json."""
    path = folder / "results.json"
    results = json.loads(path.read_text())
    change(results)
    path.write_text(json.dumps(results))
    report.write(folder)
    return findings.find(read(folder))


def test_one_failed_check_takes_away_strength(tmp_path: Path) -> None:
    """A probe without gradients that beats the white-box attacks, or any check of the whole audit."""
    folder = report_runs.make(tmp_path, "robust")

    def fail(results: dict) -> None:
        results["checks"].append(
            {"name": "black box not stronger", "attack": "square", "passed": False, "detail": "", "consequence": ""}
        )

    assert changed(folder, fail).verdict is findings.Verdict.INCONCLUSIVE
    assert KEY["inconclusive"] in summary(folder)


def test_a_single_step_attack_alone_shows_no_strength(tmp_path: Path) -> None:
    folder = report_runs.make(tmp_path, "robust")

    def only_fgsm(results: dict) -> None:
        results["rows"] = [r for r in results["rows"] if r["attack"] in ("none", "fgsm", "noise")]

    assert changed(folder, only_fgsm).verdict is findings.Verdict.INCONCLUSIVE


def test_noise_that_harms_as_much_is_said(tmp_path: Path) -> None:
    folder = report_runs.make(tmp_path, "fragile")

    def noisy(results: dict) -> None:
        for row in results["rows"]:
            if row["attack"] == "noise" and row["metric"] == "accuracy":
                row["value"] = 0.2

    changed(folder, noisy)
    assert "Noise alone does much of the harm" in summary(folder)


def test_saving_that_undoes_the_attack_is_said(tmp_path: Path) -> None:
    folder = report_runs.make(tmp_path, "fragile")

    def undone(results: dict) -> None:
        for row in results["rows"]:
            if row["metric"] == "accuracy_saved" and row["bits"] == 8:
                row["value"] = 0.93

    changed(folder, undone)
    assert "nothing is left: saving undoes the attack" in summary(folder)
    assert "survives saving" not in summary(folder)
    saving = section(folder, "saving")
    assert "survives saving" not in saving
    assert "No tested size halves the accuracy of saved images." in saving


# as the audit writes it


def test_the_worst_case_leads_and_is_no_attack_of_its_own(pages: dict[str, Path]) -> None:
    said, found = summary(pages["audit"]), findings.find(read(pages["audit"]))
    assert found.strongest == "worst"
    assert "(worst of FGSM, BIM, PGD and CW, 150 images)" in said
    assert "altered by 4\xa0attacks (FGSM, BIM, PGD and CW)".replace("\xa0", " ") in said
    row = found.at_reference
    assert row is not None
    assert f"down to {100 * (row.value or 0):.1f}" in said
    min_eps = found.run.arrays
    assert (
        min_eps["min_eps.worst"] <= np.min([min_eps[f"min_eps.{a}"] for a in found.run.attacks], axis=0) * 1.0001
    ).all()


def test_a_probe_at_one_eps_is_told_apart(pages: dict[str, Path]) -> None:
    """One marker and a sentence; no line, no column, no part in the count."""
    text, found = page(pages["audit"]), findings.find(read(pages["audit"]))
    assert found.run.probes == ["square"]
    assert "Square, a black-box probe that sees only the model's answers, was run beside them on 32" in summary(
        pages["audit"]
    )
    assert '<th scope="col">Square' not in text
    assert "Square, black-box probe (n = 32)" in text
    assert "Square" in (pages["audit"] / "tables.tex").read_text()
    # asked for by name it is an attack like the others
    assert "square" in findings.find(read(pages["fragile"])).run.attacks


def test_the_worst_case_is_in_doubt_only_where_every_attack_is(tmp_path: Path) -> None:
    folder = report_runs.make(tmp_path, "audit")

    def blind(*attacks: str):
        def change(results: dict) -> None:
            for c in results["checks"]:
                c["passed"] = c["attack"] not in attacks or c["name"] in findings.WHOLE_AUDIT

        return change

    some = changed(folder, blind("fgsm", "bim", "pgd"))
    assert not findings.in_doubt(some, "worst")
    assert findings.in_doubt(some, "pgd")
    every = changed(folder, blind("fgsm", "bim", "pgd", "cw"))
    assert findings.in_doubt(every, "worst")
    assert every.verdict is findings.Verdict.FOOLED  # one success is proof, whatever the checks say


def test_a_worst_case_of_doubtful_attacks_shows_no_strength(tmp_path: Path) -> None:
    folder = report_runs.make(tmp_path, "audit")

    def held(results: dict) -> None:
        for row in results["rows"]:
            if row["metric"] == "accuracy":
                row["value"] = 0.9
        for c in results["checks"]:
            c["passed"] = c["attack"] == "fgsm" or c["name"] in findings.WHOLE_AUDIT

    assert changed(folder, held).verdict is findings.Verdict.INCONCLUSIVE
    held_by_all = changed(folder, lambda results: [c.update(passed=True) for c in results["checks"]])
    assert held_by_all.verdict is findings.Verdict.WITHSTOOD
    assert "the worst of FGSM, BIM, PGD and CW leaves 90.0" in summary(folder)


@pytest.mark.parametrize("name", findings.WHOLE_AUDIT)
def test_some_checks_concern_every_attack(tmp_path: Path, name: str) -> None:
    """The audit makes them with its main attack alone, but what they show is true of all."""
    folder = report_runs.make(tmp_path, "robust")

    def fail(results: dict) -> None:
        results["checks"].append({"name": name, "attack": "pgd", "passed": False, "detail": "", "consequence": ""})

    assert changed(folder, fail).verdict is findings.Verdict.INCONCLUSIVE


def test_saving_is_told_for_the_attack_that_was_saved(pages: dict[str, Path]) -> None:
    said, found = summary(pages["audit"]), findings.find(read(pages["audit"]))
    assert found.saved_attack == "pgd"
    assert "PGD at full strength on 32 images" in said.replace("\xa0", " ")
    assert "At 1 grey level the attack survives saving" in said.replace("\xa0", " ")
    assert "At 0.5 grey levels" not in said.replace("\xa0", " ")  # the first page speaks of one size
    every = section(pages["audit"], "saving").replace("\xa0", " ")
    assert "At 0.5 grey levels nothing is left" in every
    assert "At 1 and 2 grey levels the attack survives saving" in every
    assert "It is certain that a change below half a grey level is undone" in said
    table = tables.saving(found)
    assert table is not None
    assert [row[1].text for row in table.rows] == ["0", "0.5", "1", "2"]


@pytest.mark.parametrize(("bits", "norm"), [(16, "Linf"), (8, "L2")])
def test_rounding_is_certain_only_on_the_8_bit_grid(tmp_path: Path, bits: int, norm: str) -> None:
    folder = report_runs.make(tmp_path, "audit")
    changed(folder, lambda results: results["conditions"].update(bits=bits, norm=norm))
    assert "It is certain" not in summary(folder)


def test_many_classes_are_cut_and_numbers_are_called_classes(pages: dict[str, Path]) -> None:
    table = tables.flips(findings.find(read(pages["ten"])))
    assert table is not None
    assert len(table.rows) == tables.MOST_FLIPS < 90
    assert "most frequent of 90" in table.caption
    shares = [float(row[1].text.partition("\xa0")[0]) for row in table.rows]
    assert shares == sorted(shares, reverse=True)
    assert re.search(
        r"images labelled class.\d that it had read correctly, \d+ are read as class.\d", summary(pages["ten"])
    )
    assert "With 1\u202f000 classes the directions" in page(pages["thousand"])
    assert "too many for a confusion matrix" in page(pages["thousand"])
    assert len(page(pages["thousand"])) < 300_000
    for name in ("ten", "thousand"):
        text = page(pages[name])
        text = text[: text.index('<section id="words"')]
        assert not re.search("patient|hospital|diagnos|missed disease is", text)


def test_conditions_are_readable(pages: dict[str, Path]) -> None:
    """No dump of the training history, but where the weights come from."""
    text = page(pages["thousand"])
    assert "train_loss" not in text
    assert "<pre>" not in text
    assert "file weights.safetensors, sha256 77aa" in text
    assert "lr 0.001, flip yes" in text
    assert "pneumonia from a probability of 0.5" in page(pages["audit"])
    assert "the most probable class" in page(pages["ten"])


def test_checks_of_one_name_stand_in_one_line_and_failures_first(pages: dict[str, Path]) -> None:
    lines = check_lines.lines((run := read(pages["one-in-doubt"])).checks, run.title)
    assert [line.passed for line in lines][:2] == [False, True]
    assert len(lines) == len(report_runs.CHECKS) + 1
    assert {line.attacks for line in lines} == {"FGSM", "PGD", "FGSM and PGD"}
    probes = [Check("a probe is not stronger", "pgd", None, probe, "") for probe in ("Square", "SimBA")]
    (line,) = check_lines.lines(probes, str.upper)
    assert (line.attacks, line.details) == ("PGD", ["Square", "SimBA"])


def test_l2_sizes_are_not_called_grey_levels_of_a_pixel(tmp_path: Path) -> None:
    folder = report_runs.make(tmp_path, "weakened")

    def l2(results: dict) -> None:
        results["conditions"]["norm"] = "L2"

    changed(folder, l2)
    assert "in each pixel" not in summary(folder)
    assert "L2 norm" in summary(folder)
    assert "½ grey level" not in page(folder)


def test_a_thousand_classes_stay_readable(tmp_path: Path) -> None:
    folder = report_runs.make(tmp_path, "minimal")

    def many(results: dict) -> None:
        results["conditions"] |= {"classes": [f"kind {i}" for i in range(1000)], "disease_classes": []}

    changed(folder, many)
    assert len(page(folder)) < 60_000
    assert "1\u202f000 classes" in page(folder)


def test_what_was_left_out_and_noted_is_on_the_first_page(pages: dict[str, Path], tmp_path: Path) -> None:
    assert "1\u00a0image was left out." in page(pages["hostile"])
    folder = report_runs.make(tmp_path, "minimal")

    def note(results: dict) -> None:
        results["conditions"]["data_notes"] = ["12 patients stand on both sides of the given split"]

    changed(folder, note)
    assert "see “Notes on the data”" in summary(folder)
    assert "12 patients stand on both sides of the given split" in page(folder)


def test_markup_in_names_is_text(pages: dict[str, Path]) -> None:
    text = page(pages["hostile"])
    for tag in ("<script>alert", "<b>normal</b>", "<u>net", "<i>broken", "<img src=http"):
        assert tag not in text
    assert html.escape("<script>alert(1)</script>") in text
    assert "truncated &amp; &lt;i&gt;broken" in text
    found = findings.find(read(pages["hostile"]))
    assert len(found.flips("pgd", found.reference or 0)) == 2  # a class name may hold "->"


def test_odd_class_names_are_drawn(tmp_path: Path, drawn: None) -> None:
    """An underscore in front, dollars, another script: matplotlib takes each for something else."""
    m = report_runs.Maker("folder:x", ["_a $x$", "肺炎"], n=60, median=0.4, clean=0.9)
    m.clean_rows()
    m.attack_rows("pgd")
    m.write(tmp_path, checks=[], attacks=["pgd"])
    report.write(tmp_path)
    assert "_a $x$ → 肺炎</text>" in page(tmp_path)


# the other files


def test_csv_equals_rows(pages: dict[str, Path]) -> None:
    folder = pages["hostile"]
    rows = json.loads((folder / "results.json").read_text())["rows"]
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        read_back = list(csv.DictReader(file))
    assert len(read_back) == len(rows)
    for line, row in zip(read_back, rows, strict=True):
        told = {k: "" if row.get(k) is None else str(row[k]) for k in line}
        assert line == told
        assert row.keys() <= line.keys()
        assert line["value"] == "" or float(line["value"]) == row["value"]


def test_latex_is_escaped_and_even(pages: dict[str, Path]) -> None:
    assert latex.escape(r"50%_$\x & #1 {a}~^") == (
        r"50\%\_\$\textbackslash{}x \& \#1 \{a\}\textasciitilde{}\textasciicircum{}"
    )
    assert latex.escape("--healthy 2–3") == "-{}-healthy 2--3"
    text = (pages["hostile"] / "tables.tex").read_text(encoding="utf-8")
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 15
    blocks = re.findall(r"\\begin\{tabular\}\{(l?r*)\}\n(.*?)\\end\{tabular\}", text, flags=re.S)
    assert len(blocks) == 8  # and one of running text
    for block in blocks:
        lines = [line for line in block[1].splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(block[0])}
    body = re.sub(r"^%.*$", "", text, flags=re.M)
    assert not re.search(r"(?<!\\)%", body)
    assert body.isascii()


def test_a_wide_table_is_set_in_parts(pages: dict[str, Path]) -> None:
    """Five attacks and two controls: every column once, the first in each part, no label twice."""
    text = (pages["fragile"] / "tables.tex").read_text(encoding="utf-8")
    specs = re.findall(r"\\begin\{tabular\}\{(.*)\}$", text, re.M)
    assert max(len(re.findall(r"[lr]$|[lr](?=[lr])|p\{[^}]*\}", spec)) for spec in specs) == latex.WIDEST
    assert "Part 2 of 2." in text
    heads = [line for line in text.splitlines() if line.startswith(r"$\varepsilon$ (/255) &")]
    assert [" & ".join(heads).count(name) for name in ("FGSM", "BIM", "PGD", "CW", "Square", "uniform")] == [1] * 6
    labels = re.findall(r"\\label\{(.*?)\}", text)
    assert len(labels) == len(set(labels))


def test_latex_marks_what_is_inconclusive(pages: dict[str, Path]) -> None:
    assert r"$^\dagger$Inconclusive." in (pages["inconclusive"] / "tables.tex").read_text()
    assert r"\dagger" not in (pages["robust"] / "tables.tex").read_text()


def test_larger_changes_stand_beside_their_controls_with_a_picture(pages: dict[str, Path]) -> None:
    text = report_runs.section(pages["audit"], "beyond")
    assert "Allowed as patch at a fixed place: 60 of 100 images" in text
    assert "does more than chance" in text
    assert "Allowed as rotation and shift: 5 of 100 images" in text
    assert "chance is not shown" in text
    assert "Patch of 3 x 3 pixels: pneumonia is read as normal." in text
    markup = page(pages["audit"])
    assert "Of 2\u00a0kinds of larger changes this one turns most. Allowed as patch" in markup
    assert (
        'src="data:image/png' in markup[markup.index('<section id="beyond"') : markup.index('<section id="detection"')]
    )
    assert "Not measured in this run" in report_runs.section(pages["fragile"], "beyond")


def test_corruptions_stand_beside_the_attack_and_their_table_folds_away(pages: dict[str, Path]) -> None:
    text = report_runs.section(pages["audit"], "corruptions")
    assert "Of 6 natural corruptions at severity 3 of 5, “corruption 0” leaves least" in text
    assert "The attack, with changes of at most 1 grey level, leaves" in text
    assert "The attack does more harm than the worst of them." in text
    markup = page(pages["audit"])
    table = markup.index('id="tab-corruptions"')
    assert markup.rindex("<details>", 0, table) > markup.rindex('<section id="corruptions"', 0, table)
    assert markup.index("</details>", table) < markup.index("</section>", table)
    folded = text[text.index("All corruptions") :]
    assert folded.index("corruption 0") < folded.index("corruption 5")  # what costs most comes first
    assert "Compared with natural corruptions" in markup
    assert 'id="corruptions"' in page(pages["fragile"])
    assert "Not measured in this run" in report_runs.section(pages["fragile"], "corruptions")


@pytest.mark.parametrize("name", report_runs.SCENARIOS)
def test_every_table_of_the_page_is_in_latex(pages: dict[str, Path], name: str) -> None:
    captions = re.findall(r'<figcaption id="tab-[^"]*">(.*?)</figcaption>', page(pages[name]), flags=re.S)
    text = (pages[name] / "tables.tex").read_text(encoding="utf-8")
    told = [latex.escape(words.whole(html.unescape(re.sub("<[^>]*>", "", c))).strip()) for c in captions]
    every = [*plain.first_page(findings.find(read(pages[name]))).tables]
    every += [t for s in section_list(pages[name]) for t in s.tables]
    made = [latex.escape(words.whole(t.caption)) for t in every]
    assert made == told
    assert len(re.findall(r"\\label\{tab[:-][\w-]*?(?<!-\d)\}", text)) == len(made)


def section_list(folder: Path) -> list[sections.Built]:
    return sections.built(findings.find(read(folder)))


def test_a_section_is_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by itself, it is in the contents, on the page and in LaTeX, at its place."""
    (tmp_path / "more_sections").mkdir()
    for name, text in SECTION.items():
        (tmp_path / "more_sections" / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("mine", "more_sections.mine", sections.GROUP)
    monkeypatch.setattr(sections.metadata, "entry_points", lambda group: [entry] if group == sections.GROUP else [])
    folder = report_runs.make(tmp_path / "run", "few")
    report.write(folder)
    text = page(folder)
    anchors = re.findall('<li><a href="#([a-z]+)">', text)
    assert anchors[1:5] == ["sentences", "clean", "mine", "accuracy"]
    assert anchors[1:] == re.findall('<section id="([a-z]+)"(?: class="folded")?>', text)
    assert "<p>Of &lt;b&gt;8&lt;/b&gt; images.</p>" in text
    assert r"\caption{All \& more.}\label{tab:mine}" in (folder / "tables.tex").read_text()
    assert [m.__name__ for m in sections.modules("more_sections")].count("more_sections.mine") == 2


SECTION = {
    "__init__.py": "",
    "mine.py": """
from medrobust.report.section import Content
from medrobust.report.tables import Table, TableCell

ANCHOR, TITLE, ORDER = "mine", "A question of mine", 15


def build(f):
    table = Table("All & more.", [TableCell("a"), TableCell("b")], [[TableCell("1"), TableCell("2")]], "tab:mine")
    return Content({"told": f"<b>{f.attacked}</b>", "mine": table}, [table])
""",
    "mine.html": "<p>Of {{ told }} images.</p>\n{{ table(mine) }}\n",
}


def test_what_is_not_finished_is_still_to_come(tmp_path: Path) -> None:
    folder = report_runs.make(tmp_path, "few")
    changed(folder, lambda results: results["conditions"].update(pending=["universal"]))
    assert "Still to come" in section(folder, "universal")
    assert "Not measured in this run." in section(folder, "without")
    assert page(folder).count("Still to come") == 2  # above the verdict too
    assert "This run is not finished.</strong> Still to come: one change for every image." in page(folder)


@pytest.mark.parametrize("name", ["inconclusive", "hostile"])
def test_the_summary_of_a_pull_request(pages: dict[str, Path], name: str) -> None:
    """Verdict, facts, failed checks and the report; no character of a name is markup."""
    text = (pages[name] / "summary.md").read_text(encoding="utf-8")
    assert f"**{KEY[name]}**" in text
    assert "- Accuracy before: " in text
    assert "[report.html](report.html)" in text
    assert text.count("- Failed: ") == (2 if name == "inconclusive" else 0)
    assert not re.search(r"(?<!\\)[<>]", text)


# parts


def test_the_change_is_magnified_by_a_round_factor_that_stays_in_range() -> None:
    for size in (0.1 / 255, 1 / 255, 7 / 255, 0.3):
        factor = pictures.magnification(np.array([size, -size / 2]))
        assert 0.15 < factor * size <= 0.5 + 1e-6
        assert re.fullmatch(r"[125]0*", f"{factor:g}")
    assert pictures.magnification(np.zeros(3)) == 1.0


def test_median_is_over_the_images_read_correctly(pages: dict[str, Path]) -> None:
    found = findings.find(read(pages["fragile"]))
    min_eps = load_file(pages["fragile"] / "figures.safetensors")["min_eps.pgd"]
    median = found.median("pgd")
    assert median is not None
    assert median.value == pytest.approx(np.median(min_eps[min_eps > 0]))


def test_docs_hold_the_sentences_of_the_report() -> None:
    text = (Path(__file__).parents[2] / "docs" / "glossary.md").read_text(encoding="utf-8")
    for term, sentence in GLOSSARY.items():
        assert f"| **{term}** | {sentence} |" in text


# bad input


def test_missing_folder_and_missing_results(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        report.write(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"holds no results\.json"):
        report.write(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no readable JSON"),
        ("[]", "must hold a JSON object, it holds list"),
        ('{"format": 1}', "format 1"),
        ('{"format": 2, "rows": []}', "conditions"),
        ('{"format": 2, "conditions": {"classes": ["a"]}, "rows": [{"attack": "pgd"}]}', "rows.0"),
        ('{"format": 2, "conditions": {"classes": ["a"]}, "rows": [[]]}', "rows.0"),
        ('{"format": 2, "conditions": {"classes": ["a"]}, "checks": [{"name": "c"}]}', "checks.0"),
    ],
)
def test_broken_results(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        report.write(tmp_path)
    assert "\n" not in str(caught.value)
    assert "results.json" in str(caught.value)
    assert not (tmp_path / "report.html").exists()


def test_broken_figures(tmp_path: Path) -> None:
    folder = report_runs.make(tmp_path, "few")
    (folder / "figures.safetensors").write_bytes(b"no tensors")
    with pytest.raises(InputError, match=r"figures\.safetensors is not what the run wrote"):
        report.write(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"figures\.safetensors cannot be read"):
        report.write(folder)


def test_unwritable_page(tmp_path: Path) -> None:
    folder = report_runs.make(tmp_path, "minimal")
    (folder / "report.html").mkdir()
    with pytest.raises(InputError, match=r"report\.html was not made by this run; move it away"):
        report.write(folder)
    (folder / "report.html").rmdir()
    report.write(folder).unlink()
    (folder / "report.html").mkdir()
    with pytest.raises(InputError, match="cannot write to"):
        report.write(folder)
    assert not list(folder.glob(".partial*"))


def test_the_share_fooled_grows_to_the_largest_size_that_was_tested_or_needed():
    sizes = np.array([0.6, np.inf, 0.2, 0.3])
    assert drawn.reached(sizes, [0.1, 0.4]) == ([0.0, 0.2, 0.3, 0.6, 0.6], [0.0, 0.25, 0.5, 0.75, 0.75])
    assert drawn.reached(sizes[1:2], [0.4]) == ([0.0, 0.4], [0.0, 0.0])
