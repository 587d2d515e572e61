"""The networks of a comparison as classifiers: fitted on all training images and kept, for audits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medrobust.classifier import Classifier
from medrobust.experiments import search_system
from medrobust.experiments.search_system import Images
from medrobust.progress import Progress
from medrobust.store import Store
from medrobust.training import evolved
from medrobust.training.evolved import Fitted, OuterFold


def kept(
    images: Images, question: str, names: Sequence[str], budget: int, folder: Path, store: Store, progress: Progress
) -> dict[str, Path]:
    """Fit each method's network on all training images (seed 0), and save it as a classifier that audits can take."""
    table = search_system.table(images, images.fitted, store, progress)
    everything = np.arange(len(table))
    problem = evolved.QUESTIONS[question].problem(table, [OuterFold(0, 0, everything, everything)])
    out = {}
    progress.start("Keeping networks", len(names))
    for name in names:
        (network,) = evolved.method(question, name)(problem, budget).fitted
        told = {"question": question, "method": name, "budget": budget, "images": len(table)}
        out[name] = classifier(images, network, told).save(folder / question / name)
        progress.advance()
    progress.stop()
    return out


def classifier(images: Images, network: Fitted, told: dict[str, Any]) -> Classifier:
    """``network`` behind the source of its features; the provenance names the data, so that audits know the split."""
    at = {"name": images.data.name, "digest": images.data.digest(), "train": len(images.fitted)}
    return network.as_classifier(images.source, {"search": told, "data": at}, images.data.classes)
