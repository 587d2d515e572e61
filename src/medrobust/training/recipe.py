"""How to train: every setting in one checked value, so that a run can be named by it and written down."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from medrobust.errors import InputError
from medrobust.heads import head_named
from medrobust.training.augment import Augment

OPTIMISERS = ("sgd", "adamw")
RATES = {("sgd", False): 0.02, ("sgd", True): 0.01, ("adamw", False): 1e-3, ("adamw", True): 3e-4}
"""Default peak learning rate by (optimiser, pretrained); measured, see docs/add-a-model.md."""
DECAY = {"sgd": 5e-4, "adamw": 0.05}
"""Default weight decay by optimiser."""
WARM_UP = 0.1
"""Share of the steps over which the learning rate rises; BatchNorm and momentum start from nothing."""

MATCHED = 0.01
"""Tolerance in balanced accuracy: one standard error at 80 % on 1,600 validation images, less than that on fewer."""


@dataclass(frozen=True)
class Recipe:
    """lr: peak learning rate, reached after a tenth of the steps, then falling to 0 along a half cosine.

    optimiser: "sgd" (Nesterov momentum 0.9, as both papers) or "adamw" (Loshchilov & Hutter 2019).
    weight_decay: on weights of two or more axes only, not on biases and BatchNorm.
    patience: stop after so many epochs without a better validation score; None never stops early.
    freeze: share of the layers, from the input on, that stay as they are; in [0, 1).
    target: None keeps the best epoch; else the one whose validation balanced accuracy is nearest to it is kept, and the
        training ends at the first that is within MATCHED of it: networks can then be compared at matched accuracy.
    balance: every class is seen equally often; of several findings, presence and absence of each weigh the same.
    """

    epochs: int
    lr: float
    batch: int
    optimiser: str
    weight_decay: float
    augment: Augment | None
    patience: int | None
    freeze: float
    head: str
    target: float | None = None
    balance: bool = True

    @classmethod
    def filled(
        cls,
        pretrained: bool,
        epochs: int,
        lr: float | None,
        batch: int,
        optimiser: str,
        weight_decay: float | None,
        augment: bool | Augment,
        *rest: Any,
    ) -> Recipe:
        """With the defaults of the optimiser for None, and ``Augment()`` for True. rest: the fields after augment."""
        rate = RATES.get((optimiser, pretrained), 0.0) if lr is None else lr
        decay = DECAY.get(optimiser, 0.0) if weight_decay is None else weight_decay
        changes = (Augment() if augment else None) if isinstance(augment, bool) else augment
        return cls(epochs, rate, batch, optimiser, decay, changes, *rest)

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise InputError(f"optimiser must be {' or '.join(OPTIMISERS)}, got {self.optimiser!r}")
        if self.epochs < 1:
            raise InputError(f"epochs must be 1 or more, got {self.epochs}")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise InputError(f"lr must be a positive number such as 0.01, got {self.lr}")
        if self.batch < 2:
            raise InputError(f"batch must be 2 or more (BatchNorm needs company), got {self.batch}")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise InputError(f"weight_decay must be 0 or more, got {self.weight_decay}")
        if self.patience is not None and self.patience < 1:
            raise InputError(f"patience must be 1 epoch or more, or None, got {self.patience}")
        if not 0 <= self.freeze < 1:
            raise InputError(f"freeze must be a share of the layers in [0, 1), got {self.freeze}")
        if self.target is not None and not 0 < self.target <= 1:
            raise InputError(f"target must be a balanced accuracy in (0, 1], or None, got {self.target}")
        head_named(self.head)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step 0 <= step < steps."""
        done = (step + 0.5) / steps
        if done < WARM_UP:
            return self.lr * done / WARM_UP
        return self.lr * 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))

    def frozen(self, net: nn.Module) -> list[nn.Module]:
        """The layers that stay as they are: the first ``freeze`` of those with weights, never all of them."""
        layers = [m for m in net.modules() if next(m.parameters(recurse=False), None) is not None]
        return layers[: min(int(self.freeze * len(layers)), len(layers) - 1)]

    def optimise(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser over ``parameters``; its learning rate is set at every step.

        Its update runs in one pass over the weights (``fused``): one by one, AdamW took a sixth of a ResNet-18's step
        at 64 px.
        """
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        if self.optimiser == "sgd":
            return torch.optim.SGD(groups, lr=self.lr, momentum=0.9, nesterov=True, fused=True)
        return torch.optim.AdamW(groups, lr=self.lr, fused=True)

    def rank(self, scores: Mapping[str, float]) -> tuple[float, float]:
        """The rank of an epoch by its validation scores; the epoch of the highest is kept.

        Balanced accuracy decides, of several findings their mean AUROC (thresholds are chosen afterwards); a small
        split ties often, and then the loss does.
        """
        several = self.target is None and head_named(self.head).multilabel
        reached = scores["auroc" if several else "balanced_accuracy"]
        return (reached if self.target is None else -abs(reached - self.target)), -scores["loss"]

    def enough(self, scores: Mapping[str, float]) -> bool:
        """Whether an epoch's validation scores meet the target, if there is one."""
        return self.target is not None and abs(scores["balanced_accuracy"] - self.target) <= MATCHED

    def plain(self) -> dict[str, object]:
        """As JSON."""
        return asdict(self)
