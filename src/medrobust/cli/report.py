"""`medrobust report`: the page again from a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medrobust.cli.criteria import CriteriaOptions, judged, say_criteria
from medrobust.cli.options import Finished
from medrobust.cli.text import say
from medrobust.prevalence import HELP


def report(
    *,
    folder: Annotated[Path, typer.Argument(help="A run folder that holds results.json.")],
    criteria: CriteriaOptions,
    prevalence: Annotated[str | None, typer.Option(help=HELP)] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Also report.pdf, as the page prints; needs WeasyPrint.")] = False,
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
    say(str(page))
    if pdf:
        say(str(folder / "report.pdf"))
    elif had_pdf and not (folder / "report.pdf").exists():
        say("report.pdf was of another page and is removed; --pdf writes it anew")
    return folder / "results.json", code
