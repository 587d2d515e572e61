"""SimBA: one direction after another of an orthonormal basis, by queries alone (Guo et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust import seeds
from medrobust.attacks.attack import Batch, ModelOutput, State
from medrobust.attacks.blackbox import BlackBox
from medrobust.attacks.lowfreq import cosines
from medrobust.errors import InputError
from medrobust.images import Images
from medrobust.threat import Linf, cross_entropy


class SimBA(BlackBox):
    """Adds a basis direction or, where that does not help, takes it away; keeps what lowers the label's probability.

    The first query is the clean image, whose probability is the one to beat. A direction costs one query or two.

    step: of one move; under Linf the largest change of a pixel as a share of eps, under L2 the length as a share of
    eps. Under both, what leaves the ball is brought back. frequencies: 0 moves single pixels in random order; otherwise
    cosine patterns (SimBA-DCT), in random order within a block of so many frequencies along each side, then among all.
    """

    title = "SimBA"
    source = "Guo et al. 2019, arXiv:1905.07121"
    loss = staticmethod(cross_entropy)

    def __init__(self, queries: int = 500, step: float | None = None, frequencies: int = 0) -> None:
        super().__init__(queries)
        if step is not None and not step > 0:
            raise InputError(f"step must be positive, got {step}")
        if frequencies < 0:
            raise InputError(f"frequencies must be 0 (pixels) or the side of a block, got {frequencies}")
        self.step_size, self.frequencies = step, frequencies

    def start(self, batch: Batch) -> tuple[Images, State]:
        n, device, ids = len(batch.ids), batch.origin.device, batch.keys()
        order = torch.stack([self._order(batch.seed, key, batch.origin.shape[1:]) for key in ids])
        return batch.origin.clone(), {
            "order": order.to(device),
            "best": batch.origin.clone(),
            "loss": torch.full((n,), -torch.inf, device=device),
            "place": torch.full((n,), -1, dtype=torch.long, device=device),
            "sign": torch.full((n,), -1.0, device=device),
        }

    def step(self, images: Images, output: ModelOutput, batch: Batch, state: State) -> Images:
        better = output.loss > state["loss"]
        state["loss"] = torch.where(better, output.loss, state["loss"])
        state["best"] = torch.where(better.view(-1, 1, 1, 1), images, state["best"])
        # the other sign of the same direction, unless this one helped or it was the second
        next_one = better | (state["sign"] < 0)
        state["place"] = state["place"] + next_one
        state["sign"] = torch.where(next_one, 1.0, -1.0)
        index = state["order"].gather(1, (state["place"] % state["order"].shape[1])[:, None])[:, 0]
        share = self.step_size or (1.0 if isinstance(batch.ball, Linf) else 0.2)
        move = share * batch.ball.eps * state["sign"].view(-1, 1, 1, 1) * self._direction(index, batch)
        return batch.ball.move(batch.origin, state["best"] + move)

    def _order(self, seed: int, key: seeds.Id, shape: torch.Size) -> Tensor:
        """Which direction comes when, as far as the queries reach."""
        c, h, w = shape
        mix = seeds.generator(seed, "simba/order", key)
        if not self.frequencies:
            return torch.from_numpy(mix.permutation(c * h * w)[: self.steps])
        low = torch.zeros(c, h, w, dtype=torch.bool)
        low[:, : self.frequencies, : self.frequencies] = True
        inner, outer = low.flatten().nonzero()[:, 0], (~low).flatten().nonzero()[:, 0]
        blocks = [block[torch.from_numpy(mix.permutation(len(block)))] for block in (inner, outer)]
        return torch.cat(blocks)[: self.steps]

    def _direction(self, index: Tensor, batch: Batch) -> Images:
        """Basis direction number ``index`` of each row; its largest pixel is 1 under Linf, its length under L2."""
        n, c, h, w = batch.origin.shape
        channel, row, column = index // (h * w), index // w % h, index % w
        if not self.frequencies:
            return torch.nn.functional.one_hot(index, c * h * w).view(n, c, h, w).to(batch.origin)
        down, across = cosines(h, h).to(batch.origin)[:, row].T, cosines(w, w).to(batch.origin)[:, column].T
        if isinstance(batch.ball, Linf):
            down, across = (v / v.abs().amax(1, keepdim=True) for v in (down, across))
        flat = down[:, :, None] * across[:, None, :]
        only = torch.nn.functional.one_hot(channel, c).to(batch.origin)
        return only[:, :, None, None] * flat[:, None]
