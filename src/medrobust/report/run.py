"""A finished run as the report reads it: results.json, figures.safetensors and spec.json of one folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import Field, ValidationError

from medrobust import json_files
from medrobust.errors import InputError
from medrobust.report.criteria_words import CriteriaInfo
from medrobust.report.schema import Conditions, Example, RunInfo, Stated, Unmeasured
from medrobust.report.words import listing
from medrobust.results import FORMAT, GRADIENT, Check, Kind, Row, read_arrays

NOISE_TITLES = {"noise": "Random noise (±ε)", "noise-uniform": "Random noise (uniform)"}
PROBES = ("square", "simba-dct")
"""Attacks that see no gradient: what a white-box attack must beat to be believed."""
WORST = "worst"
"""For each image the attack that needed the smallest eps: no attack of its own, but the number to go by."""


class _Parts(Stated):
    """The parts of results.json."""

    kind: str = "audit"
    conditions: Conditions
    rows: list[Any] = Field(default_factory=list)
    checks: list[Any] = Field(default_factory=list)
    examples: list[Example] = Field(default_factory=list)
    left_out: list[Unmeasured] = Field(default_factory=list)
    seconds: dict[str, float] = Field(default_factory=dict)
    run: RunInfo = Field(default_factory=RunInfo)
    criteria: CriteriaInfo | None = None


@dataclass(frozen=True)
class Run:
    """Everything the report is made of."""

    conditions: Conditions
    rows: list[Row]
    checks: list[Check] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)
    left_out: list[Unmeasured] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    run: RunInfo = field(default_factory=RunInfo)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    spec: Mapping[str, object] = field(default_factory=dict)
    command: str = "audit"
    """Which command made it: the kind of its results."""
    criteria: CriteriaInfo | None = None
    """None where there are no acceptance criteria."""

    def find(self, kind: Kind, metric: str, attack: str = "", eps: float | None = None, **more: Any) -> Row | None:
        """The row with these values; None where it was not measured. attack: any where it is empty, as is eps.

        more: its further columns, all of them, so that the number of a class is never taken for that of all.
        """
        for row in self._index.get((kind, metric), ()):
            if (
                (not attack or row.attack == attack)
                and (eps is None or same(row.eps, eps))
                and row.more.keys() == more.keys()
                and row.has(**more)
            ):
                return row
        return None

    @cached_property
    def _index(self) -> dict[tuple[str, str], list[Row]]:
        index: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            index.setdefault((row.kind, row.metric), []).append(row)
        return index

    def kind(self, attack: str) -> Kind:
        """Of the rows over the grid of eps that the name of an attack, a control, a probe or the worst case stands
        for."""
        if attack == WORST:
            return Kind.WORST
        if attack in self.controls:
            return Kind.CONTROL
        return Kind.BLACK_BOX if attack in self.probes else Kind.ATTACK

    def at(self, attack: str, metric: str, eps: float | None = None, **more: Any) -> Row | None:
        """As ``find``, for the name of an attack, a control, a probe or the worst case."""
        return self.find(self.kind(attack), metric, attack, eps, **more)

    def curve(self, attack: str, metric: str = "accuracy", **more: Any) -> list[Row]:
        """The rows of that attack and metric by growing eps, eps 0 left out. more: all their further columns."""
        rows = self._index.get((self.kind(attack), metric), ())
        matching = (
            r for r in rows if r.attack == attack and r.eps > 0 and r.more.keys() == more.keys() and r.has(**more)
        )
        return sorted(matching, key=lambda r: r.eps)

    def of_attacks(self, metric: str) -> list[Row]:
        """All rows of that metric under attack, the worst case first."""
        return [r for kind in (Kind.WORST, Kind.ATTACK) for r in self._index.get((kind, metric), ())]

    @property
    def black_box(self) -> list[Row]:
        """Shares turned within so many queries, without gradients and by chance."""
        return [r for kind in (Kind.BLACK_BOX, Kind.CONTROL) for r in self._index.get((kind, "success_at"), ())]

    def _names(self, kind: Kind) -> list[str]:
        """What stands as the attack in rows that can be drawn against eps."""
        rows = [r for metric in ("accuracy", "min_eps_median") for r in self._index.get((kind, metric), ())]
        return list(dict.fromkeys(r.attack for r in rows))

    @cached_property
    def attacks(self) -> list[str]:
        """Every attack with an accuracy, in the order of the conditions, then of the rows.

        No controls, no worst case, and no probe or ensemble that the audit ran beside the attacks that were asked for.
        """
        names = self._names(Kind.ATTACK)
        order = dict.fromkeys([a for a in self.conditions.attacks if a in names] + names)
        return [a for a in order if a != self.ensemble]

    @cached_property
    def probes(self) -> list[str]:
        """Black-box attacks of the audit's own accord, at one eps on a few images."""
        return [a for a in self._names(Kind.BLACK_BOX) if a not in self.conditions.attacks]

    @cached_property
    def ensemble(self) -> str | None:
        """The ensemble of the headline number, where the audit ran it of its own accord, at one eps."""
        headline = self.conditions.headline
        return None if headline is None or headline.attack in self.conditions.attacks else headline.attack

    @cached_property
    def measured(self) -> list[str]:
        """What has numbers over the grid: the worst case first where there is one, then the attacks."""
        return [WORST, *self.attacks] if self._names(Kind.WORST) and self.attacks else self.attacks

    @cached_property
    def controls(self) -> list[str]:
        """Random changes of the same size: what an attack must beat to be called one."""
        rows = self._index.get((Kind.CONTROL, "accuracy"), ())
        return list(dict.fromkeys(r.attack for r in rows if r.eps > 0))

    def title(self, attack: str) -> str:
        """The attack's name for people."""
        if attack in self.conditions.attacks:
            return self.conditions.attacks[attack].title
        if self.conditions.headline is not None and attack == self.conditions.headline.attack:
            return self.conditions.headline.title
        names = {
            WORST: "Worst case",
            GRADIENT: "all attacks that follow gradients",
            **NOISE_TITLES,
            "square": "Square",
            "simba-dct": "SimBA (cosines)",
            "rays": "RayS",
            "hopskipjump": "HopSkipJump",
        }
        return names.get(attack, attack.upper() if len(attack) <= 4 else attack)

    def detector_title(self, name: str) -> str:
        info = self.conditions.detection
        return name if info is None or name not in info.detectors else info.detectors[name].title

    def corruption_title(self, name: str) -> str:
        info = self.conditions.corruptions
        return name if info is None else info.titles.get(name, name)

    def class_name(self, index: int) -> str:
        classes = self.conditions.classes
        return classes[index] if 0 <= index < len(classes) else f"class {index}"

    def target_name(self, index: int) -> str:
        """Of a universal perturbation; of several findings those beyond the last stand for the absence of one."""
        absent, finding = divmod(index, len(self.conditions.classes))
        return (
            f"no {self.class_name(finding)}"
            if self.conditions.head == "multilabel" and absent
            else self.class_name(index)
        )

    def answer(self, label: int | list[int]) -> str:
        """A class, or the findings of an image (0, 1, or -1 for unknown, each), inside a sentence."""
        if isinstance(label, int):
            return self.labelled(self.class_name(label))
        return listing([self.class_name(k) for k, present in enumerate(label) if present == 1]) or "no finding"

    def inline_title(self, attack: str) -> str:
        """The title inside a sentence."""
        return "worst case" if attack == WORST else self.title(attack)

    def labelled(self, name: str) -> str:
        """A class inside a sentence: "pneumonia", but "class 3" where its name is only a number."""
        return f"class\u00a0{name}" if name.strip().lstrip("-").isdigit() else name


def same(a: float, b: float) -> bool:
    """Whether two eps are one point of the grid (they come from decimal text and from fractions of 255)."""
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)


def read(run_dir: Path) -> Run:
    """Read a run folder. InputError where results.json is missing or is not one; the other files may be absent."""
    run_dir = Path(run_dir)
    if not run_dir.is_dir():
        raise InputError(f"{run_dir} is not a folder; give the folder that `medrobust audit --out` wrote")
    path = run_dir / "results.json"
    if not path.is_file():
        raise InputError(
            f"{run_dir} holds no results.json; the run is unfinished: give the audit's command again, it goes on"
        )
    raw = json_files.read_results(path, finite=True)
    if raw.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {raw.get('format')!r}, this version reads {FORMAT}; write it again with this version"
        )
    spec_path = run_dir / "spec.json"
    spec = _json(spec_path) if spec_path.is_file() else {}
    return parsed(raw, path, arrays=read_arrays(run_dir), spec=spec)


def parsed(
    raw: Mapping[str, object],
    path: Path = Path("results.json"),
    *,
    arrays: dict[str, np.ndarray] | None = None,
    spec: Mapping[str, object] | None = None,
) -> Run:
    """Results as the report reads them; path: named in errors. InputError where they are not of this version."""
    try:
        parts = _Parts.model_validate({k: v for k, v in raw.items() if v})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where}: {first['msg'].lower()}; run the audit again to write it anew") from None
    return Run(
        parts.conditions,
        [_at(path, f"rows.{i}", Row.read, row) for i, row in enumerate(parts.rows)],
        [_at(path, f"checks.{i}", Check.read, check) for i, check in enumerate(parts.checks)],
        parts.examples,
        parts.left_out,
        parts.seconds,
        parts.run,
        arrays or {},
        spec or {},
        parts.kind,
        parts.criteria,
    )


T = TypeVar("T")


def _at(path: Path, where: str, reader: Callable[[Any], T], plain: Any) -> T:
    try:
        return reader(plain)
    except InputError as error:
        raise InputError(f"{path}: {where}: {error}; run the audit again to write it anew") from None


def _json(path: Path) -> Mapping[str, object]:
    """The object in a file of a run. NaN and Infinity are no JSON: a number that is not finite is an undefined one."""
    try:
        return json_files.read_object(path, finite=True)
    except InputError as error:
        raise InputError(f"{error}; run the audit again to write it anew") from None
