"""What every measuring command does with its options: run a suite here or in workers, and write its page."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medrobust.cli.bars import Bars
from medrobust.cli.command_line import command_line
from medrobust.cli.options import ComputeOptions, PrivacyOptions
from medrobust.cli.text import say

if TYPE_CHECKING:
    from medrobust.experiments import AuditSpec
    from medrobust.experiments.suite import Execute, Suite
    from medrobust.report.run import Run


def execute(compute: ComputeOptions, bars: Bars) -> Execute | None:
    """Does the steps of a suite in workers; None where they are done in this process."""

    def in_workers(suite: Suite, finished: Callable[[str], None]) -> None:
        from medrobust.runner import steps

        executor = compute.executor(suite.store.folder)
        try:
            steps.run(suite.steps, suite.ticket, suite.store.folder, executor, bars, finished)
        finally:
            executor.close()

    return in_workers if compute.elsewhere else None


def page_writer(folder: Path, bars: Bars) -> Callable[[Sequence[str]], None]:
    """Writes the report whenever results.json is new, and says once where to read it while the rest is computed."""

    def written(pending: Sequence[str]) -> None:
        from medrobust import report
        from medrobust.report.first_page import to_come

        page = report.write(folder, locked=True)
        if pending:
            bars.note(f"a first page is there: {page} (still to come: {to_come(pending)})", once=str(page))

    return written


def measure(
    kind: str,
    config: AuditSpec,
    options: Mapping[str, object],
    out: Path,
    compute: ComputeOptions,
    device: str | None,
    privacy: PrivacyOptions,
    show: Callable[[Run], None],
) -> Path:
    """Run the suite of the command ``kind`` in the folder ``out``, ``show`` its results, and say where they lie.

    Returns the path of results.json.
    """
    from medrobust.experiments import suite
    from medrobust.report.run import parsed
    from medrobust.run_folder import RunFolder
    from medrobust.store import Store, counting

    begun = time.monotonic()
    compute.prepare()
    with Bars() as bars, counting() as tally, RunFolder(out, kind) as run:
        tested = suite.assemble(kind, config, options, run, bars, device)
        run.begin()
        suite_ = suite.Suite(kind, config, options, tested, Store(run.path), bars, device)
        results = suite.run(
            suite_,
            run,
            command=command_line(),
            operator=privacy.operator,
            keep_names=privacy.keep_names,
            pictures=privacy.pictures,
            execute=execute(compute, bars),
            written=page_writer(out, bars),
            begun=begun,
        )
    show(parsed(results))
    say(tally.words())
    say(f"\nreport  {out / 'report.html'}\nnumbers {out / 'results.csv'}")
    return out / "results.json"
