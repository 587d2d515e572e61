"""The classifiers that a run explains, each with its rows, as sections and sentences read them."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from medrobust.report.run import Run
from medrobust.report.schema import ExplainedInfo
from medrobust.report.words import grey_levels
from medrobust.results import Kind, Row, group

OF = ("map", "layer", "direction", "at", "of", "measure", "than", "class_name")
"""Columns that say of what a number is; those that are not asked for are empty."""


@dataclass(frozen=True)
class Explained:
    """One classifier. arrays: image.NAME (one number an image), landscape.NAME, gallery.NAME, tsne (bytes of a PNG)."""

    name: str
    info: ExplainedInfo
    rows: list[Row]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def find(self, metric: str, when: str = "clean", **columns: Any) -> Row | None:
        """The row with these values; None where it was not measured."""
        wanted = dict.fromkeys(OF) | columns
        return next((r for r in self._index.get((metric, when), ()) if r.has(**wanted)), None)

    @cached_property
    def _index(self) -> dict[tuple[str, str], list[Row]]:
        index: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            index.setdefault((row.metric, str(row.get("when"))), []).append(row)
        return index

    def loss(self, levels: float, direction: str | None = None) -> Row | None:
        """Of the landscape, ``levels`` grey levels away from the image."""
        return self.find("loss", at=levels / 255, direction=direction)

    def values(self, name: str) -> np.ndarray:
        """One number an image, those that are known."""
        values = self.arrays.get(f"image.{name}", np.zeros(0))
        return np.asarray(values[np.isfinite(values)])

    @property
    def size(self) -> str:
        """ "1 grey level": of the attack."""
        return grey_levels(round(self.info.eps * 255, 6)) if self.info.norm == "linf" else f"L2 {self.info.eps:.3g}"

    @property
    def picture(self) -> str:
        """t-SNE as a data URI; empty where there is none."""
        if "tsne" not in self.arrays:
            return ""
        return "data:image/png;base64," + b64encode(self.arrays["tsne"].tobytes()).decode("ascii")


def explained(run: Run) -> list[Explained]:
    """In their order, the first being the one that the run is about; two of one name get a number."""
    classifiers = []
    for place, info in sorted(run.conditions.explained.items(), key=lambda item: int(item[0])):
        beside = int(place) or None
        rows = [r for r in run.rows if r.kind == Kind.EXPLANATION and r.has(beside=beside, than=None)]
        arrays = group(run.arrays, f"explain.{place}")
        short = re.sub(r"(/labels)?\.(csv|npz)$", "", info.data)
        classifiers.append(Explained(f"{short}, {info.architecture or 'network'}", info, rows, arrays))
    names = [e.name for e in classifiers]
    return [e if names.count(e.name) == 1 else replace(e, name=f"{e.name} ({i})") for i, e in enumerate(classifiers, 1)]


def pairs(run: Run) -> list[Row]:
    """In how many pairs of images the first classifier's number is larger than another's."""
    return [r for r in run.rows if r.kind == Kind.EXPLANATION and r.metric == "larger"]
