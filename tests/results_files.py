"""Results files compared as far as they must be equal: all but the record of the run that wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def measured(told: dict[str, Any]) -> dict[str, Any]:
    """The same of results that were read, also without the seconds that they took."""
    return {key: value for key, value in told.items() if key not in ("run", "seconds")}


def edit(folder: Path, told: dict[str, Any]) -> None:
    """Write results.json anew, as nobody does by hand: its digest is no longer that of a run."""
    told = told | {"run": {k: v for k, v in told["run"].items() if k != "digest"}}
    (folder / "results.json").write_text(json.dumps(told))


def numbers(path: Path) -> dict[str, Any]:
    """What a results file holds apart from its record of the run."""
    told = json.loads(path.read_text("utf-8"))
    record = told.pop("run")
    stated = {"id", "begun", "finished", "digest", "command", "code", "machine", "versions"}
    assert stated <= set(record) <= stated | {"commit", "modified"}  # the tests may run outside a repository
    return told
