"""Killed at a random moment and started again, a study or an audit must end in the same results.

    python benchmarks/chaos.py [--runs 30] [--audit]

In each run one process gets SIGKILL while cells are computed: the main process, a worker, or the scheduler of a cluster
(in turn). Then the same command is given again until it ends. Prints what was hit, how much was there by then, and
whether results.json is the same as of a run in one process that nobody disturbed; exits with 1 where it is not. A study
of cells that only wait is killed at any of them; --audit kills audits of phantom radiographs, training included.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from medrobust import json_files

FILE = '''"""Chaos."""
from medrobust.grid import Node, Part, Study
TASK = "tests.study_tasks:number"

def study(size):
    low = [Node(TASK, {"value": v, "sleep": 0.1}, labels={"model": f"low{v}"}) for v in range(8)]
    high = [Node(TASK, {"value": 100 + v, "sleep": 0.1}, needs={"on0": low[v], "on1": low[(v + 3) % 8]},
                 labels={"model": f"high{v}"}) for v in range(8)]
    return Study("Chaos", "here", [Part("numbers", "Numbers", [*low, *high])])
'''
WHOM = ("main", "worker", "scheduler")
AUDIT = [
    *("audit", "--data", "phantom:chest@32:n=160", "--model", "small_cnn", "--epochs", "2"),
    *("--attacks", "fgsm,pgd:steps=5", "--eps", "1/255,4/255", "--limit", "16"),
    *("--auto", "none", "--no-detect", "--no-explain", "--no-stored"),
]
"""20 seconds of computing, of which imports take more than half."""
WAIT = 900
"""Seconds after which a run is taken to hang."""


def start(file: Path | None, out: Path, *more: str) -> subprocess.Popen:
    """The command in a process of its own. file: of the study; None for the audit."""
    what = AUDIT if file is None else ["study", "run", str(file)]
    command = [sys.executable, "-m", "medrobust.cli", *what, "--out", str(out), *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def cells(out: Path) -> int:
    return len(list(out.glob("cells/[0-9a-f]*")))


def digest(out: Path) -> str | None:
    """Of the results without the record of the run: its date, duration and command."""
    return json_files.digest(json_files.read_results(out / "results.json")) if (out / "results.json").exists() else None


def workers(pid: int) -> list[int]:
    """Worker processes of the main process: those that print to a log of the run folder."""
    import psutil

    below = psutil.Process(pid).children(recursive=True)
    return [p.pid for p in below if "/log/worker-" in os.readlink(f"/proc/{p.pid}/fd/1")]


def hit(whom: str, file: Path | None, out: Path, rng: random.Random, total: int) -> int:
    """One run with a kill in it, and the same command until it ends; cells that were there when it was hit.

    total: cells of a whole run. It is hit within half a second of a number of them that is drawn, so that the moments
    are spread over the run however slow the machine is.
    """
    begun: list[subprocess.Popen] = []
    more, address_file = ["--workers", "2"], out.parent / f"{out.name}.json"

    def cluster() -> list[str]:
        address_file.unlink(missing_ok=True)
        run = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        begun.append(
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "distributed.cli.dask_scheduler",
                    "--host",
                    "127.0.0.1",
                    "--port",
                    "0",
                    "--no-dashboard",
                    "--scheduler-file",
                    str(address_file),
                ],
                **run,
            )
        )
        while not address_file.exists():
            time.sleep(0.05)
        address = json.loads(address_file.read_text())["address"]
        begun.append(
            subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "distributed.cli.dask_worker",
                    address,
                    "--nthreads",
                    "1",
                    "--no-dashboard",
                    "--no-nanny",
                    "--local-directory",
                    str(out.parent),
                ],
                **run,
            )
        )
        return ["--scheduler", address]

    try:
        if whom == "scheduler":
            more = cluster()
        main = start(file, out, *more)
        moment = rng.randrange(1, total)
        while cells(out) < moment and main.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        if whom == "main":
            main.send_signal(signal.SIGKILL)
        elif whom == "worker":
            victims = workers(main.pid)
            if victims:
                os.kill(rng.choice(victims), signal.SIGKILL)
        else:
            begun[0].send_signal(signal.SIGKILL)
        there = cells(out)
        code = main.wait(WAIT)
        for _ in range(3):
            if code == 0:
                break
            if whom == "scheduler":
                more = cluster()
            code = start(file, out, *more).wait(WAIT)
        return there
    finally:
        for process in begun:
            process.kill()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--audit", action="store_true")
    options = parser.parse_args()
    rng, wrong = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as place:
        file = None if options.audit else Path(place) / "chaos.py"
        if file is not None:
            file.write_text(FILE)
        start(file, Path(place) / "undisturbed").wait(WAIT)
        undisturbed = digest(Path(place) / "undisturbed")
        assert undisturbed is not None, "the run that nobody disturbed left no results"
        total = cells(Path(place) / "undisturbed")
        for i in range(options.runs):
            whom, out = WHOM[i % 3], Path(place) / f"run{i}"
            there = hit(whom, file, out, rng, total)
            same = digest(out) == undisturbed
            wrong += not same
            print(
                f"{i + 1:2} {whom:9} hit with {there:2} cells there: {'same results' if same else 'DIFFERENT'}",
                flush=True,
            )
    print(f"{options.runs - wrong} of {options.runs} ended in the same results")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
