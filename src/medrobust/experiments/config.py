"""The config of an audit, checked before anything is computed."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from medrobust import operating_points, options
from medrobust.attacks import ATTACKS, CHANGES, Attack, ParametricChange
from medrobust.certified.smoothing import Smoothing
from medrobust.data.corruptions import ALL_MODALITIES, corruption_set
from medrobust.errors import InputError
from medrobust.grey_scale import UNITS, fraction
from medrobust.models.preprocessing import Preprocessing
from medrobust.store import key
from medrobust.threat import BALLS, SPARSE, Ball

GRID = (*(g / 10 / 255 for g in range(1, 11)), *(g / 255 for g in range(2, 11)))
"""0.1 to 1.0 and 1 to 10 grey levels: the grid of Ma et al. 2020 for FGSM and the iterated attacks together."""

CLASSIC = ("fgsm", "bim", "pgd", "cw")
USUAL_CHANGES = ("patch-anywhere", "spatial", "exposure")
"""One of each kind of CHANGES, so that an audit takes about a twentieth longer."""


SUBJECT = (
    "data",
    "label",
    "findings",
    "separator",
    "patient",
    "fit",
    "window",
    "frames",
    "size",
    "channels",
    "class_map",
    "leave_out",
    "model",
    "weights",
    "classes",
    "mean",
    "std",
    "head",
    "outputs",
    "preprocessing",
    "output",
    "threshold",
    "threshold_rule",
)
"""Fields that say which images and which network, and how they are read."""
SYSTEM = (*SUBJECT, "train", "pretrained", "epochs", "lr", "healthy", "limit", "seed", "norm")
"""Fields that every command reads."""


class AuditSpec(BaseModel):
    """Everything that an audit's numbers depend on, apart from the bytes of data and weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = "phantom:chest"
    label: str = "label"
    findings: tuple[str, ...] | None = None
    """Columns of a table, one a finding."""
    separator: str | None = None
    patient: str | None = None
    fit: Literal["stretch", "crop", "pad", "none"] | None = None
    window: str = "auto"
    """Of DICOM files: as each states it, "none", or "CENTRE,WIDTH"."""
    frames: str = "one"
    """Of files with several frames or slices: "one", "middle", "all", or a number."""
    size: int | None = None
    channels: int | None = None
    model: str = "resnet18"
    train: bool | None = None
    further: bool = False
    """Whether the run trains the classifier further: its test images are those of the test split then, whoever trained
    it before."""
    weights: str | None = None
    pretrained: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    head: Literal["softmax", "logit", "multilabel"] | None = None
    outputs: Literal["logits", "probabilities"] | None = None
    preprocessing: str | None = None
    """The steps from images of any size to the network's input; see ``models.preprocessing``."""
    output: str | None = None
    """Which entry of the network's output holds them, by name or position."""
    classes: tuple[str, ...] | None = None
    class_map: dict[str, str] | None = None
    """Class names of the data: those of the classifier. Labels are mapped by name, never by position."""
    leave_out: tuple[str, ...] | None = None
    """Class names of the data whose images are not used."""
    healthy: str | None = None
    threshold: float | dict[str, float] | None = None
    """Of all findings, or by their names."""
    threshold_rule: str | None = None
    epochs: int | None = None
    lr: float | None = None
    attacks: tuple[str, ...] = CLASSIC
    norm: Literal["linf", "l2", "l1", "l0"] = "linf"
    """An audit measures the first two: those that ``auto`` is written for."""
    eps: tuple[float, ...] = GRID
    eps_unit: Literal["fraction", "lv", "hu", "pixel"] = "fraction"
    """Of ``eps``: a fraction of what is shown, stored levels, Hounsfield units, or a fraction of what a pixel holds."""
    limit: int | None = 80
    seed: int = 0
    bits: Literal[8, 12, 16] = 8
    auto: str = "auto:steps=15:queries=50"
    """The ensemble of the headline number; empty, or "none", for no ensemble."""
    universal: bool = True
    detect: bool = True
    explain: bool = True
    stored: bool = True
    """Whether the sparsest change that a file can hold is sought, and what survives saving, compression, resizing."""
    corruptions: str = ALL_MODALITIES
    """A set of natural corruptions; empty, or "none", for none."""
    changes: tuple[str, ...] = USUAL_CHANGES
    """Changes beyond small ones of every pixel, as ``change_named`` reads them; empty for none."""
    certify: Literal["", "ibp", "crown-ibp", "crown"] = ""
    """What bounds are proved with; empty for none."""
    smoothing: float | None = None
    """Standard deviation of the noise of a smoothed classifier, a fraction of the pixel range; None for none."""
    risk: str | None = None
    """A table with the weights of findings that are missed or invented."""
    ordinal: bool = False
    """Whether classes are grades in their order."""
    send: Literal["npy", "png"] = "npy"
    """How images are sent to an end-point."""
    timeout: float = Field(default=30.0, exclude=True)
    """Seconds for one request to an end-point."""
    rate: float | None = Field(default=None, exclude=True)
    """Most queries of an end-point a second."""
    max_queries: int | None = Field(default=None, exclude=True)
    """Most queries of an end-point in all."""
    allow_remote: bool = Field(default=False, exclude=True)
    """Whether images may be sent to another machine."""
    prevalence: float | dict[str, float] | None = Field(default=None, exclude=True)
    """Share of studies with the disease, or by class or finding; only the report counts with it."""
    reference: str | None = Field(default=None, exclude=True)
    """A table of the decisions that the classifier must give; no number depends on it."""
    trust_code: bool = Field(default=False, exclude=True)
    """Whether code that a saved model names may run; no number depends on it."""

    @field_validator("auto", "corruptions")
    @classmethod
    def _none_is_empty(cls, name: str) -> str:
        return "" if name == "none" else name

    def key(self) -> str:
        """A short name of this configuration."""
        return key(self.model_dump(mode="json"))[:8]

    @property
    def subject(self) -> Mapping[str, object]:
        """Images and network: data and model, and of the rest of SUBJECT what is not the default."""
        fields = type(self).model_fields
        values = {name: getattr(self, name) for name in SUBJECT}
        return {k: v for k, v in values.items() if k in ("data", "model") or v != fields[k].default}

    @property
    def norm_name(self) -> str:
        """As results name the norm."""
        return {"linf": "Linf", "l2": "L2"}[self.norm]

    @property
    def ball(self) -> type[Ball]:
        return {**BALLS, **SPARSE}[self.norm]

    def slug(self) -> str:
        """A folder name that a person recognises and that two different configurations do not share."""
        words = [re.sub(r"[^A-Za-z0-9]+", "-", _stem(w)).strip("-") for w in (self.data, self.model)]
        return "-".join(["audit", *[w for w in words if w], self.key()])


def ask(**values: Any) -> AuditSpec:
    """An AuditSpec of those values; InputError, in one line, where one is wrong."""
    try:
        spec = AuditSpec(**{k: v for k, v in values.items() if v is not None})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{where}: {first['msg'].lower()}, got {first['input']!r}") from None
    if not spec.attacks:
        raise InputError(f"name at least one attack: {', '.join(ATTACKS)}")
    for name in spec.attacks:
        attack_named(name).check_norm(spec.ball)
    if spec.auto and spec.auto.split(":")[0] != "auto":
        raise InputError(f"the headline number is that of auto (options after colons) or of none, got {spec.auto!r}")
    if spec.auto:
        attack_named(spec.auto).check_norm(spec.ball)
    if not spec.eps or sorted(set(spec.eps)) != list(spec.eps):
        raise InputError(f"eps must be ascending without repeats, got {', '.join(f'{e:g}' for e in spec.eps)}")
    for e in spec.eps if spec.eps_unit in ("fraction", "pixel") else ():
        spec.ball(e)
    for name in spec.changes:
        change_named(name)
    if spec.corruptions:
        corruption_set(spec.corruptions)
    if spec.smoothing is not None:
        Smoothing(spec.smoothing)
    if spec.limit is not None and spec.limit < 1:
        raise InputError(f"limit must be at least 1, got {spec.limit}; leave it out for all test images")
    for value in spec.threshold.values() if isinstance(spec.threshold, dict) else (spec.threshold,):
        if value is not None and not 0 < value < 1:
            raise InputError(f"threshold must lie between 0 and 1, got {value}")
    if spec.threshold_rule is not None:
        operating_points.ThresholdRule.read(spec.threshold_rule)
        if spec.threshold is not None:
            raise InputError("threshold is given and threshold_rule chooses it: give one of the two")
    for name, given in (("mean", spec.mean), ("std", spec.std)):
        if given is not None and len(given) not in (1, 3):
            raise InputError(f"{name} has {len(given)} values; give one, or three for colour")
    if spec.preprocessing is not None:
        Preprocessing(spec.preprocessing)
    if spec.weights and spec.pretrained:
        raise InputError("weights= are used as they are, pretrained= are trained further: give one of the two")
    if spec.train and spec.weights:
        raise InputError("weights= are used as they are; to train further from a file, give it as pretrained=")
    return spec


def attack_named(text: str) -> Attack:
    """``name`` or ``name:key=value:…`` to an attack, as the command line and saved specs write it."""
    name, values = options.parse(text, ATTACKS, "attack", hidden=("loss",))
    return ATTACKS[name](**values)


def change_named(text: str) -> ParametricChange:
    """``name`` or ``name:key=value:…`` to a change of CHANGES."""
    name, values = options.parse(text, CHANGES, "change")
    return CHANGES[name](**values)


def eps_fields(text: str | None) -> dict[str, object]:
    """``4lv,8lv``, ``5hu`` or what ``parse_eps`` reads, as fields of AuditSpec; None leaves them as they are."""
    if text is None:
        return {}
    parts = [part.strip() for part in text.split(",")]
    unit = next((u for u in UNITS if parts[0].endswith(u)), None)
    if unit is None:
        return {"eps": parse_eps(text)}
    if not all(part.endswith(unit) for part in parts):
        raise InputError(f"sizes must all be in one unit, got {text!r}; write 1{unit},2{unit}")
    return {"eps": parse_eps(",".join(part.removesuffix(unit) for part in parts)), "eps_unit": unit}


def parse_eps(text: str) -> tuple[float, ...]:
    """``0.5/255,1/255`` or ``0.002,0.004`` to fractions of the pixel range."""
    out = []
    for part in text.split(","):
        try:
            value = fraction(part)
        except ValueError:
            raise InputError(f"eps {part!r} is no number; write fractions of the pixel range: 0.5/255,1/255") from None
        if not 0 <= value < math.inf:
            raise InputError(f"eps must be a number from 0 up, not negative or infinite, got {part.strip()}")
        out.append(value)
    return tuple(out)


def _stem(text: str) -> str:
    """The part of a data or model spec that a person would call it by."""
    if "/" not in text:
        return text
    parts = [p for p in re.split(r"[/\\]", text.partition(":")[2] or text) if p]
    return "-".join(parts[-2:]).rsplit(".", 1)[0]


def digest(parts: Sequence[str]) -> str:
    """sha256 over texts, with their borders."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
