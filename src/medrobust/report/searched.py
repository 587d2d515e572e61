"""The questions of a comparison of searches, each with its rows, as sections and sentences read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from medrobust.report.run import Run
from medrobust.report.schema import SearchedInfo, SearchInfo, SearchMethodInfo
from medrobust.results import Kind, Row, group

TITLES = {
    "weights": "Weights of the network",
    "masks": "Which features to keep",
    "hyper": "Hyper-parameters and hidden size",
    "threshold": "Decision threshold",
}
"""By question, in the order of the page."""
MAIN = "balanced_accuracy"


@dataclass(frozen=True)
class Searched:
    """One question. arrays: METHOD.NAME, see ``MethodComparison.arrays`` in medrobust.experiments.search_rows."""

    question: str
    info: SearchedInfo
    table: SearchInfo
    rows: list[Row]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return TITLES[self.question]

    @property
    def methods(self) -> dict[str, SearchMethodInfo]:
        return self.info.methods

    def find(self, metric: str, method: str) -> Row | None:
        """The row of a method; None where it was not measured."""
        return self._index.get((metric, method))

    @cached_property
    def _index(self) -> dict[tuple[str, str], Row]:
        return {(row.metric, str(row.get("method", ""))): row for row in self.rows}

    def values(self, metric: str) -> dict[str, float]:
        """By method; those that are defined."""
        result = {name: self.find(metric, name) for name in self.methods}
        return {name: row.value for name, row in result.items() if row is not None and row.value is not None}

    @property
    def ordered(self) -> list[str]:
        """Methods, best median balanced accuracy first."""
        values = self.values(MAIN)
        return sorted(values, key=lambda n: (-values[n], n))

    def differences(self) -> Iterator[tuple[str, Row]]:
        """(method, row) of balanced accuracy less the reference's."""
        for name in self.methods:
            if (row := self.find("difference", name)) is not None:
                yield name, row

    def seconds(self, method: str) -> float:
        """Of one processor, for a network; NaN where it is not known."""
        value = self.arrays.get(f"{method}.seconds")
        return float(value[0]) if value is not None and value.size else float("nan")

    def sentence_title(self, method: str) -> str:
        """As it stands inside a sentence: "grey wolf", but "Adam" and "CMA-ES"."""
        title = self.methods[method].title
        proper = title.startswith(("Adam", "Harmony", "TPE")) or title[1:2].isupper() or not title[1:2].isalpha()
        return title if proper else title[:1].lower() + title[1:]


def searched(run: Run) -> list[Searched]:
    """Every question of a run that is finished."""
    c, result = run.conditions, []
    for question in TITLES:
        if question in c.searched and c.search is not None:
            rows = [r for r in run.rows if r.kind == Kind.SEARCH and r.has(question=question)]
            arrays = group(run.arrays, f"search.{question}")
            result.append(Searched(question, c.searched[question], c.search, rows, arrays))
    return result


@dataclass(frozen=True)
class AttackedNetwork:
    """One network under attack, as ``AttackedNetworks.add_rows`` of medrobust.experiments gives its rows."""

    name: str
    rows: list[Row]

    def find(self, metric: str, eps: float = 0.0) -> Row | None:
        return next((r for r in self.rows if r.metric == metric and r.has(eps=eps)), None)

    @property
    def sizes(self) -> list[float]:
        """At which accuracy under attack is known."""
        return [r.eps for r in self.rows if r.metric == "accuracy" and r.eps > 0]

    @property
    def doubt(self) -> str:
        """Why the attack on it is not believed; empty where it is."""
        return next((r.note for r in self.rows if r.metric == "accuracy" and not r.ok), "")


def attacked(run: Run) -> list[AttackedNetwork]:
    """Every network under attack."""
    rows = [r for r in run.rows if r.kind == Kind.SEARCH and r.get("network") is not None]
    return [
        AttackedNetwork(name, [r for r in rows if r.has(network=name)])
        for name in dict.fromkeys(r.get("network") for r in rows)
    ]
