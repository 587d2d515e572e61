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

# Read by ``Detector.load``: what a saved detector may be.
KINDS: dict[str, type[Detector]] = {
    kind.__name__: kind for kind in (KernelDensity, LID, DeepFeatures, QuantisedFeatures, Mahalanobis, MaxSoftmax)
}

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
    "evaluate",
]
