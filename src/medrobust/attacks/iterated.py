"""Steps along the gradient inside a ball: FGSM, BIM, MI-FGSM, PGD and CW-Linf.

A step's length is a fraction of eps, as in the studies of medical images (Ma et al. 2020, arXiv:1907.10456).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from medrobust.attacks.attack import Attack, Batch, ModelOutput, State
from medrobust.errors import InputError
from medrobust.heads import Head
from medrobust.images import Images, Logits, PerImage
from medrobust.threat import Ball, Goal, Linf, cross_entropy, margin
from medrobust.threat.goals import Loss


class _Iterated(Attack):
    """images + step * eps * the steepest direction, brought back into the ball and into [0, 1]."""

    can_warm_start = True

    def __init__(self, steps: int, step: float | None, restarts: int = 1) -> None:
        if steps < 1 or restarts < 1:
            raise InputError(f"steps and restarts must be at least 1, got {steps} and {restarts}")
        if step is not None and not step > 0:
            raise InputError(f"step is a positive fraction of eps, got {step}")
        self.steps, self.step_size, self.restarts = steps, step, restarts

    def start(self, batch: Batch) -> tuple[Images, State]:
        if not self.random_start:
            return batch.origin.clone(), {}
        return batch.ball.move(batch.origin, batch.origin + batch.ball.eps * batch.draw("start")), {}

    def step(self, images: Images, output: ModelOutput, batch: Batch, state: State) -> Images:
        direction = batch.ball.ascent(self.direction(output, state))
        return batch.ball.move(batch.origin, images + self.length(batch.ball) * batch.ball.eps * direction)

    def length(self, ball: Ball) -> float:
        """Of one step, as a fraction of eps."""
        if self.step_size is not None:
            return self.step_size
        return (2.0 if isinstance(ball, Linf) else 2.5) / self.steps

    def direction(self, output: ModelOutput, state: State) -> Images:  # noqa: ARG002 (momentum lives in the state)
        assert output.gradient is not None
        return output.gradient


class FGSM(_Iterated):
    """One step of eps along the gradient of the cross-entropy (Goodfellow et al. 2015, arXiv:1412.6572)."""

    title = "FGSM"
    source = "Goodfellow et al. 2015, arXiv:1412.6572"

    def __init__(self) -> None:
        super().__init__(steps=1, step=1.0)


class BIM(_Iterated):
    """FGSM in small steps, no random start (Kurakin et al. 2017, arXiv:1607.02533).

    step: length of one step as a fraction of eps; 1/steps when not given, so that the steps just reach the edge.
    """

    title = "BIM"
    source = "Kurakin et al. 2017, arXiv:1607.02533"

    def __init__(self, steps: int = 20, step: float | None = None) -> None:
        super().__init__(steps, 1 / max(steps, 1) if step is None else step)


class PGD(_Iterated):
    """Projected gradient descent from a random start in the ball (Madry et al. 2018, arXiv:1706.06083).

    step: length of one step as a fraction of eps. When not given, 2/steps for Linf (eps/10 at 20 steps, as Ma et al.
        2020) and 2.5/steps for L2 (Madry's), where a start at a right angle has to turn all the way.
    restarts: further random starts for the images that resist; worst case per image.
    """

    title = "PGD"
    source = "Madry et al. 2018, arXiv:1706.06083"
    random_start = True

    def __init__(
        self, steps: int = 20, step: float | None = None, restarts: int = 1, loss: Loss = cross_entropy
    ) -> None:
        super().__init__(steps, step, restarts)
        if loss is not cross_entropy:
            self.loss = loss


class MIFGSM(_Iterated):
    """BIM with momentum over L1-normalised gradients (Dong et al. 2018, arXiv:1710.06081).

    decay: share of the old direction that is kept; 0 gives BIM.
    """

    title = "MI-FGSM"
    source = "Dong et al. 2018, arXiv:1710.06081"

    def __init__(self, steps: int = 20, step: float | None = None, decay: float = 1.0) -> None:
        super().__init__(steps, 1 / max(steps, 1) if step is None else step)
        if not decay >= 0:
            raise InputError(f"decay must not be negative, got {decay}")
        self.decay = decay

    def start(self, batch: Batch) -> tuple[Images, State]:
        return batch.origin.clone(), {"momentum": torch.zeros_like(batch.origin)}

    def direction(self, output: ModelOutput, state: State) -> Images:
        assert output.gradient is not None
        length = output.gradient.flatten(1).abs().sum(1).view(-1, 1, 1, 1)
        unit = output.gradient / torch.where(length > 0, length, torch.ones_like(length))
        momentum: Images = self.decay * state["momentum"] + unit
        state["momentum"] = momentum
        return momentum


class CWLinf(_Iterated):
    """Carlini & Wagner's margin loss in sign steps inside the ball (arXiv:1608.04644; steps as Ma et al. 2020).

    Ascends -relu(gap + kappa), gap the label's logit over the best other: it pushes until that other leads by kappa.
    """

    title = "CW"
    source = "Carlini & Wagner 2017, arXiv:1608.04644; as in Ma et al. 2020, arXiv:1907.10456"

    def __init__(self, steps: int = 20, step: float | None = None, kappa: float = 100.0) -> None:
        super().__init__(steps, 2 / max(steps, 1) if step is None else step)
        if not kappa >= 0:
            raise InputError(f"kappa must not be negative, got {kappa}")
        self.kappa = kappa
        self.loss = self.confident_margin

    @property
    def ceiling(self) -> Callable[[Goal, Head, Logits], PerImage | None]:
        return margin

    def confident_margin(self, goal: Goal, head: Head, logits: Logits) -> PerImage:
        """-relu(kappa - margin): flat once the goal is reached by kappa logits."""
        return -(self.kappa - goal.margin(head, logits)).relu()
