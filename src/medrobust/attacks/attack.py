"""The interface of attacks: a start and a step on a batch. The engine owns the loop and the success check."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from medrobust.attacks.attacked import Attacked
from medrobust.classifier import Classifier, pad
from medrobust.errors import InputError
from medrobust.heads import Head
from medrobust.images import Images, Logits, PerImage
from medrobust.seeds import Id
from medrobust.threat import L2, Ball, Goal, Linf, ceiling, cross_entropy, margin
from medrobust.threat.goals import Loss

State = dict[str, Any]
"""The state of an attack for each row: tensors whose first axis is the rows, or objects that rows can be taken from
by ``value[index]`` and put behind by ``value.join(other)``."""


@dataclass(frozen=True)
class Batch:
    """The images under attack now. All fields are per example; examples join and leave the batch independently."""

    origin: Images
    ball: Ball
    """eps (n, 1, 1, 1): it may differ from row to row."""
    goal: Goal
    index: Tensor
    """int64 (n,): how many steps each row has made."""
    restart: Tensor
    ids: Sequence[Id]
    seed: int

    def keys(self) -> list[Id]:
        """Keys of each row's random numbers: its id, and the restart after the first."""
        return [i if r == 0 else f"{i}/{r}" for i, r in zip(self.ids, self.restart.tolist(), strict=True)]

    def draw(self, purpose: str) -> Images:
        """A uniform random perturbation of size at most 1 for each row, on the rows' device."""
        return self.ball.draw(self.seed, purpose, self.keys(), self.origin.shape[1:]).to(self.origin.device)


@dataclass(frozen=True)
class ModelOutput:
    """What one forward pass (and backward pass, if any) gave, for each row."""

    logits: Logits
    margin: PerImage
    """> 0 where the goal is reached."""
    reached: Tensor
    loss: PerImage
    gradient: Images | None
    """Of the loss with respect to the images, 0 where following it would leave what may be attacked; its length is
    meaningful for the margin loss only."""
    no_gradient: Tensor
    """bool: the gradient was zero everywhere, or something was not finite."""
    images: Images | None = None
    """The candidate kept for each row, where it had several: the first that reached the goal, else the best."""
    queries: Tensor | None = None
    """int64: how many candidates of each row were queried, up to that first; one each where None."""
    scores_vary: Tensor | None = None
    """bool: a row's candidates did not all have the same loss."""

    def keep(self, mask: Tensor) -> ModelOutput:
        """The output of those rows only."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v[mask] for k, v in values.items() if v is not None})


class Attack(ABC):
    """An attack: hyper-parameters go to ``__init__``, data to ``__call__``.

    attack(classifier, images, goal, ball, seed=0, ids=None) returns images of the same shape inside the ball and
    in [0, 1]: for each image the first success found, or the last attempt.
    """

    title: ClassVar[str]
    source: ClassVar[str]
    steps: int
    restarts: int = 1
    norms: ClassVar[tuple[type[Ball], ...]] = (Linf, L2)
    """The balls that it is written for; any other is refused."""
    for_norm: ClassVar[Mapping[str, str]] = {}
    """Attacks of the same kind for other balls, by their names."""
    minimal: ClassVar[bool] = False
    """Searches for the smallest perturbation by itself, not for any inside a given ball."""
    uses_gradient: ClassVar[bool] = True
    random_start: ClassVar[bool] = False
    """Begins with noise in the ball: then a success at a large eps is mostly noise, and worth little below it."""
    can_warm_start: ClassVar[bool] = False
    """Can start anywhere in the ball: a sweep then continues from its last result instead of from the clean image."""
    starts_together: ClassVar[bool] = False
    """Rows should start together, many at a time: rows that do share their state."""
    loss: Loss = staticmethod(cross_entropy)

    @property
    def ceiling(self) -> Callable[[Goal, Head, Logits], PerImage | None] | None:
        """No smaller than the margin, with the gradient of ModelOutput as its own; None where none is known."""
        if self.loss is cross_entropy:
            return ceiling
        return margin if self.loss is margin else None

    @classmethod
    def check_norm(cls, ball: type[Ball]) -> None:
        """InputError where the attack is not written for balls of this norm."""
        if not issubclass(ball, cls.norms):
            other = cls.for_norm.get(ball.name)
            raise InputError(
                f"{cls.title} is written for {' and '.join(b.name for b in cls.norms)}, got {ball.name}"
                + (f": try {other}" if other else "")
            )

    @abstractmethod
    def start(self, batch: Batch) -> tuple[Images, State]:
        """The starting images, and the state of each row."""

    @abstractmethod
    def step(self, images: Images, output: ModelOutput, batch: Batch, state: State) -> Images:
        """The next images, legal; ``state`` is updated in place (its tensors may be replaced)."""

    def evaluate(self, classifier: Classifier, images: Images, batch: Batch, state: State) -> ModelOutput:  # noqa: ARG002
        """One forward pass, and the gradient of the loss where the attack uses it.

        An attack may evaluate several candidates of each row instead: see ``images`` and ``queries`` of ModelOutput.
        """
        return evaluate(classifier, images, batch.goal, self.loss, gradient=self.uses_gradient)

    def converged(self, output: ModelOutput) -> Tensor | None:  # noqa: ARG002 (most attacks never know)
        """bool (n,): rows whose result cannot change any more; None where every row makes all its steps."""
        return None

    def budget_exhausted(self, batch: Batch, state: State) -> Tensor | None:  # noqa: ARG002 (most attacks count steps)
        """bool (n,): rows whose budget the last evaluation used up: they end with it. None: ``steps`` decides, and a
        last evaluation follows the last step."""
        return None

    @property
    def settings(self) -> dict[str, object]:
        """Every hyper-parameter that a result depends on: public attributes that are not functions."""
        return {k: v for k, v in sorted(vars(self).items()) if not (callable(v) or k.startswith("_"))}

    def __call__(
        self,
        classifier: Classifier,
        images: Images,
        goal: Goal,
        ball: Ball,
        *,
        seed: int = 0,
        ids: Sequence[Id] | None = None,
        full: bool = False,
    ) -> Images:
        """Attacked images (n, c, h, w). full: make every step and keep the strongest, not the first, success.

        seed, ids: randomness is keyed by them (ids: position when not given), never by the batch.
        """
        from medrobust.attacks.engine import run

        return run(self, classifier, images, goal, ball, seed=seed, ids=ids, full=full).images

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.settings.items())})"


class Composed(Attack):
    """An attack made of other attacks: it has no step of its own, and the engine calls ``run``."""

    @abstractmethod
    def run(self, classifier: Classifier, images: Images, goal: Goal, ball: Ball, **options: Any) -> Attacked:
        """See ``attacks.run``, whose options these are."""

    def start(self, batch: Batch) -> tuple[Images, State]:  # noqa: ARG002
        raise InputError(f"{self.title} is made of other attacks and has no steps of its own; name one of them here")

    def step(self, images: Images, output: ModelOutput, batch: Batch, state: State) -> Images:  # noqa: ARG002
        raise InputError(f"{self.title} is made of other attacks and has no steps of its own; name one of them here")


class Slope(NamedTuple):
    """One backward pass, per row: the gradient of the loss is ``gradient`` times ``scale``, whatever its size."""

    logits: Logits
    loss: PerImage
    """float64."""
    gradient: Images
    scale: PerImage
    """float64: the largest entry of the loss's gradient with respect to the logits; 0 where there is none."""


def slope(classifier: Classifier, images: Images, goal: Goal, loss: Loss) -> Slope:
    """The gradient of ``loss`` for a full batch of rows or fewer, in one padded pass.

    The gradient of the logits is scaled to a largest entry of 1 before it goes back through the network: no gradient
    is lost to float32's range on its way.
    """
    n = images.shape[0]
    padded = pad(images.detach(), classifier.fit(n, images.shape)).requires_grad_()
    with torch.enable_grad():
        every = classifier(padded)
        logits = every[:n].detach()
        leaf = logits.double().requires_grad_()
        value = loss(goal, classifier.head, leaf)
        (pull,) = torch.autograd.grad(value.sum(), leaf)
        top = pull.abs().amax(1, keepdim=True)
        pull = torch.where(top > 0, pull / top, pull).nan_to_num(0.0, 0.0, 0.0)
        full_pull = torch.zeros_like(every)
        full_pull[:n] = pull.to(every.dtype)
        if every.requires_grad:
            (back,) = torch.autograd.grad(every, padded, full_pull, allow_unused=True)
        else:
            back = None  # the network cuts the graph (argmax, numpy, no_grad inside): reported as a zero gradient
    gradient = torch.zeros_like(images) if back is None else back[:n].detach()
    return Slope(logits, value.detach(), gradient, top[:, 0])


def evaluate(classifier: Classifier, images: Images, goal: Goal, loss: Loss, *, gradient: bool) -> ModelOutput:
    """Logits, success and the gradient of ``loss`` for a full batch of rows or fewer, in one padded pass.

    The gradient is known up to a positive factor (see ``slope``): for sign and normalised steps that changes nothing.
    """
    if gradient:
        back = slope(classifier, images, goal, loss)
        return grade(classifier, images, back.logits, goal, back.loss.float(), back.gradient)
    n = images.shape[0]
    with torch.no_grad():
        logits = classifier(pad(images.detach(), classifier.fit(n, images.shape)))[:n]
    return grade(classifier, images, logits, goal, loss(goal, classifier.head, logits), None)


def grade(
    classifier: Classifier, images: Images, logits: Logits, goal: Goal, loss: PerImage, gradient: Images | None
) -> ModelOutput:
    """ModelOutput of a pass over ``images``: margin, success and usable gradient."""
    margin = goal.margin(classifier.head, logits)
    # logits that are not finite decide nothing: such a row is never called a success
    finite = torch.isfinite(logits).all(1)
    reached = goal.reached(classifier.head, logits) & finite
    if gradient is None:
        return ModelOutput(logits, margin, reached, loss, None, ~finite)
    top = gradient.flatten(1).abs().amax(1)  # NaN and infinity stay visible in it
    followable = torch.isfinite(top)
    no_gradient = ~((top > 0) & followable & finite)
    if not followable.all():
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
    # A black pixel cannot get darker: without this, half of an L2 step, and of a linear estimate of the distance,
    # would be spent on the black border of a medical image and cut off again.
    # Likewise what no file can hold. Padding has no gradient: it lies outside of what is shown.
    gradient = gradient.masked_fill(classifier.attackable.outward(images, gradient), 0.0)
    return ModelOutput(logits, margin, reached, loss, gradient, no_gradient)
