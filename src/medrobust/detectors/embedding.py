"""t-SNE of clean and attacked features by class, as in Ma et al. 2020 (van der Maaten & Hinton 2008, JMLR 9:2579)."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from medrobust import atomic
from medrobust.errors import InputError

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#000000")
"""Okabe & Ito 2008: told apart by every common colour blindness."""

MANY = 20


def embed(features: Tensor | np.ndarray, seed: int = 0, perplexity: float = 30.0) -> np.ndarray:
    """float32 (n, 2): t-SNE of ``features`` (n, d), standardised, on at most 50 principal components.

    Only neighbourhoods mean something in such a picture: distances and sizes of clouds do not, and that two groups
    look apart is no measure of a detector. The points depend on each other, so rows are not independent here.
    InputError for fewer than 8 rows.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows = np.asarray(features, dtype=np.float64)
    n = len(rows)
    if n < 8:
        raise InputError(f"t-SNE needs at least 8 images, got {n}; give more")
    spread = rows.std(0)
    rows = (rows - rows.mean(0)) / np.where(spread > 0, spread, 1.0)
    parts = min(50, n - 1, rows.shape[1])
    rows = PCA(parts, svd_solver="full").fit_transform(rows)
    perplexity = min(perplexity, (n - 1) / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sklearn's word on coming defaults: each one is given here
        points = TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed).fit_transform(rows)
    return np.asarray(points, dtype=np.float32)


def draw(
    path: str | Path,
    points: np.ndarray,
    labels: Sequence[int] | np.ndarray,
    attacked: Sequence[bool] | np.ndarray,
    classes: Sequence[str],
    title: str = "",
) -> Path:
    """Write the picture of ``points`` (n, 2): a colour a class, crosses where attacked.

    path: its ending says the format (.png, .svg, .pdf). labels: int (n,), the true class. With two classes these are
    the paper's four groups. More than eight classes share colours; more than ``MANY`` have none.
    """
    import matplotlib
    from matplotlib.figure import Figure

    labels, attacked = np.asarray(labels), np.asarray(attacked, dtype=bool)
    if len(classes) > MANY:
        labels, classes = np.where(attacked, 1, 0), (f"{len(classes)} classes", f"{len(classes)} classes")
    label_all = len(classes) <= 4
    with matplotlib.rc_context({"svg.hashsalt": "medrobust", "font.size": 9, "text.parse_math": False}):
        figure = Figure(figsize=(5.2, 4.4), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        for index, name in enumerate(classes):
            colour = COLOURS[index % len(COLOURS)]
            for is_attacked, marker, word in ((False, "o", "clean"), (True, "x", "attacked")):
                subset = (labels == index) & (attacked == is_attacked)
                if subset.any():
                    x, y = points[subset].T
                    label = f"{name}, {word} (n = {int(subset.sum())})" if label_all else name
                    labelled = label_all or not is_attacked  # a name for each of many classes is enough
                    axes.scatter(
                        x,
                        y,
                        s=16,
                        marker=marker,
                        color=colour,
                        alpha=0.75,
                        linewidths=1.0,
                        label=label if labelled else None,
                    )
        axes.set(xticks=[], yticks=[], title=title, xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
        counts = f"clean: dots (n = {int((~attacked).sum())}), attacked: crosses ({int(attacked.sum())})"
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.06),
            ncols=2 if label_all else 5,
            frameon=False,
            title=None if label_all else counts,
        )
        path = Path(path)
        metadata = {".png": {"Software": None}, ".svg": {"Date": None}}.get(path.suffix)
        content = io.BytesIO()
        figure.savefig(content, format=path.suffix.removeprefix(".") or "png", metadata=metadata)
        atomic.write_bytes(path, content.getvalue())
    return path
