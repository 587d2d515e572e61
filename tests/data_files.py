"""Small image files for the tests of the data room, and where the real data lie."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REAL = Path(__file__).resolve().parents[2] / "shared" / "data"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="shared/data is not on this machine")


def picture(seed: int, size: int = 16, colour: bool = False) -> np.ndarray:
    shape = (size, size, 3) if colour else (size, size)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write_table(folder: Path, rows: list[dict[str, str]], name: str = "labels.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


def cohort(folder: Path, n: int = 60, patients: int | None = None, suffix: str = "png", **columns: list[str]) -> Path:
    """n grey images of two classes with a table; patient i % patients where asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i in range(n):
        Image.fromarray(picture(i)).save(folder / f"{i:03d}.{suffix}")
        row = {"file": f"{i:03d}.{suffix}", "label": ("ill", "well")[i % 2]}
        if patients:
            row["patient"] = f"p{i % patients}"
        rows.append(row | {name: column[i] for name, column in columns.items()})
    return write_table(folder, rows)


def class_folders(root: Path, parts: tuple[str, ...] = ("",), n: int = 12) -> Path:
    for p, part in enumerate(parts):
        for c, name in enumerate(("ill", "well")):
            (root / part / name).mkdir(parents=True)
            for i in range(n):
                Image.fromarray(picture(1000 * p + 100 * c + i)).save(root / part / name / f"{i}.png")
    return root


def npz(
    file: Path, n: int = 20, size: int = 12, colour: bool = False, parts: tuple[str, ...] = ("train", "val", "test")
) -> Path:
    arrays = {}
    for p, part in enumerate(parts):
        arrays[f"{part}_images"] = np.stack([picture(100 * p + i, size, colour) for i in range(n)])
        arrays[f"{part}_labels"] = (np.arange(n) % 2).astype(np.uint8)[:, None]
    np.savez_compressed(file, **arrays)
    return file
