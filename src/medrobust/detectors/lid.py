"""Local intrinsic dimensionality of the features (Ma et al. 2018, arXiv:1801.02613)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medrobust import seeds
from medrobust.detectors.detector import Detector
from medrobust.detectors.distances import squared, squared_to
from medrobust.detectors.features import LOGITS, Table
from medrobust.detectors.rule import Logistic, Rule
from medrobust.errors import InputError


class LID(Detector):
    """The dimension that each layer seems to have around an image, then logistic regression over the layers.

    k: neighbours, 20 as published. batch: clean reference images they are looked for among, 100 as published.
    layers: None for all layers of the features it is fitted on, as published.

    Fitted here, the reference images are fixed and serve for nothing else, so that an image's number depends on no
    other image. As published (``represent_published``), images are compared with the batch they came in.
    """

    title = "Local intrinsic dimensionality"
    source = "Ma et al. 2018, arXiv:1801.02613"
    uses_bank = True
    block = 256  # next to a bank of 100 images the calls into torch would outweigh what they compute

    def __init__(self, k: int = 20, batch: int = 100, layers: Sequence[str] | None = None) -> None:
        if not 3 <= k < batch:
            raise InputError(f"k must lie between 3 and batch - 1 = {batch - 1}, got {k}")
        super().__init__(layers)
        self.k, self.batch = k, batch

    def learn(self, bank: Table, classes: Tensor, seed: int) -> None:  # noqa: ARG002
        count = len(bank[LOGITS])
        if count <= self.k:
            raise InputError(f"LID looks for {self.k} neighbours among {count} reference images; give more")
        order = seeds.generator(seed, "LID reference").permutation(count)[: self.batch]
        index = torch.from_numpy(order.copy()).sort().values
        for name in self.layers_:
            points = bank[name].double().cpu()[index]
            centre = points.mean(0)
            self.arrays_[f"bank/{name}"] = points - centre
            self.arrays_[f"lengths/{name}"] = ((points - centre) ** 2).sum(1)
            self.arrays_[f"centre/{name}"] = centre

    def represent(self, table: Table, predicted: Tensor) -> Tensor:  # noqa: ARG002
        columns = []
        for name in self.layers_:
            x = table[name].double()
            centred = x - self.on(f"centre/{name}", x)
            far = squared_to(centred, self.on(f"bank/{name}", x), self.on(f"lengths/{name}", x))
            columns.append(dimension(nearest(far, self.k)))
        return torch.stack(columns, 1)

    def represent_published(self, clean: Table, attacked: Table) -> tuple[Tensor, Tensor]:
        """In batches of ``batch`` images in their order: both the clean and the attacked ones are compared with the
        clean batch, that holds the clean image itself and the attacked one's twin, and the nearest is dropped.

        Images that fill no whole batch join the last one. InputError where there are not as many of both.
        """
        count = len(clean[LOGITS])
        if len(attacked[LOGITS]) != count:
            raise InputError(f"LID as published compares twins: {count} clean, {len(attacked[LOGITS])} attacked images")
        if count <= self.k + 1:
            raise InputError(f"LID looks for {self.k} neighbours among {count} images; give more")
        layers = self.reads(clean)
        starts = [i * self.batch for i in range(max(1, count // self.batch))]
        sides: tuple[list[Tensor], list[Tensor]] = ([], [])
        for start, end in zip(starts, [*starts[1:], count], strict=True):
            for side, table in zip(sides, (clean, attacked), strict=True):
                columns = []
                for name in layers:
                    bank = clean[name][start:end].double()
                    far = squared(table[name][start:end].double(), bank, bank.mean(0))
                    columns.append(dimension(nearest(far, self.k + 1, skipped=1)))
                side.append(torch.stack(columns, 1))
        return torch.cat(sides[0]), torch.cat(sides[1])

    def make_rule(self, supervised: bool) -> Rule:  # noqa: ARG002
        return Logistic()


def nearest(far: Tensor, k: int, skipped: int = 0) -> Tensor:
    """(n, k - skipped) of squared distances (n, m): the k smallest of each row but the first few, the largest last."""
    if far.requires_grad or far.device.type != "cpu":
        return far.topk(k, largest=False, sorted=True).values[:, skipped:]
    # numpy's partition takes a fraction of the time; it puts these places right and leaves those between in any order
    places = [*range(skipped), k - 1]
    found = np.partition(far.detach().numpy(), places, axis=1)[:, skipped:k]
    return torch.from_numpy(np.ascontiguousarray(found))


def dimension(near: Tensor) -> Tensor:
    """(n,): dimension from squared distances (n, k) to the k nearest neighbours, the k-th last; differentiable.

    (k - 2) / sum of log(r_k / r_i): the maximum-likelihood estimate of Amsaleg et al. 2015 (KDD), freed of its bias
    (Levina & Bickel 2004, NIPS 17). The published code has k instead of k - 2; no order between images changes.
    """
    k = near.shape[1]
    # a neighbour at distance 0 is a copy; it counts as very near, the dimension as small
    tiny = torch.finfo(near.dtype).tiny
    logs = 0.5 * near.clamp_min(tiny).log()
    spread = k * logs[:, -1] - logs.sum(1)
    return (k - 2) / spread.clamp_min(1e-12)
