"""The smallest perturbation that reaches the goal: DeepFool, FMN and CW-L2.

Each starts from what a linear model would need (its margin over the length of its gradient), so that the same
settings serve a medical classifier that breaks at 0.2 grey levels and a natural one that breaks at 5.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from medrobust.attacks.attack import Attack, Batch, ModelOutput, State, evaluate, grade
from medrobust.classifier import Classifier, pad
from medrobust.errors import InputError
from medrobust.images import Images, Labels, Logits, PerImage
from medrobust.threat import L2, Untargeted, margin

WIDE = (-1, 1, 1, 1)


def _missing(output: ModelOutput, batch: Batch) -> PerImage:
    """The size of the step that would close the margin if the network were linear; 0 where the gradient is."""
    assert output.gradient is not None
    slope = batch.ball.dual_norm(output.gradient)
    return torch.where(slope > 0, output.margin.abs() / slope, torch.zeros_like(slope))


class DeepFool(Attack):
    """Newton steps to the nearest linearised boundary (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599).

    overshoot: how far beyond the boundary, as a share of the perturbation.
    candidates: how many of the likeliest other classes are tried in each step (all, up to 10 as in the paper).
    """

    title = "DeepFool"
    source = "Moosavi-Dezfooli et al. 2016, arXiv:1511.04599"
    minimal = True
    loss = staticmethod(margin)

    def __init__(self, steps: int = 50, overshoot: float = 0.02, candidates: int = 10) -> None:
        if steps < 1 or candidates < 1:
            raise InputError(f"steps and candidates must be at least 1, got {steps} and {candidates}")
        if not overshoot >= 0:
            raise InputError(f"overshoot must not be negative, got {overshoot}")
        self.steps, self.overshoot, self.candidates = steps, overshoot, candidates

    def start(self, batch: Batch) -> tuple[Images, State]:
        return batch.origin.clone(), {}

    def converged(self, output: ModelOutput) -> Tensor | None:
        return output.reached  # DeepFool's first success is its result

    def evaluate(self, classifier: Classifier, images: Images, batch: Batch, state: State) -> ModelOutput:  # noqa: ARG002
        return nearest_boundary(classifier, images, batch, self.candidates)

    def step(self, images: Images, output: ModelOutput, batch: Batch, state: State) -> Images:  # noqa: ARG002
        assert output.gradient is not None
        stride = _missing(output, batch) * (1 + 1e-4) + 1e-7
        ball = batch.ball
        reached = (images - batch.origin) / torch.where(batch.index > 0, 1 + self.overshoot, 1.0).view(WIDE)
        delta = reached + stride.view(WIDE) * ball.ascent(output.gradient)
        return (batch.origin + (1 + self.overshoot) * delta).clamp(0, 1)


def nearest_boundary(classifier: Classifier, images: Images, batch: Batch, candidates: int) -> ModelOutput:
    """Margin and gradient towards the decision whose linearised boundary is nearest, not the one with the best logit.

    A boundary leads to another class, or where findings are the decision to another answer about one of them.
    ``loss`` is minus the margin missing to that boundary; one backward pass a candidate over one forward pass.
    """
    k = len(classifier.classes)
    labels = batch.goal.labels
    assert labels is not None
    if (labels.ndim == 1 and k == 2) or k == 1 or not isinstance(batch.goal, Untargeted):
        return evaluate(classifier, images, batch.goal, margin, gradient=True)
    return boundary(classifier, images, batch, candidates)[0]


def boundary(classifier: Classifier, images: Images, batch: Batch, candidates: int) -> tuple[ModelOutput, Tensor]:
    """What ``nearest_boundary`` gives for an untargeted goal; and int64 (n,), the class or finding behind it."""
    labels = batch.goal.labels
    assert labels is not None
    k = len(classifier.classes)
    boundaries = k if labels.ndim == 2 else k - 1
    n = images.shape[0]
    padded = pad(images.detach(), classifier.fit(n, images.shape)).requires_grad_()
    with torch.enable_grad():
        every = classifier(padded)
    logits = every[:n].detach()
    gap = gaps(logits, labels)
    order = gap.argsort(dim=1, stable=True)[:, : min(candidates, boundaries)]
    best_size = torch.full((n,), torch.inf, device=images.device)
    best: ModelOutput | None = None
    behind = order[:, 0]
    for column in range(order.shape[1]):
        other = order[:, column : column + 1]
        pull = torch.zeros_like(every)
        if labels.ndim == 2:
            pull[:n] = pull[:n].scatter(1, other, (1 - 2 * labels.gather(1, other)).to(pull))
        else:
            pull[:n] = pull[:n].scatter(1, other, 1.0).scatter(1, labels[:, None], -1.0)
        (back,) = torch.autograd.grad(every, padded, pull, retain_graph=column + 1 < order.shape[1])
        missing = -gap.gather(1, other)[:, 0]
        output = grade(classifier, images, logits, batch.goal, missing, back[:n])
        assert output.gradient is not None
        slope = batch.ball.dual_norm(output.gradient)
        size = torch.where(slope > 0, missing.abs() / slope, torch.inf)
        nearer = size < best_size
        best_size, behind = torch.where(nearer, size, best_size), torch.where(nearer, other[:, 0], behind)
        best = output if best is None else _pick(nearer, output, best)
    assert best is not None
    # the margin that is still missing is the one to the boundary that was chosen
    return replace(best, margin=best.loss), behind


def gaps(logits: Logits, labels: Labels) -> Tensor:
    """(n, k): how far the logits are from each other class, or from the other answer about each finding.

    Infinite at the label itself, and at a finding whose label is unknown.
    """
    if labels.ndim == 2:
        return ((2 * labels - 1) * logits).masked_fill(labels < 0, torch.inf)
    return (logits.gather(1, labels[:, None]) - logits).scatter(1, labels[:, None], torch.inf)


def _pick(mask: Tensor, a: ModelOutput, b: ModelOutput) -> ModelOutput:
    """Loss and gradient from ``a`` where the mask says so, else from ``b``."""
    assert a.gradient is not None
    assert b.gradient is not None
    return replace(
        b,
        loss=torch.where(mask, a.loss, b.loss),
        gradient=torch.where(mask.view(WIDE), a.gradient, b.gradient),
        no_gradient=a.no_gradient & b.no_gradient,
    )


SLOWER, SLOWEST = 0.7, 0.05
"""Of an FMN that does not come nearer: by what each step is shortened, and from which share on its ball grows again."""


class FMN(Attack):
    """Fast minimum-norm attack, L2 and Linf (Pintor et al. 2021, arXiv:2102.12827).

    Each row's ball shrinks while it is fooled and grows while it is not, with steps and rates that fall along a
    half cosine. Steps are fractions of the row's current ball rather than absolute, so that one setting fits
    images that break at a thousandth and at a tenth of the pixel range. A row that has not succeeded yet and does not
    come nearer takes shorter steps before its ball grows.

    step: first step, as a fraction of the current ball; final_step: last one.
    rate: first relative change of the ball; final_rate: last one.
    """

    title = "FMN"
    source = "Pintor et al. 2021, arXiv:2102.12827"
    minimal = True
    loss = staticmethod(margin)

    def __init__(
        self,
        steps: int = 100,
        step: float = 1.0,
        final_step: float = 0.01,
        rate: float = 0.3,
        final_rate: float = 0.001,
    ) -> None:
        if steps < 1:
            raise InputError(f"steps must be at least 1, got {steps}")
        if not (step >= final_step > 0 and 1 > rate >= final_rate > 0):
            raise InputError("FMN needs step >= final_step > 0 and 1 > rate >= final_rate > 0")
        self.steps, self.first_step, self.final_step, self.rate, self.final_rate = (
            steps,
            step,
            final_step,
            rate,
            final_rate,
        )

    def start(self, batch: Batch) -> tuple[Images, State]:
        n, device = len(batch.ids), batch.origin.device
        return batch.origin.clone(), {
            "eps": torch.full((n,), torch.inf, device=device),
            "best": torch.full((n,), torch.inf, device=device),
            "margin": torch.full((n,), -torch.inf, device=device),
            "pace": torch.ones(n, device=device),
        }

    def step(self, images: Images, output: ModelOutput, batch: Batch, state: State) -> Images:
        assert output.gradient is not None
        cosine = (1 + torch.cos(math.pi * batch.index / self.steps)) / 2
        stride = self.final_step + (self.first_step - self.final_step) * cosine
        rate = self.final_rate + (self.rate - self.final_rate) * cosine
        size = batch.ball.size(images - batch.origin)
        state["best"] = torch.where(output.reached, torch.minimum(size, state["best"]), state["best"])
        succeeded = torch.isfinite(state["best"])
        wait = self._wait(output.margin, succeeded, state)
        near = torch.where(wait, state["eps"], size + _missing(output, batch) + 1e-7)
        grown = torch.where(succeeded, state["eps"] * (1 + rate), near)
        shrunk = torch.minimum(state["eps"] * (1 - rate), state["best"])
        state["eps"] = torch.minimum(torch.where(output.reached, shrunk, grown), self._largest(batch))
        ball = batch.ball.at(state["eps"])
        stepped = images + (stride * state["pace"] * state["eps"]).view(WIDE) * ball.ascent(output.gradient)
        return ball.move(batch.origin, stepped)

    @staticmethod
    def _wait(margin: Tensor, succeeded: Tensor, state: State) -> Tensor:
        """Rows whose ball stays as it is: before the first success their margin did not rise.

        A step as long as the ball then jumps from one side of it to the other, and the linear estimate of what is still
        missing would drive the ball away from the boundary: such rows take shorter steps first.
        """
        worse = ~succeeded & (margin <= state["margin"])
        state["pace"] = torch.where(worse, state["pace"] * SLOWER, state["pace"])
        state["margin"] = torch.maximum(margin.nan_to_num(-torch.inf), state["margin"])
        wait: Tensor = worse & (state["pace"] > SLOWEST)
        return wait

    @staticmethod
    def _largest(batch: Batch) -> Tensor:
        """Nothing beyond the far corner of [0, 1] is a change."""
        return batch.ball.size(torch.maximum(batch.origin, 1 - batch.origin))


class Penalty(Attack):
    """Least length + c x missing margin, in rounds, after each of which c is searched on for each image.

    rounds: values of c tried; inner: steps in each. step: in the unit of the attack.
    """

    minimal = True
    loss = staticmethod(margin)

    def __init__(self, rounds: int, inner: int, step: float) -> None:
        if rounds < 1 or inner < 2:
            raise InputError(f"rounds must be at least 1 and inner at least 2, got {rounds} and {inner}")
        if not step > 0:
            raise InputError(f"step must be positive, got {step}")
        self.rounds, self.inner, self.step_size = rounds, inner, step
        self.steps = rounds * inner

    @property
    def settings(self) -> dict[str, object]:
        return {"rounds": self.rounds, "inner": self.inner, "step": self.step_size}

    @staticmethod
    def constants(batch: Batch) -> State:
        """c, the largest that failed, the smallest that worked, and whether this round has reached its goal, (n,)."""
        number = torch.zeros(len(batch.ids), device=batch.origin.device)
        return {
            "c": number.clone(),
            "failed": number.clone(),
            "worked": torch.full_like(number, torch.inf),
            "reached": torch.zeros_like(number, dtype=torch.bool),
        }

    @staticmethod
    def next_constant(new: Tensor, state: State) -> None:
        """The weight ``c`` of the margin for the next round of the rows ``new``: smaller if the last ``reached``."""
        c, worked = state["c"], state["reached"]
        state["worked"] = torch.where(new & worked, torch.minimum(c, state["worked"]), state["worked"])
        state["failed"] = torch.where(new & ~worked, torch.maximum(c, state["failed"]), state["failed"])
        between = (state["failed"] * state["worked"]).sqrt()
        bounded = torch.isfinite(state["worked"])
        following = torch.where(bounded, torch.where(state["failed"] > 0, between, c / 4), c * 8)
        state["c"] = torch.where(new, following, c)


class CWL2(Penalty):
    """Carlini & Wagner's L2 attack: least squared length + c x missing margin (arXiv:1608.04644).

    c is searched for each image, starting from the value that is exact for a linear model. The box is kept by
    clipping, not by tanh: atanh is infinite at 0 and 1, and a medical image's black border could never move.

    rounds: values of c tried; inner: Adam steps in each (of 200 gradients, two rounds of 100 reach more than three of
    66 or four of 50 on three of four medical networks). kappa: logits by which the other decision must lead.
    step: Adam's step, as a fraction of the linear model's largest pixel change.
    """

    title = "CW-L2"
    source = "Carlini & Wagner 2017, arXiv:1608.04644"
    norms = (L2,)

    def __init__(self, rounds: int = 2, inner: int = 100, step: float = 0.2, kappa: float = 0.0) -> None:
        super().__init__(rounds, inner, step)
        if kappa < 0:
            raise InputError(f"kappa must not be negative, got {kappa}")
        self.kappa = kappa

    @property
    def settings(self) -> dict[str, object]:
        return {**super().settings, "kappa": self.kappa}

    def start(self, batch: Batch) -> tuple[Images, State]:
        return batch.origin.clone(), {
            **self.constants(batch),
            "pixel_step": torch.zeros(len(batch.ids), device=batch.origin.device),
            "first": torch.zeros_like(batch.origin),
            "second": torch.zeros_like(batch.origin),
        }

    def step(self, images: Images, output: ModelOutput, batch: Batch, state: State) -> Images:
        assert output.gradient is not None
        self._begin(output, batch, state)
        k = batch.index % self.inner
        new = (k == 0) & (batch.index > 0)
        self.next_constant(new, state)
        wide_new = new.view(WIDE)
        images = torch.where(wide_new, batch.origin, images)
        reached = output.reached & (output.margin >= self.kappa)
        state["reached"] = torch.where(new, torch.zeros_like(reached), state["reached"] | reached)

        # d/dx of |x - x0|^2 + c relu(kappa - margin); on the first step of a round x is x0 again, whose gradient
        # is not at hand: the row then only returns to x0, and moves from the next look on
        active = (output.margin < self.kappa) & ~new
        slope = 2 * (images - batch.origin) - (state["c"] * active).view(WIDE) * output.gradient
        for name, keep, power in (("first", 0.9, 1), ("second", 0.999, 2)):
            old = torch.where(wide_new, torch.zeros_like(slope), state[name])
            state[name] = torch.where(wide_new, old, keep * old + (1 - keep) * slope**power)
        count = torch.where(batch.index < self.inner, k + 1, k).clamp_min(1)
        first = state["first"] / (1 - 0.9**count).view(WIDE)
        second = state["second"] / (1 - 0.999**count).view(WIDE)
        fall = (1 + torch.cos(math.pi * k / self.inner)) / 2 * 0.99 + 0.01
        stride = (state["pixel_step"] * fall).view(WIDE)
        direction = first / (second.sqrt() + 1e-12 + 1e-3 * second.sqrt().flatten(1).amax(1).view(WIDE))
        return torch.where(wide_new, batch.origin, (images - stride * direction).clamp(0, 1))

    def _begin(self, output: ModelOutput, batch: Batch, state: State) -> None:
        """Constants and steps from the linear model at the image itself."""
        assert output.gradient is not None
        first = batch.index == 0
        square = output.gradient.flatten(1).square().sum(1).clamp_min(1e-30)
        missing = (self.kappa - output.margin).clamp_min(0)
        # at the optimum of a linear model 2 delta = c gradient, and delta = missing gradient / |gradient|^2
        state["c"] = torch.where(first, 4 * missing / square, state["c"])
        largest = missing * output.gradient.flatten(1).abs().amax(1) / square
        state["pixel_step"] = torch.where(first, self.step_size * largest, state["pixel_step"])
