"""`medrobust compare`: finished audits on the same images, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medrobust.cli.command_line import command_line
from medrobust.cli.options import RunOut
from medrobust.cli.text import say, table, words
from medrobust.errors import InputError

if TYPE_CHECKING:
    from medrobust.report.run import Run


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders of two finished audits or more, the baseline first.")],
    names: Annotated[str | None, typer.Option(help="Of the runs, with commas between: before,after.")] = None,
    eps: Annotated[
        str | None, typer.Option(help="The reference size, as in 1/255; that of the first run's report by default.")
    ] = None,
    out: RunOut = Path("runs/compare"),
) -> Path:
    """Put audits side by side, image by image: before and after hardening, vendor A and vendor B."""
    from medrobust import paired
    from medrobust.cli.text import eps_list
    from medrobust.report.run import read

    sizes = eps_list(eps)
    if sizes is not None and len(sizes) != 1:
        raise InputError(f"--eps wants one size, the reference, got {eps}")
    paired.compare(runs, out, names=words(names), eps=sizes[0] if sizes else None, command=command_line())
    summary(read(out))
    say(f"\nreport  {out / 'report.html'}\nnumbers {out / 'results.csv'}\nimages  {out / paired.CHANGED}")
    return out / "results.json"


def summary(run: Run) -> None:
    """What was left out, a row a size, and the verdict."""
    from medrobust.cli.doubts import MARK
    from medrobust.report import compared_tables
    from medrobust.report.compared import compared
    from medrobust.report.findings import find
    from medrobust.report.first_page import first_page

    findings = find(run)
    c = compared(findings)
    for note in c.info.notes:
        say(note)
    accuracy = compared_tables.accuracy(c)
    rows = [[cell.text + MARK * cell.doubt for cell in row] for row in accuracy.rows]
    n = f"{run.conditions.n_attacked} attacked images in all runs, 95 % intervals"
    table([cell.text for cell in accuracy.head], rows, f"Accuracy and paired differences: {n}")
    page = first_page(findings)
    say(f"{page.title} {page.text}")
