"""One classifier of a run of `medrobust explain`, as the page reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Numbers = dict[str, Any]
"""A row: section, metric, when, layer, at, value, low, high, n, unknown, chance, note."""


@dataclass(frozen=True)
class Run:
    name: str
    facts: dict[str, Any]
    rows: list[Numbers]
    gallery: dict[str, Any]
    arrays: dict[str, np.ndarray]
    picture: str
    """t-SNE as a data URI; empty where there is none."""

    def find(self, section: str, metric: str, when: str = "clean", layer: str = "") -> Numbers | None:
        wanted = (section, metric, when, layer)
        return next((r for r in self.rows if (r["section"], r["metric"], r["when"], r["layer"]) == wanted), None)

    def measure(self, name: str) -> Numbers | None:
        return self.find("measure", name)

    def at(self, metric: str, levels: float) -> Numbers | None:
        """A row of the landscape, ``levels`` grey levels away from the image."""
        for r in self.rows:
            if r["section"] == "landscape" and r["metric"] == metric and abs(r["at"] * 255 - levels) < 1e-6:
                return r
        return None

    def values(self, name: str) -> np.ndarray:
        """One number an image, those that are known."""
        values = self.arrays.get(f"image.{name}", np.zeros(0))
        return np.asarray(values[np.isfinite(values)])

    @property
    def classes(self) -> list[str]:
        return list(self.facts["classes"])
