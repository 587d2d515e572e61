"""What is measured of one classifier that is explained: the config, and what results say of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medrobust import explain
from medrobust.attacks import Attack
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.experiments.adversarial_pairs import SHARD
from medrobust.experiments.config import attack_named
from medrobust.experiments.context import Context
from medrobust.experiments.explanation_cells import SALIENCIES
from medrobust.threat import Ball


@dataclass(frozen=True)
class ExplanationConfig:
    """What is measured, plain JSON.

    layers: for the measures of simplicity; None for the last block of every resolution, empty for none. limit: images,
    None for all. sampled: of the images that the run attacks, else of the whole test split. least: right images
    without which there is nothing to explain. surfaces: images whose loss landscape is computed, on ``grid`` (fractions
    of the pixel range). saliencies: maps that are compared with lesions and shown. shown: images in the gallery; held:
    also those that withstand the attack. ranked: measures whose rank correlation with the smallest eps is computed,
    where that is known.
    """

    measures: tuple[str, ...] = tuple(explain.MEASURES)
    attack: str = "pgd"
    layers: tuple[str, ...] | None = None
    cam_layer: str | None = None
    limit: int | None = 60
    sampled: bool = False
    least: int = 1
    surfaces: int = 16
    grid: tuple[float, ...] = explain.GRID
    saliencies: tuple[str, ...] = SALIENCIES
    embedding: bool = True
    shown: int = 6
    held: bool = True
    ranked: tuple[str, ...] = ("linear-eps",)

    def __post_init__(self) -> None:
        for name in self.measures:
            if name not in explain.MEASURES:
                raise InputError(f"measure {name!r} is not known; choose from {', '.join(explain.MEASURES)}")
        if self.surfaces < 1:
            raise InputError(f"at least 1 image needs a landscape, got {self.surfaces}")
        attack_named(self.attack)

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> ExplanationConfig:
        """From JSON."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
        return cls(**values)


IN_AUDIT = ExplanationConfig(
    measures=(
        "saliency-half",
        "slope-l1",
        "margin",
        "margin-slope",
        "linear-eps",
        "curvature",
        "rise-gradient",
        "rise-random",
    ),
    layers=(),
    limit=SHARD,
    sampled=True,
    least=20,
    surfaces=8,
    grid=explain.GRID[::2],
    saliencies=("cam", "gradient"),
    embedding=False,
    shown=3,
    held=False,
)
"""Measures that cost a few gradients an image, on images whose attacked copies detectors need as well."""


def info(
    context: Context, config: ExplanationConfig, attack: tuple[str, Attack, Ball], second: Classifier | None
) -> dict[str, Any]:
    """What the numbers stand on, as far as it is known before they are measured."""
    classifier, (name, made, ball) = context.classifier, attack
    measures = {n: explain.MEASURES[n] for n in config.measures}
    return {
        "data": context.system.data.name,
        "model": context.config.model,
        "classes": list(classifier.classes),
        "size": context.test.size,
        "channels": context.test.channels,
        "architecture": classifier.provenance.get("architecture"),
        "parameters": classifier.parameters,
        "model_digest": context.system.model_digest,
        "doubts": list(context.system.admitted.doubts),
        "one_a_patient": context.test.patients is not None,
        "attack": name,
        "attack_title": made.title,
        "eps": float(ball.eps),
        "norm": ball.name,
        "second": None if second is None else second.digest(),
        "grid": list(config.grid),
        "seed": context.config.seed,
        "measures": {n: {"title": m.title, "unit": m.unit, "source": m.source} for n, m in measures.items()},
        "notes": [],
    }
