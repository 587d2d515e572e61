"""Finished pieces of work on disk: once, whole or not at all, shared, and one line where the disk says no."""

from __future__ import annotations

import errno
import json
import os
import threading

import numpy as np
import pytest
from safetensors.numpy import save_file

from medrobust import InputError, atomic
from medrobust.errors import CellWarning
from medrobust.run_folder import LOCK, MARK
from medrobust.store import Cell, Store, key


def edit(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


SPEC = {"kind": "sweep", "eps": (0.1, 0.2), "seed": 0, "code": "of the tests"}


class Work:
    """Counts how often it was done."""

    def __init__(self, value: float = 1.0) -> None:
        self.done, self.value = 0, value

    def __call__(self):
        self.done += 1
        return {"n": 2, "pair": (1, 2)}, {"x": np.full((2, 3), self.value), "wide": np.arange(12).reshape(3, 4)[:, ::2]}


def same(a: Cell, b: Cell) -> bool:
    return a.facts == b.facts and all(np.array_equal(a.arrays[k], b.arrays[k]) for k in a.arrays | b.arrays)


def test_a_cell_is_computed_once_and_reads_as_it_was_made(tmp_path):
    work, store = Work(), Store(tmp_path)
    made, again = store.once(SPEC, work), Store(tmp_path).once(SPEC, work)
    assert work.done == 1
    assert same(made, again)
    assert made.facts["pair"] == [1, 2]
    assert again.seconds == made.seconds > 0
    assert again.arrays["wide"].tolist() == [[0, 2], [4, 6], [8, 10]]
    assert [p.name for p in store.cells.iterdir()] == [key(SPEC)]


def test_whatever_a_result_depends_on_changes_its_name():
    others = [SPEC | {"seed": 1}, SPEC | {"eps": (0.1,)}, SPEC | {"more": None}, {"kind": "sweep"}]
    assert len({key(s) for s in [SPEC, *others]}) == 5
    assert key(dict(reversed(SPEC.items()))) == key(SPEC)


def test_work_that_fails_leaves_nothing(tmp_path):
    store = Store(tmp_path)

    def fail():
        raise RuntimeError("the network broke")

    with pytest.raises(RuntimeError, match="the network broke"):
        store.once(SPEC, fail)
    assert not list(store.cells.iterdir())
    assert store.once(SPEC, Work()).facts["n"] == 2


def test_what_a_killed_process_left_half_written_is_not_seen_and_swept(tmp_path):
    store = Store(tmp_path)
    half = store.cells / ".partial-abcdefgh"
    half.mkdir()
    (half / "rows.json").write_text('{"facts": {')
    assert store.get(SPEC) is None
    work = Work()
    store.once(SPEC, work)
    assert work.done == 1
    store.sweep_leftovers()
    assert [p.name for p in store.cells.iterdir()] == [key(SPEC)]


@pytest.mark.parametrize(
    "damage",
    [
        lambda cell: (cell / "rows.json").write_text('{"facts": {"n"'),
        lambda cell: (cell / "rows.json").write_text("[]"),
        lambda cell: (cell / "rows.json").write_text('{"facts": {}}'),
        lambda cell: (cell / "rows.json").write_bytes(b"\xff\xfe\x00"),
        lambda cell: (cell / "rows.json").write_text("[" * 100_000),
        lambda cell: edit(cell / "rows.json", '"n": 2', '"n": 3'),
        lambda cell: edit(cell / "rows.json", '"seed": 0', '"seed": 1'),
        lambda cell: save_file({"x": np.full((2, 3), np.inf)}, cell / "arrays.safetensors"),
        lambda cell: (cell / "rows.json").unlink(),
        lambda cell: (cell / "arrays.safetensors").unlink(),
        lambda cell: (cell / "arrays.safetensors").write_bytes(b""),
        lambda cell: (cell / "arrays.safetensors").write_bytes((cell / "arrays.safetensors").read_bytes()[:-5]),
    ],
    ids=[
        "cut",
        "other-json",
        "no-seconds",
        "bytes",
        "deep",
        "edited-facts",
        "edited-spec",
        "edited-arrays",
        "no-rows",
        "no-arrays",
        "empty-arrays",
        "cut-arrays",
    ],
)
def test_a_damaged_cell_is_made_again(tmp_path, damage):
    store, work = Store(tmp_path), Work()
    made = store.once(SPEC, work)
    damage(store.cells / key(SPEC))
    with pytest.warns(CellWarning, match="is not the cell that was written"):
        assert same(store.once(SPEC, work), made)
    assert work.done == 2
    assert same(store.once(SPEC, work), made)
    assert work.done == 2
    assert len(list(store.cells.iterdir())) == 1


def test_several_writers_of_one_cell_agree(tmp_path):
    together, found = threading.Barrier(4), []

    def compute():
        together.wait(20)  # all of them have seen that it is missing
        return Work()()

    def worker():
        found.append(Store(tmp_path).once(SPEC, compute))

    threads = [threading.Thread(target=worker) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == 4
    assert all(same(c, found[0]) for c in found)
    assert [p.name for p in Store(tmp_path).cells.iterdir()] == [key(SPEC)]


def test_a_folder_that_takes_no_file_is_one_line(tmp_path):
    """Below a file: a superuser is refused there too."""
    file = tmp_path / "results"
    file.write_text("")
    for folder in (file, file / "run"):
        with pytest.raises(InputError, match=r"cannot write to .*results.*choose another --out") as caught:
            Store(folder)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot write to"):
        atomic.write_bytes(file / "x.json", b"{}")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "No space left on device; free some space and give the same command again"),
        (errno.EDQUOT, "free some space"),
        (errno.EIO, "choose another --out"),
    ],
)
def test_a_disk_that_fills_up_keeps_what_is_finished(tmp_path, monkeypatch, code, said):
    store, work = Store(tmp_path), Work()
    store.once(SPEC, work)

    def full(_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(InputError, match=said):
            store.once(SPEC | {"seed": 1}, work)
        with pytest.raises(InputError, match=said):
            atomic.write_bytes(tmp_path / "results.json", b"{}")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells", MARK, LOCK]
    assert [p.name for p in store.cells.iterdir()] == [key(SPEC)]
    assert store.once(SPEC, work).facts["n"] == 2
    assert work.done == 2
    store.once(SPEC | {"seed": 1}, work)
    assert work.done == 3


def test_a_file_too_large_for_its_disk_leaves_the_old_one(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / "small"
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        atomic.write_bytes(path, b"x" * 4096)
        with pytest.raises(InputError, match="cannot write to"):
            atomic.write_bytes(path, b"y" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == ["small"]
    assert path.read_bytes() == b"x" * 4096


def test_a_file_is_replaced_whole_and_can_be_read_by_others(tmp_path):
    path = tmp_path / "deep" / "results.json"
    atomic.write_bytes(path, b"old")
    atomic.write_bytes(path, json.dumps({"a": 1}).encode())
    assert json.loads(path.read_text()) == {"a": 1}
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in path.parent.iterdir()] == ["results.json"]


def test_where_a_piece_of_work_stands_is_kept_until_it_is_through(tmp_path):
    store = Store(tmp_path)

    def interrupted():
        with store.unfinished(SPEC) as path:
            path.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with store.unfinished(SPEC) as again:
        assert again.read_text() == "half"
    assert not again.exists()
    with store.unfinished(SPEC | {"seed": 1}) as other:
        assert other != again
