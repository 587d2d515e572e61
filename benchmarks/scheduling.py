"""What scheduling a study costs: two workers against one, a cell, and a study of 10,000 finished cells.

    python -m benchmarks.scheduling [--cells 400]
    python -m benchmarks.scheduling --small 1000 --runs 5

Workers have one thread each, so that two of them on two cores are compared fairly with one. --small: only that many
cells of some 20 ms on one worker and on two, in turn; beside them the same work in one and in two bare processes, which
is what the machine allows.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

from medrobust.grid import Node, Part, Study
from medrobust.runner import execute, executors
from medrobust.runner.collect import write
from medrobust.runner.executors import Serial
from medrobust.runner.plan import Plan, plan
from medrobust.runner.planned import Place
from medrobust.store import Cell, Store

BUSY = "benchmarks.scheduling:busy"


SMALL = 17
"""Rounds of ``arithmetic`` in a small cell."""


def arithmetic(rounds):
    """Float64 (300, 300) after ``rounds`` products, on one thread; a round takes about a millisecond."""
    import numpy as np

    a = np.random.default_rng(0).random((300, 300))
    for _ in range(rounds):
        a = a @ a
        a /= a.max()
    return a


def busy(work):
    """A cell of ``args[rounds]`` rounds of arithmetic; 0: nothing."""
    a = arithmetic(work.args["rounds"])
    row = {
        "attack": "none",
        "eps": 0.0,
        "metric": "share",
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "n": 100,
        "status": "ok",
        "note": "",
    }
    return {"rows": [row]}, {"a": a[:2, :2].copy()}


def study(cells: int, rounds: int) -> Study:
    nodes = [Node(BUSY, {"i": i, "rounds": rounds}, labels={"model": f"m{i}"}) for i in range(cells)]
    return Study("Benchmark", "here", [Part("cells", "Cells", nodes)])


def timed(cells: Study, folder: Path, workers: int) -> float:
    laid = plan(cells, Place(folder))
    executor = executors.make(folder, workers, threads=1)
    try:
        if workers:  # not the start of the processes, which a long study pays once
            execute.run(plan(study(workers, 1), Place(folder / "warm")), executor)
        begun = time.perf_counter()
        execute.run(laid, executor)
        return time.perf_counter() - begun
    finally:
        executor.close()


def bare(processes: int, cells: int) -> float:
    """Seconds for the arithmetic of so many small cells, shared out among processes that do nothing else."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        pool.map(arithmetic, [1] * processes * 4, chunksize=1)  # not the start of the processes
        begun = time.perf_counter()
        pool.map(arithmetic, [SMALL] * cells, chunksize=-(-cells // (8 * processes)))
        return time.perf_counter() - begun


def small(cells: int, runs: int, out: Path) -> None:
    """The ratio of one worker's time to that of two, and that of bare processes, each run in turn."""
    ratios: dict[str, list[float]] = {"workers": [], "bare processes": []}
    for run in range(runs):
        one, two = (timed(study(cells, SMALL), out / f"{run}-{n}", n) for n in (1, 2))
        alone, both = (bare(n, cells) for n in (1, 2))
        ratios["workers"].append(one / two)
        ratios["bare processes"].append(alone / both)
        print(
            f"run {run + 1}: {cells} cells of {1000 * alone / cells:.0f} ms: one worker {one:.1f} s, two {two:.1f} s, "
            f"ratio {one / two:.3f}; bare processes {alone:.1f} s, {both:.1f} s, ratio {alone / both:.3f}",
            flush=True,
        )
    for name, every in ratios.items():
        print(f"{name}: ratio {statistics.median(every):.3f} (median of {runs}; {min(every):.3f} to {max(every):.3f})")


def finished(cells: Study, folder: Path) -> Plan:
    """All of its cells on disk, as if computed."""
    import os

    import numpy as np

    laid, store = plan(cells, Place(folder)), Store(folder)
    os.fsync = lambda _: None  # making them is not what is measured
    for cell in laid.cells.values():
        row = {
            "attack": "none",
            "eps": 0.0,
            "metric": "share",
            "value": 0.5,
            "low": 0.4,
            "high": 0.6,
            "n": 100,
            "status": "ok",
            "note": "",
        }
        store.put(cell.ticket["spec"], Cell({"rows": [row]}, {"a": np.zeros(4)}, 1.0))
    return laid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--cells", type=int, default=400)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--small", type=int)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        out = Path(place)
        if options.small:
            small(options.small, options.runs, out)
            return
        for name, workers in (("in this process", 0), ("one worker", 1), ("two workers", 2)):
            seconds = timed(study(options.cells, 0), out / f"empty{workers}", workers)
            print(f"empty cells, {name}: {1000 * seconds / options.cells:.2f} ms a cell", flush=True)
        one, two = (timed(study(24, 400), out / f"busy{n}", n) for n in (1, 2))
        print(
            f"24 cells of {one / 24:.2f} s: one worker {one:.1f} s, two {two:.1f} s, ratio {one / two:.2f}", flush=True
        )
        big = study(options.many, 0)
        finished(big, out / "many")
        begun = time.perf_counter()
        laid = plan(big, Place(out / "many"))
        planned = time.perf_counter() - begun
        execute.run(laid, Serial())
        results = write(laid, "", "small")
        seconds = time.perf_counter() - begun
        assert results["cells"]["done"] == options.many
        print(f"{options.many} finished cells: planned in {planned:.2f} s, resumed to results.json in {seconds:.2f} s")


if __name__ == "__main__":
    main()
