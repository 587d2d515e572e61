"""The order of the tests and their fast part."""

from __future__ import annotations

from types import SimpleNamespace

from tests import seconds

COSTS = {"tests/a/test_x.py::test_1": 5.0, "tests/a/test_x.py::test_2": 50.0, "tests/b/test_y.py::test_3": 90.0}
NAMES = [*COSTS, "tests/b/test_y.py::test_4", "tests/test_z.py::test_5"]


def test_the_fast_part_holds_a_test_of_every_room_and_stays_within_its_budget():
    chosen = seconds.fast(NAMES, COSTS, budget=60)
    assert chosen == {NAMES[0], NAMES[1], NAMES[3], NAMES[4]}
    assert seconds.fast(NAMES, COSTS, budget=20) == {NAMES[0], NAMES[3], NAMES[4]}
    only = seconds.fast(list(COSTS), COSTS, budget=20)
    assert only == {NAMES[0], NAMES[2]}  # the cheapest of a room, whatever it costs
    assert seconds.fast(NAMES, {}) == set(NAMES)


def test_what_was_measured_is_written_by_function_and_read_again(tmp_path):
    writer = seconds.Writer(tmp_path / "seconds.csv")
    for case, duration in (("a", 0.25), ("b", 0.5)):
        writer.pytest_runtest_logreport(SimpleNamespace(nodeid=f"{NAMES[0]}[{case}]", duration=duration))
    writer.pytest_runtest_logreport(SimpleNamespace(nodeid=NAMES[4], duration=0.01))
    writer.pytest_sessionfinish()
    assert seconds.read(tmp_path / "seconds.csv") == {NAMES[0]: 0.8}
    assert seconds.by_file({NAMES[0]: 1.0, NAMES[1]: 2.0, NAMES[2]: 4.0}) == {
        "tests/a/test_x.py": 3.0,
        "tests/b/test_y.py": 4.0,
    }
    assert seconds.read(tmp_path / "none.csv") == {}
