"""How many epochs fit into the minutes that there are: by a short trial, once for each training."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from medrobust import atomic, json_files, own_files
from medrobust.errors import InputError

if TYPE_CHECKING:
    from medrobust.training.trainer import Trainer

FILE = "pace.json"
STEPS = 4
"""Of the trial, the first of which is not counted."""
MARGIN = 1.15
"""Validation and unevenness, as a share of the time that weight steps take."""


def planned_epochs(trial: Callable[[], Trainer], minutes: float, most: int, folder: Path | None, key: str) -> int:
    """At most ``most``. trial: makes a trainer whose weights are thrown away. folder: where the number is kept, so that
    a killed training goes on with the same schedule; key: names the training.

    InputError where not even one epoch fits.
    """
    file = None if folder is None else folder / FILE
    if file is not None and file.is_file():
        before = json_files.read_object(file)
        planned = before.get("epochs")
        if before.get("key") == key and before.get("minutes") == minutes and type(planned) is int and planned > 0:
            return planned
    trainer = trial()
    trainer.train_epoch(0, most=1)
    began = time.monotonic()
    steps = min(STEPS, trainer.steps)
    trainer.train_epoch(0, most=steps)
    seconds = MARGIN * (time.monotonic() - began) / steps * trainer.steps
    planned = min(most, int(60 * minutes / seconds))
    if planned < 1:
        raise InputError(
            f"one epoch takes about {seconds / 60:.1f} minutes, more than the {minutes:g} that there are: give more "
            "minutes, fewer steps of the attack, or smaller images"
        )
    if file is not None:
        own_files.check_json(file, lambda content: {"key", "epochs"} <= content.keys(), "pace of a training")
        atomic.write_text(file, json.dumps({"key": key, "minutes": minutes, "epochs": planned}))
    return planned
