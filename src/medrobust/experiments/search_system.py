"""From images to the table that is searched: which images may be used, and where their features come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from medrobust import data as data_room
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.data.splits import group_names
from medrobust.errors import InputError
from medrobust.experiments.admission import admit
from medrobust.experiments.config import digest
from medrobust.experiments.images import check_fit, fit_of
from medrobust.experiments.system import healthy_classes
from medrobust.progress import NoProgress, Progress
from medrobust.store import Store
from medrobust.training import evolved
from medrobust.training.evolved import FeatureTable


@dataclass(frozen=True)
class Images:
    """What a search of images stands on.

    source: the classifier whose penultimate features are used. compared: images of the cross-validation, none of
    which ``source`` was trained on as far as is known. fitted, validation, test: for the networks that are kept:
    fitted here, matched there, attacked there.
    """

    data: Dataset
    source: Classifier
    compared: Dataset
    fitted: Dataset
    validation: Dataset
    test: Dataset
    healthy: tuple[int, ...]
    about: dict[str, Any]
    findings: dict[str, Any] = field(default_factory=dict)
    """What was found out about ``source``, and a check of its outputs where it is a classifier, for results files."""


def assemble(
    data: str,
    features: str,
    *,
    model: str | None = None,
    pretrained: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    outputs: str | None = None,
    size: int | None = None,
    channels: int | None = None,
    label: str = "label",
    patient: str | None = None,
    fit: str | None = None,
    class_map: Mapping[str, str] | None = None,
    leave_out: Sequence[str] | None = None,
    healthy: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    trust_code: bool = False,
    progress: Progress | None = None,
) -> Images:
    """Load images and what gives their features; InputError, in one line, where something does not fit."""
    evolved.check_features(features, model, pretrained)
    saved = model is not None and Path(model).is_dir()
    stated = None
    if saved and features == "deep":
        trained = Classifier.load(str(model), trust_code=trust_code)
        size, stated = size or trained.size, fit_of(trained.provenance)
    images = data_room.load(
        data, size=size, channels=channels, seed=seed, label=label, patient=patient, fit=fit or stated
    )
    check_fit(images, stated)
    images = images.renamed(class_map or {}, leave_out or ())
    source = evolved.extractor(
        features, images, model, pretrained=pretrained, mean=mean, std=std, outputs=outputs, trust_code=trust_code
    )
    classifies = saved and features == "deep"  # of other networks the features alone are used
    if classifies:
        images = images.for_classes(source.classes)
    admitted = admit(source, images, progress or NoProgress(), seed, classifies=classifies)
    made = parted(images, source, classifies, limit=limit, seed=seed, healthy=healthy, kind=features)
    made.about["notes"] += admitted.sentences
    findings = admitted.findings | {"checks": [admitted.order.plain()] if classifies else []}
    return replace(made, findings=findings)


def parted(
    images: Dataset,
    source: Classifier,
    seen: bool,
    *,
    limit: int | None = None,
    seed: int = 0,
    healthy: str | None = None,
    kind: str = "deep",
) -> Images:
    """Which of ``images`` are compared, fitted, matched and attacked. seen: ``source`` knows the labels of all but the
    test images, so that only those are compared on."""
    test, train = images.split("test"), images.split("train")
    try:
        validation = images.split("val")
    except InputError:
        validation = train
    if seen:
        compared = test
        told = "Only test images are compared on: what gives the features has seen the labels of the others."
    else:
        compared = images.select(np.flatnonzero(images.split_of != "test"))
        told = "What gives the features has seen no label of these images. The test images were left for audits."
    about = {
        "data": images.name,
        "features_kind": kind,
        "source": source.provenance.get("architecture"),
        "size": images.size,
        "patients": _patients(compared),
        "left": told,
        "limit": limit,
        "notes": list(images.notes),
    }
    return Images(
        images,
        source,
        compared.sample(limit, seed),
        train.sample(limit, seed),
        validation.sample(limit, seed),
        test,
        healthy_classes(healthy, images.classes),
        about,
    )


def table(images: Images, part: Dataset, store: Store, progress: Progress) -> FeatureTable:
    """The features of those images, read once and kept."""
    spec = {
        "kind": "search features",
        "model": images.source.digest(),
        "images": digest([images.data.digest(), *part.ids]),
    }

    def read() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        progress.start("Reading features", len(part))
        found = evolved.of_images(images.source, part, images.healthy, progress.advance)
        progress.stop()
        return {}, {"features": found.features}  # no names of patients in a cell

    cell = store.once(spec, read)
    return evolved.of_features(cell.arrays["features"], part, images.healthy)


def _patients(part: Dataset) -> int | None:
    """How many patients the images are known to come from; None where it is known of none."""
    known = set() if part.patients is None else {str(p) for p in part.patients if p}
    return len(known) or None


def groups(part: Dataset) -> list[str]:
    """Whose images they are, for intervals."""
    return group_names(part.ids, part.patients)
