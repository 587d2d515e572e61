"""What is measured of attacks that know a detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from medrobust import options
from medrobust.errors import InputError
from medrobust.evasion import EVASIONS
from medrobust.evasion import Evasion as EvasionAttack
from medrobust.experiments.context import base_name
from medrobust.experiments.detector_data import tuples

CALM = 0.5
"""False-positive rate of the threshold that an evasion goes for by default: it goes on until an image looks cleaner
than half of the clean ones, not just until it is past 5 %."""
STRONGEST = "strongest evasion"
"""Value of ``attack`` where several evasions were tried on an image."""


@dataclass(frozen=True)
class EvasionConfig:
    """evasions: names, with options after colons, the quickest first; all are tried on images that resist.

    attacked: how many images are attacked past the detector of their fold. eps: ascending sizes over which the smallest
    that suffices is sought, among them that of the pairs; empty: at that of the pairs alone. goal: false-positive rate
    of the threshold that an evasion goes for.
    """

    evasions: tuple[str, ...] = tuple(EVASIONS)
    attacked: int = 60
    eps: tuple[float, ...] = ()
    goal: float = CALM
    whole_folds: bool = False
    """Take the images of whole folds first: a batch costs the same with one image in it."""
    pressed: bool = True
    """Check that more steps and larger eps do not do worse."""

    def __post_init__(self) -> None:
        for name in self.evasions:
            evasion_named(name)
        if not self.evasions or self.attacked < 1:
            raise InputError("name at least one evasion, and one image to attack")
        if tuple(sorted(set(self.eps))) != self.eps:
            raise InputError("eps must be ascending")

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Self:
        """From JSON, where tuples are lists."""
        return cls(**{name: tuples(value) for name, value in plain.items()})

    @property
    def name(self) -> str:
        """Value of ``attack`` in the rows."""
        return base_name(self.evasions[0]) if len(self.evasions) == 1 else STRONGEST


def evasion_named(text: str) -> EvasionAttack:
    """``name`` or ``name:key=value:…`` to an evasion."""
    name, values = options.parse(text, EVASIONS, "evasion")
    return EVASIONS[name](**values)
