"""Natural corruptions: what happens to images in practice, at five severities.

A classifier should withstand them, and a guard must not take them for attacks.

After Hendrycks & Dietterich 2019 (arXiv:1903.12261), with what is seen in radiographs, fundus photographs and
dermoscopy; milder, as an image that no longer shows anything is taken again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from medrobust import seeds
from medrobust.data.corruptions import light, medmnist_c, objects, optics, sensor
from medrobust.data.corruptions.corruption import ANY, SEVERITIES, Corruption
from medrobust.errors import InputError
from medrobust.images import Images, check_images
from medrobust.seeds import Id

# Read by the command line and by saved specs only. Amounts for severities 1 to 5; their units are in the functions.
CORRUPTIONS: dict[str, Corruption] = {
    "blur": Corruption("out of focus", optics.blur, (0.5, 0.8, 1.2, 1.8, 2.6)),
    "motion": Corruption("movement", optics.motion, (3, 5, 7, 10, 14)),
    "downsample": Corruption("low resolution", optics.downsample, (1.5, 2, 2.5, 3, 4)),
    "jpeg": Corruption("JPEG", optics.jpeg, (80, 50, 30, 15, 8)),
    "grey_levels": Corruption("few grey levels", optics.grey_levels, (64, 32, 16, 8, 5)),
    "position": Corruption("turned and moved", optics.position, (2, 4, 6, 9, 13)),
    "noise": Corruption("read-out noise", sensor.noise, (0.01, 0.02, 0.04, 0.07, 0.1)),
    "shot": Corruption("low dose (quantum noise)", sensor.shot, (2000, 800, 300, 120, 50)),
    "exposure": Corruption("over- or under-exposed", sensor.exposure, (0.15, 0.3, 0.5, 0.75, 1)),
    "gamma": Corruption("tone curve", sensor.gamma, (0.1, 0.2, 0.3, 0.45, 0.6)),
    "contrast": Corruption("low contrast", sensor.contrast, (0.15, 0.3, 0.45, 0.6, 0.75)),
    "colour": Corruption("white balance", sensor.colour, (0.05, 0.1, 0.15, 0.25, 0.35), ANY[1:], colour=True),
    "dead_lines": Corruption("dead detector columns", sensor.dead_lines, (0.01, 0.02, 0.04, 0.07, 0.1), ("xray",)),
    "bias_field": Corruption("bias field", light.bias_field, (0.1, 0.2, 0.3, 0.45, 0.6), ANY[:3]),
    "vignette": Corruption("dark rim", light.vignette, (0.1, 0.2, 0.3, 0.45, 0.6), ("fundus", "dermoscopy", "natural")),
    "glare": Corruption("glare", light.glare, (0.2, 0.35, 0.5, 0.7, 0.9), ("fundus", "dermoscopy")),
    "hair": Corruption("hair", objects.hair, (3, 6, 10, 16, 24), ("dermoscopy",)),
    "bubbles": Corruption("gel bubbles", objects.bubbles, (2, 4, 7, 11, 16), ("dermoscopy",)),
    "marker": Corruption("L/R marker", objects.marker, (0.05, 0.08, 0.11, 0.15, 0.2), ("xray",)),
    "occlusion": Corruption("tape or electrode", objects.occlusion, (0.005, 0.01, 0.02, 0.04, 0.08)),
    "collimation": Corruption("collimator edge", objects.collimation, (0.03, 0.06, 0.1, 0.14, 0.18), ("xray",)),
}

__all__ = [
    "ALL_MODALITIES",
    "CORRUPTIONS",
    "MEDMNIST_C",
    "SEVERITIES",
    "Corruption",
    "corrupt",
    "corruption_set",
    "medmnist_c_name",
    "suited",
]

ALL_MODALITIES = "any"
"""The set of the corruptions that every modality has."""
MEDMNIST_C = "medmnist-c"
"""Before a colon and the name of a data set: the set of MedMNIST-C for it."""


def corrupt(
    images: Images,
    name: str,
    severity: int,
    seed: int = 0,
    ids: Sequence[Id] | None = None,
    table: Mapping[str, Corruption] = CORRUPTIONS,
) -> Images:
    """``images`` (n, c, h, w) after corruption ``name`` of ``severity`` 1 to 5; same shape, in [0, 1].

    Each image is changed on its own, by numbers keyed by (seed, name, id) and not by the severity: a higher severity
    is more of the same change. ids: one an image (position when not given). table: where the name is looked up.
    InputError for an unknown name or severity, and for a corruption of colour on grey images.
    """
    if name not in table:
        raise InputError(f"corruption {name!r} is not known; choose from {', '.join(table)}")
    if severity not in SEVERITIES:
        raise InputError(f"severity must be a whole number from 1 to 5, got {severity!r}")
    images = check_images(images).detach()
    names: Sequence[Id] = range(len(images)) if ids is None else ids
    if len(names) != len(images):
        raise InputError(f"{len(images)} images but {len(names)} ids; give one id an image")
    chosen = table[name]
    if chosen.colour and images.shape[1] != 3:
        raise InputError(f"corruption {name!r} needs colour images, these have {images.shape[1]} channel; leave it out")
    amount = chosen.amounts[severity - 1]
    out = torch.empty_like(images)
    for row, key in enumerate(names):
        rng = seeds.generator(seed, f"corruption/{name}", key)
        out[row] = chosen.change(images[row].cpu(), amount, rng).clamp(0, 1)
    return out


def suited(modality: str | None, channels: int = 3) -> tuple[str, ...]:
    """Names of the corruptions seen in a modality ("xray", "fundus", "dermoscopy", "natural").

    None: those that every modality has. channels: 1 leaves corruptions of colour out.
    """
    if modality is not None and modality not in ANY:
        raise InputError(f"modality {modality!r} is not known; choose from {', '.join(ANY)}")
    wanted = set(ANY) if modality is None else {modality}
    return tuple(n for n, c in CORRUPTIONS.items() if wanted <= set(c.modalities) and (channels == 3 or not c.colour))


def corruption_set(text: str, channels: int = 3) -> Mapping[str, Corruption]:
    """The corruptions of a set by name: "any" (those that every modality has), a modality, or "medmnist-c:DATASET".

    channels: 1 leaves corruptions of colour out. InputError for another text.
    """
    if (name := medmnist_c_name(text)) is not None:
        return {k: c for k, c in medmnist_c.corruptions(name).items() if channels == 3 or not c.colour}
    modality = None if text == ALL_MODALITIES else text
    if modality not in (None, *ANY):
        choice = ", ".join((ALL_MODALITIES, *ANY, f"{MEDMNIST_C}:DATASET"))
        raise InputError(f"corruptions {text!r} are not known; choose from {choice}, or none")
    return {name: CORRUPTIONS[name] for name in suited(modality, channels)}


def medmnist_c_name(text: str) -> str | None:
    """The data set that a set of MedMNIST-C is for; None where ``text`` is another set."""
    kind, colon, name = text.partition(":")
    return name if colon and kind == MEDMNIST_C else None
