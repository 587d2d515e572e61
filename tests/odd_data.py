"""Data of which little can be said, and a tiny network that reads them: one patient, one class, a handful of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medrobust import Classifier, models

from .data_files import write_table

SIZE = 16
CLASSES = ("normal", "pneumonia")
ARCHITECTURE = "small_cnn:width=4"


def pictures(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """uint8 (n, SIZE, SIZE): dark where the label is 0, a little brighter where it is 1, with noise."""
    rng = np.random.default_rng(seed)
    level = 116 + 26 * np.asarray(labels)[:, None, None] + rng.normal(0, 1, (len(labels), 1, 1))
    return (level + rng.normal(0, 6, (len(labels), SIZE, SIZE))).clip(0, 255).astype(np.uint8)


def network() -> Classifier:
    """A convolutional network with drawn weights, whose last layer is solved for: it reads ``pictures``."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = models.build(ARCHITECTURE, classes=2, channels=1, size=SIZE)
    labels = np.arange(80) % 2
    images = torch.from_numpy(pictures(labels, 99)).float()[:, None] / 255
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0  # its statistics are those of these images
        net.train()(images)
        net.eval()
        inputs = torch.cat([net.pool(net.features(images)).flatten(1), torch.ones(80, 1)], 1).double()
        solved = torch.linalg.lstsq(inputs, torch.from_numpy(2.0 * labels - 1), driver="gelsd").solution.float()
        net.classifier.weight.copy_(3 * torch.stack([-solved[:-1], solved[:-1]]))
        net.classifier.bias.copy_(3 * torch.stack([-solved[-1], solved[-1]]))
    return Classifier(net, CLASSES, size=SIZE, provenance={"architecture": ARCHITECTURE})


def table(
    folder: Path,
    labels: list[int],
    *,
    patients: list[str] | None = None,
    wrong: bool = False,
    rest: int = 60,
    said: list[int] | None = None,
) -> Path:
    """A table whose test images have these labels, and patients; beside it ``rest`` images for training and validation.

    wrong: every test image has the label of the other class. said: the labels in the table, where not the true ones.
    """
    folder.mkdir(parents=True, exist_ok=True)
    true = np.array([*labels, *(np.arange(rest) % 2)])
    told = np.array([*(labels if said is None else said), *(np.arange(rest) % 2)])
    if wrong:
        told[: len(labels)] = 1 - told[: len(labels)]
    sides = ["test"] * len(labels) + ["train", "train", "val", "val"] * (rest // 4)
    rows = []
    for i, pixels in enumerate(pictures(true)):
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
        row = {"file": f"{i:03d}.png", "label": CLASSES[told[i]], "split": sides[i]}
        if patients is not None:
            row["patient"] = patients[i] if i < len(labels) else f"other {i}"
        rows.append(row)
    return write_table(folder, rows)


def random_labels(n: int) -> list[int]:
    """Labels that have nothing to do with the images."""
    return np.random.default_rng(5).permutation(np.arange(n) // 2 % 2).tolist()


BOTH = [i % 2 for i in range(20)]
KINDS = {
    "one patient": lambda folder: table(folder, BOTH, patients=["p"] * len(BOTH)),
    "one class": lambda folder: table(folder, [1] * 20),
    "none right": lambda folder: table(folder, BOTH, wrong=True),
    "three images": lambda folder: table(folder, [0, 1, 1]),
    "six images": lambda folder: table(folder, [0, 1, 0, 1, 0, 1]),
    "at chance": lambda folder: table(folder, BOTH, said=random_labels(len(BOTH))),
}
