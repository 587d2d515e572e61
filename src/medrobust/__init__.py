"""medrobust: a laboratory and audit for the adversarial robustness of medical image classifiers."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Nothing heavy is imported until it is used: `medrobust --help` must not wait for torch.
_NAMES = {
    "Classifier": "classifier",
    "InputError": "errors",
    "L0": "threat",
    "L1": "threat",
    "L2": "threat",
    "Linf": "threat",
    "Targeted": "threat",
    "Untargeted": "threat",
    "audit": "interactive",
    "compare": "interactive",
    "judge": "judging",
}
_ROOMS = (
    "attacks",
    "certified",
    "data",
    "defences",
    "detectors",
    "evasion",
    "explain",
    "models",
    "report",
    "search",
    "experiments",
    "threat",
    "training",
    "universal",
)

if TYPE_CHECKING:
    from medrobust import (
        attacks,
        certified,
        data,
        defences,
        detectors,
        evasion,
        experiments,
        explain,
        models,
        report,
        search,
        threat,
        training,
        universal,
    )
    from medrobust.classifier import Classifier
    from medrobust.errors import InputError
    from medrobust.interactive import audit, compare
    from medrobust.judging import judge
    from medrobust.threat import L0, L1, L2, Linf, Targeted, Untargeted

__all__ = [
    "L0",
    "L1",
    "L2",
    "Classifier",
    "InputError",
    "Linf",
    "Targeted",
    "Untargeted",
    "__version__",
    "attacks",
    "audit",
    "certified",
    "compare",
    "data",
    "defences",
    "detectors",
    "evasion",
    "experiments",
    "explain",
    "judge",
    "models",
    "report",
    "search",
    "threat",
    "training",
    "universal",
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(f"medrobust.{_NAMES[name]}"), name)
    elif name in _ROOMS:
        value = importlib.import_module(f"medrobust.{name}")
    else:
        raise AttributeError(f"medrobust has no {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
