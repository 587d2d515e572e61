"""`medrobust report`: the page again from a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medrobust.cli.criteria import CriteriaOptions, judged, say_criteria
from medrobust.cli.options import Finished
from medrobust.cli.text import say
from medrobust.prevalence import HELP

Pdf = Annotated[bool, typer.Option("--pdf", help="Also report.pdf, as the page prints; needs WeasyPrint.")]


def report(
    *,
    folder: Annotated[Path, typer.Argument(help="A run folder that holds results.json.")],
    criteria: CriteriaOptions,
    prevalence: Annotated[str | None, typer.Option(help=HELP)] = None,
    pdf: Pdf = False,
) -> Finished:
    """Write report.html, results.csv and tables.tex again from a finished run; with --require, judged anew."""
    from medrobust import prevalence as prevalence_room
    from medrobust import report as report_room
    from medrobust.report.run import read

    required = criteria.read()
    info = judged(folder, required) if required.entries else None
    had_pdf = (folder / "report.pdf").exists()
    shares = None if prevalence is None else prevalence_room.read(prevalence)
    page = report_room.write(folder, criteria=info, prevalence=shares, pdf=pdf)
    code = say_criteria(info or read(folder).criteria)
    say_page(page, pdf=pdf, had_pdf=had_pdf)
    return folder / "results.json", code


def say_page(page: Path, *, pdf: bool, had_pdf: bool) -> None:
    """Print what was written, or that report.pdf, which was there before, was removed."""
    file = page.with_name("report.pdf")
    say(str(page))
    if pdf:
        say(str(file))
    elif had_pdf and not file.exists():
        say("report.pdf was of another page and is removed; --pdf writes it anew")
