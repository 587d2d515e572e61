"""Evasion: attacks that know the detector, judged by the real one at its fixed threshold."""

from __future__ import annotations

from collections.abc import Callable

from medrobust.evasion.confident import HighConfidence
from medrobust.evasion.evasion import Evasion
from medrobust.evasion.hfc import HFC
from medrobust.evasion.judging import EvasionOutcome, ScoredImages, combine, judge
from medrobust.evasion.loop import Evaded, run
from medrobust.evasion.matching import FeatureMatching
from medrobust.evasion.penalised import KDPenalisedCW
from medrobust.evasion.selective import OrthogonalPGD, SelectivePGD
from medrobust.evasion.surrogates import surrogate
from medrobust.evasion.worst import Needed, Strongest, smallest, strongest

# Read by the command line and by saved specs only; in Python, use the class.
EVASIONS: dict[str, Callable[[], Evasion]] = {
    "selective": SelectivePGD,
    "orthogonal": OrthogonalPGD,
    "penalised": KDPenalisedCW,
    "matching": FeatureMatching,
    "hfc": HFC,
    "confident": HighConfidence,
}

__all__ = [
    "EVASIONS",
    "HFC",
    "Evaded",
    "Evasion",
    "EvasionOutcome",
    "FeatureMatching",
    "HighConfidence",
    "KDPenalisedCW",
    "Needed",
    "OrthogonalPGD",
    "ScoredImages",
    "SelectivePGD",
    "Strongest",
    "combine",
    "judge",
    "run",
    "smallest",
    "strongest",
    "surrogate",
]
