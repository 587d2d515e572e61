"""`medrobust study run|show|report|diff|export`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medrobust.cli.bars import Bars
from medrobust.cli.command_line import command_line
from medrobust.cli.options import KeepNames, Operator, TrustCode, expanded
from medrobust.cli.report import Pdf, say_page
from medrobust.cli.text import say, table, words
from medrobust.errors import InputError

if TYPE_CHECKING:
    from medrobust.runner.plan import Plan

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
    scheduler: Annotated[
        str | None,
        typer.Option(help="A dask scheduler whose workers compute: tcp://127.0.0.1:PORT or tls://HOST:PORT."),
    ] = None,
    slurm: Annotated[
        str | None,
        typer.Option(
            help="Workers as SLURM jobs: partition=gpu,gpus=1,cpus=4,memory=16GB,time=04:00:00,jobs=8,"
            "interface=ib0. Encrypted with TLS, except with interface=lo."
        ),
    ] = None,
    tls: Annotated[
        Path | None,
        typer.Option(help="Folder of ca.pem, cert.pem and key.pem, for a scheduler at tls://… or for --slurm."),
    ] = None,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Log the numbers to MLflow at the end.")] = False,
    trust_code: TrustCode = False,
    keep_names: KeepNames = False,
    operator: Operator = "",
    again: Annotated[bool, typer.Option("--again", help="Try cells again that failed in earlier runs.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the cells, what is there and the time.")] = False,
) -> None:
    """Run a study, or go on with it: every finished cell is kept.

    A study file is a program, and so are modules beside it: run only what you would run as a script. Exit code: 0 every
    cell is done, 1 cells failed, 2 wrong input.
    """
    from medrobust.experiments.tasks import is_own
    from medrobust.grid import Node, everything
    from medrobust.report import study_page
    from medrobust.run_folder import RunFolder
    from medrobust.runner import execute, executors, run_log
    from medrobust.runner import study_file as files
    from medrobust.runner.collect import folder_for, write
    from medrobust.runner.plan import plan
    from medrobust.runner.planned import Place
    from medrobust.runner.validation import check, undeclared

    executors.check(workers, scheduler, slurm, tls)
    loaded = files.load(file, size)
    if workers and not dry_run:
        nodes = (node for _, node in everything(loaded.study.parts))
        executors.prepare(workers, threads, own=all(isinstance(n, Node) and is_own(n.task) for n in nodes))
    place = Place(out or folder_for(file, size), data, models, loaded.folder, trust_code, keep_names)
    for line in run_log.changes(place.out, loaded.files):
        say(line)
    check(loaded.study)  # before there is a run folder
    for line in undeclared(loaded.study):
        say(line)
    run_folder = RunFolder(place.out, "study")
    if dry_run:
        with Bars() as bars:
            laid = plan(loaded.study, place, dry=True, progress=bars)
        _dry(laid, max(workers, 1), slurm, tls)
        return
    with Bars() as bars, run_folder:
        run_folder.begin()
        if again:
            execute.forget_failures(place.out)
        laid = plan(loaded.study, place, progress=bars)
        begun = time.time()
        executor = executors.make(place.out, workers, threads, scheduler, slurm, tls)
        try:
            if laid.left or run_log.changes(place.out, loaded.files):
                run_log.begin(place.out, loaded.files, _written(data, keep_names), executor.size)
            ran = execute.run(laid, executor, bars)
        finally:
            executor.close()
        results = write(laid, loaded.opening, size, loaded.files, command_line(), operator)
        if ran.done:
            run_log.end(place.out, time.time() - begun, ran.done)
        page = study_page.write(place.out, results, run_log.recorded(place.out), locked=True)
    cells = results["cells"]
    say(
        f"{ran.done} cells in {_time(time.time() - begun)}, {cells['done']} of {cells['all']} there; "
        f"report {page}, numbers {place.out / 'results.json'}"
    )
    _say_doubts(results)
    _say_masked(results)
    complete = _say_missing(results, place.out)
    if mlflow:
        from medrobust.report import study_export

        say(f"MLflow run {study_export.mlflow(results, place.out)}")
    if not complete:
        raise typer.Exit(1)


def _written(data: Path, keep_names: bool) -> str:
    """The folder of --data as run.json has it."""
    from medrobust import private_names

    return str(data) if keep_names else private_names.place(str(data.expanduser().absolute()))


def _say_doubts(results: dict[str, Any]) -> None:
    """Print what limits the numbers of each network."""
    from medrobust.report.study_page import guessing

    for why in guessing(results):
        say(f"inconclusive: {why}")
    for doubt in results.get("doubts", ()):
        say(f"in doubt, {doubt['model']}: {doubt['text']}")


def _say_masked(results: dict[str, Any]) -> None:
    """A line for each network whose gradient failed its check."""
    from medrobust.report.study_page import masked

    for line in masked(results):
        say(f"INCONCLUSIVE: {line}. What attacks that follow gradients leave is no sign of strength")


def _say_missing(results: dict[str, Any], folder: Path) -> bool:
    """Print which cells and tables are missing and why; whether none is."""
    from medrobust.report.study_missing import missing_lines
    from medrobust.report.study_tables import incomplete

    lines = missing_lines(results)
    for line in lines:
        say(line)
    if results["cells"]["failed"]:
        say(f"tracebacks are in {folder / 'failed'}; --again tries failed cells again")
    tables = incomplete(results)
    for line in tables:
        say(line)
    return not lines and not tables


def _dry(laid: Plan, workers: int, slurm: str | None, tls: Path | None) -> None:
    from medrobust.runner.plan import missing

    lines = []
    for part in laid.study.parts:
        cells = [c for c in laid.cells.values() if c.part == part.name]
        for task in dict.fromkeys(c.task for c in cells):
            same = [c for c in cells if c.task == task]
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
    if slurm is not None:
        from medrobust.runner import slurm as jobs

        with tempfile.TemporaryDirectory() as keys:  # a dry run leaves nothing in the run folder
            scheduler = jobs.start(jobs.options(slurm), laid.place.out / "log", tls, Path(keys))
            try:
                say(f"\nEach worker would be this job:\n\n{scheduler.script}")
            finally:
                scheduler.close()


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
    from medrobust.runner import run_log

    results = run_log.results_of(folder)
    for part in results["parts"]:
        for sheet in study_tables.sheets(results, part["name"]):
            head = [*sheet.labels, *sheet.columns]
            lines = [[*labels, *map(str, figures)] for labels, figures in sheet.lines]
            table(head, lines, f"{sheet.title}, 95 % interval{', ' + sheet.counts if sheet.counts else ''}")
        tables = [(p, ours) for p, ours in study_tables.compared(results, part["name"]) if ours]
        if tables:
            lines = [
                [str(p["what"]), str(p["text"]), f"{p['source']} ({p['kind']})", "\n".join(map(str, ours[:4]))]
                for p, ours in tables
            ]
            table(["figure", "published", "source", "measured here"], lines, part["title"])
            for reason in dict.fromkeys(p["reason"] for p, _ in tables if p["reason"]):
                say(f"  why they may differ: {reason}")
    _say_doubts(results)
    _say_masked(results)
    cells = results["cells"]
    say(f"{cells['done']} of {cells['all']} cells are done")
    _say_missing(results, folder)


@study.command()
@expanded
def report(*, folder: Folder, pdf: Pdf = False) -> Path:
    """Write the page of a study again, as run does: report.html, results.csv, published.csv, tables.tex, summary.md."""
    from medrobust.report import study_page
    from medrobust.runner import run_log

    results = run_log.results_of(folder)
    had_pdf = (folder / "report.pdf").exists()
    page = study_page.write(folder, results, run_log.recorded(folder), with_pdf=pdf)
    say_page(page, pdf=pdf, had_pdf=had_pdf)
    _say_missing(results, folder)
    return folder / "results.json"


@study.command()
def export(
    folder: Folder,
    csv: Annotated[Path | None, typer.Option(help="Every row, one a line.")] = None,
    latex: Annotated[Path | None, typer.Option(help="The tables, for booktabs.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Every row; needs pyarrow.")] = None,
    tables: Annotated[Path | None, typer.Option(help="A folder: each table as it is shown, as CSV.")] = None,
    mlflow: Annotated[bool, typer.Option("--mlflow", help="Log every number to MLflow.")] = False,
) -> None:
    """Write the rows of a study for other tools."""
    from medrobust.report import study_export, study_page
    from medrobust.report.writing import write_export
    from medrobust.runner import run_log

    results = run_log.results_of(folder)
    if not (csv or latex or parquet or tables or mlflow):
        raise InputError("give --csv FILE, --latex FILE, --parquet FILE, --tables FOLDER or --mlflow")
    if csv:
        content = study_export.csv(results).encode()
        write_export(csv, content, content.partition(b"\n")[0])
    if latex:
        content = study_page.tables_tex(results).encode()
        write_export(latex, content, content.partition(b"\n")[0])
    if parquet:
        write_export(parquet, study_export.parquet(results), study_export.PARQUET_SIGN)
    if tables:
        for name, text in study_export.tables(results).items():
            write_export(tables / f"{name}.csv", text.encode(), text.encode().partition(b"\n")[0])
    if mlflow:
        say(f"MLflow run {study_export.mlflow(results, folder)}")
    for path in (p for p in (csv, latex, parquet, tables) if p):
        say(str(path))
    _say_missing(results, folder)


@study.command()
def diff(
    a: Annotated[Path, typer.Argument(help="Run folder of the study before.")],
    b: Annotated[Path, typer.Argument(help="Run folder after: another model, or another date.")],
    ignore: Annotated[str, typer.Option(help="Columns in which the two may differ: model,seed.")] = "",
) -> None:
    """Which numbers changed beyond their intervals from A to B."""
    from medrobust.report.study_missing import missing_line
    from medrobust.report.study_tables import figure, named
    from medrobust.runner import run_log
    from medrobust.runner.diff import diff as compare
    from medrobust.runner.diff import told

    before, after = run_log.results_of(a), run_log.results_of(b)
    comparison = compare(before["rows"], after["rows"], words(ignore) or ())
    lines = [
        [
            named("metric", metric),
            ", ".join(f"{named('', k)} {named(k, v)}" for k, v in about.items()),
            str(figure(c.before)),
            str(figure(c.after)),
        ]
        for c, (metric, about) in zip(comparison.beyond, told(c.after for c in comparison.beyond), strict=True)
    ]
    if lines:
        table(
            ["figure", "of", f"A: {a}", f"B: {b}"],
            lines,
            "Changed beyond their 95 % intervals, or in what is believed; the surest first",
        )
    say(
        f"{len(lines)} of {len(comparison.changes)} numbers changed; about {comparison.held * 0.05:.0f} of the "
        f"{comparison.held} with intervals would by chance if nothing had"
    )
    if comparison.bare:
        which = ", ".join(dict.fromkeys(named("metric", c.after["metric"]) for c in comparison.bare))
        say(f"{len(comparison.bare)} more differ and have no interval to be judged by: {which}")
    if comparison.only_a or comparison.only_b:
        say(f"{len(comparison.only_a)} numbers are in A only, {len(comparison.only_b)} in B only")
    if not comparison.changes:
        say("no number is in both: the studies differ in data, models or size; --ignore names columns that may differ")
    if comparison.without_value:
        say(f"{comparison.without_value} numbers are undefined in A or in B, and are not compared")
    for name, merged in (("A", comparison.merged_a), ("B", comparison.merged_b)):
        if merged:
            say(f"{merged} rows of {name} say what another row of {name} says, and are not compared")
    for name, results in (("A", before), ("B", after)):
        if line := missing_line(results):
            say(f"{name}: {line}; medrobust study show names them")
