"""The one schema of results: written by experiments, read by the report, the terminal and all exports.

A row is one number with its interval and its n. ``kind`` says what it is about, ``attack`` names an attack (or "none",
"noise", "worst"), ``metric`` what was measured; further columns say of what: ``class_name``, ``target``, ``bits``,
``detector`` … A name is never taken apart to learn what a number means.

Numbers that are not finite are null in files and None in a ``Row``: this is the only place that converts them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from medrobust import manifest
from medrobust.errors import InputError
from medrobust.stats import Estimate

FORMAT = 2
FIGURES = "figures.safetensors"
"""The arrays behind figures and numbers, in a run folder."""
BY_FINDING = "finding_min_eps"
"""The array of the smallest eps that turns each finding of each test image, (n, k); NaN where that was not attacked."""


class Kind(StrEnum):
    """What a row is about."""

    CLEAN = "clean"
    """Performance without an attack."""
    ATTACK = "attack"
    """One attack, image by image."""
    WORST = "worst case"
    """For each image, the attack that needed the smallest eps."""
    FINDING = "finding"
    """One goal of an attack on several findings: ``goal`` says which."""
    CONTROL = "control"
    """Random changes of the same size."""
    CORRUPTION = "corruption"
    """A natural corruption of the images, at a severity."""
    CHANGE = "change"
    """A patch, or a change of few parameters (column ``change``), chosen by an attack or at random (``made``)."""
    CERTIFIED = "certified"
    """What is proved: no change of that size turns these images (column ``bound`` says by what)."""
    BLACK_BOX = "black box"
    """Attacks without gradients that an audit tries beside those that were asked for."""
    UNIVERSAL = "universal"
    """One perturbation for all images."""
    DETECTOR = "detector"
    EVASION = "evasion"
    """Attacks on a classifier and a detector."""
    EXPLANATION = "explanation"
    STORED = "stored"
    """Images as a file holds them: changes of whole levels (column ``levels``; 0: not rounded)."""
    SURVIVAL = "survival"
    """What a transformation of the image (column ``transformation``) leaves of an attack (``made`` says how)."""
    SEARCH = "search"
    """Networks trained by search, and their baselines."""
    DEFENCE = "defence"
    COMPARISON = "comparison"
    """Two runs on the same images: ``run`` less ``against``."""
    OTHER = "other"
    """Of a cell of a user's own."""


FIXED = (
    "study",
    "data",
    "model",
    "kind",
    "attack",
    "norm",
    "eps",
    "seed",
    "metric",
    "value",
    "low",
    "high",
    "n",
    "status",
    "note",
)
"""Columns of every row, in their order; further columns stand before ``metric`` in tables."""
NUMBERS = ("value", "low", "high")
TEXTS = tuple(name for name in FIXED if name not in (*NUMBERS, "eps", "seed", "n"))
OK, INCONCLUSIVE = "ok", "inconclusive"


@dataclass(frozen=True)
class Row:
    """One measured number. eps: fraction of the pixel range (L2: a length). value, low, high: None where undefined.

    more: further columns, plain JSON.
    """

    kind: str
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int = 0
    attack: str = "none"
    norm: str = ""
    eps: float = 0.0
    seed: int | None = None
    status: str = OK
    note: str = ""
    study: str = ""
    data: str = ""
    model: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """The number is defined and believed."""
        return self.status == OK and self.value is not None

    @property
    def estimate(self) -> Estimate:
        """NaN where undefined."""
        value, low, high = (math.nan if v is None else v for v in (self.value, self.low, self.high))
        return Estimate(value, low, high, self.n)

    def get(self, column: str, default: Any = None) -> Any:
        """The value of any column."""
        return getattr(self, column) if column in FIXED else self.more.get(column, default)

    def has(self, **columns: Any) -> bool:
        """Whether it has these values; numbers are compared up to rounding."""
        return all(_same(self.get(name), value) for name, value in columns.items())

    def plain(self) -> dict[str, Any]:
        """As JSON: fixed columns, then further ones."""
        return {name: getattr(self, name) for name in FIXED} | dict(self.more)

    @classmethod
    def read(cls, plain: Any) -> Row:
        """A row of a results file. InputError where a fixed column is missing or of another type."""
        try:
            fixed: dict[str, Any] = {k: _text(plain, k) for k in TEXTS if k in plain}
            fixed |= {k: None if plain[k] is None else number(float(plain[k])) for k in NUMBERS}
            fixed |= {"eps": float(plain["eps"]), "n": int(plain["n"] or 0), "seed": plain.get("seed")}
            further = {k: v for k, v in plain.items() if k not in FIXED and v is not None}
            return cls(**fixed, more=further)
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"a row is not of this version ({type(error).__name__}: {error})") from None


def _text(plain: Mapping[str, Any], column: str) -> str:
    value = plain[column]
    if not isinstance(value, str):
        raise TypeError(f"{column} is {value!r}, no text")
    return value


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(value, float) and isinstance(wanted, (int, float)):
        return math.isclose(value, wanted, rel_tol=1e-6, abs_tol=1e-9)
    return bool(value == wanted)


def number(value: float) -> float | None:
    """None where the value is not finite."""
    return float(value) if math.isfinite(value) else None


@dataclass
class Rows:
    """Collects rows that share these columns."""

    study: str = ""
    data: str = ""
    model: str = ""
    norm: str = ""
    seed: int | None = None
    rows: list[Row] = field(default_factory=list)

    def add(
        self,
        kind: str,
        metric: str,
        estimate: Estimate,
        *,
        attack: str = "none",
        eps: float = 0.0,
        status: str = OK,
        note: str = "",
        data: str | None = None,
        model: str | None = None,
        **more: Any,
    ) -> None:
        """One number. data, model: where this row has others. more: further columns; None is left out."""
        value, low, high = (number(v) for v in estimate[:3])
        self.rows.append(
            Row(
                kind=str(kind),
                metric=metric,
                value=value,
                low=low,
                high=high,
                n=int(estimate.n),
                attack=attack,
                norm=self.norm,
                eps=float(eps),
                seed=self.seed,
                status=status,
                note=note,
                study=self.study,
                data=self.data if data is None else data,
                model=self.model if model is None else model,
                more={k: v for k, v in more.items() if v is not None},
            )
        )

    def plain(self) -> list[dict[str, Any]]:
        """As JSON."""
        return [row.plain() for row in self.rows]

    def adopt(self, plain: Iterable[Mapping[str, Any]]) -> None:
        """Add rows that a cell holds as JSON: without the names of study, data and model, which may be private."""
        self.rows += [
            replace(Row.read(row), study=self.study, data=self.data, model=self.model, norm=self.norm, seed=self.seed)
            for row in plain
        ]


def withstands(min_eps: np.ndarray, eps: float) -> np.ndarray:
    """bool (n,): the images that a change of that size does not turn. min_eps: float32 (n,), the smallest that does."""
    return np.asarray(min_eps > np.float32(eps))  # compared at the precision of min_eps


def group(arrays: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The arrays that are named ``NAME.…``, by the rest of their names."""
    return {k.removeprefix(f"{name}."): v for k, v in arrays.items() if k.startswith(f"{name}.")}


def read_arrays(folder: Path) -> dict[str, np.ndarray]:
    """The arrays of FIGURES of a run folder; none where it has no such file.

    InputError where it cannot be read, or is not the file that the run's manifest lists.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = folder / FIGURES
    if not path.is_file():
        return {}
    manifest.check(folder, FIGURES)
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({error}); give the run's command again to write it anew") from None


COSTS = ("gradients_per_image", "forwards_per_image", "queries_per_image", "inconclusive")
"""Metrics that stay as they are where an attack is in doubt: what it cost, and how many images prove nothing."""


def doubted(rows: Iterable[Row], why: str, kinds: Collection[str] = (), attacks: Collection[str] = ()) -> list[Row]:
    """The same rows, those of these kinds or attacks inconclusive for that reason; what they cost stays as it is."""

    def doubt(row: Row) -> Row:
        if not why or row.metric in COSTS or not (row.kind in kinds or row.attack in attacks):
            return row
        note = row.note if why in row.note else "; ".join(filter(None, (why, row.note)))
        return replace(row, status=INCONCLUSIVE, note=note)

    return [doubt(row) for row in rows]


GRADIENT = "gradient"
"""Stands as the attack in a check that concerns every attack that follows gradients."""


@dataclass(frozen=True)
class Check:
    """One question about one attack. passed: None where it was not asked; ``detail`` then says why.

    decisive: where it fails no attack that follows gradients is believed.
    """

    name: str
    attack: str
    passed: bool | None
    detail: str
    consequence: str
    decisive: bool = False

    def plain(self) -> dict[str, object]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def read(cls, plain: Any) -> Check:
        """A check of a results file. InputError where something is missing or of another type."""
        try:
            texts = {k: _text(plain, k) for k in ("name", "attack", "detail", "consequence")}
            passed, decisive = plain["passed"], plain.get("decisive", False)
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(f"a check is not of this version ({type(error).__name__}: {error})") from None
        if passed not in (True, False, None) or not isinstance(decisive, bool):
            raise InputError(f"a check is not of this version (passed is {passed!r}, decisive {decisive!r})")
        return cls(**texts, passed=passed, decisive=decisive)


class ResultsFile(TypedDict):
    """results.json of a command, without the record of its run. conditions: as ``report.schema`` reads them.

    criteria: as ``medrobust.criteria.Criteria.stated`` has them, where there are any.
    """

    format: int
    kind: str
    conditions: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    checks: Sequence[Mapping[str, object]]
    examples: Sequence[Mapping[str, Any]]
    left_out: Sequence[Mapping[str, str]]
    seconds: Mapping[str, float]
    criteria: NotRequired[Mapping[str, object]]


def find(rows: Iterable[Row], **columns: Any) -> Row | None:
    """The first row with these values; None where there is none."""
    return next(among(rows, **columns), None)


def among(rows: Iterable[Row], **columns: Any) -> Iterator[Row]:
    """The rows with these values."""
    return (row for row in rows if row.has(**columns))
