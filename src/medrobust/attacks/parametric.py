"""Changes beyond small ones of every pixel: few parameters in a box, or a patch; the worst of them for each image.

A change is a function of images and parameters, and equals the image at known parameters. One search serves all:
the worst of a grid of starts, then projected sign gradient ascent on the margin from there. Without a
gradient the grid alone is searched.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from medrobust.attacks.moves import Search
from medrobust.classifier import Classifier
from medrobust.images import Images, check_images
from medrobust.seeds import Id
from medrobust.threat import Goal

Gradient = Callable[[], Images]
"""The gradient of the margin at the untouched images (n, c, h, w)."""


class ParametricChange(ABC):
    """A change of images (n, c, h, w) by parameters (n, k) between ``low`` and ``high``.

    change(classifier, images, goal, seed=0, ids=None) returns, as an attack does, for each image the first success
    found, or the strongest attempt.
    """

    title: ClassVar[str]
    source: ClassVar[str]
    low: ClassVar[float] = -1.0
    high: ClassVar[float] = 1.0
    step: ClassVar[float] = 0.25
    """The first step of the ascent."""
    steps: int

    @property
    @abstractmethod
    def range(self) -> str:
        """What the box allows, in words that a reader of a report knows: "turned by up to 15 degrees …"."""

    @abstractmethod
    def identity(self, images: Images) -> Tensor:
        """(n, k): the parameters that change nothing."""

    @abstractmethod
    def starts(self, images: Images, gradient: Gradient | None, seed: int, ids: Sequence[Id]) -> Iterator[Tensor]:
        """The grid, (n, k) each. gradient: None where there is none."""

    @abstractmethod
    def changed(self, image: Images, parameters: Tensor) -> Images:
        """One image (1, c, h, w) at parameters (k,), in [0, 1]; differentiable with respect to these."""

    @abstractmethod
    def controls(self, found: Tensor, images: Images, seed: int, ids: Sequence[Id]) -> Mapping[str, list[Tensor]]:
        """By name, parameters (n, k) that nobody optimised: what ``found`` (n, k) is compared with."""

    @abstractmethod
    def words(self, parameters: Tensor, image: Images) -> str:
        """What parameters (k,) do to an image (c, h, w): "turned by 12 degrees, moved by 3 pixels"."""

    def apply(self, images: Images, parameters: Tensor) -> Images:
        """Images at their parameters. One by one: which kernel runs, and how it rounds, depends on the shape."""
        return torch.cat([self.changed(*row) for row in zip(images.split(1), parameters, strict=True)])

    @property
    def settings(self) -> dict[str, object]:
        """Every hyper-parameter: public attributes."""
        return {k: v for k, v in sorted(vars(self).items()) if not k.startswith("_")}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.settings.items())})"

    def __call__(
        self,
        classifier: Classifier,
        images: Images,
        goal: Goal,
        *,
        seed: int = 0,
        ids: Sequence[Id] | None = None,
        full: bool = False,
    ) -> Images:
        """Changed images (n, c, h, w); see ``worst_change``."""
        return worst_change(self, classifier, images, goal, seed=seed, ids=ids, full=full).images


@dataclass(frozen=True)
class Changed:
    """The worst change found of each of n images. They are graded by ``judge``."""

    images: Images
    parameters: Tensor
    """float32 (n, k)."""
    reached: Tensor
    """bool: the search saw its goal reached."""
    margin: Tensor
    """Of the goal; > 0 where it is reached."""
    gradients: Tensor
    """int64 (n,): gradient evaluations spent."""
    forwards: Tensor
    """int64 (n,): forward passes spent without a gradient."""


def worst_change(
    change: ParametricChange,
    classifier: Classifier,
    images: Images,
    goal: Goal,
    *,
    seed: int = 0,
    ids: Sequence[Id] | None = None,
    full: bool = False,
) -> Changed:
    """The parameters with the largest margin of ``goal`` that are found for each image (n, c, h, w).

    An image is done when the goal is reached; full: it is searched to the end. An image that reaches it untouched stays
    so. The search is done on ``Classifier.fast``, and again on the network where it disagrees.
    """
    images = check_images(images)
    classifier.ready(images)
    goal = goal.prepare(classifier.head, len(classifier.classes), len(images), images.device)
    names = list(range(len(images))) if ids is None else list(ids)
    climb = _Climb(change, classifier.fast(images.shape), goal, images, full)
    climb.run(seed, names)
    reached, margin = Search(classifier, goal, len(images)).ask(climb.images, torch.arange(len(images)))
    if (wrong := (climb.reached != reached).nonzero()[:, 0]).numel():
        again = _Climb(change, classifier, goal.take(wrong), images[wrong], full)
        again.run(seed, [names[i] for i in wrong.tolist()])
        climb.images[wrong], climb.parameters[wrong] = again.images, again.parameters
        reached[wrong], margin[wrong] = again.reached, again.margin
        climb.gradients[wrong] += again.gradients
        climb.forwards[wrong] += again.forwards
    return Changed(climb.images, climb.parameters, reached, margin, climb.gradients, climb.forwards + 1)


class _Climb(Search):
    """The best parameters of each image so far, and what they give."""

    def __init__(
        self, change: ParametricChange, classifier: Classifier, goal: Goal, images: Images, full: bool
    ) -> None:
        super().__init__(classifier, goal, len(images))
        self.change, self.origin, self.full = change, images, full
        self.images, self.parameters = images.clone(), change.identity(images)
        self.reached, self.margin = self.ask(images, torch.arange(len(images)))
        self.before = self.reached.clone()

    def run(self, seed: int, ids: Sequence[Id]) -> None:
        """The grid, then the ascent where the network has a gradient."""
        every = torch.arange(len(self.origin))
        if not self.open.any():
            return
        gradient = None if self.classifier.black_box else self.clean_gradient
        for start in self.change.starts(self.origin, gradient, seed, ids):
            index = every[self.open]
            if not index.numel():
                return
            images = self.storable(self.change.apply(self.origin[index], start[index]), index)
            self.keep(index, start[index], images, *self.ask(images, index))
        if gradient is not None:  # in parts: what the way back needs of every change is kept in float64
            for index in every[self.open].split(self.classifier.batch_size(self.origin.shape)):
                self.ascend(index)

    @property
    def open(self) -> Tensor:
        """bool (n,): images that are searched further."""
        return ~(self.before if self.full else self.reached)

    def clean_gradient(self) -> Images:
        """0 where an image needs no search."""
        index, gradient = self.open.nonzero()[:, 0], torch.zeros_like(self.origin)
        gradient[index] = self.slope(self.origin[index], index)[2]
        return gradient

    def storable(self, images: Images, index: Tensor) -> Images:
        """Changes of the images ``index`` as far as files can hold them."""
        return self.classifier.as_stored(self.classifier.confined(self.origin[index], images))

    def keep(self, index: Tensor, parameters: Tensor, images: Images, reached: Tensor, margin: Tensor) -> None:
        """Keep what is better than before."""
        better = torch.where(reached == self.reached[index], margin > self.margin[index], reached)
        rows = index[better]
        self.images[rows], self.parameters[rows] = images[better], parameters[better]
        self.reached[rows], self.margin[rows] = reached[better], margin[better]

    def ascend(self, index: Tensor) -> None:
        """Along the sign of the gradient with respect to the parameters, in steps of decaying length."""
        change, parameters = self.change, self.parameters[index]
        for turn in range(change.steps + 1):
            if not index.numel():
                return
            tried = parameters.requires_grad_()
            with torch.enable_grad():
                changed = change.apply(self.origin[index], tried)
            images = self.storable(changed.detach(), index)
            reached, margin, gradient = self.slope(images, index)
            (uphill,) = torch.autograd.grad(changed, tried, gradient)
            self.keep(index, tried.detach(), images, reached, margin)
            length = change.step * (1 - turn / (change.steps + 1))
            moved = (tried.detach() + length * uphill.sign()).clamp(change.low, change.high)
            going = uphill.any(1) & self.open[index]
            index, parameters = index[going], moved[going]
