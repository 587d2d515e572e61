"""Local intrinsic dimensionality of the features (Ma et al. 2018, arXiv:1801.02613)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medrobust import seeds
from medrobust.detectors.detector import Detector, filled
from medrobust.detectors.distances import squared, squared_to
from medrobust.detectors.features import LOGITS, LayerFeatures
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
    block = 1024  # next to a bank of 100 images the calls into torch would outweigh what they compute

    def __init__(self, k: int = 20, batch: int = 100, layers: Sequence[str] | None = None) -> None:
        if not 3 <= k < batch:
            raise InputError(f"k must lie between 3 and batch - 1 = {batch - 1}, got {k}")
        super().__init__(layers)
        self.k, self.batch = k, batch
        self._singles: dict[str, Bank] = {}
        """The reference images in float32, by layer; made when first scored."""

    def learn(self, bank: LayerFeatures, classes: Tensor, seed: int) -> None:  # noqa: ARG002
        count = len(bank[LOGITS])
        if count <= self.k:
            raise InputError(f"LID looks for {self.k} neighbours among {count} reference images; give more")
        order = seeds.generator(seed, "LID reference").permutation(count)[: self.batch]
        index = torch.from_numpy(order.copy()).sort().values
        self._singles = {}
        for name in self.layers_:
            points = bank[name].double().cpu()[index]
            centre = points.mean(0).float().double()  # so that float32 rows less the centre lose no digits to it
            self.arrays_[f"bank/{name}"] = points - centre
            self.arrays_[f"lengths/{name}"] = ((points - centre) ** 2).sum(1)
            self.arrays_[f"centre/{name}"] = centre

    def represent(self, table: LayerFeatures, predicted: Tensor) -> Tensor:  # noqa: ARG002
        columns = []
        for name in self.layers_:
            x = table[name].double()
            centred = x - self.on(f"centre/{name}", x)
            far = squared_to(centred, self.on(f"bank/{name}", x), self.on(f"lengths/{name}", x))
            columns.append(dimension(nearest(far, self.k)))
        return torch.stack(columns, 1)

    def represent_block(self, table: LayerFeatures, predicted: Tensor) -> Tensor:
        """In float32 where the rows allow it, see ``quick_dimension``."""
        if next(iter(table.values())).device.type != "cpu":
            return self.represent(table, predicted)
        columns, doubted = [], []
        for name in self.layers_:
            if name not in self._singles:
                points, centre = self.arrays_[f"bank/{name}"], self.arrays_[f"centre/{name}"]
                self._singles[name] = Bank(points.float()[None], centre.float())
            number, sure = quick_dimension(table[name].float()[None], self._singles[name], self.k)
            columns.append(number[0])
            doubted.append(~sure[0])
        dimensions, doubt = torch.stack(columns, 1), torch.stack(doubted, 1)
        again = doubt.any(1).nonzero()[:, 0]
        for some in again.split(CHECKED) if len(again) else ():
            whole = self.represent({name: filled(table[name][some], CHECKED) for name in self.layers_}, predicted)
            dimensions[some] = torch.where(doubt[some], whole[: len(some)], dimensions[some])
        return dimensions

    def represent_published(self, clean: LayerFeatures, attacked: LayerFeatures) -> tuple[Tensor, Tensor]:
        """In batches of ``batch`` images in their order: both the clean and the attacked ones are compared with the
        clean batch, that holds the clean image itself and the attacked one's copy, and the nearest is dropped.

        Images that fill no whole batch join the last one. InputError where there are not as many of both.
        """
        count = len(clean[LOGITS])
        if len(attacked[LOGITS]) != count:
            raise InputError(f"LID as published compares pairs: {count} clean, {len(attacked[LOGITS])} attacked images")
        if count <= self.k + 1:
            raise InputError(f"LID looks for {self.k} neighbours among {count} images; give more")
        layers = self.reads(clean)
        # all batches but the last are of one size, and go together, some at a time
        last = max(count // self.batch - 1, 0) * self.batch
        pieces = [(i, min(i + TOGETHER * self.batch, last)) for i in range(0, last, TOGETHER * self.batch)]
        sides: list[list[Tensor]] = [[], []]
        for start, end in [*pieces, (last, count)]:
            size = self.batch if end <= last else end - start
            columns: list[list[Tensor]] = [[], []]
            for name in layers:
                bank = clean[name][start:end].unflatten(0, (-1, size))
                for side, table in zip(columns, (clean, attacked), strict=True):
                    side.append(among(table[name][start:end].unflatten(0, (-1, size)), bank, self.k + 1).flatten())
            for side, dimensions in zip(sides, columns, strict=True):
                side.append(torch.stack(dimensions, 1))
        return torch.cat(sides[0]), torch.cat(sides[1])

    def make_rule(self, supervised: bool) -> Rule:  # noqa: ARG002
        return Logistic()


TOGETHER = 16
"""Batches as published that are computed at once."""
CHECKED = 64
"""Rows that go to float64 at once, filled up: a row's number must not depend on how many need it."""
NARROW = 256
"""Columns that numpy sorts faster than it partitions."""
SURE = 1e-4
"""A share of its number that rounding in float32 may take from an image's dimension; beyond it float64 is used."""
ROUNDING = 4 * torch.finfo(torch.float32).eps
"""Rounding error of a squared distance by one product, as a share of the two rows' own lengths squared."""


class Bank:
    """Images to look for neighbours among, ready for a product in float32.

    points: (b, m, d) less their centre; centre: (d,) or (b, 1, d).
    """

    def __init__(self, points: Tensor, centre: Tensor) -> None:
        self.centre = centre
        self.points = points.transpose(1, 2)
        self.lengths = torch.linalg.vecdot(points, points)[:, None]
        self.longest = self.lengths.amax(2)


def quick_dimension(rows: Tensor, bank: Bank, k: int, skipped: int = 0) -> tuple[Tensor, Tensor]:
    """Float64 dimensions (b, n) of float32 rows (b, n, d) in float32, and which of them are right to ``SURE``.

    What rounding can do is bounded row by row from the lengths of the rows and the distances found; it grows where
    neighbours are near next to the spread of the images, or all as far away (a dimension in the hundreds).
    """
    rows = rows - bank.centre
    own = torch.linalg.vecdot(rows, rows)
    far = torch.baddbmm(bank.lengths, rows, bank.points, alpha=-2)
    # from here in numpy, on one thread: for so few numbers waking the others takes longer than the work.
    # A row's own length moves all its distances alike, so it is added to the k nearest alone.
    lengths = own.numpy()
    near = nearest(far.flatten(0, 1), k, skipped).numpy().reshape(*lengths.shape, -1)
    near += lengths[..., None]
    kept, last = near.shape[2], near[..., -1].copy()
    with np.errstate(all="ignore"):  # copies: distances of 0 and below
        near /= last[..., None]
        wrong = 0.5 * ROUNDING * (lengths + bank.longest.numpy()) * (np.reciprocal(near).sum(2) + kept) / last
        spread = -0.5 * np.log(near, out=near).sum(2)
        sure = (wrong >= 0) & (wrong <= SURE * spread) & (spread < np.inf)  # False for NaN
        dimension = (kept - 2) / spread.astype(np.float64)
    return torch.from_numpy(dimension), torch.from_numpy(sure)


def among(rows: Tensor, bank: Tensor, k: int) -> Tensor:
    """Float64 (b, n): dimensions of rows (b, n, d) among a bank (b, m, d) each, the nearest of k neighbours dropped."""
    if rows.device.type == "cpu":
        centre = bank.float().mean(1, keepdim=True)
        dimensions, sure = quick_dimension(rows.float(), Bank(bank.float() - centre, centre), k, skipped=1)
    else:
        dimensions, sure = (
            rows.new_zeros(rows.shape[:2], dtype=torch.float64),
            rows.new_zeros(rows.shape[:2], dtype=torch.bool),
        )
    for i in (~sure).any(1).nonzero()[:, 0].tolist():
        whole = bank[i].double()
        far = squared(rows[i].double(), whole, whole.mean(0))
        dimensions[i] = torch.where(sure[i], dimensions[i], dimension(nearest(far, k, skipped=1)))
    return dimensions


def nearest(far: Tensor, k: int, skipped: int = 0) -> Tensor:
    """(n, k - skipped) of squared distances (n, m): the k smallest of each row but the first few, the largest last."""
    if far.requires_grad or far.device.type != "cpu":
        return far.topk(k, largest=False, sorted=True).values[:, skipped:]
    values = far.detach().numpy()
    if values.shape[1] <= NARROW:
        distances = np.sort(values, axis=1)[:, :k]
    else:  # numpy's partition puts the last place right and leaves those before in any order
        distances = np.partition(values, k - 1, axis=1)[:, :k]
        if skipped:
            distances.sort(axis=1)
    return torch.from_numpy(np.ascontiguousarray(distances[:, skipped:]))


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
