"""The rows in flight: everything the engine and an attack know of each, kept and joined together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from medrobust.attacks.attack import Rows, State
from medrobust.images import Images, PerImage
from medrobust.threat import Ball, Goal


@dataclass
class Slots:
    """The rows in flight."""

    image: Tensor
    level: Tensor
    rows: Rows
    now: Images
    state: State = field(default_factory=dict)
    best: Images | None = None
    score: PerImage | None = None

    def __len__(self) -> int:
        return self.image.shape[0]

    def keep(self, mask: Tensor) -> Slots:
        chosen = mask.nonzero()[:, 0]
        here, there = chosen.cpu(), chosen.to(self.now.device)
        rows = replace(
            self.rows,
            origin=self.rows.origin[there],
            ball=self.rows.ball.at(_eps(self.rows.ball)[there]),
            goal=self.rows.goal.take(there),
            index=self.rows.index[there],
            restart=self.rows.restart[here],
            ids=[self.rows.ids[i] for i in here.tolist()],
        )
        return Slots(
            self.image[here],
            self.level[here],
            rows,
            self.now[there],
            {k: v[there] for k, v in self.state.items()},
            None if self.best is None else self.best[there],
            None if self.score is None else self.score[there],
        )

    def join(self, other: Slots) -> Slots:
        mine, theirs = self.rows, other.rows
        rows = replace(
            mine,
            origin=torch.cat([mine.origin, theirs.origin]),
            ball=mine.ball.at(torch.cat([_eps(mine.ball), _eps(theirs.ball)])),
            goal=_join_goals(mine.goal, theirs.goal),
            index=torch.cat([mine.index, theirs.index]),
            restart=torch.cat([mine.restart, theirs.restart]),
            ids=[*mine.ids, *theirs.ids],
        )

        def both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
            return None if a is None or b is None else torch.cat([a, b])

        return Slots(
            torch.cat([self.image, other.image]),
            torch.cat([self.level, other.level]),
            rows,
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


def joined(a: Slots | None, b: Slots | None) -> Slots | None:
    return b if a is None else a if b is None else a.join(b)


def goal_on(goal: Goal, device: torch.device) -> Goal:
    assert goal.labels is not None
    return type(goal)(goal.labels.to(device))  # type: ignore[call-arg]
