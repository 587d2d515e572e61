"""Auto-PGD: momentum, and a step that is halved for each image when it stops paying (Croce & Hein 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.attacks.attack import Attack, Batch, ModelOutput, State
from medrobust.errors import InputError
from medrobust.images import Images
from medrobust.threat import cross_entropy, margin
from medrobust.threat.goals import Loss


class APGD(Attack):
    """Parameter-free PGD (Croce & Hein 2020, arXiv:2003.01690, algorithm 1).

    loss: ``threat.cross_entropy`` or ``threat.margin``. The paper's DLR divides by a third logit, which two classes do
        not have (auto-attack#70); the difference of two logits has the same sign and works from one logit up.
    """

    title = "APGD"
    source = "Croce & Hein 2020, arXiv:2003.01690"
    random_start = True
    momentum = 0.75
    share = 0.75
    """Share of the steps since the last checkpoint that must have raised the loss for the step size to stay."""

    def __init__(self, steps: int = 100, restarts: int = 1, loss: Loss = cross_entropy) -> None:
        if steps < 1 or restarts < 1:
            raise InputError(f"steps and restarts must be at least 1, got {steps} and {restarts}")
        self.steps, self.restarts = steps, restarts
        self.loss = loss
        self.loss_name = "margin" if loss is margin else getattr(loss, "__name__", "own")
        self._checkpoints = _checkpoints(steps)

    @property
    def settings(self) -> dict[str, object]:
        return {"steps": self.steps, "restarts": self.restarts, "loss": self.loss_name}

    def start(self, batch: Batch) -> tuple[Images, State]:
        # the paper scales its start to the edge of the ball
        begin = batch.ball.move(batch.origin, batch.origin + batch.ball.eps * batch.ball.at_edge(batch.draw("start")))
        n, device = begin.shape[0], begin.device
        zero = torch.zeros(n, device=device)
        return begin, {
            "step": torch.full((n,), 2.0, device=device),
            "previous": begin.clone(),
            "best": begin.clone(),
            "best_gradient": torch.zeros_like(begin),
            "best_loss": torch.full((n,), -torch.inf, device=device),
            "last_loss": torch.full((n,), -torch.inf, device=device),
            "rises": zero.clone(),
            "checkpoint_loss": torch.full((n,), -torch.inf, device=device),
            "kept": torch.zeros(n, dtype=torch.bool, device=device),
        }

    def step(self, images: Images, output: ModelOutput, batch: Batch, state: State) -> Images:
        assert output.gradient is not None
        gradient, wide = output.gradient, (-1, 1, 1, 1)
        loss = output.loss.nan_to_num(-torch.inf)
        first = batch.index == 0
        better = loss > state["best_loss"]
        state["best"] = torch.where(better.view(wide), images, state["best"])
        state["best_gradient"] = torch.where(better.view(wide), gradient, state["best_gradient"])
        state["best_loss"] = torch.where(better, loss, state["best_loss"])
        state["rises"] = state["rises"] + ((loss > state["last_loss"]) & ~first)
        state["last_loss"] = loss

        here = self._checkpoints[batch.index.cpu()].to(images.device)  # steps since the last one; 0: none here
        back = self._slow_down(here, state)
        images = torch.where(back.view(wide), state["best"], images)
        gradient = torch.where(back.view(wide), state["best_gradient"], gradient)

        stepped = images + (state["step"].view(wide) * batch.ball.eps) * batch.ball.ascent(gradient)
        stepped = batch.ball.move(batch.origin, stepped)
        # after going back, the previous point is the best itself, so that the old momentum is dropped
        previous = torch.where(back.view(wide), images, state["previous"])
        weight = torch.where(first, 1.0, self.momentum).view(wide)
        after = images + weight * (stepped - images) + (1 - weight) * (images - previous)
        state["previous"] = images
        return batch.ball.move(batch.origin, after)

    def _slow_down(self, here: Tensor, state: State) -> Tensor:
        """Halve the step of rows at a checkpoint that rose too seldom, or did not improve since the last one."""
        due = here > 0
        seldom = state["rises"] < self.share * here
        stuck = state["kept"] & (state["checkpoint_loss"] >= state["best_loss"])
        halve: Tensor = due & (seldom | stuck)
        state["step"] = torch.where(halve, state["step"] / 2, state["step"])
        state["kept"] = torch.where(due, ~halve, state["kept"])
        state["checkpoint_loss"] = torch.where(due, state["best_loss"], state["checkpoint_loss"])
        state["rises"] = torch.where(due, torch.zeros_like(state["rises"]), state["rises"])
        return halve


def _checkpoints(steps: int) -> Tensor:
    """For each step, how many steps lie since the last checkpoint if it is one, else 0 (the paper's p_j)."""
    table = torch.zeros(steps + 1)
    before, share, last = 0.0, 0.22, 0
    while share <= 1:
        at = -int(-share * steps // 1)  # ceil
        if at > last:
            table[at], last = at - last, at
        before, share = share, share + max(share - before - 0.03, 0.06)
    return table
