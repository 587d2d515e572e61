"""`medrobust study run|show|report|diff|export`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medrobust.cli.bars import Bars
from medrobust.cli.text import say, table
from medrobust.errors import InputError

if TYPE_CHECKING:
    from medrobust.studies.plan import Plan

study = typer.Typer(
    help="Grids of experiments that resume: one file an experiment.", no_args_is_help=True, rich_markup_mode=None
)

Folder = Annotated[Path, typer.Argument(help="Run folder of a study.")]


@study.command()
def run(
    file: Annotated[Path, typer.Argument(help="Study file, such as studies/ma2020.py.")],
    size: Annotated[str, typer.Option(help="smoke (a minute), small (an hour on 2 cores) or paper.")] = "small",
    data: Annotated[Path, typer.Option(help="Folder that holds the data sets.")] = Path("data"),
    models: Annotated[
        Path | None, typer.Option(help="Folder of trained classifiers, NAME/model each: they are not trained again.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; the same command on it goes on. runs/FILE-SIZE.")
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes of this machine; 0 computes in this one.")] = 0,
    threads: Annotated[int | None, typer.Option(help="Threads of a worker; the cores shared out.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Try cells again that failed in earlier runs.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the cells, what is there and the time.")] = False,
) -> None:
    """Run a study, or go on with it: every finished cell is kept."""
    from medrobust.studies import file as files
    from medrobust.studies import runner
    from medrobust.studies.collect import folder_for, write
    from medrobust.studies.plan import Place, plan

    asked, opening = files.load(file, size)
    place = Place(out or folder_for(file, size), data, models)
    if again and not dry_run:
        runner.forget_failures(place.out)
    with Bars() as bars:
        laid = plan(asked, place, dry=dry_run, progress=bars)
        if dry_run:
            _dry(laid, max(workers, 1))
            return
        begun = time.time()
        pool = _pool(workers, threads, place.out)
        try:
            ran = runner.run(laid, pool, bars)
        finally:
            pool.close()
    told = write(laid, opening, size)
    _finish(place.out, told, ran, time.time() - begun)


def _pool(workers: int, threads: int | None, out: Path) -> Any:
    from medrobust.studies.pools import Here, Workers

    return Workers(workers, out / "log", threads) if workers else Here(threads)


def _dry(laid: Plan, workers: int) -> None:
    from medrobust.studies.plan import missing

    lines = []
    for part in laid.study.parts:
        mine = [c for c in laid.cells.values() if c.part == part.name]
        for task in dict.fromkeys(c.task for c in mine):
            same = [c for c in mine if c.task == task]
            left = [c for c in same if c.key not in laid.done and c.key not in laid.failed]
            guesses = [laid.seconds(c) for c in left]
            known = [g for g in guesses if g is not None]
            time_left = _time(sum(known)) + (" and more" if len(known) < len(guesses) else "") if left else "–"
            done, failed = (sum(c.key in group for c in same) for group in (laid.done, laid.failed))
            lines.append([part.name, task, str(len(same)), str(done), str(failed) if failed else "–", time_left])
    table(["part", "task", "cells", "there", "failed", "time left, one core"], lines, laid.study.title)
    seconds, unknown = laid.time_left(workers)
    more = f", and {unknown} cells of which nothing is known yet" if unknown else ""
    say(f"{len(laid.left)} of {len(laid.cells)} cells to do, about {_time(seconds)} with {workers} at once{more}")
    if laid.absent:
        say(missing(laid.absent, laid.place.data))
        for d in laid.absent[1:]:
            say(f"{d.name}: {d.get}")


def _finish(out: Path, told: dict[str, Any], ran: Any, seconds: float) -> None:
    cells = told["cells"]
    say(
        f"{ran.done} cells in {_time(seconds)}, {cells['done']} of {cells['all']} there; numbers {out / 'results.json'}"
    )
    if cells["failed"]:
        first = told["failed"][0]
        say(
            f"{cells['failed']} cells failed, first {first['part']} {first['task']}: {first['error']}; all of them in "
            f"{out / 'failed'}, --again tries them again"
        )


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


@study.command()
def show(folder: Folder) -> None:
    """Print the tables of a study."""
    from medrobust.report import study_tables

    told = results_of(folder)
    for part in told["parts"]:
        for sheet in study_tables.sheets(told, part["name"]):
            head = [*sheet.labels, *sheet.columns]
            lines = [[*labels, *map(str, figures)] for labels, figures in sheet.lines]
            table(head, lines, f"{sheet.title}, 95 % interval{', ' + sheet.counts if sheet.counts else ''}")
        found = study_tables.compared(told, part["name"])
        if found:
            lines = [
                [p["what"], p["text"], f"{p['source']} ({p['kind']})", "\n".join(map(str, ours)) or "–", p["reason"]]
                for p, ours in found
            ]
            table(["figure", "published", "source", "measured here", "why they differ"], lines, part["title"])


def results_of(folder: Path) -> dict[str, Any]:
    """results.json of a study's run folder."""
    import json

    path = folder / "results.json"
    try:
        told = json.loads(path.read_text())
        if told["kind"] != "study":
            raise KeyError("kind")
    except OSError:
        raise InputError(f"{path} is not there; a study writes it at its end: medrobust study run FILE") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is no result of a study") from None
    return dict(told)
