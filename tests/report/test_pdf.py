"""report.pdf says what the page says, to a screen reader too, and nothing is fetched while it is made."""

from __future__ import annotations

import builtins
import html
import re
from io import BytesIO
from pathlib import Path

import pytest

from medrobust import InputError, report
from medrobust.report import pdf
from tests import report_runs
from tests.commands import run


def test_without_weasyprint_it_is_one_line_and_nothing_is_written(tmp_path, monkeypatch):
    folder, imported = report_runs.make(tmp_path / "run", "minimal"), builtins.__import__

    def missing(name, *more, **named):
        if name.startswith("weasyprint"):
            raise ImportError(name)
        return imported(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r"a PDF needs WeasyPrint: pip install 'medrobust\[pdf\]'"):
        report.write(folder, pdf=True)
    assert not (folder / "report.html").exists()


def test_drawings_have_colours_and_words_of_their_own():
    page = (
        "<style>:root { --c1: #d55e00; --heat: #0072b2; }\n@media print { :root { --paper: #fff; } }</style>"
        '<svg role="img" aria-label="a &lt; b"><path style="stroke: var(--c1); fill: var(--paper)"/></svg>'
        '<td style="--share: 100%">'
    )
    made = pdf.printable(page)
    assert "stroke: #d55e00; fill: #fff" in made
    assert "<title>a &lt; b</title>" in made
    assert '<td style="background: #0072b26b">' in made


def test_a_pdf_of_another_page_is_removed(tmp_path, monkeypatch, capsys):
    folder = report_runs.make(tmp_path / "run", "minimal")
    monkeypatch.setattr(pdf, "rendered", lambda html: b"%PDF")
    report.write(folder, pdf=True)
    assert run("report", folder) == 0
    assert (folder / "report.pdf").exists()  # the page is the same
    (folder / "report.html").write_text("of an earlier version")
    assert run("report", folder) == 0
    assert not (folder / "report.pdf").exists()
    assert "report.pdf was of another page and is removed; --pdf writes it anew" in capsys.readouterr().out
    (folder / "report.pdf").write_bytes(b"of the user")
    (folder / "report.html").write_text("of an earlier version")
    report.write(folder)
    assert (folder / "report.pdf").exists()


@pytest.mark.slow  # WeasyPrint lays out a page
def test_a_pdf_is_tagged_and_has_title_language_and_every_printed_section(tmp_path: Path) -> None:
    pytest.importorskip("weasyprint", reason="needs the extra pdf", exc_type=(ImportError, OSError))
    pypdf = pytest.importorskip("pypdf")
    folder = report_runs.make(tmp_path / "run", "minimal")
    report.write(folder, pdf=True)
    page = (folder / "report.html").read_text("utf-8")
    file = pypdf.PdfReader(BytesIO((folder / "report.pdf").read_bytes()))
    root = file.trailer["/Root"]
    assert root["/MarkInfo"]["/Marked"]
    assert root["/StructTreeRoot"]
    assert root["/Lang"] == "en"
    assert file.metadata.title == html.unescape(re.search("<title>(.*?)</title>", page)[1])
    text = " ".join(" ".join(p.extract_text() for p in file.pages).split())
    printed = re.sub(r"<nav.*?</nav>|<details>.*?</details>", "", page, flags=re.DOTALL)
    headings = [html.unescape(re.sub("<[^>]+>", "", h)) for h in re.findall("<h2[^>]*>(.*?)</h2>", printed, re.DOTALL)]
    assert len(headings) > 2
    assert [h for h in headings if " ".join(h.split()) not in text] == []


def test_nothing_is_fetched_while_a_pdf_is_made():
    """A connection would fail this test: see tests/network.py."""
    pytest.importorskip("weasyprint", reason="needs the extra pdf", exc_type=(ImportError, OSError))
    local = Path(__file__).as_uri()
    page = (
        f'<html lang="en"><style></style><p>text<img alt="a" src="{local}"><img alt="b" src="http://localhost:9/x.png">'
    )
    assert pdf.rendered(page).startswith(b"%PDF")
