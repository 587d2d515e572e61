"""Results files compared as far as they must be equal: all but the record of the run that wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def numbers(path: Path) -> dict[str, Any]:
    """What a results file holds apart from its record of the run."""
    told = json.loads(path.read_text("utf-8"))
    record = told.pop("run")
    assert set(record) == {"id", "begun", "finished", "command", "machine", "versions"}
    return told
