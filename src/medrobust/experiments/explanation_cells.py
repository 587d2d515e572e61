"""The pieces of work of explanations. Each is a function of its arguments alone and ends in one cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from medrobust import explain
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.experiments.adversarial_pairs import Shard
from medrobust.images import Images, Labels
from medrobust.naming import image_code
from medrobust.store import Result

KINDS = ("effective-rank", "relative-rank", "spectral-entropy", "spatial-entropy")
"""What is said of a layer."""

FINDING_MAPS = ("gradient", "cam")
AGREEMENT = {"point": explain.pointing_game, "auroc": explain.lesion_auroc, "share": explain.lesion_share}
"""What is said of a map where the lesion is known."""

SALIENCIES = ("cam", "gradient", "integrated", "smooth")
"""Maps of an image."""

CLEAN, ATTACKED, NOISE, CHANGE = "clean", "attacked", "noise", "change"
"""On which images: change is that of each image under the attack."""


class Quantity(NamedTuple):
    """One number an image, beside the measures of untouched images."""

    metric: str
    when: str
    map: str = ""
    layer: str = ""
    finding: str = ""
    """The one whose logit it is about; empty: the decision."""

    @property
    def name(self) -> str:
        """Of its array."""
        of = self.layer or self.finding
        return f"{self.metric}{self.map and '-' + self.map}{of and '@' + of}.{self.when}"


def quantities(names: Sequence[str], saliencies: Sequence[str]) -> Iterator[Quantity]:
    """All that ``maps`` and ``layers`` may measure. names: of layers."""
    for metric in ("saliency-gini", "saliency-half"):
        yield from (Quantity(metric, when) for when in (CLEAN, ATTACKED))
    for metric in ("cam-shift", "cam-shift-px", "cam-shift-asked", "cam-shift-asked-px"):
        yield Quantity(metric, CHANGE)
    yield Quantity("cam-shift", NOISE)
    yield Quantity("lesion-area", CLEAN)
    for how in AGREEMENT:
        yield from (Quantity(f"lesion-{how}", when, kind) for kind in saliencies for when in (CLEAN, ATTACKED))
    for layer in names:
        yield from (Quantity(kind, when, layer=layer) for kind in KINDS for when in (CLEAN, ATTACKED))


def finding_quantities(finding: str) -> Iterator[Quantity]:
    """All that ``finding_maps`` measures of one finding."""
    yield Quantity("lesion-area", CLEAN, finding=finding)
    for how in AGREEMENT:
        yield from (Quantity(f"lesion-{how}", w, m, finding=finding) for w in (CLEAN, ATTACKED) for m in FINDING_MAPS)


def measured(classifier: Classifier, part: Dataset, names: Sequence[str], layer: str | None, seed: int) -> Result:
    """The measures of ``explain.MEASURES``, one float64 (n,) each."""
    labels = torch.from_numpy(part.labels.copy())
    measured = explain.measure(classifier, part, labels, names, ids=part.ids, seed=seed, layer=layer)
    return {}, {name: values.numpy() for name, values in measured.items()}


def maps(
    classifier: Classifier,
    part: Dataset,
    attacked: Shard,
    noisy: Shard,
    cam_layer: str,
    saliencies: Sequence[str],
    seed: int,
) -> Result:
    """What an attack does to the maps, one number an image, and how far Grad-CAM moves under it and under noise.

    With lesion masks: how each map agrees with them. Grad-CAM explains the decision, before and after; saliency is that
    of the true class's loss throughout. Numbers after an attack that failed are NaN.
    """
    images, labels = part.tensors()
    masks, after = part.masks(range(len(part))), torch.from_numpy(attacked.decision)
    out: dict[str, Tensor] = {}
    if masks is not None:
        area = explain.lesion_area(masks)
        out["lesion-area.clean"] = area.masked_fill(area == 0, torch.nan)  # of those that have one, as all of agreement
    cams = []
    for when, shown, decision in ((CLEAN, images, labels), (ATTACKED, attacked.images, after)):
        cams.append(explain.grad_cam(classifier, shown, decision, layer=cam_layer))
        gradient, _ = explain.gradient_map(classifier, shown, labels)
        out[f"saliency-gini.{when}"] = explain.gini(gradient)
        out[f"saliency-half.{when}"] = explain.half_share(gradient)
        if masks is None:
            continue
        maps = {"cam": cams[-1], "gradient": gradient}
        for name in set(saliencies) - set(maps):
            maps[name] = explain.SALIENCIES[name](classifier, shown, labels, seed, part.ids)
        for how, agreement in AGREEMENT.items():
            for kind in saliencies:
                out[Quantity(f"lesion-{how}", when, kind).name] = agreement(maps[kind], masks)
    # after the attack another class is asked about: the untouched image, asked about that class, shows what that does
    of_new_class = explain.grad_cam(classifier, images, after, layer=cam_layer)
    noise = explain.grad_cam(classifier, noisy.images, torch.from_numpy(noisy.decision), layer=cam_layer)
    diagonal = explain.diagonal(of_new_class)
    for name, cam, when in (("cam-shift", cams[1], CHANGE), ("cam-shift-asked", of_new_class, CHANGE)):
        out[f"{name}-px.{when}"] = explain.shift(cams[0], cam)
        out[f"{name}.{when}"] = out[f"{name}-px.{when}"] / diagonal
    out["cam-shift.noise"] = explain.shift(cams[0], noise) / diagonal
    return {}, _where_reached(out, attacked)


def finding_maps(
    classifier: Classifier, part: Dataset, attacked: Shard, labels: Labels, findings: Sequence[str], cam_layer: str
) -> Result:
    """How maps of the logit of each finding agree with its own mask: QUANTITY@FINDING.clean and .attacked, NaN for
    images that lack it.

    classifier: of several findings; findings: those whose masks are known. labels: int64 (n, k), what each image has.
    """
    images, _ = part.tensors()
    out: dict[str, Tensor] = {}
    for name in findings:
        k = classifier.classes.index(name)
        rows = (labels[:, k] == 1).nonzero()[:, 0]
        masks, outputs = part.masks(rows, name), torch.full((len(rows),), k)
        assert masks is not None
        drawn: dict[tuple[str, str], Images] = {}
        for when, given in ((CLEAN, images[rows]), (ATTACKED, attacked.images[rows])):
            drawn["gradient", when], _ = explain.gradient_map(classifier, given, outputs)
            drawn["cam", when] = explain.grad_cam(classifier, given, outputs, layer=cam_layer)
        agreement = {f"lesion-{how}": function for how, function in AGREEMENT.items()}
        for quantity in finding_quantities(name):
            if quantity.map:
                values = agreement[quantity.metric](drawn[quantity.map, quantity.when], masks)
            else:
                values = explain.lesion_area(masks)
            every = torch.full((len(part),), torch.nan, dtype=torch.float64)
            out[quantity.name] = every.index_copy(0, rows, values.double())
    return {}, _where_reached(out, attacked)


def layers(classifier: Classifier, part: Dataset, pairs: Shard, names: Sequence[str]) -> Result:
    """KIND@LAYER.clean and .attacked: how simple each layer's picture of an image is."""
    images, _ = part.tensors()
    out: dict[str, Tensor] = {}
    for when, shown in (("clean", images), ("attacked", pairs.images)):
        for layer, measured in explain.simplicity(classifier, shown, names).items():
            out |= {f"{kind}@{layer}.{when}": measured[kind] for kind in KINDS}
    return {}, _where_reached(out, pairs)


def surfaces(
    classifier: Classifier, second: Classifier | None, part: Dataset, grid: Sequence[float], seed: int
) -> Result:
    """The planes of ``explain.planes``, float64 (n, a, b) each."""
    images, labels = part.tensors()
    measured = explain.planes(classifier, images, labels, second=second, grid=grid, seed=seed, ids=part.ids)
    return {}, {name: surface.numpy() for name, surface in measured.items()}


def gallery(
    classifier: Classifier,
    part: Dataset,
    attacked: Shard,
    cam_layer: str,
    layer: str | None,
    saliencies: Sequence[str],
    seed: int,
) -> Result:
    """Maps of a few images, float32 (n, h, w), before and after the attack. layer: whose mean over channels is kept.

    log-scale: natural logarithm of what the gradient is to be multiplied by; float32 would lose what a sure network
    leaves.
    """
    images, labels = part.tensors()
    decision = torch.from_numpy(attacked.decision)
    gradient, log_scale = explain.gradient_map(classifier, images, labels)
    gradient_attacked, log_attacked = explain.gradient_map(classifier, attacked.images, labels)
    shown: dict[str, Images] = {
        "clean": images,
        "attacked": attacked.images,
        "gradient": gradient,
        "gradient-attacked": gradient_attacked,
        "cam": explain.grad_cam(classifier, images, labels, layer=cam_layer),
        "cam-attacked": explain.grad_cam(classifier, attacked.images, decision, layer=cam_layer),
        "log-scale": log_scale,
        "log-scale-attacked": log_attacked,
    }
    if "integrated" in saliencies:
        shown["integrated"] = explain.integrated_map(classifier, images, labels)
    if "smooth" in saliencies:
        shown["smooth"] = explain.smooth_map(classifier, images, labels, seed=seed, ids=part.ids)
    if layer is not None:
        shown["layer"] = explain.layer_maps(classifier, images, layer)
        shown["layer-attacked"] = explain.layer_maps(classifier, attacked.images, layer)
    masks = part.masks(range(len(part)))
    if masks is not None:
        shown["mask"] = masks[:, 0]
    facts = {
        "ids": [image_code(part, i) for i in range(len(part))],
        "label": part.labels.tolist(),
        "after": attacked.decision.tolist(),
        "reached": attacked.reached.tolist(),
    }
    return facts, {name: values.float().numpy() for name, values in shown.items()}


def _where_reached(measured: dict[str, Tensor], attacked: Shard) -> dict[str, np.ndarray]:
    """An attack that failed made no attacked image: nothing is said of it."""
    held = torch.from_numpy(~attacked.reached)
    after = (".attacked", ".change")
    return {
        name: (values.masked_fill(held, torch.nan) if name.endswith(after) else values).double().numpy()
        for name, values in measured.items()
    }
