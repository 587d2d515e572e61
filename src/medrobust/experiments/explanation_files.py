"""What `medrobust explain` leaves on disk: several classifiers side by side, and the difference between the first and
each of the others.

DIR/results.json        runs (facts, rows, gallery), the first one being the one asked for; comparison
DIR/figures.safetensors arrays, K.NAME for the K-th run: image.NAME (one number an image), landscape.NAME, gallery.NAME
DIR/tsne-K.png, DIR/results.csv, DIR/images.csv, DIR/explain.html
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medrobust import json_files, stats
from medrobust.errors import InputError
from medrobust.run_folder import RunFolder
from medrobust.run_info import with_run

KIND = "explain"


@dataclass(frozen=True)
class Explained:
    """One classifier on one data set."""

    name: str
    found: dict[str, Any]
    """facts, rows, gallery, ids: as ``Explaining.run`` gives them."""
    arrays: dict[str, np.ndarray]
    picture: Path | None
    """t-SNE, where there is one."""


def save(run_folder: RunFolder, runs: Sequence[Explained], asked: dict[str, Any], command: str = "") -> None:
    """Write results.json, figures.safetensors, the pictures and both tables. command: as it was typed."""
    from safetensors.numpy import save as pack

    compared = [row for k, other in enumerate(runs[1:], start=1) for row in compare(runs[0], other, k)]
    told = {
        "format": 1,
        "kind": KIND,
        "asked": asked,
        "comparison": compared,
        "runs": [{"name": run.name, **run.found} for run in runs],
    }
    arrays = {f"{k}.{name}": np.ascontiguousarray(v) for k, run in enumerate(runs) for name, v in run.arrays.items()}
    for k, run in enumerate(runs):
        if run.picture is not None:
            run_folder.write_bytes(f"tsne-{k}.png", run.picture.read_bytes())
    run_folder.write_bytes("figures.safetensors", pack(arrays))
    run_folder.write_text("results.csv", _rows_csv(runs))
    run_folder.write_text("images.csv", _images_csv(runs))
    told = with_run(run_folder.path, "results.json", told, command)
    run_folder.write_text("results.json", json.dumps(told, indent=1, allow_nan=False))


def load(folder: Path) -> Explained:
    """The first classifier of a finished run. InputError where the folder holds none."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        told = json_files.read_results(folder / "results.json")
        if told.get("kind") != KIND:
            raise InputError(f"{folder} is the run of another command; give one that medrobust explain made")
        arrays = load_file(folder / "figures.safetensors")
    except (OSError, ValueError, AttributeError, SafetensorError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{folder} holds no finished run of medrobust explain: run it first") from error
    first = dict(told["runs"][0])
    name = str(first.pop("name"))
    mine = {k.removeprefix("0."): v for k, v in arrays.items() if k.startswith("0.")}
    picture = folder / "tsne-0.png"
    return Explained(name, first, mine, picture if picture.is_file() else None)


def compare(first: Explained, other: Explained, k: int) -> list[dict[str, Any]]:
    """For every number that both have of an image: the share of pairs in which the first classifier's is larger.

    0.5: no difference; with DeLong's interval. Layers differ between networks and are left out.
    """
    rows = []
    for name in first.arrays:
        if not name.startswith("image.") or name not in other.arrays or "@" in name:
            continue
        mine, theirs = (v[np.isfinite(v)] for v in (first.arrays[name], other.arrays[name]))
        area = stats.auroc(np.concatenate([theirs, mine]), np.arange(len(theirs) + len(mine)) >= len(theirs))
        value, low, high = (float(v) if np.isfinite(v) else None for v in area[:3])
        metric, _, when = name.removeprefix("image.").partition(".")
        rows.append(
            {
                "other": k,
                "metric": metric,
                "when": when or "clean",
                "value": value,
                "low": low,
                "high": high,
                "n": len(mine),
                "n_other": len(theirs),
            }
        )
    return rows


def _rows_csv(runs: Sequence[Explained]) -> str:
    out = io.StringIO()
    rows = [{"name": run.name, "data": run.found["facts"]["data"], **row} for run in runs for row in run.found["rows"]]
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _images_csv(runs: Sequence[Explained]) -> str:
    """One line an image: every number that was measured of it, for studies of one's own."""
    names = list(dict.fromkeys(n for run in runs for n in run.arrays if n.startswith("image.")))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["name", "id", *(n.removeprefix("image.") for n in names)])
    for run in runs:
        columns = [run.arrays.get(n) for n in names]
        for i, image in enumerate(run.found["ids"]):
            values = ("" if c is None or not np.isfinite(c[i]) else f"{c[i]:.9g}" for c in columns)
            writer.writerow([run.name, image, *values])
    return out.getvalue()
