"""Retraining on universal perturbations (Moosavi-Dezfooli et al. 2017, arXiv:1610.08401; Hirano et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medrobust import seeds
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.images import Images, Labels
from medrobust.threat import Ball, Goal
from medrobust.training import Adversary
from medrobust.universal.defence.hardening import Defence, digest
from medrobust.universal.perturbation import Universal


class Retraining(Defence):
    """Add one of the perturbations made against the current classifier to a random half of the images; train; repeat.

    rounds, epochs, perturbations, limit, lr: see Defence. share: of the images of an epoch that get a perturbation,
    after augmentation. remember: draw from the perturbations of all rounds so far, not of the last alone; both papers
    use the last alone, and a network can forget the older ones.
    """

    title = "Retraining"
    source = "Moosavi-Dezfooli et al. 2017, arXiv:1610.08401"

    def __init__(
        self,
        rounds: int = 5,
        epochs: int = 5,
        perturbations: int = 10,
        limit: int | None = 300,
        lr: float | None = None,
        share: float = 0.5,
        remember: bool = False,
    ) -> None:
        super().__init__(rounds, epochs, perturbations, limit, lr)
        if not 0 < share <= 1:
            raise InputError(f"share must be a share of the images in (0, 1], got {share}")
        self.share, self.remember = share, remember

    def adversary(  # what it does follows from the perturbations alone
        self,
        pools: Sequence[Sequence[Universal]],
        goal: Goal,  # noqa: ARG002
        ball: Ball,  # noqa: ARG002
        seed: int,
        before: Adversary | None,  # noqa: ARG002
    ) -> Adversary:
        used = [v for pool in (pools if self.remember else pools[-1:]) for v in pool if v.nonzero]
        return Pool(used, self.share, seed)


class Pool:
    """Adds one of these perturbations to a random ``share`` of an epoch's images, clipped to [0, 1]."""

    def __init__(self, perturbations: Sequence[Universal], share: float, seed: int) -> None:
        self.share, self.seed = share, seed
        # the first one changes nothing: what an image gets is one look-up
        self.deltas = torch.stack([torch.zeros_like(perturbations[0].delta), *(v.delta for v in perturbations)])
        self.which = torch.zeros(0, dtype=torch.int64)

    @property
    def settings(self) -> dict[str, object]:
        return {"adversary": "pool", "share": self.share, "seed": self.seed, "perturbations": digest(self.deltas[1:])}

    def begin(self, epoch: int, n: int) -> None:
        draw = seeds.generator(self.seed, "retraining", epoch)
        changed = draw.permutation(n) < round(self.share * n)
        chosen = draw.integers(1, len(self.deltas), n)
        self.which = torch.from_numpy(np.where(changed, chosen, 0))

    def before(self, images: Images, rows: np.ndarray) -> Images:
        return (images + self.deltas[self.which[torch.from_numpy(rows)]].to(images.device)).clamp(0, 1)

    def after(self, classifier: Classifier, images: Images, labels: Labels) -> None:
        pass

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        pass
