"""Adversarial training with a BatchNorm of their own for clean and for attacked images (Han et al. 2021).

Clean and attacked images differ in the means and variances that BatchNorm normalises by; one set for both fits neither
(Xie et al. 2020, arXiv:1911.09665).
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from medrobust.errors import InputError
from medrobust.images import Images, Logits
from medrobust.threat import Ball
from medrobust.training.adversarial.method import Minibatch
from medrobust.training.adversarial.pgd import PGDTraining

if TYPE_CHECKING:
    from medrobust.training.trainer import Trainer

CLEAN, ATTACKED = "clean", "attacked"


class DualNorm(nn.Module):
    """Two BatchNorms in the place of one, with weights and statistics of their own. active: which is used."""

    def __init__(self, norm: nn.Module, active: str) -> None:
        super().__init__()
        self.clean, self.attacked = norm, copy.deepcopy(norm)
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.chosen(x)
        return out

    @property
    def chosen(self) -> nn.Module:
        return self.clean if self.active == CLEAN else self.attacked


@contextlib.contextmanager
def using(net: nn.Module, active: str) -> Iterator[None]:
    """Every DualNorm of ``net`` with that set, and afterwards with the one before."""
    duals = [module for module in net.modules() if isinstance(module, DualNorm)]
    before = [dual.active for dual in duals]
    try:
        for dual in duals:
            dual.active = active
        yield
    finally:
        for dual, was in zip(duals, before, strict=True):
            dual.active = was


class DualNormTraining(PGDTraining):
    """Cross-entropy of clean images through their BatchNorm and of attacked ones through theirs, each half.

    test: which of the two the trained network keeps, "attacked" (meant to be harder to fool) or "clean" (meant to be
    more accurate where nobody attacks); validation uses the same. See AdversarialTraining. InputError for a network
    without BatchNorm.
    """

    title = "Adversarial training with dual BatchNorm"
    source = "Han et al. 2021, Nat Commun 12:4315"
    folds = False  # which of the two a layer uses changes within a step

    def __init__(self, ball: Ball, steps: int = 7, step: float = 0.25, awp: float = 0.0, test: str = ATTACKED) -> None:
        super().__init__(ball, steps, step, awp)
        if test not in (CLEAN, ATTACKED):
            raise InputError(f"test must be {CLEAN} or {ATTACKED}, the BatchNorm that is kept, got {test!r}")
        self.test = test

    @property
    def settings(self) -> dict[str, object]:
        return {**super().settings, "test": self.test}

    def check(self, net: nn.Module) -> None:
        if not any(isinstance(module, _BatchNorm) for module in net.modules()):
            raise InputError(
                f"dual BatchNorm needs a network with BatchNorm, and {type(net).__name__} has none: choose --method pgd"
            )

    def prepare(self, net: nn.Module) -> None:
        self.check(net)
        made: dict[nn.Module, DualNorm] = {}  # one that stands in two places stays one
        for parent in list(net.modules()):
            for name, norm in list(parent.named_children()):
                if isinstance(norm, _BatchNorm):
                    setattr(parent, name, made.setdefault(norm, DualNorm(norm, self.test)))

    def finish(self, net: nn.Module) -> None:
        for parent in list(net.modules()):
            for name, dual in list(parent.named_children()):
                if isinstance(dual, DualNorm):
                    setattr(parent, name, dual.chosen)

    def attacked(self, trainer: Trainer, batch: Minibatch) -> Images:
        with using(trainer.clf.net, ATTACKED):
            return super().attacked(trainer, batch)

    def loss(self, trainer: Trainer, batch: Minibatch, attacked: Images) -> tuple[Tensor, Logits]:
        with using(trainer.clf.net, CLEAN):
            clean = batch.choices.cross_entropy(trainer.logits(batch.images))
        with using(trainer.clf.net, ATTACKED):
            under_attack, logits = super().loss(trainer, batch, attacked)
        return (clean + under_attack) / 2, logits
