"""A finished run as the report reads it: results.json, figures.safetensors and spec.json of one folder."""

from __future__ import annotations

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from medrobust import json_files
from medrobust.errors import InputError

FORMAT = 1
COLUMNS = (
    "study",
    "data",
    "model",
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
CONTROLS = ("noise", "noise-uniform")
"""Random changes of the same size: what an attack must beat to be called one."""
PROBES = ("square", "simba-dct")
"""Attacks that see no gradient: what a white-box attack must beat to be believed."""


GRADIENT = "gradient"
"""Stands as the attack in a check that concerns every attack that follows gradients."""
WORST = "worst"
"""For each image the attack that needed the smallest eps: no attack of its own, but the number to go by."""


class _Read(BaseModel):
    # fields named model_… are the schema's own
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class AttackInfo(_Read):
    title: str
    settings: str = ""
    source: str = ""


class LeftOut(_Read):
    file: str
    reason: str


class UniversalGoal(_Read):
    """One universal perturbation. target: the class it goes for; None: away from the clean answer."""

    target: int | None = None
    moved: bool = True
    why: str = ""
    legal: bool = True
    gradients: int = 0


class UniversalExample(_Read):
    target: int | None = None
    id: str
    label: int
    before: int
    after: int


class UniversalInfo(_Read):
    """How one change for every image was made. zeta: its size as a share of an average image."""

    title: str
    source: str = ""
    settings: dict[str, Any] = {}
    zeta: float
    eps: float
    bits: int = 8
    made_from: str = ""
    n_made: int
    n_judged: int
    controls: list[str] = []
    goals: list[UniversalGoal] = []
    examples: list[UniversalExample] = []


class DetectorInfo(_Read):
    name: str
    title: str
    source: str = ""


class EvasionInfo(_Read):
    title: str
    source: str = ""


class DetectInfo(_Read):
    """How detectors were tried. lead: the one that sentences are about, named beforehand; None in older runs."""

    attack: str
    eps: float
    lead: str | None = None
    detectors: list[DetectorInfo] = []
    evasion: EvasionInfo
    n_clean: int = 0
    n_attacked: int = 0
    n_apart: int = 0


class MeasureInfo(_Read):
    name: str
    title: str
    unit: str = ""


class ExplainExample(_Read):
    id: str
    label: int
    after: int


class ExplainInfo(_Read):
    """What was looked at inside. layer: of Grad-CAM. grid: of the landscape, fractions of the pixel range."""

    attack: str
    eps: float
    layer: str = ""
    n: int = 0
    n_turned: int = 0
    n_surfaces: int = 0
    grid: list[float] = []
    examples: list[ExplainExample] = []
    measures: list[MeasureInfo] = []


class HeadlineInfo(_Read):
    """The ensemble whose accuracy is the headline number. attack: what its rows stand under."""

    attack: str
    title: str
    settings: str = ""
    source: str = ""
    eps: float


class RunInfo(_Read):
    """Which run made the numbers. id and times: of the run folder; command: as it was typed."""

    id: str = ""
    begun: str = ""
    finished: str = ""
    command: str = ""
    machine: dict[str, Any] = {}
    versions: dict[str, str] = {}


class Conditions(_Read):
    """What was tested, and how. eps are fractions of the pixel range; n_… count images."""

    classes: list[str] = Field(min_length=1)
    study: str = "audit"
    data: str = ""
    data_digest: str = ""
    data_notes: list[str] = []
    model_doubts: list[str] = []
    """What limits every number of the network, a sentence each."""
    model_notes: list[str] = []
    left_out: list[LeftOut] = []
    n_train: int | None = None
    n_val: int | None = None
    n_test: int | None = None
    n_attacked: int | None = None
    n_patients_attacked: int | None = None
    """None where it is not known whose images they are."""
    disease_classes: list[int] = []
    size: int | None = None
    channels: int | None = None
    bits: int = 8
    model: str = ""
    model_digest: str = ""
    trained_here: bool | None = None
    provenance: dict[str, Any] = {}
    parameters: int | None = None
    head: str = ""
    mean: list[float] = []
    std: list[float] = []
    threshold: float | None = None
    seed: int | None = None
    norm: str = "Linf"
    eps: list[float] = []
    attacks: dict[str, AttackInfo] = {}
    headline: HeadlineInfo | None = None
    universal: UniversalInfo | None = None
    detect: DetectInfo | None = None
    explain: ExplainInfo | None = None
    versions: dict[str, str] = {}
    hardware: str = ""

    @property
    def patients_known(self) -> bool:
        return self.n_patients_attacked is not None

    @field_validator("disease_classes", "data_notes", "left_out", "eps", "mean", "std", mode="before")
    @classmethod
    def _nothing_is_empty(cls, value: object) -> object:
        return [] if value is None else value


class Row(_Read):
    """One measured number. value, low and high are None where the number is undefined."""

    attack: str
    eps: float
    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    norm: str | None = None
    seed: int | None = None
    status: str = "ok"
    note: str | None = ""

    @property
    def ok(self) -> bool:
        return self.status == "ok" and self.value is not None


class Check(_Read):
    """A sanity check; passed is None where it was not asked. decisive: concerns every attack that follows gradients."""

    name: str
    attack: str | None = None
    passed: bool | None
    detail: str = ""
    consequence: str = ""
    decisive: bool = False


class Example(_Read):
    id: str
    label: int
    before: int
    after: int
    confidence_before: float | None = None
    confidence_after: float | None = None
    eps: float | None = None
    size: float | None = None
    attack: str = ""
    patient: str | None = None


class Run(_Read):
    """Everything the report is made of."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True, extra="ignore")

    conditions: Conditions
    rows: list[Row]
    checks: list[Check] = []
    examples: list[Example] = []
    seconds: dict[str, float] = {}
    run: RunInfo = RunInfo()
    table: list[dict[str, Any]] = Field(default=[], description="the rows as they stand in the file")
    arrays: dict[str, np.ndarray] = {}
    spec: dict[str, Any] = {}

    def find(self, attack: str, metric: str, eps: float | None = None) -> Row | None:
        """The row of that attack and metric, at that eps if one is given; None where it was not measured."""
        for row in self._index.get((attack, metric), ()):
            if eps is None or same(row.eps, eps):
                return row
        return None

    @cached_property
    def _index(self) -> dict[tuple[str, str], list[Row]]:
        index: dict[tuple[str, str], list[Row]] = {}
        for row in self.rows:
            index.setdefault((row.attack, row.metric), []).append(row)
        return index

    def curve(self, attack: str, metric: str = "accuracy") -> list[Row]:
        """The rows of that attack and metric by growing eps, eps 0 left out."""
        return sorted((r for r in self._index.get((attack, metric), ()) if r.eps > 0), key=lambda r: r.eps)

    def has(self, metric_start: str) -> bool:
        return any(r.metric.startswith(metric_start) and r.attack != "none" for r in self.rows)

    @cached_property
    def _seen(self) -> list[str]:
        seen = [r.attack for r in self.rows if r.metric in ("accuracy", "eps_star_median")]
        order = dict.fromkeys([a for a in self.conditions.attacks if a in seen] + seen)
        return [a for a in order if a != "none" and a not in CONTROLS]

    @cached_property
    def attacks(self) -> list[str]:
        """Every attack with an accuracy, in the order of the conditions, then of the rows.

        No controls, no worst case, and no probe that the audit ran beside the attacks that were asked for.
        """
        return [a for a in self._seen if a != WORST and a not in (*self.probes, self.ensemble)]

    @cached_property
    def probes(self) -> list[str]:
        """Black-box attacks of the audit's own accord, at one eps on a few images."""
        return [a for a in self._seen if a in PROBES and a not in self.conditions.attacks]

    @cached_property
    def ensemble(self) -> str | None:
        """The ensemble of the headline number, where the audit ran it of its own accord, at one eps."""
        told = self.conditions.headline
        return None if told is None or told.attack in self.conditions.attacks else told.attack

    @cached_property
    def measured(self) -> list[str]:
        """What has numbers over the grid: the worst case first where there is one, then the attacks."""
        return [WORST, *self.attacks] if WORST in self._seen and self.attacks else self.attacks

    @cached_property
    def controls(self) -> list[str]:
        return [a for a in CONTROLS if self.curve(a)]

    def title(self, attack: str) -> str:
        """The attack's name for people."""
        if attack in self.conditions.attacks:
            return self.conditions.attacks[attack].title
        if self.conditions.headline is not None and attack == self.conditions.headline.attack:
            return self.conditions.headline.title
        names = {
            WORST: "Worst case",
            GRADIENT: "all attacks that follow gradients",
            "noise": "Random noise (±ε)",
            "noise-uniform": "Random noise (uniform)",
            "square": "Square",
            "simba-dct": "SimBA (cosines)",
        }
        return names.get(attack, attack.upper() if len(attack) <= 4 else attack)

    def class_name(self, index: int) -> str:
        classes = self.conditions.classes
        return classes[index] if 0 <= index < len(classes) else f"class {index}"

    def said(self, attack: str) -> str:
        """The title inside a sentence."""
        return "worst case" if attack == WORST else self.title(attack)

    def labelled(self, name: str) -> str:
        """A class inside a sentence: "pneumonia", but "class 3" where its name is only a number."""
        return f"class\u00a0{name}" if name.strip().lstrip("-").isdigit() else name

    @property
    def phantom(self) -> bool:
        return self.conditions.data.startswith("phantom:")


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
    try:
        return Run.model_validate(
            {
                **{k: raw[k] for k in ("conditions", "rows") if k in raw},
                **{k: raw[k] for k in ("checks", "examples", "seconds", "run") if raw.get(k)},
                "table": raw.get("rows", []),
                "spec": _json(spec_path) if spec_path.is_file() else {},
                "arrays": _arrays(run_dir / "figures.safetensors"),
            }
        )
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {where}: {first['msg'].lower()}; run the audit again to write it anew") from None


def _json(path: Path) -> dict[str, Any]:
    """The object in a file of a run. NaN and Infinity are no JSON: a number that is not finite is an undefined one."""
    try:
        return json_files.read_object(path, finite=True)
    except InputError as error:
        raise InputError(f"{error}; run the audit again to write it anew") from None


def _arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be read ({error}); run the audit again to write it anew") from None
