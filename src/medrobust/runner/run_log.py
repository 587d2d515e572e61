"""run.json of a study: each run's date, duration, machine, study file and data folder. No result depends on it."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medrobust import atomic, json_files
from medrobust.errors import InputError

FILE = "run.json"
SHOWN_DIGITS = 12
"""Of a sha256 in a message."""


def recorded(folder: Path) -> list[dict[str, Any]]:
    """The runs that run.json lists, oldest first; empty where it is missing or unreadable."""
    try:
        runs = json_files.read(folder / FILE)
    except InputError:
        return []
    return [run for run in runs if isinstance(run, dict) and "begun" in run] if isinstance(runs, list) else []


def begin(folder: Path, files: Mapping[str, str], data: str, at_once: int) -> None:
    """Add a run before its first cell, so that a killed run keeps the digest of its study file.

    files: sha256 by name of the study file and of the modules beside it that it imports. data: the folder of
    --data as it is to be written.
    """
    run = {
        "begun": time.strftime("%Y-%m-%d %H:%M", time.localtime()),
        "seconds": None,
        "done": 0,
        "at_once": at_once,
        "machine": f"{os.cpu_count()} cores ({platform.machine()})",
        "files": dict(files),
        "data": data,
    }
    _write(folder, [*recorded(folder), run])


def end(folder: Path, seconds: float, done: int) -> None:
    """Complete the last run: its duration and the number of cells it computed."""
    *earlier, last = recorded(folder) or [{"begun": time.strftime("%Y-%m-%d %H:%M")}]
    _write(folder, [*earlier, last | {"seconds": round(seconds), "done": done}])


def changes(folder: Path, files: Mapping[str, str]) -> list[str]:
    """A line for each file of the study that is not what it was in the last run of this folder."""
    last = next((run for run in reversed(recorded(folder)) if run.get("files")), None)
    if last is None:
        return []
    lines = []
    for name in dict.fromkeys((*last["files"], *files)):
        then, now = last["files"].get(name), files.get(name)
        if then != now:
            lines.append(
                f"{name} has changed since the run of {last['begun']}: sha256 {_short(then)} then, {_short(now)} now; "
                "cells whose definition and code are the same are kept"
            )
    return lines


def results_of(folder: Path) -> dict[str, Any]:
    """results.json of a study's run folder. InputError, in one line, where it is missing or no result of a study."""
    path = folder / "results.json"
    if not path.is_file():
        raise InputError(f"{path} is not there; a study writes it at its end: medrobust study run FILE")
    results = json_files.read_results(path)
    needed = ("study", "parts", "published", "data", "models", "failed", "cells", "versions", "rows")
    lacking = [name for name in needed if name not in results]
    if results.get("kind") != "study" or lacking:
        raise InputError(f"{path} is no result of a study{f': no {lacking[0]!r}' if lacking else ''}")
    return results


def _short(digest: str | None) -> str:
    return "absent" if digest is None else digest[:SHOWN_DIGITS]


def _write(folder: Path, runs: list[dict[str, Any]]) -> None:
    atomic.write_text(folder / FILE, json.dumps(runs, indent=1))
