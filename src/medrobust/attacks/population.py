"""Attacks that a population of candidates searches for: an optimiser asks, the network's scores are the answer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from medrobust.attacks.attack import Rows, Seen, State, look
from medrobust.attacks.blackbox import BlackBox
from medrobust.classifier import Classifier
from medrobust.images import Images
from medrobust.search import Box, Optimiser, Run
from medrobust.threat import Ball


class Population(BlackBox):
    """Every image has a search of its own, all of them in step: a generation of all images is one stream of rows.

    A candidate is a point of ``space``, ``picture`` turns it into an image. Candidates count in the order in which the
    optimiser asks about them, up to the first that reaches the goal; the last generation is cut to the budget.
    """

    together = True
    optimiser: Optimiser

    @abstractmethod
    def space(self, rows: Rows) -> Box:
        """The box of points to be searched, shared by all rows or with bounds for each."""

    @abstractmethod
    def picture(self, points: Tensor, origin: Images, ball: Ball) -> Images:
        """Legal images of points (n, D), one an origin. Row by row, and alike in any company."""

    def start(self, rows: Rows) -> tuple[Images, State]:
        ids = rows.keys()
        names = [(rows.seed, self.title, key) for key in ids]
        space = self.space(rows)
        # a budget below one generation is spent on part of it
        enough = max(self.steps, self.optimiser.least(space.dims))
        run = self.optimiser.start(space, names, enough, rows.origin.device, nan="worst")
        return rows.origin.clone(), {"search": Searches([run], torch.arange(len(names)), self.steps)}

    def look(self, classifier: Classifier, images: Images, rows: Rows, state: State) -> Seen:  # noqa: ARG002
        points, row, column = state["search"].ask()
        lanes = classifier.lanes(rows.origin.shape)
        choice = _Choice(len(rows.ids), int(column.max()) + 1)
        for part in torch.arange(len(row)).split(lanes):
            mine = row[part]
            ball = rows.ball.at(_eps(rows.ball)[mine])
            shown = self.picture(points[part], rows.origin[mine], ball)
            seen = look(classifier, shown, rows.goal.take(mine), self.loss, gradient=False)
            choice.add(mine, column[part], replace(seen, images=shown))
        state["worth"] = choice.worth
        return choice.seen()

    def step(self, images: Images, seen: Seen, rows: Rows, state: State) -> Images:  # noqa: ARG002
        state["search"].tell(state.pop("worth"))
        return images

    def spent(self, rows: Rows, state: State) -> Tensor:  # noqa: ARG002
        searches: Searches = state["search"]
        return searches.last()


class Searches:
    """Runs of an optimiser, and which row of which run each row under attack is. budget: queries of each row.

    Rows leave one by one, and come in groups with a run of their own; a run forgets those that have left when it is
    asked again.
    """

    def __init__(self, runs: list[Run], row: Tensor, budget: int, which: Tensor | None = None) -> None:
        self.runs, self.row, self.budget = runs, row.cpu(), budget
        self.which = torch.zeros_like(self.row) if which is None else which

    def __getitem__(self, index: Tensor) -> Searches:
        index = index.cpu()
        return Searches(self.runs, self.row[index], self.budget, self.which[index])

    def join(self, other: Searches) -> Searches:
        which = torch.cat([self.which, other.which + len(self.runs)])
        return Searches(self.runs + other.runs, torch.cat([self.row, other.row]), self.budget, which)

    def ask(self) -> tuple[Tensor, Tensor, Tensor]:
        """Points (m, D) of all rows; whose each is, and the how manieth of its row's generation (int64, m)."""
        self._forget()
        points, row, column = [], [], []
        for run, mine in self._each():
            asked = run.ask()[:, : self.budget - run.evaluations]
            points.append(asked.flatten(0, 1))
            row.append(mine.repeat_interleave(asked.shape[1]))
            column.append(torch.arange(asked.shape[1]).repeat(len(mine)))
        return torch.cat(points), torch.cat(row), torch.cat(column)

    def tell(self, worth: Tensor) -> None:
        """worth: (n, P) of the present rows, lower is better."""
        self._forget()
        for run, mine in self._each():
            run.tell(worth[mine, : run.ask().shape[1]])

    def last(self) -> Tensor:
        """bool (n,): nothing is left after what was asked last."""
        left = torch.tensor([self.budget - run.evaluations - run.ask().shape[1] for run in self.runs])
        return left[self.which] <= 0

    def _each(self) -> Iterator[tuple[Run, Tensor]]:
        for k, run in enumerate(self.runs):
            yield run, (self.which == k).nonzero()[:, 0]

    def _forget(self) -> None:
        """Drop the rows that have left, and the runs that none is left of."""
        runs: list[Run] = []
        row, which = torch.empty_like(self.row), torch.empty_like(self.which)
        for run, mine in self._each():
            if not len(mine):
                continue
            if len(mine) < run.rows or not torch.equal(self.row[mine], torch.arange(run.rows)):
                run.keep(self.row[mine])
            row[mine], which[mine] = torch.arange(len(mine)), len(runs)
            runs.append(run)
        self.runs, self.row, self.which = runs, row, which


class _Choice:
    """Of each row's candidates the first that reached the goal, else the one with the highest loss."""

    def __init__(self, n: int, most: int) -> None:
        self.worth = torch.full((n, most), torch.inf, dtype=torch.float64)
        self.queries = torch.zeros(n, dtype=torch.long)
        self.found: list[Seen | None] = [None] * n
        self.range = torch.tensor([torch.inf, -torch.inf], dtype=torch.float64).repeat(n, 1)
        """The lowest and the highest loss of each row."""

    def add(self, row: Tensor, column: Tensor, seen: Seen) -> None:
        """Candidates in the order in which they were asked about."""
        loss = seen.loss.double().nan_to_num(-torch.inf, torch.inf, -torch.inf).cpu()
        self.worth[row, column] = -loss
        for r in row.unique_consecutive().tolist():
            mine = (row == r).nonzero()[:, 0]
            low, high = loss[mine].aminmax()
            self.range[r, 0], self.range[r, 1] = self.range[r, 0].minimum(low), self.range[r, 1].maximum(high)
            held = self.found[r]
            if held is not None and bool(held.reached):
                continue
            reached = seen.reached.cpu()[mine].nonzero()[:, 0]
            k = int(reached[0]) if len(reached) else int(loss[mine].argmax())
            self.queries[r] += k + 1 if len(reached) else len(mine)
            one = seen.keep(mine[k : k + 1].to(seen.reached.device))
            if held is None or len(reached) or bool(one.loss > held.loss):
                self.found[r] = replace(one, blind=one.blind if held is None else one.blind | held.blind)

    def seen(self) -> Seen:
        """Of all rows."""
        rows = [one for one in self.found if one is not None]
        assert len(rows) == len(self.found)
        joined = {
            name: torch.cat([getattr(one, name) for one in rows])
            for name in ("logits", "margin", "reached", "loss", "blind", "images")
        }
        moved = (self.range[:, 0] < self.range[:, 1]).to(joined["reached"].device)
        queries = self.queries.to(joined["reached"].device)
        return Seen(gradient=None, queries=queries, moved=moved, **joined)


def _eps(ball: Ball) -> Tensor:
    assert isinstance(ball.eps, Tensor)
    return ball.eps.flatten()
