"""Decision-based attacks: they use the decisions on queried images only, never a score."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from medrobust import seeds
from medrobust.attacks.attack import Batch, ModelOutput, State, evaluate
from medrobust.attacks.blackbox import BlackBox
from medrobust.classifier import Classifier
from medrobust.heads import Head
from medrobust.images import Images, Logits, PerImage
from medrobust.threat import Ball, Goal, Linf

Search = Generator[Tensor, Tensor, None]
"""The search of one image: yields candidates (k, c, h, w) in [0, 1], is sent bool (k,): which reach the goal."""
Legal = Callable[[Tensor], Tensor]
Watch = Callable[[seeds.Id, int, float], None]
"""Called with an image's id, its queries so far and its smallest perturbation, each time that becomes smaller."""

NEAREST = 3
"""Known images that are tried as a start."""
NOISE = 10
"""Images of uniform noise that are tried as a start where no known image reaches the goal, beside a black, a white and
the inverse image."""


def decision(goal: Goal, head: Head, logits: Logits) -> PerImage:
    """1 where the goal is reached, else 0: all that these attacks know of an output."""
    return goal.reached(head, logits).float()


class DecisionBased(BlackBox):
    """An attack whose search of one image is a generator; the engine runs the searches of many images in step.

    It looks for the smallest perturbation, and needs a start that reaches the goal: a known image (``starting_from``)
    or noise. queries: see ``BlackBox``. Each image spends all of them; one without a start stops after at most
    ``NEAREST + NOISE + 3`` and is inconclusive.
    """

    minimal = True
    loss = staticmethod(decision)
    for_norm: ClassVar[Mapping[str, str]] = {"linf": "rays", "l2": "cgba"}

    def __init__(self, queries: int = 1000) -> None:
        super().__init__(queries)
        self._known: tuple[Images, Logits] | None = None
        self._watch: Watch | None = None

    @abstractmethod
    def search(self, origin: Tensor, start: Tensor, ball: Ball, draws: np.random.Generator, legal: Legal) -> Search:
        """From ``start`` (c, h, w), which reaches the goal, towards ``origin`` (c, h, w), until it is closed.

        ball: what is to become small is its size. legal: makes images (c, h, w) or (k, c, h, w) such that may be asked
        about. Nothing may depend on other images, and every turn of a loop must yield.
        """

    def starting_from(self, images: Images, logits: Logits) -> DecisionBased:
        """This attack with known images (m, c, h, w) and what the classifier answered to them.

        An image starts from the nearest that reaches its goal. They must be the same whatever is attacked together.
        """
        other = copy.copy(self)
        other._known = (images, logits)
        return other

    def watched(self, watch: Watch) -> DecisionBased:
        """This attack, which calls ``watch``."""
        other = copy.copy(self)
        other._watch = watch
        return other

    def start(self, batch: Batch) -> tuple[Images, State]:
        keys = batch.keys()
        rows = [_Row(key, seeds.generator(batch.seed, self.title, key), self.steps) for key in keys]
        return batch.origin.clone(), {"search": _Rows(rows)}

    def evaluate(self, classifier: Classifier, images: Images, batch: Batch, state: State) -> ModelOutput:
        rows: list[_Row] = state["search"].rows
        for k, row in enumerate(rows):
            if row.search is None:
                origin, starts = batch.origin[k], self._starts(classifier, batch, k)
                legal = partial(_legal, classifier, origin)
                row.begin(self._whole(origin, starts, batch.ball, row.draws, legal))
        pending = [row.candidates[: row.left] for row in rows]
        owner = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(p) for p in pending])).to(images.device)
        candidates = classifier.as_stored(torch.cat(pending))
        outputs = [
            evaluate(classifier, candidates[part], batch.goal.take(owner[part]), self.loss, gradient=False)
            for part in torch.arange(len(owner), device=owner.device).split(classifier.batch_size(images.shape))
        ]
        reached = torch.cat([o.reached for o in outputs])
        size = torch.where(reached, batch.ball.size(candidates - batch.origin[owner]), torch.inf)
        chosen, first = [], 0  # of each row the smallest candidate that reached the goal
        for row, tried in zip(rows, pending, strict=True):
            part = slice(first, first + len(tried))
            chosen.append(first + int(size[part].argmin()))
            self._record(row, size[part].tolist())
            row.answer(reached[part])
            first = part.stop
        index = torch.tensor(chosen, device=owner.device)
        logits, margin, won, loss, lost = (
            torch.cat([getattr(o, name) for o in outputs])[index]
            for name in ("logits", "margin", "reached", "loss", "no_gradient")
        )
        queries = torch.tensor([len(p) for p in pending], device=owner.device)
        return ModelOutput(logits, margin, won, loss, None, lost, candidates[index], queries, won)

    def step(self, images: Images, output: ModelOutput, batch: Batch, state: State) -> Images:  # noqa: ARG002
        return images

    def budget_exhausted(self, batch: Batch, state: State) -> Tensor:
        rows: list[_Row] = state["search"].rows
        return torch.tensor([row.over for row in rows], device=batch.origin.device)

    def _whole(
        self, origin: Tensor, known: Images | None, ball: Ball, draws: np.random.Generator, legal: Legal
    ) -> Search:
        """Find a start, then search from it."""
        noise = torch.from_numpy(draws.random((NOISE, *origin.shape), dtype=np.float32)).to(origin)
        plain = torch.stack([torch.zeros_like(origin), torch.ones_like(origin), 1 - origin])
        noise, ball = torch.cat([noise, plain]), type(ball)(torch.inf)
        for candidates in map(legal, (noise,) if known is None else (known, noise)):
            hits = yield candidates
            if hits.any():
                size = torch.where(hits, ball.size(candidates - origin), torch.inf)
                yield from self.search(origin, candidates[int(size.argmin())], ball, draws, legal)
                return

    def _starts(self, classifier: Classifier, batch: Batch, k: int) -> Images | None:
        """The known images nearest to row ``k`` that reach its goal; None where there are none."""
        if self._known is None:
            return None
        known, logits = (v.to(batch.origin.device) for v in self._known)
        row = torch.full((len(known),), k, device=batch.origin.device)
        known = known[batch.goal.take(row).reached(classifier.head, logits) & torch.isfinite(logits).all(1)]
        nearest = known[batch.ball.at(known.new_zeros(len(known))).size(known - batch.origin[k]).argsort(stable=True)]
        return nearest[:NEAREST] if len(nearest) else None

    def _record(self, row: _Row, sizes: Sequence[float]) -> None:
        for k, size in enumerate(sizes, start=1):
            if size < row.smallest:
                row.smallest = size
                if self._watch is not None:
                    self._watch(row.key, row.used + k, size)


def _legal(classifier: Classifier, origin: Tensor, images: Tensor) -> Tensor:
    """``images``, (c, h, w) or (k, c, h, w), as changes of ``origin`` that a file can hold."""
    return classifier.confined(origin, images.clamp(0, 1))


@dataclass
class _Row:
    """The search of one image, and what it has spent."""

    key: seeds.Id
    draws: np.random.Generator
    left: int
    search: Search | None = None
    candidates: Tensor = field(default_factory=lambda: torch.zeros(0))
    used: int = 0
    smallest: float = np.inf
    over: bool = False

    def begin(self, search: Search) -> None:
        self.search, self.candidates = search, next(search)

    def answer(self, hits: Tensor) -> None:
        """Send the decisions to the search and take its next candidates."""
        assert self.search is not None
        self.used, self.left = self.used + len(hits), self.left - len(hits)
        if self.left <= 0:
            self.search.close()
            self.over = True
            return
        try:
            self.candidates = self.search.send(hits)
        except StopIteration:
            self.over = True


@dataclass
class _Rows:
    """The searches of the rows under attack: see ``attack.State``."""

    rows: list[_Row]

    def __getitem__(self, index: Tensor) -> _Rows:
        return _Rows([self.rows[i] for i in index.tolist()])

    def join(self, other: _Rows) -> _Rows:
        return _Rows(self.rows + other.rows)


def bisect(
    near: Callable[[float], Tensor], high: float, tolerance: float, low: float = 0.0
) -> Generator[Tensor, Tensor, float]:
    """The smallest parameter, up to ``tolerance``, whose image ``near(parameter)`` reaches the goal; ``high`` does."""
    while high - low > tolerance:
        middle = (low + high) / 2
        if middle in (low, high):  # the resolution of floating point
            break
        hit = yield near(middle)[None]
        low, high = (low, middle) if bool(hit[0]) else (middle, high)
    return high


def toward(origin: Tensor, image: Tensor, ball: Ball, tolerance: float) -> Generator[Tensor, Tensor, Tensor]:
    """On the way from ``origin`` to ``image``, which reaches the goal: the nearest that still does.

    The way is straight in L2; in Linf every pixel is cut to a smaller and smaller change. tolerance: share of the way.
    """
    delta, size = image - origin, float(ball.size((image - origin)[None]))

    def between(share: float) -> Tensor:
        moved = delta.clamp(-share * size, share * size) if isinstance(ball, Linf) else share * delta
        return (origin + moved).clamp(0, 1)

    share = yield from bisect(between, 1.0, tolerance)
    return image if share == 1.0 else between(share)
