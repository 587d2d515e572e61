"""The pieces of work of `medrobust explain`. Each is a function of its arguments alone and ends in one cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from medrobust import explain
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.experiments.adversarial_pairs import Shard
from medrobust.experiments.robustness_cells import Result
from medrobust.images import Images
from medrobust.naming import image_code

KINDS = ("effective-rank", "relative-rank", "spectral-entropy", "spatial-entropy")
"""What is said of a layer."""

AGREEMENT = {"point": explain.pointing_game, "auroc": explain.lesion_auroc, "share": explain.lesion_share}
"""What is said of a map where the lesion is known."""


def measured(
    classifier: Classifier,
    part: Dataset,
    names: Sequence[str],
    layer: str | None,
    seed: int,
    advance: Callable[[int], None],
) -> Result:
    """The measures of ``explain.MEASURES``, one float64 (n,) each."""
    labels = torch.from_numpy(part.labels.copy())
    found = explain.measure(classifier, part, labels, names, ids=part.ids, seed=seed, layer=layer, advance=advance)
    return {}, {name: values.numpy() for name, values in found.items()}


def maps(classifier: Classifier, part: Dataset, twins: Shard, cam_layer: str, seed: int) -> Result:
    """What an attack does to the maps, one number an image: NAME.clean, NAME.attacked, and how far Grad-CAM moves.

    With lesion masks: how each map agrees with them, lesion-HOW-MAP. Grad-CAM explains the decision, before and after;
    saliency is that of the true class's loss throughout. Numbers after an attack that failed are NaN.
    """
    images, labels = part.tensors()
    masks, after = part.masks(range(len(part))), torch.from_numpy(twins.decision)
    out: dict[str, Tensor] = {}
    if masks is not None:
        area = explain.lesion_area(masks)
        out["lesion-area.clean"] = area.masked_fill(area == 0, torch.nan)  # of those that have one, as all of agreement
    cams = []
    for when, shown, decision in (("clean", images, labels), ("attacked", twins.images, after)):
        cams.append(explain.grad_cam(classifier, shown, decision, layer=cam_layer))
        gradient, _ = explain.gradient_map(classifier, shown, labels)
        out[f"saliency-gini.{when}"] = explain.gini(gradient)
        out[f"saliency-half.{when}"] = explain.half_share(gradient)
        if masks is None:
            continue
        seen = {"cam": cams[-1], "gradient": gradient}
        for name in ("integrated", "smooth"):
            seen[name] = explain.SALIENCIES[name](classifier, shown, labels, seed, part.ids)
        for name, told in AGREEMENT.items():
            out |= {f"lesion-{name}-{kind}.{when}": told(values, masks) for kind, values in seen.items()}
    # another class is asked about after the attack: the untouched image, asked about that class, tells what that does
    asked = explain.grad_cam(classifier, images, after, layer=cam_layer)
    diagonal = explain.diagonal(asked)
    for name, cam in (("cam-shift", cams[1]), ("cam-shift-asked", asked)):
        out[f"{name}-px.change"] = explain.shift(cams[0], cam)
        out[f"{name}.change"] = out[f"{name}-px.change"] / diagonal
    return {}, _where_reached(out, twins)


def layers(classifier: Classifier, part: Dataset, twins: Shard, names: Sequence[str]) -> Result:
    """KIND@LAYER.clean and .attacked: how simple each layer's picture of an image is."""
    images, _ = part.tensors()
    out: dict[str, Tensor] = {}
    for when, shown in (("clean", images), ("attacked", twins.images)):
        for layer, found in explain.simplicity(classifier, shown, names).items():
            out |= {f"{kind}@{layer}.{when}": found[kind] for kind in KINDS}
    return {}, _where_reached(out, twins)


def surfaces(classifier: Classifier, second: Classifier | None, part: Dataset, seed: int) -> Result:
    """The planes of ``explain.planes``, float64 (n, 17, 17) each."""
    images, labels = part.tensors()
    found = explain.planes(classifier, images, labels, second=second, seed=seed, ids=part.ids)
    return {}, {name: surface.numpy() for name, surface in found.items()}


def gallery(classifier: Classifier, part: Dataset, twins: Shard, cam_layer: str, layer: str, seed: int) -> Result:
    """What a few images look like from inside: every map, float32 (n, h, w), before and after the attack."""
    images, labels = part.tensors()
    decision = torch.from_numpy(twins.decision)
    gradient, log_scale = explain.gradient_map(classifier, images, labels)
    attacked, log_attacked = explain.gradient_map(classifier, twins.images, labels)
    shown: dict[str, Images] = {
        "clean": images,
        "attacked": twins.images,
        "gradient": gradient,
        "gradient-attacked": attacked,
        "integrated": explain.integrated_map(classifier, images, labels),
        "smooth": explain.smooth_map(classifier, images, labels, seed=seed, ids=part.ids),
        "cam": explain.grad_cam(classifier, images, labels, layer=cam_layer),
        "cam-attacked": explain.grad_cam(classifier, twins.images, decision, layer=cam_layer),
        "layer": explain.layer_maps(classifier, images, layer),
        "layer-attacked": explain.layer_maps(classifier, twins.images, layer),
        "log-scale": log_scale,
        "log-scale-attacked": log_attacked,
    }
    masks = part.masks(range(len(part)))
    if masks is not None:
        shown["mask"] = masks[:, 0]
    facts = {
        "ids": [image_code(part, i) for i in range(len(part))],
        "label": part.labels.tolist(),
        "after": twins.decision.tolist(),
        "reached": twins.reached.tolist(),
    }
    return facts, {name: values.float().numpy() for name, values in shown.items()}


def _where_reached(found: dict[str, Tensor], twins: Shard) -> dict[str, np.ndarray]:
    """An attack that failed made no attacked image: nothing is said of it."""
    held = torch.from_numpy(~twins.reached)
    after = (".attacked", ".change")
    return {
        name: (values.masked_fill(held, torch.nan) if name.endswith(after) else values).double().numpy()
        for name, values in found.items()
    }
