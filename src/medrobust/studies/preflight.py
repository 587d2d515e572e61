"""What can be known to be wrong before an image is decoded: the network's name, its options, weights, the device."""

from __future__ import annotations

from pathlib import Path

from medrobust import devices, models, training
from medrobust.errors import InputError
from medrobust.models.checkpoint import CARD, WEIGHTS

WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".th", ".ckpt")


def check(
    model: str, *, weights: str | None = None, pretrained: str | None = None, epochs: int | None = None,
    lr: float | None = None, head: str = "softmax", device: str | None = None,
) -> None:  # fmt: skip
    """InputError where these cannot give a classifier, whatever the images are. Nothing is built or imported."""
    devices.find(device)
    training.check(epochs=epochs, lr=lr, head=head)
    folder = Path(model)
    if folder.is_dir():
        for name in (CARD, WEIGHTS):
            if not (folder / name).is_file():
                raise InputError(f"no checkpoint in {folder}: {name} is missing; was its writing interrupted?")
    elif folder.suffix not in WEIGHT_FILES:
        models.check_name(model, weights or pretrained)
