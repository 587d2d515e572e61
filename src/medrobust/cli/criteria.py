"""Acceptance criteria on the command line: the options, the lines at the end, and judging a finished run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medrobust.cli.text import say
from medrobust.errors import InputError

if TYPE_CHECKING:
    from medrobust.criteria import Criteria
    from medrobust.criteria.language import Size
    from medrobust.report.criteria_words import CriteriaInfo


@dataclass(frozen=True, kw_only=True)
class CriteriaOptions:
    """What is required of the numbers of a run."""

    require: Annotated[
        list[str] | None,
        typer.Option(
            "--require",
            "--criteria",
            help="Acceptance criterion, such as 'accuracy@1/255 >= 0.8'; may be repeated. In a YAML file, a list. Exit "
            "code 3 where one fails, 4 where one cannot be judged.",
        ),
    ] = None
    baseline: Annotated[
        Path | None,
        typer.Option(help="Run folder that criteria such as 'drop[accuracy]@1/255 <= 0.05' are measured against."),
    ] = None

    def read(self) -> Criteria:
        """InputError where a criterion or the baseline cannot be read."""
        from medrobust.criteria import BaselineRun, Criteria

        against = None if self.baseline is None else BaselineRun.read(self.baseline)
        return Criteria.read(self.require or [], against)


def say_criteria(info: CriteriaInfo | None) -> int:
    """Print the counts, then each criterion with its number; the exit code."""
    if info is None:
        return 0
    say(info.line)
    for j in info.judged:
        say(f"  {j.mark}: {j.criterion}: " + "; ".join(part for part in (j.measured, j.of, j.reason) if part))
    if info.sha256 != info.begun_with:
        say(f"  {info.origin}")
    return info.exit_code


def judged(folder: Path, criteria: Criteria) -> CriteriaInfo:
    """Criteria on the finished run in that folder. Nothing is computed.

    InputError where it is no finished run, where it has no such metric, class or size, and where the baseline has other
    images.
    """
    from medrobust import json_files
    from medrobust.criteria import PlannedRows
    from medrobust.criteria.baseline import FinishedAudit
    from medrobust.criteria.choosing import NoRowError, chosen
    from medrobust.grey_scale import in_whole_levels
    from medrobust.report.criteria_words import CriteriaInfo
    from medrobust.report.run import read

    run = read(folder)
    c = run.conditions
    if c.pending:
        raise InputError("the run is not finished; give its command again, it goes on")

    def eps(size: Size) -> float:
        if size.unit == "hu":
            raise InputError(
                f"@{size.text}: a finished run does not hold its Hounsfield units; write stored levels (4lv)"
            )
        if c.norm != "Linf":
            return size.value
        if size.unit == "lv" and c.levels is None:
            raise InputError(f"@{size.text}: the images of this run do not share their stored levels; write 1/255")
        unit = c.grey_scale.unit
        fraction = size.value / (unit if size.unit == "lv" else c.span)
        return in_whole_levels(fraction, unit) if c.on_grid else fraction

    def words(size: float) -> str:
        return c.grey_scale.size_text(size, c.norm)

    if criteria.baseline is not None:
        criteria.baseline.check(run.arrays, c.norm, c.classes)
    if run.command == "audit":
        attacks = {row.attack for row in run.rows}
        several = c.head == "multilabel"
        PlannedRows(c.classes, run.attacks, c.eps, several, True, attacks, {}, run.rows).check(criteria, eps, words)
    else:
        for each in criteria.entries:
            try:
                chosen(each, run.rows, None if each.size is None else eps(each.size), words)
            except NoRowError as error:
                raise InputError(f"criterion '{each}': {error}") from None
    begun_with = run.criteria.begun_with if run.criteria is not None else ""
    of_page = run.criteria is None or run.criteria.sha256 != criteria.sha256
    path = folder / "results.json"
    measured = FinishedAudit.read(json_files.read_results(path, finite=True), run.arrays, str(path))
    content = criteria.stated(measured, begun_with, eps, words)
    return CriteriaInfo.model_validate({**content, "of_page": of_page})
