"""Chest X-ray networks of torchxrayvision (Cohen et al. 2022, arXiv:2111.00595): ``xrv:densenet121-res224-all``.

Several findings at once, one channel, pixels in [-1024, 1024]. What they return is a sigmoid and then, where the
package states operating points, a calibration of each finding that moves its operating point to 0.5.
"""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medrobust.errors import InputError
from medrobust.models.delivered.network import Delivered, NetworkRequest, needed
from medrobust.models.pretrained import Pretrained

PREFIX = "xrv:"
EXTRA = "xrv"
MODULES = ("torchxrayvision",)
MEAN, STD = (0.5,), (1 / 2048,)
"""Of [-1024, 1024] on the [0, 1] scale."""
LAYERS = (
    *(nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.Linear, nn.Dropout),
    *(nn.ModuleList, nn.AdaptiveAvgPool2d),
)
"""Classes of torch that its pickled networks are made of."""


class XrayVisionOutputs(nn.Module):
    """``net`` gives a logit a finding; probabilities of those in ``kept``, calibrated where ``points`` holds operating
    points: p below t becomes p / 2t, above 1 - (1 - p) / 2(1 - t)."""

    def __init__(self, net: nn.Module, kept: Sequence[int], points: Sequence[float] | None) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("kept", torch.tensor(kept))
        self.register_buffer("points", None if points is None else torch.tensor([points[k] for k in kept]))

    def forward(self, images: Tensor) -> Tensor:
        p: Tensor = self.net(images)[:, self.kept].sigmoid()
        if not isinstance(t := self.points, Tensor):
            return p
        return torch.where(p < t, p / (t * 2), 1.0 - (1.0 - p) / ((1 - t) * 2))


class DenseNetLogits(nn.Module):
    """The logits of torchxrayvision's DenseNet, whose own forward pass ends in probabilities."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        features: Any = self.net.features2
        classifier: Any = self.net.classifier
        out: Tensor = classifier(features(images))
        return out


def load(request: NetworkRequest) -> Delivered:
    """InputError for a name that the package does not have, and where its weights are neither given nor there."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # importing it silences all warnings
        (package,) = needed(EXTRA, request.source, *MODULES)
    stated: Mapping[str, Any] = package.models.model_urls
    name = request.source.removeprefix(PREFIX)
    if name not in stated or not name.startswith(("densenet", "resnet50")):
        known = ", ".join(n for n in stated if n.startswith(("densenet", "resnet50")))
        raise InputError(f"torchxrayvision has no classifier {name!r} of findings; it has {known}")
    own = stated[name]
    labels, points = list(own["labels"]), own.get("op_threshs")
    # a name that is empty, or no operating point: the output was never trained for it
    kept = [k for k, label in enumerate(labels) if label and not (points and math.isnan(points[k]))]
    with torch.random.fork_rng(devices=[]):
        net = _densenet(package, len(labels)) if name.startswith("densenet") else _resnet(len(labels))
    file = Path(request.weights or _cached(package, name, own["weights_url"]))
    kinds = [
        c for c in vars(package.models).values() if isinstance(c, type) and c.__module__ == package.models.__name__
    ]
    loaded = Pretrained(file, modules=(*LAYERS, *(k for k in kinds if issubclass(k, nn.Module)))).into(net, name)
    if loaded.fresh:
        raise InputError(f"{file} has another number of findings than the {len(labels)} of {name}")
    notes = list(loaded.notes)
    if len(kept) < len(labels):
        notes.append(f"{len(labels) - len(kept)} of {len(labels)} outputs of {name} stand for no finding: left out.")
    return Delivered(
        XrayVisionOutputs(DenseNetLogits(net) if name.startswith("densenet") else net, kept, points),
        classes=tuple(labels[k] for k in kept),
        head="multilabel",
        outputs="probabilities",
        mean=MEAN,
        std=STD,
        channels=1,
        size=int(own.get("input_resolution", 224)),
        notes=tuple(notes),
    )


def _densenet(package: Any, findings: int) -> nn.Module:
    net: nn.Module = package.models.DenseNet(num_classes=findings)
    return net


def _resnet(findings: int) -> nn.Module:
    import torchvision

    net: nn.Module = torchvision.models.resnet50(num_classes=findings, weights=None)
    net.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    return net


def _cached(package: Any, name: str, url: str) -> Path:
    """The file that the package has downloaded; InputError where it has not."""
    file = Path(package.utils.get_cache_dir()) / url.rpartition("/")[2]
    if not file.is_file():
        raise InputError(
            f"the weights of {name} are not in {file.parent}, and nothing is downloaded unasked: give --weights FILE, "
            f"or fetch them once with torchxrayvision.models.get_weights({name!r})"
        )
    return file
