"""Limits, JSON from anywhere, and the one way to write a file."""

from __future__ import annotations

import numpy as np
import pytest

from medrobust import atomic, json_files, limits, own_files
from medrobust.errors import InputError


@pytest.mark.parametrize("limit", limits.LIMITS, ids=lambda limit: limit.variable)
def test_a_limit_can_be_raised_and_names_how(limit, monkeypatch):
    amount = limit.default + 1
    limits.check(limit, limit.default, "x")
    with pytest.raises(InputError, match=rf"^x has .* {limit.unit}.*{limit.variable}={amount}$"):
        limits.check(limit, amount, "x")
    monkeypatch.setenv(limit.variable, str(amount))
    limits.check(limit, amount, "x")
    monkeypatch.setenv(limit.variable, "much")
    with pytest.raises(InputError, match="positive number"):
        limits.check(limit, 1, "x")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "[" * 100_000, '{"a":' * 100_000, b"\xff\xfe{", "9" * 5000])
def test_what_is_no_json_object_is_one_line(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=r"x\.json") as caught:
        json_files.read_object(path)
    assert "\n" not in str(caught.value)


def test_a_link_is_replaced_and_what_it_points_to_is_kept(tmp_path):
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / "x").symlink_to(other)
    atomic.write_text(tmp_path / "x", "new")
    assert other.read_text() == "mine"
    assert (tmp_path / "x").read_text() == "new"
    assert not (tmp_path / "x").is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "x"]


def test_what_the_disk_refuses_leaves_the_old_file(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "y").write_text("kept")
    with pytest.raises(atomic.DiskError, match="cannot write"):
        atomic.write_text(folder, "new")
    assert (folder / "y").read_text() == "kept"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_header_of_several_facts_gives_the_same_bytes_each_time():
    from safetensors.numpy import save

    facts = {"about": "x", "history": [1.5, None], "stands": {"a": {"counted": 3}}}
    written = {save({"delta": np.zeros(3)}, own_files.metadata("thing", **facts)) for _ in range(20)}
    assert len(written) == 1
    assert own_files.stated(own_files.metadata("thing", **facts), "thing", "x") == facts
    assert own_files.stated(own_files.metadata("thing"), "other thing", "x") is None
    assert own_files.stated({"format": "pt"}, "thing", "x") is None
    assert own_files.stated(None, "thing", "x") is None
