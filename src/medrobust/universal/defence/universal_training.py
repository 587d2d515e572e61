"""Universal adversarial training (Shafahi et al. 2020, arXiv:1811.11304)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medrobust import seeds
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.images import Images, Labels
from medrobust.threat import Ball, Goal, Targeted, Untargeted
from medrobust.training import Adversary
from medrobust.universal.defence.hardening import Defence, digest
from medrobust.universal.losses import BoundedCrossEntropy
from medrobust.universal.perturbation import Universal


class UniversalTraining(Defence):
    """Each minibatch: a weight step on the images with the perturbation, then a step of the perturbation.

    About twice the cost of plain training, and no perturbations have to be made before; those made after each round
    only judge. rounds, epochs, perturbations, limit, lr: see Defence; the perturbation goes on from round to round.
    share: of the images of an epoch that get it; 1 as published. step: length of its step, as a fraction of eps.
    beta: bound of its cross-entropy.
    """

    title = "Universal adversarial training"
    source = "Shafahi et al. 2020, arXiv:1811.11304"

    def __init__(
        self,
        rounds: int = 5,
        epochs: int = 5,
        perturbations: int = 3,
        limit: int | None = 300,
        lr: float | None = None,
        share: float = 1.0,
        step: float = 0.2,
        beta: float = 9.0,
    ) -> None:
        super().__init__(rounds, epochs, perturbations, limit, lr)
        if not 0 < share <= 1:
            raise InputError(f"share must be a share of the images in (0, 1], got {share}")
        if not (step > 0 and beta > 0):
            raise InputError(f"step and beta must be positive, got {step} and {beta}")
        self.share, self.step, self.beta = share, step, beta

    def adversary(
        self, pools: Sequence[Sequence[Universal]], goal: Goal, ball: Ball, seed: int, before: Adversary | None
    ) -> Adversary:
        start = before.delta if isinstance(before, Climber) else torch.zeros_like(pools[0][0].delta)
        return Climber(start, goal, ball, self.share, self.step, self.beta, seed)


class Climber:
    """One perturbation that climbs along with the training; with a target, towards that class."""

    def __init__(
        self, start: Tensor, goal: Goal, ball: Ball, share: float, step: float, beta: float, seed: int
    ) -> None:
        self.start, self.goal, self.ball, self.seed = start, goal, ball, seed
        self.share, self.step, self.loss = share, step, BoundedCrossEntropy(beta)
        self.delta = start
        self.changed = torch.zeros(0, dtype=torch.bool)

    @property
    def settings(self) -> dict[str, object]:
        target = int(self.goal.labels) if isinstance(self.goal, Targeted) else None
        return {
            "adversary": "climber",
            "share": self.share,
            "step": self.step,
            "beta": self.loss.beta,
            "seed": self.seed,
            "norm": self.ball.name,
            "eps": float(self.ball.eps),
            "target": target,
            "start": digest(self.start),
        }

    def begin(self, epoch: int, n: int) -> None:
        order = seeds.generator(self.seed, "universal training", epoch).permutation(n)
        self.changed = torch.from_numpy(order < round(self.share * n))

    def before(self, images: Images, rows: np.ndarray) -> Images:
        changed = self.changed[torch.from_numpy(rows)].to(images.device).view(-1, 1, 1, 1)
        return torch.where(changed, (images + self.delta.to(images.device)).clamp(0, 1), images)

    def after(self, classifier: Classifier, images: Images, labels: Labels) -> None:
        # in evaluation mode, as an attacker meets the network; all images, for one perturbation is for all of them
        goal = self.goal if isinstance(self.goal, Targeted) else Untargeted(labels)
        goal = goal.prepare(classifier.head, len(classifier.classes), images.shape[0], images.device)
        with classifier.borrowed(), torch.enable_grad():
            delta = self.delta.to(images.device, copy=True).requires_grad_()
            logits = classifier((images + delta).clamp(0, 1)).double()
            (gradient,) = torch.autograd.grad(self.loss(goal, classifier, logits).sum(), delta)
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)[None]
        stepped = delta.detach()[None] + self.step * float(self.ball.eps) * self.ball.ascent(gradient)
        self.delta = self.ball.project(stepped)[0].cpu()

    def tensors(self) -> dict[str, Tensor]:
        return {"delta": self.delta}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.delta = tensors.get("delta", self.start)
