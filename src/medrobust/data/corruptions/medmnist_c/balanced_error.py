"""Balanced error and relative balanced error of MedMNIST-C (Di Salvo et al. 2024, arXiv:2406.17536, section 2.3).

The balanced error of a corruption, 1 - balanced accuracy averaged over the severities, is divided by AlexNet's (BE);
so is what of it exceeds the error on untouched images (rBE). Of a data set, both are the means over its corruptions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Baseline:
    """Balanced errors of a network: on untouched images, and of each corruption averaged over the severities."""

    clean: float
    corrupted: Mapping[str, float]


@dataclass(frozen=True)
class BalancedErrors:
    """By corruption: balanced, relative. 1: as AlexNet."""

    balanced: Mapping[str, float]
    relative: Mapping[str, float]

    @property
    def be(self) -> float:
        """Of the data set."""
        return sum(self.balanced.values()) / len(self.balanced)

    @property
    def rbe(self) -> float:
        """Of the data set."""
        return sum(self.relative.values()) / len(self.relative)


def balanced_errors(clean: float, corrupted: Mapping[str, Sequence[float]], baseline: Baseline) -> BalancedErrors:
    """clean: balanced accuracy on untouched images. corrupted: by corruption, balanced accuracy at each severity."""
    errors = {name: 1 - sum(values) / len(values) for name, values in corrupted.items()}
    balanced = {name: error / baseline.corrupted[name] for name, error in errors.items()}
    relative = {
        name: (error - (1 - clean)) / (baseline.corrupted[name] - baseline.clean) for name, error in errors.items()
    }
    return BalancedErrors(balanced, relative)
