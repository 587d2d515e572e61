"""Tile search: an evolution strategy over a small tile that is repeated over the image, and grows.

The step is that of evolution strategies with mirrored samples (Salimans et al. 2017, arXiv:1703.03864; as a black-box
attack: Ilyas et al. 2018, arXiv:1804.08598). Why a tile: repeated patterns fool convolutional networks wherever they
lie (Co et al. 2019, arXiv:1810.00470), and hold high frequencies, of which a low-frequency search knows nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from medrobust import seeds
from medrobust.attacks.lowfreq import reach
from medrobust.errors import InputError
from medrobust.images import Images
from medrobust.universal.budget import QueryMethod
from medrobust.universal.losses import Hinge
from medrobust.universal.method import PerturbationResult
from medrobust.universal.schedule import cosine
from medrobust.universal.task import UniversalTask

NOWHERE = -1
"""No class that images are sent to."""


class TileSearch(QueryMethod):
    """Every image tries a random pattern of its own, once added and once subtracted; the perturbation follows them all.

    The difference of the two answers says how far to follow a pattern: two queries a pattern, where hill climbing
    asks every image about each. Patterns are tiles repeated over the image; a tile of 4 x 4 grey pixels has 16 numbers
    to find, and what is found is kept when the tile doubles.

    Nontargeted, images of different classes pull against each other, and few queries do not settle that: with
    ``majority_class``, all are sent to the class that most of the moved ones went to, as the looks on the way tell,
    unless more than half of them were there before (figures: docs/results/universal.md).

    queries: forward passes of one image each, in all, never exceeded; those for the clean predictions are among them.
    tile: side of the first tile, in pixels. patience: the tile doubles once so many patterns were tried for each of its
    numbers. pairs: patterns a step. probe: size of a pattern, and step: length of the first step, as shares of the
    ball; steps fall to a twentieth by the last. momentum: share of the old direction that is kept. kappa: an image that
    reaches the goal by so many logits contributes no gradient. majority_class: see above. looks: how often all images
    are asked for their answers; fewer where it would cost more than a tenth of the queries. From half of the steps on,
    a look at which all reach the goal ends it.
    """

    title = "Tile search"
    source = "evolution strategy, Salimans et al. 2017, arXiv:1703.03864, over repeated tiles"

    def __init__(
        self,
        queries: int = 20_000,
        tile: int = 4,
        patience: float = 4.0,
        pairs: int = 32,
        probe: float = 0.3,
        step: float = 0.15,
        momentum: float = 0.9,
        kappa: float = 2.0,
        majority_class: bool = True,
        looks: int = 5,
    ) -> None:
        if min(queries, tile, pairs, looks) < 1:
            raise InputError(f"queries, tile, pairs and looks are at least 1, got {queries}, {tile}, {pairs}, {looks}")
        if not (patience > 0 and probe > 0 and step > 0):
            raise InputError(f"patience, probe and step must be positive, got {patience}, {probe} and {step}")
        if not (0 <= momentum < 1 and kappa >= 0):
            raise InputError(f"momentum must lie in [0, 1) and kappa not be negative, got {momentum} and {kappa}")
        self.queries, self.tile, self.patience, self.pairs = queries, tile, patience, pairs
        self.probe, self.step, self.momentum = probe, step, momentum
        self.kappa, self.majority_class, self.looks = kappa, majority_class, looks

    def least(self, n: int) -> int:
        return 2 * n + 2 * self.pairs  # the clean predictions, one step, and the rate after it

    def find(self, task: UniversalTask, seed: int) -> PerturbationResult:
        tiles, delta, toward = Tiles(task.shape, self.tile), task.zero(), NOWHERE
        direction = torch.zeros(tiles.shape, device=task.device)
        left = self.queries - task.queries
        looks = max(1, min(self.looks, self.queries // (10 * task.n), (left - 2 * self.pairs) // task.n))
        steps = (left - looks * task.n) // (2 * self.pairs)
        marks = {math.ceil(steps * ((i + 1) / looks) ** 2) for i in range(looks)}  # early ones give the direction
        turns, tried, first = self._turns(task, seed), 0, 0
        history: list[dict[str, float]] = []
        if kept := task.resume("search"):
            state, history = kept
            delta, direction = state["delta"], state["direction"]
            first, tried, side, toward = state["place"].tolist()
            tiles = Tiles(task.shape, side)
        for number in range(steps):
            if number < first or (2 * number > steps and history and history[-1]["rate"] == 1):
                next(turns)
                continue
            if tried >= self.patience * tiles.size and tiles.grows:
                tiles, direction, tried = tiles.doubled(), tiles.carried(direction), 0
            gradient = self._ask(task, delta, tiles, next(turns), toward, (seed, number))
            direction = self.momentum * direction + gradient
            tried += self.pairs
            delta = task.step(delta, self.step * cosine(number, steps), tiles.patterns(direction[None])[0])
            if number + 1 in marks:
                rate, toward_most = task.moves(delta)
                toward = toward_most if self.majority_class and toward_most is not None else toward
                history.append({"queries": task.queries, "rate": rate, "tile": tiles.side, "toward": toward})
                place = torch.tensor([number + 1, tried, tiles.side, toward])
                task.keep("search", {"delta": delta, "direction": direction, "place": place}, history)
        still = not bool(delta.any()) and float(task.ball.eps) > 0
        return PerturbationResult(delta, history, self.why_still() if still else "")

    def _ask(
        self, task: UniversalTask, delta: Tensor, tiles: Tiles, index: np.ndarray, toward: int, key: tuple[int, int]
    ) -> Tensor:
        """The direction of ascent that one pattern an image, added and subtracted, tells: a tile."""
        goal = task.aim(np.tile(index, 2)) if toward == NOWHERE else task.aimed(toward, 2 * len(index))
        generator = seeds.generator(key[0], "universal/tiles", key[1])
        drawn = torch.from_numpy(generator.standard_normal((len(index), *tiles.shape), np.float32)).to(task.device)
        drawn /= drawn.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        patterns = self.probe * reach(task.ball, task.shape) * tiles.patterns(drawn)
        images = task.take(index)
        perturbed = torch.cat([task.show(images, delta + patterns), task.show(images, delta - patterns)])
        value = Hinge(self.kappa)(goal, task.classifier, task.logits(perturbed).double())
        up, down = value.nan_to_num(0.0, 0.0, 0.0).float().chunk(2)
        return ((up - down).view(-1, 1, 1, 1) * drawn).mean(0)

    def _turns(self, task: UniversalTask, seed: int) -> Iterator[np.ndarray]:
        """``pairs`` images at a time, each as often as any other, in an order that changes from pass to pass."""
        queue, number = np.empty(0, np.int64), 0
        while True:
            while len(queue) < self.pairs:
                queue, number = np.concatenate([queue, task.order(seed, number)]), number + 1
            yield queue[: self.pairs]
            queue = queue[self.pairs :]


class Tiles:
    """Patterns (c, h, w) that repeat every ``side`` pixels, scaled so that a tile's L2 norm is its pattern's.

    Where ``side`` does not divide the image, the last tiles are cut and the norm is a little off.
    """

    def __init__(self, shape: Sequence[int], side: int) -> None:
        c, self.height, self.width = shape
        self.side = min(side, max(self.height, self.width))
        self.shape = (c, self.side, self.side)

    @property
    def size(self) -> int:
        """Numbers in a tile."""
        return math.prod(self.shape)

    @property
    def grows(self) -> bool:
        """False where one tile covers the image."""
        return self.side < max(self.height, self.width)

    def patterns(self, tiles: Tensor) -> Images:
        """Patterns (n, c, h, w) of tiles (n, c, side, side)."""
        down, across = -(-self.height // self.side), -(-self.width // self.side)
        whole = tiles.repeat(1, 1, down, across)[..., : self.height, : self.width]
        return whole * (self.side / math.sqrt(self.height * self.width))

    def doubled(self) -> Tiles:
        """Tiles of twice the side: they can be all that these can."""
        return Tiles((self.shape[0], self.height, self.width), 2 * self.side)

    def carried(self, tile: Tensor) -> Tensor:
        """The same pattern as a tile (c, side, side) of ``doubled``."""
        wide = self.doubled().side
        times = -(-wide // self.side)
        return tile.repeat(1, times, times)[..., :wide, :wide] * (self.side / wide)
