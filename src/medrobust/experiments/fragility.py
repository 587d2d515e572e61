"""How fragile a network is, as a few numbers: what studies of size, of training and of classes compare.

One network at a time; every piece is a cell, so that a killed study goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medrobust import code_digest, explain, stats, training
from medrobust.attacks import PGD, Attack
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.detectors import DETECTORS
from medrobust.detectors.crossfit import Crossfit
from medrobust.errors import InputError
from medrobust.experiments import robustness_cells
from medrobust.experiments.adversarial_pairs import AdversarialPairs
from medrobust.experiments.config import digest
from medrobust.experiments.detector_data import other_images
from medrobust.experiments.features_cache import FeaturesCache, whose_images
from medrobust.experiments.system import groups
from medrobust.run_folder import RunFolder
from medrobust.stats import Estimate
from medrobust.store import Store
from medrobust.threat import Ball, Linf

GRID = tuple(0.02 / 255 * 1.15**k for k in range(55))
"""0.02 to 38 grey levels, each 15 % above the one before: networks whose eps* differ a hundredfold share it."""
MEASURES = ("slope-l1", "margin", "margin-slope", "linear-eps")


@dataclass(frozen=True)
class FragilityConfig:
    """What is measured of each network. ball: of the detector's attack. detector: a name of DETECTORS, or None."""

    attack: Attack = field(default_factory=lambda: PGD(steps=20))
    eps: tuple[float, ...] = GRID
    limit: int = 150
    detector: str | None = "kd"
    ball: Ball = field(default_factory=lambda: Linf(8 / 255))
    layer: str = "penultimate"
    seed: int = 0


@dataclass(frozen=True)
class Fragility:
    """Of one network, over its test images. min_eps, whose: an entry an attacked image."""

    parameters: int
    accuracy: Estimate
    """Without an attack, on all test images."""
    measures: dict[str, Estimate]
    """Medians of MEASURES over the images that are right without an attack."""
    auroc: Estimate
    """Of the detector against its attack, clean protocol; NaN with the reason in ``why``."""
    why: str
    min_eps: np.ndarray
    """0 where an image is wrong without an attack, infinite where it held."""
    whose: np.ndarray

    @property
    def median(self) -> Estimate:
        """Of min_eps, over the images that are right without an attack; may be infinite."""
        right = self.min_eps > 0
        return stats.median(self.min_eps[right], self.whose[right])

    def kept(self, eps: float) -> Estimate:
        """Accuracy under attack at ``eps`` relative to that without: the share of right images that hold."""
        right = self.min_eps > 0
        return stats.proportion(self.min_eps[right] > eps * (1 + 1e-6), self.whose[right])


def trained(folder: Path, data: Dataset, model: str, **options: Any) -> Classifier:
    """The classifier in ``folder``/model, trained there first where it is missing; options: of ``training.fit``.

    InputError where another one is there.
    """
    with RunFolder(folder, None) as run:
        made = training.fit(data, model, resume=run.entry("training"), keep=run.entry("model"), **options)
        run.remove("training")
    return made


def fragility(store: Store, classifier: Classifier, data: Dataset, ask: FragilityConfig | None = None) -> Fragility:
    """Attack, slope and detector of one network on the test split of ``data``."""
    ask = ask or FragilityConfig()
    data = data.for_classes(classifier.classes)
    test = data.split("test")
    part = test.sample(ask.limit, ask.seed)
    about = {"model": classifier.digest(), "images": digest([data.digest(), *part.ids]), "seed": ask.seed}
    clean = store.once({**about, "kind": "network clean"}, lambda: robustness_cells.clean(classifier, test, _unwatched))
    swept = store.once(
        {
            **about,
            "kind": "network sweep",
            "attack": code_digest.described(ask.attack),
            "eps": ask.eps,
            "norm": ask.ball.name,
        },
        lambda: robustness_cells.swept(
            ask.attack, classifier, part, type(ask.ball), ask.eps, None, ask.seed, _unwatched
        ),
    )
    measured = store.once(
        {**about, "kind": "network measures", "names": MEASURES}, lambda: _measured(classifier, part, ask.seed)
    )
    min_eps = swept.arrays["min_eps"]
    auroc, why = _seen(store, classifier, data, test, ask)
    return Fragility(
        parameters=classifier.parameters,
        accuracy=stats.proportion(clean.arrays["decision"] == test.labels, groups(test)),
        measures={name: stats.median(_known(measured.arrays[name][min_eps > 0])) for name in MEASURES},
        auroc=auroc,
        why=why,
        min_eps=min_eps,
        whose=whose_images(part),
    )


def _measured(classifier: Classifier, part: Dataset, seed: int) -> robustness_cells.Result:
    found = explain.measure(classifier, part, torch.from_numpy(part.labels), MEASURES, ids=part.ids, seed=seed)
    return {}, {name: values.numpy() for name, values in found.items()}


def _seen(
    store: Store, classifier: Classifier, data: Dataset, test: Dataset, ask: FragilityConfig
) -> tuple[Estimate, str]:
    """The detector's area, or why there is none."""
    if ask.detector is None:
        return stats.NOTHING, "not asked for"
    try:
        pairs = AdversarialPairs(store, classifier, test, limit=ask.limit, seed=ask.seed)
        features = FeaturesCache(pairs, (ask.layer,))
        attacked = features.attacked(repr(ask.attack), ask.attack, ask.ball)
        reference, apart = (features.further(part) for part in other_images(data, test, pairs))
        recipe = DETECTORS[ask.detector]()
        fit = Crossfit(recipe, features.clean(), attacked, apart, reference=reference, seed=ask.seed)
    except InputError as error:
        return stats.NOTHING, str(error)
    return fit.against(attacked).auroc, ""


def _known(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]


def _unwatched(_: int) -> None:
    """No progress is shown: one network takes seconds."""
