"""A classifier behind a defence, as its user meets it and as an attacker who knows the defence goes through it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.images import Images, Logits


class InputDefence(ABC):
    """Turns images into the copies that the classifier reads, and their answers into one.

    random: its copies differ from call to call.
    """

    title: str
    source: str
    random = False
    hard = False
    """Whether each copy has one vote, instead of its probabilities."""
    differentiable = True
    """Whether a gradient passes; else an attacker who knows it goes back through ``followed``."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, object]:
        """Everything that it depends on, as JSON."""

    @abstractmethod
    def copies(self, images: Images, draw: torch.Generator | None = None) -> Tensor:
        """float32 (copies, n, c, h, w) in [0, 1] of images (n, c, h, w).

        draw: where a random one draws from, the same for every image; None: torch's own generator.
        """

    ways = 1
    """How many ways back ``followed`` knows; who knows the defence tries each."""

    def followed(self, images: Images, way: int = 0) -> Images:  # noqa: ARG002
        """What stands for ``copies`` on the way back where no gradient passes: first the images themselves (straight
        through), then what a defence says is closer to it."""
        return images


class _Defended(nn.Module):
    """Logits of the classifier behind the defence. known: with a gradient to follow (BPDA, Athalye et al. 2018).

    draws: seeds of the draws of a random defence whose answers are averaged; none: one fresh draw a call.
    """

    def __init__(
        self, classifier: Classifier, defence: InputDefence, known: bool, draws: Sequence[int], way: int
    ) -> None:
        super().__init__()
        self.net, self.defence, self.known, self.draws = classifier.net, defence, known, tuple(draws)
        self.way = way
        self._classifier = classifier

    def forward(self, images: Images) -> Logits:
        each = torch.stack([self._classifier(one) for one in self._copies(images)])
        if len(each) == 1:
            return each[0]
        head = self._classifier.head
        mean = head.mean(each, probable=True)
        if not self.defence.hard:
            return mean
        # one vote in a million stands for none: the logarithm of a share stays finite
        if head.multilabel:
            shares = (each > 0).float().mean(0).clamp(1e-6, 1 - 1e-6)
            voted = shares.log() - (1 - shares).log()
        else:
            voted = nn.functional.one_hot(each.argmax(-1), each.shape[-1]).float().mean(0).clamp_min(1e-6).log()
        return voted.detach() + mean - mean.detach() if self.known else voted

    def _copies(self, images: Images) -> Tensor:
        if self.defence.random and self.draws:
            generators = [torch.Generator(images.device).manual_seed(seed) for seed in self.draws]
            copies = torch.cat([self.defence.copies(images, generator) for generator in generators])
        else:
            copies = self.defence.copies(images)
        if not self.known or self.defence.differentiable:
            return copies
        back = self.defence.followed(images, self.way)
        return copies.detach() + back - back.detach()


def defended(
    classifier: Classifier, defence: InputDefence, *, known: bool = False, draws: Sequence[int] = (), way: int = 0
) -> Classifier:
    """``classifier`` behind ``defence``: a classifier of the same images, with its operating point.

    known: the same answers, with the gradient that an attacker follows who knows the defence. way: which, where the
    defence has none of its own and several stand for it (``InputDefence.ways``). draws: of a random
    defence, seeds of the draws over which probabilities are averaged, which makes it deterministic (expectation over
    transformations, Athalye et al. 2018, arXiv:1802.00420); none: a fresh draw at every call. InputError for one that
    only answers questions.
    """
    if classifier.black_box:
        raise InputError("a defence at the input is tried on a network; this classifier only answers")
    several = classifier.head.multilabel
    made = Classifier(
        _Defended(classifier, defence, known, draws, way),
        classifier.classes,
        head="multilabel" if several else "softmax",
        outputs="logits",
        channels=classifier.channels,
        size=classifier.size,
        batch_size=classifier._batch_size,
    )
    if classifier.inspection is not None:  # of the whole, nothing but the gradient is other than of the network
        follows = known or (defence.differentiable and not defence.hard)
        made.inspection = replace(classifier.inspection.of_plain(), differentiable=follows, doubts=())
    return made
