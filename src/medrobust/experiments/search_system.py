"""What a search stands on: which images may be used, and where their features come from; or a table without images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medrobust import data as data_room
from medrobust import devices
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.errors import InputError
from medrobust.experiments.admission import admit
from medrobust.experiments.conditions import hardware
from medrobust.experiments.config import AuditSpec, digest
from medrobust.experiments.images import announce, check_fit, fit_of
from medrobust.experiments.system import System, healthy_classes
from medrobust.progress import Progress
from medrobust.results import ResultsFile
from medrobust.store import Cell, Result
from medrobust.training import evolved
from medrobust.training.evolved import FeatureTable
from medrobust.versions import versions

BREAST_CANCER = "breast-cancer"
"""The data that is a table without images."""
Keep = Callable[[dict[str, Any], Callable[[], Result]], Cell]
"""Gives the finished cell of a spec, computed by the function where it is not there: ``Store.once``, for example."""


@dataclass(frozen=True)
class TableSystem:
    """A table of features that were measured: no images, and no network that gives them."""

    table: FeatureTable
    name: str = BREAST_CANCER
    model_digest: str = ""
    trained_here: bool = False
    device: str = ""

    @property
    def data_digest(self) -> str:
        """sha256 (hex) of the table."""
        return self.table.digest()

    def conditions(self, config: AuditSpec, study: str, settings: Collection[str]) -> dict[str, Any]:  # noqa: ARG002
        """For results.json."""
        classes = self.table.classes
        return {
            "study": study,
            "data": self.name,
            "data_digest": self.data_digest,
            "class_notes": [],
            "classes": list(classes),
            "disease_classes": [i for i in range(len(classes)) if i not in self.table.healthy],
            "model": config.model,
            "seed": config.seed,
            "versions": versions(),
            "hardware": hardware(torch.device("cpu")),
        }

    def named(self, results: ResultsFile, keep_names: bool) -> ResultsFile:  # noqa: ARG002 - nothing is private
        """``results`` as they are."""
        return results


@dataclass(frozen=True)
class SearchImages:
    """The images of a search. source: the classifier whose penultimate features are used.

    compared: images of the cross-validation, none of which ``source`` was trained on as far as is known. fitted: images
    that the networks which are kept are fitted on. test: images that they are attacked on. note: why ``compared`` are
    these.
    """

    data: Dataset
    source: Classifier
    compared: Dataset
    fitted: Dataset
    test: Dataset
    healthy: tuple[int, ...]
    note: str

    @property
    def patients(self) -> int | None:
        """Of ``compared``, as far as they are known; None where none is."""
        known = set() if self.compared.patients is None else {str(p) for p in self.compared.patients if p}
        return len(known) or None


READ = ("channels", "seed", "label", "findings", "separator", "patient", "window", "frames")
"""Arguments of ``data.load`` that are fields of the config."""


def assemble(config: AuditSpec, features: str, progress: Progress, device: str | None = None) -> System | TableSystem:
    """Load images and what gives their features: ``features`` is "deep" (of ``config.model``) or a hand-made kind.

    The images that are compared are the system's ``sample``. InputError, in one line, where something does not fit.
    """
    if config.data == BREAST_CANCER:
        return TableSystem(evolved.breast_cancer())
    model = config.model if features == "deep" else None
    evolved.check_features(features, model, config.pretrained)
    saved = is_classifier(config, features)
    size, stated = config.size, None
    if saved:
        trained = Classifier.load(str(model), trust_code=config.trust_code)
        size, stated = size or trained.size, fit_of(trained.provenance)
    read = {name: getattr(config, name) for name in READ}
    images = data_room.load(config.data, size=size, fit=config.fit or stated, **read).shown()
    check_fit(images, stated)
    images = images.renamed(config.class_map or {}, config.leave_out or ())
    if images.multilabel:
        raise InputError(
            f"{images.name} has several findings an image, and a search fits one last layer for classes that exclude "
            "each other: read one finding, --label NAME --separator none"
        )
    weights = {name: getattr(config, name) for name in ("pretrained", "mean", "std", "outputs", "trust_code")}
    source = evolved.extractor(features, images, model, **weights)
    source.net.to(devices.find(device))
    if saved:  # of other networks the features alone are used
        images = images.for_network(source)
    admitted = admit(source, images, progress, config.seed, classifies=saved)
    made = divided(images, source, saved, limit=config.limit, seed=config.seed, healthy=config.healthy)
    announce(images, progress)
    return System(
        data=images,
        test=made.test,
        sample=made.compared,
        classifier=source,
        trained_here=False,
        model_digest=source.digest(),
        data_digest=images.digest(),
        disease_classes=tuple(i for i in range(len(images.classes)) if made.healthy and i not in made.healthy),
        notes=images.notes,
        admitted=admitted,
    )


def is_classifier(config: AuditSpec, features: str) -> bool:
    """Whether the features are those of a saved classifier, which has seen the labels of its training images."""
    return features == "deep" and Path(config.model).is_dir()


def divided(
    images: Dataset,
    source: Classifier,
    trained_on_them: bool,
    *,
    limit: int | None = None,
    seed: int = 0,
    healthy: str | None = None,
) -> SearchImages:
    """Which of ``images`` are compared, fitted and attacked. trained_on_them: ``source`` has seen the labels of all but
    the test images, so that only those are compared on."""
    test, train = images.split("test"), images.split("train")
    if trained_on_them:
        compared = test
        note = "Only test images are compared on: what gives the features has seen the labels of the others."
    else:
        compared = images.select(np.flatnonzero(images.split_of != "test"))
        note = "What gives the features has seen no label of these images. The test images were left for audits."
    return SearchImages(
        images,
        source,
        compared.sample(limit, seed),
        train.sample(limit, seed),
        test,
        healthy_classes(healthy, images.classes),
        note,
    )


def features_of(images: SearchImages, part: Dataset, keep: Keep, progress: Progress) -> FeatureTable:
    """The features of those images, read once and kept."""
    spec = {
        "kind": "search features",
        "model": images.source.digest(),
        "images": digest([images.data.digest(), *part.ids]),
    }

    def read() -> Result:
        progress.start("Reading features", len(part))
        found = evolved.of_images(images.source, part, images.healthy, progress.advance)
        progress.stop()
        return {}, {"features": found.features}  # no names of patients in a cell

    return evolved.of_features(keep(spec, read).arrays["features"], part, images.healthy)


def classifier(images: SearchImages, network: evolved.Fitted, info: Mapping[str, Any]) -> Classifier:
    """``network`` behind the source of its features; the provenance names the data, so that audits know the split."""
    at = {"name": images.data.name, "digest": images.data.digest(), "train": len(images.fitted)}
    return network.as_classifier(images.source, {"search": dict(info), "data": at}, images.data.classes)
