"""How the cost of a grid grows: planning, storing, resuming and collecting of its cells, and workers that only wait.

    python -m benchmarks.scaling [--plan 1000 10000 100000 1000000] [--own 1000000] [--store 1000 10000]
                                 [--workers 1 4 16 64]

Cells are ``noise`` of one model on one data set with a seed each, or of a task of one's own without data; nothing is
attacked, and stored cells hold one row and one array of 100 numbers. Each line is measured in a process of its own:
seconds on the wall, CPU seconds, and the largest resident memory of that process.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from medrobust.experiments import catalogue
from medrobust.grid import Data, Model, Node, Part, Study
from medrobust.runner import execute, executors, study_file
from medrobust.runner.collect import write
from medrobust.runner.plan import Plan, plan
from medrobust.runner.plan import read as read_finished
from medrobust.runner.planned import Place
from medrobust.store import Cell, Store

WAIT = "benchmarks.scaling:wait"
SECONDS = 1.0
"""What a waiting cell waits."""
ROUNDS = 10
"""Waiting cells of each worker."""


def row(seed: int) -> dict[str, object]:
    return {
        "attack": "noise",
        "norm": "linf",
        "eps": 0.1,
        "metric": "accuracy",
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "n": 100,
        "status": "ok",
        "note": "",
        "seed": seed,
    }


def wait(work):
    """A cell that needs time and no core, as if it ran on a GPU of its own."""
    time.sleep(work.args["seconds"])
    return {"rows": [row(0)]}, {}


def grid(n: int) -> Study:
    """n cells, and the training of the model that they need."""
    model = Model("net", Data("chest", "phantom:chest@32:n=36"), "small_cnn", {"epochs": 1})
    return Study("Scaling", "here", [Part("noise", "Noise", [catalogue.noise(model, seed=i) for i in range(n)])])


def waiting(n: int, seconds: float = 0.0) -> Study:
    nodes = [Node(WAIT, {"i": i, "seconds": seconds}, labels={"model": f"m{i}"}) for i in range(n)]
    return Study("Waiting", "here", [Part("cells", "Cells", nodes)])


def declared(name: str, n: int, out: Path) -> Study:
    """That grid out of a study file, as the command line reads it."""
    file = out.with_name("study.py")
    file.write_text(f"from benchmarks.scaling import {name}\n\n\ndef study(size):\n    return {name}({n})\n")
    return study_file.load(file, "small").study


class Watch:
    """Prints a line of a table: what, how many, seconds and CPU seconds since the last line, memory."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def line(self, what: str, n: int) -> None:
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        top = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"| {what} | {n:,} | {wall:.1f} | {cpu:.1f} | {1e6 * cpu / n:.0f} | {top:,.0f} |", flush=True)
        self.restart()


def measure_plan(n: int, out: Path) -> None:
    plan(grid(1), Place(out))  # what is imported and read once
    watch = Watch()
    study = declared("grid", n, out)
    watch.line("noise: declaring the grid", n)
    plan(study, Place(out))
    watch.line("noise: planning", n)


def measure_own(n: int, out: Path) -> None:
    plan(waiting(1, 0.0), Place(out))
    watch = Watch()
    study = declared("waiting", n, out)
    watch.line("own task: declaring the grid", n)
    plan(study, Place(out))
    watch.line("own task: planning", n)


def fill(laid: Plan) -> None:
    """All cells of a plan on disk, as if computed."""
    import numpy as np

    store, array = Store(laid.place.out), np.zeros(100)
    for i, cell in enumerate(laid.cells.values()):
        store.put(cell.ticket["spec"], Cell({"rows": [row(i)]}, {"value": array}, 1.0))
        if cell.task == "train":
            (laid.place.out / "models" / cell.key).mkdir(parents=True)
            (laid.place.out / "models" / cell.key / "model.json").write_text("{}")


def measure_store(n: int, out: Path) -> None:
    laid, watch = plan(grid(n), Place(out)), Watch()
    fill(laid)
    watch.line("storing", n)
    laid = plan(grid(n), Place(out))
    watch.line("resuming: declaring, planning, reading", n)
    execute.run(laid, executors.Serial())
    watch.line("running a finished grid", n)
    results = write(laid, "", "small")
    watch.line("collecting results.json", n)
    assert results["cells"]["left"] == 0
    watch.restart()
    read_finished(laid)
    watch.line("reading finished cells alone", n)


def measure_workers(n: int, out: Path) -> None:
    begin = time.perf_counter()
    executor = executors.make(out, n, threads=1)
    try:
        started = time.perf_counter() - begin
        execute.run(plan(waiting(n, 0.0), Place(out / "warm")), executor)
        laid, begin, cpu = (
            plan(waiting(n * ROUNDS, SECONDS), Place(out / "run")),
            time.perf_counter(),
            time.process_time(),
        )
        execute.run(laid, executor)
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    finally:
        executor.close()
    share = SECONDS * ROUNDS / wall
    print(
        f"| {n} | {started:.1f} | {n * ROUNDS} | {wall:.1f} | {share:.0%} | {n * ROUNDS / wall:.1f} | "
        f"{1000 * cpu / (n * ROUNDS):.1f} |",
        flush=True,
    )


MEASURES = {"plan": measure_plan, "own": measure_own, "store": measure_store, "workers": measure_workers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--plan", type=int, nargs="*", default=[1000, 10_000, 100_000, 1_000_000])
    parser.add_argument("--own", type=int, nargs="*", default=[1_000_000])
    parser.add_argument("--store", type=int, nargs="*", default=[1000, 10_000])
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 4, 16, 64])
    parser.add_argument("--one", nargs=2, metavar=("MEASURE", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        name, n = options.one
        with tempfile.TemporaryDirectory() as out:
            MEASURES[name](int(n), Path(out) / "run")
        return
    print(f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {platform.processor() or platform.machine()}")
    heads = dict.fromkeys(("plan", "own", "store"), ("what", "cells", "seconds", "CPU seconds", "CPU us a cell", "MiB"))
    heads["workers"] = (
        "workers",
        "start, s",
        "cells",
        "run, s",
        "efficiency",
        "cells/s",
        "main process, CPU ms a cell",
    )
    for name, head in heads.items():
        print(f"\n| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
        for n in getattr(options, name):
            subprocess.run([sys.executable, "-m", "benchmarks.scaling", "--one", name, str(n)], check=True)


if __name__ == "__main__":
    main()
