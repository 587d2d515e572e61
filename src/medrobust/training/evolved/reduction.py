"""Scaling and principal components, fitted on training images only, and what they amount to: one affine map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Reduction:
    """x -> matrix @ x + offset, of unit variance on the training images.

    matrix: float64 (f, d), offset: (f,).
    """

    matrix: np.ndarray
    offset: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, inputs: int) -> Reduction:
        """Standardise the d features; of more than ``inputs``, keep the first principal components, whitened.

        features: (n, d), training images. Fewer components where n or the rank is smaller. A feature that is the
        same for all images becomes 0.
        """
        n, d = features.shape
        mean, deviation = features.mean(0), features.std(0)
        dead = deviation <= 1e-12 * np.maximum(1, np.abs(mean))
        scale = np.where(dead, 0.0, 1 / np.where(dead, 1.0, deviation))
        if d <= inputs:
            return cls(np.diag(scale), -mean * scale)
        _, size, axes = np.linalg.svd((features - mean) * scale, full_matrices=False)
        kept = min(inputs, int((size > 1e-8 * size[0]).sum()) if size[0] > 0 else 0) or 1
        axes = axes[:kept]
        # the sign of a component is arbitrary: the largest entry is made positive, so that libraries agree
        axes = axes * np.sign(axes[np.arange(kept), np.abs(axes).argmax(1)])[:, None]
        spread = np.where(size[:kept] > 0, size[:kept], 1) / np.sqrt(n)
        matrix = axes * scale / spread[:, None]
        return cls(matrix, -matrix @ mean)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """float64 (m, f) of (m, d)."""
        return np.asarray(features @ self.matrix.T + self.offset)

    def kept(self, mask: np.ndarray) -> Reduction:
        """Only some outputs: a mask (f,) or positions."""
        return Reduction(self.matrix[mask], self.offset[mask])
