"""Why a classifier breaks: saliency, representation, loss landscape, and where the images lie in its features.

Every function takes a classifier and images (n, c, h, w) in [0, 1], computes in batches of a fixed shape, and gives an
image the same answer whatever its batch-mates are.
"""

from __future__ import annotations

from medrobust.explain.concentration import gini, half_share
from medrobust.explain.gradcam import centre, diagonal, grad_cam, shift
from medrobust.explain.gradients import Gradients, loss_gradient, margin_gradient
from medrobust.explain.hessian import Curvature, curvature
from medrobust.explain.layers import Layer, last_spatial, middle, spatial_layers, stages
from medrobust.explain.lesion import lesion_area, lesion_auroc, lesion_share, pointing_game
from medrobust.explain.measures import MEASURES, Measure, measure
from medrobust.explain.plane import GRID, landscape, planes, random_direction
from medrobust.explain.probe import Separability, separability
from medrobust.explain.representation import (
    channel_means,
    effective_rank,
    layer_maps,
    simplicity,
    spatial_entropy,
    spectral_entropy,
)
from medrobust.explain.saliency import (
    SALIENCIES,
    gradient_map,
    integrated_gradients,
    integrated_map,
    over_channels,
    smooth_map,
)

__all__ = [
    "GRID",
    "MEASURES",
    "SALIENCIES",
    "Curvature",
    "Gradients",
    "Layer",
    "Measure",
    "Separability",
    "centre",
    "channel_means",
    "curvature",
    "diagonal",
    "effective_rank",
    "gini",
    "grad_cam",
    "gradient_map",
    "half_share",
    "integrated_gradients",
    "integrated_map",
    "landscape",
    "last_spatial",
    "layer_maps",
    "lesion_area",
    "lesion_auroc",
    "lesion_share",
    "loss_gradient",
    "margin_gradient",
    "measure",
    "middle",
    "over_channels",
    "planes",
    "pointing_game",
    "random_direction",
    "separability",
    "shift",
    "simplicity",
    "smooth_map",
    "spatial_entropy",
    "spatial_layers",
    "spectral_entropy",
    "stages",
]
