"""What scheduling a study costs: two workers against one, a cell, and a study of 10,000 finished cells.

    python benchmarks/scheduling.py [--cells 400]

Workers have one thread each, so that two of them on two cores are compared fairly with one.
"""

from __future__ import annotations

import argparse
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


def busy(work):
    """``args[seconds]`` of arithmetic of one thread (args[seconds] 0: nothing)."""
    import numpy as np

    a = np.random.default_rng(0).random((300, 300))
    for _ in range(work.args["rounds"]):
        a = a @ a
        a /= a.max()
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
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        out = Path(place)
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
