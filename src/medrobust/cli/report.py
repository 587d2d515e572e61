"""`medrobust report`: the page again from a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medrobust.cli.text import say


def report(folder: Annotated[Path, typer.Argument(help="A run folder that holds results.json.")]) -> None:
    """Write report.html, results.csv and tables.tex again from a finished run."""
    from medrobust import report as report_room

    say(str(report_room.write(folder)))
