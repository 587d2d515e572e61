"""Feature extractors: a network without its last layer, or hand-made features."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from medrobust import models
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.errors import InputError

KINDS = ("deep", *models.HANDMADE)


def check_features(kind: str, model: str | Path | None = None, pretrained: str | None = None) -> None:
    """InputError where ``extractor`` would refuse these whatever the images are; nothing is built."""
    if kind not in KINDS:
        raise InputError(f"features {kind!r} are not known; choose from {', '.join(KINDS)}")
    if kind != "deep":
        return
    if model is None:
        raise InputError(
            "deep features need a network: give a folder saved by medrobust as --model, or an "
            "architecture and its weights as --model and --pretrained"
        )
    if Path(model).is_dir():
        return
    models.check_name(str(model), pretrained)
    if pretrained is None:
        raise InputError(
            f"{model} is no folder saved by medrobust; as an architecture it needs weights: --pretrained FILE"
        )


def extractor(
    kind: str,
    data: Dataset,
    model: str | Path | None = None,
    *,
    pretrained: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    outputs: str | None = None,
    trust_code: bool = False,
) -> Classifier:
    """A classifier whose penultimate features are meant; its own decisions are not used.

    kind: "deep", or a name of models.HANDMADE, which needs nothing else. model: for deep features, a folder saved by
    medrobust, or an architecture whose ``pretrained`` weights (a file) have not seen the data's labels. mean, std: of
    those weights, where neither their file nor timm states them. outputs: as Classifier takes it, of a saved one.
    """
    check_features(kind, model, pretrained)
    if kind != "deep":
        with _same_last_layer():
            net = models.build(kind, classes=len(data.classes), channels=data.channels, size=data.size)
        return Classifier(
            net.eval(),
            data.classes,
            outputs="logits",
            channels=data.channels,
            size=data.size,
            provenance={"architecture": kind},
        )
    assert model is not None
    if Path(model).is_dir():
        saved = Classifier.load(model, trust_code=trust_code)
        saved.outputs = outputs or saved.outputs
        return saved
    assert pretrained is not None
    stated = models.normalisation(str(model), pretrained)
    mean, std = mean or (stated and stated[0]), std or (stated and stated[1])
    if mean is None or std is None:
        raise InputError(f"how were the images of {pretrained} normalised? give --mean and --std (pixels in [0, 1])")
    with _same_last_layer():
        net = models.build(str(model), classes=len(data.classes), channels=3, size=data.size, pretrained=pretrained)
    return Classifier(
        net.eval(),
        data.classes,
        mean=mean,
        std=std,
        outputs="logits",
        channels=3,
        size=data.size,
        provenance={"architecture": str(model), "pretrained": Path(pretrained).name},
    )


@contextlib.contextmanager
def _same_last_layer() -> Iterator[None]:
    """A last layer that is made within is not used: it is the same in every process, so that the digest is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
