"""What the tests cost: files that take longest are run first, and ``--fast`` runs the part that fits into BUDGET.

    python -m pytest -q -n auto --maxprocesses 4 --write-seconds

writes seconds.csv beside this file, on a machine that does nothing else: the seconds of every test function with all
its cases. A fixture counts with the test that needed it first.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

FILE = Path(__file__).with_name("seconds.csv")
SMALL = 0.1
"""Seconds below which a function is not written down."""
BUDGET = 45.0
"""Seconds of one core for the tests of ``--fast`` that are written down; collection and the others take longer."""


def function(nodeid: str) -> str:
    """ "tests/a.py::test_b" of "tests/a.py::test_b[c]"."""
    return nodeid.partition("[")[0]


def room(nodeid: str) -> str:
    """ "attacks" of "tests/attacks/test_auto.py::test_a"; "tests" of "tests/test_rooms.py::test_b"."""
    return Path(nodeid.partition("::")[0]).parent.name


def read(file: Path = FILE) -> dict[str, float]:
    """Seconds by function; empty where they were not measured."""
    if not file.exists():
        return {}
    with file.open(encoding="utf-8", newline="") as lines:
        return {row["function"]: float(row["seconds"]) for row in csv.DictReader(lines)}


def by_file(seconds: Mapping[str, float]) -> Mapping[str, float]:
    """Seconds by test file."""
    total: dict[str, float] = defaultdict(float)
    for name, value in seconds.items():
        total[name.partition("::")[0]] += value
    return total


def fast(functions: Iterable[str], seconds: Mapping[str, float], budget: float = BUDGET) -> set[str]:
    """The cheapest function of every room, and beside these as many functions as fit into the budget."""
    cheapest_first = sorted(dict.fromkeys(functions), key=lambda name: (seconds.get(name, 0.0), name))
    chosen = dict.fromkeys({room(name): name for name in reversed(cheapest_first)}.values())
    spent = sum(seconds.get(name, 0.0) for name in chosen)
    for name in cheapest_first:
        if name not in chosen and spent + seconds.get(name, 0.0) <= budget:
            chosen[name] = None
            spent += seconds.get(name, 0.0)
    return set(chosen)


class Writer:
    """Of the process that hands out the tests: writes what every function took once all are done."""

    def __init__(self, file: Path = FILE) -> None:
        self.file, self.seconds = file, defaultdict[str, float](float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[function(report.nodeid)] += report.duration

    def pytest_sessionfinish(self) -> None:
        with self.file.open("w", encoding="utf-8", newline="") as lines:
            writer = csv.writer(lines, lineterminator="\n")
            writer.writerow(("function", "seconds"))
            writer.writerows((n, f"{s:.1f}") for n, s in sorted(self.seconds.items()) if s >= SMALL)
