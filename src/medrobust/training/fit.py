"""Train a classifier on a Dataset: balanced sampling, augmentation, the best epoch by validation, resumable.

The test split is never asked for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from medrobust import devices, models
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.heads import head_for
from medrobust.inspection import COMPANY, Inspection
from medrobust.models.form import Form
from medrobust.progress import NoProgress, Progress
from medrobust.training.augment import Augment
from medrobust.training.evaluate import Scores
from medrobust.training.pixels import Pixels
from medrobust.training.recipe import Recipe
from medrobust.training.record import KEY, kept, recorded, weights_of
from medrobust.training.trainer import Trainer, draw, own_randomness

if TYPE_CHECKING:
    from medrobust.data import Dataset


def fit(
    data: Dataset,
    model: str = "resnet18",
    *,
    seed: int = 0,
    pretrained: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    epochs: int = 8,
    lr: float | None = None,
    batch: int = 32,
    optimiser: str = "adamw",
    weight_decay: float | None = None,
    augment: bool | Augment = True,
    patience: int | None = 5,
    freeze: float = 0.0,
    head: str | None = None,
    outputs: str | None = None,
    output: str | int | None = None,
    target: float | None = None,
    balance: bool = True,
    device: str | None = None,
    progress: Progress | None = None,
    resume: str | Path | None = None,
    keep: str | Path | None = None,
) -> Classifier:
    """Train ``model`` on the train split of ``data``, select the epoch on its val split, return the Classifier.

    model, pretrained: as models.build takes them. mean, std: what the pretrained weights expect; by default what
    their file or timm states, and for fresh weights the training images' own.
    size: must be the size that ``data`` was loaded with, if given.
    head: by default "softmax", or "multilabel" where an image has several findings.
    outputs: "logits" where the network's outputs are logits although all of them lie in [0, 1].
    output: which entry of what the network returns holds them.
    epochs, lr, batch, optimiser, weight_decay, augment, patience, freeze, target, balance: see Recipe; None means its
    default.
    device: "cuda" where there is one, else "cpu".
    resume: a folder for the training's state after every epoch; the same call goes on from there and ends with
    the same weights to the bit. keep: a folder for the trained classifier, which is read from there where everything
    that made it is the same (see ``record``). InputError where another classifier is there, for anything that cannot
    be trained on, and where it diverges.
    """
    file = None if pretrained is None else str(pretrained)
    head = head_for(head, data.labels.ndim == 2)
    recipe = Recipe.filled(
        file is not None, epochs, lr, batch, optimiser, weight_decay, augment, patience, freeze, head, target, balance
    )
    train, validation = splits(data)
    record = recorded(
        data,
        (train, validation),
        model,
        recipe,
        seed=seed,
        pretrained=file,
        mean=None if mean is None else tuple(mean),
        std=None if std is None else tuple(std),
    )
    if keep is not None and (classifier := kept(Path(keep), record)) is not None:
        # names of files, which its folder may hold as codes, are those of today
        named = {**classifier.provenance.get("data", {}), "name": data.name}
        classifier.provenance |= {"data": named, "pretrained": weights_of(file)}
        classifier.net.to(devices.find(device))
        return classifier
    progress = progress or NoProgress()
    if size is not None and size != data.size:
        raise InputError(f"the data was loaded at {data.size} px, not {size}: load it with size={size}")
    where = devices.find(device)
    with own_randomness(where):
        torch.manual_seed(draw(seed, "initial weights"))
        notes: list[str] = []
        net = models.build(
            model,
            classes=len(data.classes),
            channels=data.channels,
            size=data.size,
            pretrained=file,
            head=head,
            notes=notes,
        )
        for note in notes:
            progress.note(note)
        net = models.channels_last(net.to(where))
        pixels = Pixels(train, progress, "training")
        mean, std = _normalisation(model, file, mean, std, pixels, data.channels)
        clf = Classifier(
            net,
            data.classes,
            mean=mean,
            std=std,
            head=head,
            outputs=outputs or (None if models.is_own(model) else "logits"),  # named ones end in a linear layer
            output=output,
            channels=data.channels,
            size=data.size,
        )
        _check(clf, pixels.images([0, 1]))
        config = {
            "architecture": model,
            "data": {
                "name": data.name,
                "digest": data.digest(),
                "fit": data.fit,
                "train": len(train),
                "validation": len(validation),
            },
            "pretrained": weights_of(file),
            "mean": list(clf.mean),
            "std": list(clf.std),
            "seed": seed,
            "training": recipe.plain(),
            KEY: record,
        }
        trainer = Trainer(clf, recipe, seed, pixels, Pixels(validation, progress, "validation"), progress)
        state = trainer.run(None if resume is None else Path(resume), key(record))
    best = state.history[state.best_epoch - 1]
    clf.provenance = config | {
        "epochs_run": state.epoch,
        "best_epoch": state.best_epoch,
        "validation": {k: best[k] for k in Scores._fields},
        "history": state.history,
        "versions": versions(),
    }
    if keep is not None:
        clf.save(keep)
    return clf


def check(*, epochs: int | None = None, lr: float | None = None, head: str | None = None) -> None:
    """InputError where ``fit`` would refuse these, whatever the data."""
    Recipe.filled(False, 1 if epochs is None else epochs, lr, 2, "adamw", None, False, None, 0.0, head or "softmax")


def _check(clf: Classifier, images: Tensor) -> None:
    """InputError now rather than after an epoch: for a network that cannot be used, or that takes or returns what is
    not trained. Two images are too few to take the outputs of fresh weights for probabilities by chance."""
    refuse_untrainable(clf.examine(images))
    clf.inspection = None  # of weights that are going to change
    clf.outputs = "logits"  # which the loss takes them to be from here on


def refuse_untrainable(inspection: Inspection) -> None:
    """InputError for a network that is called in another way than training calls it."""
    if inspection.form != Form() or not inspection.independent:
        why = inspection.notes[0] if inspection.independent else COMPANY
        raise InputError(f"this network can be audited as it is, but not trained here: {why}")


def splits(data: Dataset) -> tuple[Dataset, Dataset]:
    """The train and val parts; InputError where one of them holds a single class, or no finding that varies."""
    train, validation = data.split("train"), data.split("val")
    for name, part in (("training", train), ("validation", validation)):
        if part.labels.ndim == 2:
            if not ((part.labels == 1).any(0) & (part.labels == 0).any(0)).any():
                raise InputError(
                    f"no finding of {data.name} is present in one of the {name} images and absent in another: a "
                    "classifier needs both in each of the train and val splits"
                )
            continue
        present = np.unique(part.labels)
        if present.size < 2:
            names = ", ".join(data.classes[int(k)] for k in present) or "no image"
            raise InputError(
                f"the {name} images of {data.name} hold {names} only: a classifier needs two classes or more in each"
                " of the train and val splits"
            )
    return train, validation


def _normalisation(
    model: str,
    file: str | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    pixels: Pixels,
    channels: int,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The values given, else those of the pretrained weights, else those of the training images."""
    normalisation = models.normalisation(model, file) if mean is None or std is None else None
    if normalisation is not None and channels == 1:
        normalisation = (float(np.mean(normalisation[0])),), (float(np.mean(normalisation[1])),)
    own = normalisation or (pixels.moments() if mean is None or std is None else ((), ()))
    return tuple(own[0] if mean is None else mean), tuple(own[1] if std is None else std)


def key(config: Mapping[str, object]) -> str:
    """The name of a training: a hash of everything that its weights depend on."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of the libraries that weights depend on."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "timm")}
