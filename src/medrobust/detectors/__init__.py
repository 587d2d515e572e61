"""Detectors of attacked images: hyper-parameters go to ``__init__``, data to ``fit``.

Higher scores are more suspicious.
A detector's numbers count only after an adaptive attack (``medrobust.evasion``) was run against it.
"""

from __future__ import annotations

from collections.abc import Callable

from medrobust.detectors.deep import DeepFeatures
from medrobust.detectors.density import KernelDensity
from medrobust.detectors.detector import Detector
from medrobust.detectors.features import Features
from medrobust.detectors.guard import Guard, Guarded
from medrobust.detectors.lid import LID
from medrobust.detectors.mahalanobis import Mahalanobis
from medrobust.detectors.protocol import Evaluation, evaluate
from medrobust.detectors.quantised import QuantisedFeatures
from medrobust.detectors.softmax import MaxSoftmax
from medrobust.errors import InputError


def _kd_likelihood() -> Detector:
    return KernelDensity(bandwidth="likelihood")


def _qfeat_scale() -> Detector:
    return QuantisedFeatures(gamma="scale")


# Read by the command line and by saved specs only; in Python, use the class. No module here may be called
# "evaluate": it would take the function's place.
DETECTORS: dict[str, Callable[[], Detector]] = {
    "kd": KernelDensity,
    "kd-likelihood": _kd_likelihood,
    "lid": LID,
    "dfeat": DeepFeatures,
    "qfeat": QuantisedFeatures,
    "qfeat-scale": _qfeat_scale,
    "mahalanobis": Mahalanobis,
    "softmax": MaxSoftmax,
}


def detector_named(name: str) -> Detector:
    """A detector of DETECTORS, not fitted. InputError, in one line, where the name is unknown or stands for none."""
    if name not in DETECTORS:
        raise InputError(f"detector {name!r} is not known; choose from {', '.join(DETECTORS)}")
    try:
        detector = DETECTORS[name]()
    except TypeError as error:  # an abstract method is missing, or an argument has no default
        raise InputError(f"detector {name!r} cannot be made from what DETECTORS holds: {error}") from None
    missing = [attribute for attribute in ("title", "source") if not hasattr(detector, attribute)]
    if not isinstance(detector, Detector) or missing:
        lacks = f"it has no {missing[0]}" if missing else f"it is {type(detector).__name__}, no Detector"
        raise InputError(f"detector {name!r} is registered in DETECTORS, but {lacks}")
    return detector


def kinds() -> dict[str, type[Detector]]:
    """The classes of DETECTORS by name: what a saved detector may be."""
    return {type(detector).__name__: type(detector) for detector in map(detector_named, DETECTORS)}


__all__ = [
    "DETECTORS",
    "LID",
    "DeepFeatures",
    "Detector",
    "Evaluation",
    "Features",
    "Guard",
    "Guarded",
    "KernelDensity",
    "Mahalanobis",
    "MaxSoftmax",
    "QuantisedFeatures",
    "detector_named",
    "evaluate",
    "kinds",
]
