"""The fewest pixels whose change by one stored level changes the decision.

Greedy by the gradient, which is taken anew after a share of the moves; then pixels that are not needed go back, and
half of the rest is chosen anew. For a linear network of two classes the result is the optimum: the pixels with the
largest weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medrobust import stats
from medrobust.attacks.engine import run
from medrobust.attacks.iterated import PGD
from medrobust.attacks.moves import Moves, Search
from medrobust.classifier import Classifier
from medrobust.images import Images, PerImage
from medrobust.seeds import Id
from medrobust.threat import Goal, Linf

SHARES = 8
"""Gradients over which the moves that a linear network would need are spread; twice as many where they do not do."""
AGAIN = 2
"""How often half of the pixels is chosen anew."""
PRUNED = 3
"""Gradients by which pixels that are not needed are chosen, at most."""


@dataclass(frozen=True)
class Sparsest:
    """A pixel counts once, however many of its channels change; each channel changes by at most one level."""

    levels: int
    images: Images
    """Of whole levels; as they were where nothing was found."""
    pixels: PerImage
    """float32 (n,): how many pixels change; 0 where the goal was reached before, infinity where no change was found."""
    one_shot: PerImage
    """The same for the pixels with the largest gradient at the image itself, in that order: what a search must beat."""
    gradients: Tensor
    """int64 (n,): gradient evaluations spent."""
    forwards: Tensor
    """int64 (n,): forward passes spent without a gradient."""
    groups: tuple[object, ...] | None = None

    def within(self, pixels: int) -> stats.Estimate:
        """Of the images not reached before, the share reached by at most so many pixels, with its 95 % interval."""
        open_ = (self.pixels > 0).numpy()
        return stats.proportion((self.pixels <= pixels).numpy()[open_], stats.members(self.groups, open_))

    @property
    def median(self) -> stats.Estimate:
        """Median number of pixels of the images not reached before; infinite where most were not reached."""
        open_ = (self.pixels > 0).numpy()
        return stats.median(self.pixels.double().numpy()[open_], stats.members(self.groups, open_))


def sparsest(
    classifier: Classifier,
    images: Images,
    goal: Goal,
    levels: int,
    *,
    movable: Tensor | None = None,
    seed: int = 0,
    ids: Sequence[Id] | None = None,
    groups: Sequence[object] | None = None,
) -> Sparsest:
    """Change as few pixels of each image (n, c, h, w) as can be found by one level of 1 / ``levels``.

    movable: bool (n, 1, h, w), pixels that may change; all if not given. Pixels are sought where PGD inside one level,
    or one step, reaches the goal; where greedy moves do not, what is not needed of PGD's change goes back. groups: a
    patient for each image. The search is done on ``Classifier.fast``, and again on the network where it disagrees.
    """
    stored = classifier.stored(levels)
    stored.ready(images)
    images, every = stored.as_stored(images), torch.arange(len(images))
    goal = goal.prepare(stored.head, len(stored.classes), len(images), images.device)
    movable = stored.attackable.movable(images).all(1, keepdim=True) if movable is None else movable
    names = list(range(len(images))) if ids is None else list(ids)
    search = _Search(stored.fast(images.shape), goal, images, movable)
    one_shot = search.every(seed, names)
    reached, _ = _Search(stored, goal, images, movable).ask(search.best, every)
    if (wrong := (torch.isfinite(search.pixels) != reached).nonzero()[:, 0]).numel():
        again = _Search(stored, goal.take(wrong), images[wrong], movable[wrong])
        one_shot[wrong] = again.every(seed, [names[i] for i in wrong.tolist()])
        search.best[wrong], search.pixels[wrong] = again.best, again.pixels
        search.gradients[wrong] += again.gradients
        search.forwards[wrong] += again.forwards
    search.forwards += 1
    members = None if groups is None else tuple(groups)
    return Sparsest(levels, search.best, search.pixels, one_shot, search.gradients, search.forwards, members)


class _Search(Search):
    """``best`` and its number of changed ``pixels``: the sparsest change so far of each image."""

    def __init__(self, classifier: Classifier, goal: Goal, images: Images, movable: Tensor) -> None:
        super().__init__(classifier, goal, len(images))
        assert classifier.stored_levels is not None
        self.origin, self.levels, self.movable = images, classifier.stored_levels, movable
        self.best, self.pixels = images.clone(), torch.full((len(images),), torch.inf)

    def every(self, seed: int, ids: Sequence[Id]) -> PerImage:
        """Search for all images; what ``one_shot`` reaches, of each."""
        with self.classifier.borrowed():
            clean = self.one_shot(torch.arange(len(self.origin)))
            one_shot = self.pixels.clone()
            dense, images = self.dense((~clean).nonzero()[:, 0], seed, ids)
            turned = torch.isfinite(one_shot)
            turned[dense] = True
            self.refine(*self.greedy((turned & ~clean).nonzero()[:, 0]))
            missed = torch.isinf(self.pixels[dense])
            self.refine(dense[missed], images[missed])
        return one_shot

    def moves(self, images: Images, gradient: Images, index: Tensor) -> Moves:
        """Of whole pixels that are as they were, along the gradient."""
        free = self.movable[index] & ~self.changed(images, index)
        gain = gradient.abs().sum(1, keepdim=True) * free / self.levels
        return Moves.ranked(images, gradient.sign() / self.levels, gain, self.levels)

    def changed(self, images: Images, index: Tensor) -> Tensor:
        """bool (m, 1, h, w): pixels that differ from the image."""
        return (images != self.origin[index]).any(1, keepdim=True)

    def keep(self, index: Tensor, images: Images, reached: Tensor) -> None:
        """Keep those that reach the goal with fewer pixels than any before."""
        pixels = self.changed(images, index).flatten(1).sum(1).float()
        fewer = reached & (pixels < self.pixels[index])
        self.best[index[fewer]], self.pixels[index[fewer]] = images[fewer], pixels[fewer]

    def one_shot(self, index: Tensor) -> Tensor:
        """The pixels with the largest gradient, in that order. bool (m,): the goal was reached before."""
        images = self.origin[index]
        clean, margin, gradient = self.slope(images, index)
        moves = self.moves(images, gradient, index)
        number = self.shortest(moves, torch.where(clean, 0, moves.needed(-margin)), index)
        self.keep(index, moves.first(number), clean | (number > 0))
        return clean

    def greedy(self, index: Tensor) -> tuple[Tensor, Images]:
        """Moves along a gradient that is taken anew after a share of them; those that reach the goal."""
        images, reached = self.origin[index], torch.zeros(len(index), dtype=torch.bool)
        going = torch.arange(len(index))
        for turn in range(2 * SHARES):
            hit, margin, gradient = self.slope(images[going], index[going])
            reached[going[hit]] = True
            moves = self.moves(images[going], gradient, index[going])
            share = (moves.needed(-margin) / max(1, SHARES - turn)).ceil().long()
            images[going] = moves.first(torch.where(hit, 0, share))
            going = going[~hit & (share > 0)]
            if not going.numel():
                break
        reached[going] = self.ask(images[going], index[going])[0]
        return index[reached], images[reached]

    def dense(self, index: Tensor, seed: int, ids: Sequence[Id]) -> tuple[Tensor, Images]:
        """PGD inside one level; those that reach the goal."""
        if not index.numel():
            return index, self.origin[index]
        names = [ids[i] for i in index.tolist()]
        origin, goal = self.origin[index], self.goal.take(index)
        done = run(PGD(), self.classifier, origin, goal, Linf(1 / self.levels), seed=seed, ids=names, fast=False)
        self.gradients[index] += done.gradients
        self.forwards[index] += done.forwards
        images = torch.where(self.movable[index], done.images, origin)
        reached, _ = self.ask(images, index)
        return index[reached], images[reached]

    def refine(self, index: Tensor, images: Images) -> None:
        """Of changes that reach the goal: take back what is not needed, then choose half of the pixels anew."""
        images = self.pruned(images, index)
        self.keep(index, images, torch.ones(len(index), dtype=torch.bool))
        for _ in range(AGAIN if index.numel() else 0):
            _, _, gradient = self.slope(images, index)
            kept = self.shares(images, gradient, index)
            half = kept.first(kept.count // 2)
            hit, margin, gradient = self.slope(half, index)
            moves = self.moves(half, gradient, index)
            number = self.shortest(moves, torch.where(hit, 0, moves.needed(-margin)), index)
            open_ = hit | (number > 0)
            index, images = index[open_], moves.first(number)[open_]
            images = self.pruned(images, index)
            self.keep(index, images, torch.ones(len(index), dtype=torch.bool))

    def pruned(self, images: Images, index: Tensor) -> Images:
        """Without the pixels that add least to the margin, as many as are not needed."""
        images = images.clone()
        going = torch.arange(len(index))
        for _ in range(PRUNED):
            if not going.numel():
                break
            _, _, gradient = self.slope(images[going], index[going])
            kept = self.shares(images[going], gradient, index[going])
            number = self.fewest(kept, kept.count, index[going])
            images[going] = kept.first(number)
            going = going[number < kept.count]
        return images

    def shares(self, images: Images, gradient: Images, index: Tensor) -> Moves:
        """From the image itself to ``images``, the pixels that add most to the margin first."""
        step = images - self.origin[index]
        gain = (step * gradient).sum(1, keepdim=True)
        lowest = gain.flatten(1).amin(1).view(-1, 1, 1, 1)
        return Moves.ranked(self.origin[index], step, (gain - lowest + 1) * self.changed(images, index), self.levels)
