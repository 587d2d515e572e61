"""What an attack is: a start and a step on rows. The engine owns the loop, the batch and the success check."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from medrobust.attacks.attacked import Attacked
from medrobust.classifier import Classifier, pad
from medrobust.errors import InputError
from medrobust.images import Images, Logits, PerImage
from medrobust.seeds import Id
from medrobust.threat import Ball, Goal, cross_entropy
from medrobust.threat.goals import Loss

State = dict[str, Any]
"""What an attack remembers of each row: tensors whose first axis is the rows, or objects that rows can be taken from
by ``value[index]`` and put behind by ``value.join(other)``."""


@dataclass(frozen=True)
class Rows:
    """The images under attack now. Everything in it is per row, so that rows can come and go."""

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
        """What this row's randomness is keyed by: its id, and the restart after the first."""
        return [i if r == 0 else f"{i}/{r}" for i, r in zip(self.ids, self.restart.tolist(), strict=True)]

    def draw(self, purpose: str) -> Images:
        """A uniform random perturbation of size at most 1 for each row, on the rows' device."""
        return self.ball.draw(self.seed, purpose, self.keys(), self.origin.shape[1:]).to(self.origin.device)


@dataclass(frozen=True)
class Seen:
    """What one look at the network showed, per row."""

    logits: Logits
    margin: PerImage
    """> 0 where the goal is reached."""
    reached: Tensor
    loss: PerImage
    gradient: Images | None
    """Of the loss with respect to the images, 0 where following it would leave [0, 1]; its length is meaningful for
    the margin loss only."""
    blind: Tensor
    """bool: the gradient was zero everywhere, or something was not finite."""
    images: Images | None = None
    """What was seen, where a row asked about several candidates: the first that reached the goal, else the best."""
    queries: Tensor | None = None
    """int64: about how many candidates each row asked, up to that first; one each where None."""
    moved: Tensor | None = None
    """bool: a row's candidates did not all have the same loss."""

    def keep(self, mask: Tensor) -> Seen:
        """What was seen of those rows."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v[mask] for k, v in values.items() if v is not None})


class Attack(ABC):
    """Hyper-parameters at birth, data at the call.

    attack(classifier, images, goal, ball, seed=0, ids=None) returns images of the same shape inside the ball and
    in [0, 1]: for each image the first success found, or the last attempt.
    """

    title: ClassVar[str]
    source: ClassVar[str]
    steps: int
    restarts: int = 1
    minimal: ClassVar[bool] = False
    """Looks for the smallest perturbation by itself, not for any inside a given ball."""
    uses_gradient: ClassVar[bool] = True
    random_start: ClassVar[bool] = False
    """Begins with noise in the ball: then a success at a large eps is mostly noise, and worth little below it."""
    follows: ClassVar[bool] = False
    """Can begin anywhere in the ball: a sweep then goes on from what it has found instead of from nothing."""
    together: ClassVar[bool] = False
    """Rows had better begin together, many at a time: what they remember is shared by those that do."""
    loss: Loss = staticmethod(cross_entropy)

    @abstractmethod
    def start(self, rows: Rows) -> tuple[Images, State]:
        """Where each row begins, and what it remembers."""

    @abstractmethod
    def step(self, images: Images, seen: Seen, rows: Rows, state: State) -> Images:
        """The next images, legal; ``state`` is updated in place (its tensors may be replaced)."""

    def look(self, classifier: Classifier, images: Images, rows: Rows, state: State) -> Seen:  # noqa: ARG002
        """One forward pass, and the gradient of the loss where the attack uses it.

        An attack may look at several candidates of each row instead: see ``Seen.images`` and ``Seen.queries``.
        """
        return look(classifier, images, rows.goal, self.loss, gradient=self.uses_gradient)

    def over(self, seen: Seen) -> Tensor | None:  # noqa: ARG002 (most attacks never know)
        """bool: rows whose result cannot change any more; None where every row makes all its steps."""
        return None

    def spent(self, rows: Rows, state: State) -> Tensor | None:  # noqa: ARG002 (most attacks count steps)
        """bool: rows whose budget the look just made has used up: they end with it. None: ``steps`` decides, and a
        last look follows the last step."""
        return None

    @property
    def settings(self) -> dict[str, object]:
        """Everything that a result depends on, for specs and reports."""
        return {k: v for k, v in sorted(vars(self).items()) if not callable(v)}

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

        attacked = run(self, classifier, images, goal, ball, seed=seed, ids=ids, full=full).images
        # the smallest perturbation may be larger than what is allowed: then it is cut back, and fails
        return ball.move(images, attacked) if self.minimal else attacked

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.settings.items())})"


class Composed(Attack):
    """Made of other attacks: it has no step of its own, and the engine hands the whole work to ``run``."""

    @abstractmethod
    def run(self, classifier: Classifier, images: Images, goal: Goal, ball: Ball, **options: Any) -> Attacked:
        """See ``attacks.run``, whose options these are."""

    def start(self, rows: Rows) -> tuple[Images, State]:  # noqa: ARG002
        raise InputError(f"{self.title} is made of other attacks and has no steps of its own; name one of them here")

    def step(self, images: Images, seen: Seen, rows: Rows, state: State) -> Images:  # noqa: ARG002
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


def look(classifier: Classifier, images: Images, goal: Goal, loss: Loss, *, gradient: bool) -> Seen:
    """Logits, success and the gradient of ``loss`` for a full batch of rows or fewer, in one padded pass.

    The gradient is known up to a positive factor (see ``slope``): for sign and normalised steps that changes nothing.
    """
    if gradient:
        seen = slope(classifier, images, goal, loss)
        return grade(classifier, images, seen.logits, goal, seen.loss.float(), seen.gradient)
    n = images.shape[0]
    with torch.no_grad():
        logits = classifier(pad(images.detach(), classifier.fit(n, images.shape)))[:n]
    return grade(classifier, images, logits, goal, loss(goal, classifier.head, logits), None)


def grade(
    classifier: Classifier, images: Images, logits: Logits, goal: Goal, loss: PerImage, gradient: Images | None
) -> Seen:
    """What a pass over ``images`` means for the goal."""
    margin = goal.margin(classifier.head, logits)
    # logits that are not finite decide nothing: such a row is never called a success
    finite = torch.isfinite(logits).all(1)
    reached = goal.reached(classifier.head, logits) & finite
    if gradient is None:
        return Seen(logits, margin, reached, loss, None, ~finite)
    top = gradient.flatten(1).abs().amax(1)  # NaN and infinity stay visible in it
    followable = torch.isfinite(top)
    blind = ~((top > 0) & followable & finite)
    if not followable.all():
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
    # A black pixel cannot get darker: without this, half of an L2 step, and of a linear estimate of the distance,
    # would be spent on the black border of a medical image and cut off again.
    outward = ((images <= 0) & (gradient < 0)) | ((images >= 1) & (gradient > 0))
    gradient = gradient.masked_fill(outward, 0.0)
    return Seen(logits, margin, reached, loss, gradient, blind)
