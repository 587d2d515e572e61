"""The images under attack now, with the state that the engine and the attack keep for each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from medrobust.attacks.attack import Batch, State
from medrobust.images import Images, PerImage
from medrobust.threat import Ball, Goal


@dataclass
class ActiveBatch:
    """The images under attack now. All fields are per example: ``keep`` selects examples, ``join`` appends others."""

    image: Tensor
    level: Tensor
    batch: Batch
    now: Images
    state: State = field(default_factory=dict)
    best: Images | None = None
    score: PerImage | None = None

    def __len__(self) -> int:
        return self.image.shape[0]

    def keep(self, mask: Tensor) -> ActiveBatch:
        chosen = mask.nonzero()[:, 0]
        here, there = chosen.cpu(), chosen.to(self.now.device)
        batch = replace(
            self.batch,
            origin=self.batch.origin[there],
            ball=self.batch.ball.at(_eps(self.batch.ball)[there]),
            goal=self.batch.goal.take(there),
            index=self.batch.index[there],
            restart=self.batch.restart[here],
            ids=[self.batch.ids[i] for i in here.tolist()],
        )
        return ActiveBatch(
            self.image[here],
            self.level[here],
            batch,
            self.now[there],
            {k: v[there] for k, v in self.state.items()},
            None if self.best is None else self.best[there],
            None if self.score is None else self.score[there],
        )

    def join(self, other: ActiveBatch) -> ActiveBatch:
        first, second = self.batch, other.batch
        batch = replace(
            first,
            origin=torch.cat([first.origin, second.origin]),
            ball=first.ball.at(torch.cat([_eps(first.ball), _eps(second.ball)])),
            goal=_join_goals(first.goal, second.goal),
            index=torch.cat([first.index, second.index]),
            restart=torch.cat([first.restart, second.restart]),
            ids=[*first.ids, *second.ids],
        )

        def both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
            return None if a is None or b is None else torch.cat([a, b])

        return ActiveBatch(
            torch.cat([self.image, other.image]),
            torch.cat([self.level, other.level]),
            batch,
            torch.cat([self.now, other.now]),
            {k: _behind(v, other.state[k]) for k, v in self.state.items()},
            both(self.best, other.best),
            both(self.score, other.score),
        )


def _behind(a: Any, b: Any) -> Any:
    return torch.cat([a, b]) if isinstance(a, Tensor) else a.join(b)


def _eps(ball: Ball) -> PerImage:
    assert isinstance(ball.eps, Tensor)
    return ball.eps.flatten()


def _join_goals(a: Goal, b: Goal) -> Goal:
    assert a.labels is not None
    assert b.labels is not None
    return type(a)(torch.cat([a.labels, b.labels]))  # type: ignore[call-arg]


def joined(a: ActiveBatch | None, b: ActiveBatch | None) -> ActiveBatch | None:
    return b if a is None else a if b is None else a.join(b)


def goal_on(goal: Goal, device: torch.device) -> Goal:
    assert goal.labels is not None
    return type(goal)(goal.labels.to(device))  # type: ignore[call-arg]
