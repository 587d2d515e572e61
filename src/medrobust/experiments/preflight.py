"""What can be known to be wrong before an image is decoded: the network's name, its options, weights, the device."""

from __future__ import annotations

from pathlib import Path

from medrobust import devices, models, training
from medrobust.errors import InputError
from medrobust.models.checkpoint import CARD, WEIGHTS

WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".th", ".ckpt")


def check(
    model: str,
    *,
    weights: str | None = None,
    pretrained: str | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    head: str | None = None,
    device: str | None = None,
    train: bool | None = None,
) -> None:
    """InputError where these cannot give a classifier, whatever the images are. Nothing is built or imported.

    train: False where nothing may be trained.
    """
    devices.find(device)
    training.check(epochs=epochs, lr=lr, head=head)
    folder = Path(model)
    if models.is_url(model):
        if weights or pretrained:
            raise InputError(f"{model} has weights of its own; leave --weights and --pretrained out")
    elif models.is_delivered(model):
        models.check_delivered(model, weights)
        if pretrained:
            raise InputError(f"{model} is used as it is: leave --pretrained out")
    elif folder.is_dir():
        for option, given in (("--weights", weights), ("--pretrained", pretrained)):
            if given:
                raise InputError(f"{model} is a saved classifier with weights of its own; leave {option} out")
        for name in (CARD, WEIGHTS):
            if not (folder / name).is_file():
                raise InputError(f"no checkpoint in {folder}: {name} is missing; was its writing interrupted?")
    elif folder.suffix in WEIGHT_FILES:
        raise InputError(
            f"{folder} holds weights but not which network they belong to; give the network and its weights: "
            f"--model ARCHITECTURE --weights {folder} (used as they are) or --pretrained {folder} (trained further)"
        )
    elif train is False and not weights and not models.is_own(model):
        raise InputError(
            f"{model} is not a folder, and without weights it is untrained: give the folder of a classifier that "
            "medrobust train or audit saved, or the network's --weights FILE"
        )
    else:
        models.check_name(model, weights or pretrained)
