"""Class-balanced sampling: which training images an epoch shows, and in what order."""

from __future__ import annotations

import numpy as np

from medrobust import seeds


def epoch_order(labels: np.ndarray, balance: bool, seed: int, epoch: int) -> np.ndarray:
    """int64 (n,): indices of one epoch: ``balanced`` by class, or a permutation.

    Images of several findings, labels (n, k), are always a permutation: their loss is balanced instead.
    """
    if balance and labels.ndim == 1:
        return balanced(labels, seed, epoch)
    return seeds.generator(seed, "shuffled", epoch).permutation(len(labels)).astype(np.int64)


def balanced(labels: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """int64 (n,): indices of one epoch of as many images as there are, every class equally often (to within one).

    A class too small for its share is shown in whole rounds, each a fresh permutation, so that no image is seen
    twice before all were seen once; of a class too large a random part is shown. Classes without images are
    skipped. Depends on (seed, epoch) alone, so that a resumed run draws what an uninterrupted one would.
    """
    draw = seeds.generator(seed, "balanced sampling", epoch)
    present = np.unique(labels)
    shares = np.full(present.size, labels.size // present.size)
    shares[draw.permutation(present.size)[: labels.size % present.size]] += 1
    chosen = []
    for label, share in zip(present, shares, strict=True):
        members = np.flatnonzero(labels == label)
        rounds = -(-int(share) // members.size)
        chosen.append(np.concatenate([draw.permutation(members) for _ in range(rounds)] or [members[:0]])[:share])
    return draw.permutation(np.concatenate(chosen)).astype(np.int64)
