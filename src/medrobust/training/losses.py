"""The loss of a minibatch: cross-entropy of one class, or of each finding against its absence."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medrobust.images import UNKNOWN, Labels, Logits

MOST = 20.0
"""Largest weight of a finding's presence: of one in 500 images the few would drown everything else."""


def presence_weights(labels: np.ndarray, balance: bool) -> Tensor | None:
    """float32 (k,): how much more the presence of each finding weighs than its absence; None for one class an image.

    labels: (n, k) of 0, 1 and UNKNOWN. balance: absences over presences, so that both sides weigh the same, up to
    MOST; else 1.
    """
    if labels.ndim == 1:
        return None
    present, absent = (labels == 1).sum(0), (labels == 0).sum(0)
    ratio = np.where(present > 0, absent / np.maximum(present, 1), 1.0) if balance else np.ones(labels.shape[1])
    return torch.from_numpy(np.clip(ratio, 1 / MOST, MOST).astype(np.float32))


def loss(logits: Logits, labels: Labels, weights: Tensor | None) -> Tensor:
    """Mean cross-entropy of images, or the binary one of known findings. weights: from ``presence_weights``."""
    if weights is None:
        return F.cross_entropy(logits, labels)
    known = (labels != UNKNOWN).float()
    each = F.binary_cross_entropy_with_logits(
        logits, labels.clamp_min(0).float(), known, pos_weight=weights, reduction="sum"
    )
    return each / known.sum().clamp_min(1)
