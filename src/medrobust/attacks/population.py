"""Attacks by population search: an optimiser proposes candidates and is given the network's scores."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from medrobust.attacks.attack import Batch, ModelOutput, State, evaluate
from medrobust.attacks.blackbox import BlackBox
from medrobust.classifier import Classifier
from medrobust.images import Images
from medrobust.search import Box, Optimiser, SearchRun
from medrobust.threat import Ball


class Population(BlackBox):
    """Every image has a search of its own, all of them in step: a generation of all images is one stream of rows.

    A candidate is a point of ``space``, ``picture`` turns it into an image. Candidates count in the order in which the
    optimiser proposes them, up to the first that reaches the goal; the last generation is cut to the budget.
    """

    starts_together = True
    optimiser: Optimiser

    @abstractmethod
    def space(self, batch: Batch) -> Box:
        """The box of points to be searched, shared by all rows or with bounds for each."""

    @abstractmethod
    def picture(self, points: Tensor, origin: Images, ball: Ball) -> Images:
        """Legal images of points (n, D), one an origin. A row's result does not depend on the other rows."""

    def start(self, batch: Batch) -> tuple[Images, State]:
        ids = batch.keys()
        names = [(batch.seed, self.title, key) for key in ids]
        space = self.space(batch)
        # a budget below one generation is spent on part of it
        enough = max(self.steps, self.optimiser.least(space.dims))
        run = self.optimiser.start(space, names, enough, batch.origin.device, nan="worst")
        return batch.origin.clone(), {"search": Searches([run], torch.arange(len(names)), self.steps)}

    def evaluate(self, classifier: Classifier, images: Images, batch: Batch, state: State) -> ModelOutput:  # noqa: ARG002
        points, row, column = state["search"].ask()
        batch_size = classifier.batch_size(batch.origin.shape)
        choice = _Choice(len(batch.ids), int(column.max()) + 1)
        for part in torch.arange(len(row)).split(batch_size):
            row_part = row[part]
            ball = batch.ball.at(_eps(batch.ball)[row_part])
            origin = batch.origin[row_part]
            candidates = classifier.confined(origin, self.picture(points[part], origin, ball))
            output = evaluate(classifier, candidates, batch.goal.take(row_part), self.loss, gradient=False)
            choice.add(row_part, column[part], replace(output, images=candidates))
        state["worth"] = choice.worth
        return choice.output()

    def step(self, images: Images, output: ModelOutput, batch: Batch, state: State) -> Images:  # noqa: ARG002
        state["search"].tell(state.pop("worth"))
        return images

    def budget_exhausted(self, batch: Batch, state: State) -> Tensor:  # noqa: ARG002
        searches: Searches = state["search"]
        return searches.last()


class Searches:
    """Runs of an optimiser, and which row of which run each row under attack is. budget: queries of each row.

    Rows leave one by one, and come in groups with a run of their own; a run forgets those that have left when it is
    asked again.
    """

    def __init__(self, runs: list[SearchRun], row: Tensor, budget: int, which: Tensor | None = None) -> None:
        self.runs, self.row, self.budget = runs, row.cpu(), budget
        self.which = torch.zeros_like(self.row) if which is None else which

    def __getitem__(self, index: Tensor) -> Searches:
        index = index.cpu()
        return Searches(self.runs, self.row[index], self.budget, self.which[index])

    def join(self, other: Searches) -> Searches:
        which = torch.cat([self.which, other.which + len(self.runs)])
        return Searches(self.runs + other.runs, torch.cat([self.row, other.row]), self.budget, which)

    def ask(self) -> tuple[Tensor, Tensor, Tensor]:
        """Points (m, D) of all rows; the row of each, and its place in the row's generation (int64, m)."""
        self._forget()
        points, row, column = [], [], []
        for run, members in self._each():
            generation = run.ask()[:, : self.budget - run.evaluations]
            points.append(generation.flatten(0, 1))
            row.append(members.repeat_interleave(generation.shape[1]))
            column.append(torch.arange(generation.shape[1]).repeat(len(members)))
        return torch.cat(points), torch.cat(row), torch.cat(column)

    def tell(self, worth: Tensor) -> None:
        """worth: (n, P) of the present rows, lower is better."""
        self._forget()
        for run, members in self._each():
            run.tell(worth[members, : run.ask().shape[1]])

    def last(self) -> Tensor:
        """bool (n,): the last generation uses up the budget."""
        left = torch.tensor([self.budget - run.evaluations - run.ask().shape[1] for run in self.runs])
        return left[self.which] <= 0

    def _each(self) -> Iterator[tuple[SearchRun, Tensor]]:
        for k, run in enumerate(self.runs):
            yield run, (self.which == k).nonzero()[:, 0]

    def _forget(self) -> None:
        """Drop the rows that have left, and the runs that none is left of."""
        runs: list[SearchRun] = []
        row, which = torch.empty_like(self.row), torch.empty_like(self.which)
        for run, members in self._each():
            if not len(members):
                continue
            if len(members) < run.rows or not torch.equal(self.row[members], torch.arange(run.rows)):
                run.keep(self.row[members])
            row[members], which[members] = torch.arange(len(members)), len(runs)
            runs.append(run)
        self.runs, self.row, self.which = runs, row, which


class _Choice:
    """For each row, the first candidate that reached the goal, else the one with the highest loss."""

    def __init__(self, n: int, most: int) -> None:
        self.worth = torch.full((n, most), torch.inf, dtype=torch.float64)
        self.queries = torch.zeros(n, dtype=torch.long)
        self.chosen: list[ModelOutput | None] = [None] * n
        self.range = torch.tensor([torch.inf, -torch.inf], dtype=torch.float64).repeat(n, 1)
        """The lowest and the highest loss of each row."""

    def add(self, row: Tensor, column: Tensor, output: ModelOutput) -> None:
        """Add candidates in the order of their queries."""
        loss = output.loss.double().nan_to_num(-torch.inf, torch.inf, -torch.inf).cpu()
        self.worth[row, column] = -loss
        for r in row.unique_consecutive().tolist():
            candidates = (row == r).nonzero()[:, 0]
            low, high = loss[candidates].aminmax()
            self.range[r, 0], self.range[r, 1] = self.range[r, 0].minimum(low), self.range[r, 1].maximum(high)
            held = self.chosen[r]
            if held is not None and bool(held.reached):
                continue
            reached = output.reached.cpu()[candidates].nonzero()[:, 0]
            k = int(reached[0]) if len(reached) else int(loss[candidates].argmax())
            self.queries[r] += k + 1 if len(reached) else len(candidates)
            one = output.keep(candidates[k : k + 1].to(output.reached.device))
            if held is None or len(reached) or bool(one.loss > held.loss):
                self.chosen[r] = replace(
                    one, no_gradient=one.no_gradient if held is None else one.no_gradient | held.no_gradient
                )

    def output(self) -> ModelOutput:
        """Of all rows."""
        rows = [one for one in self.chosen if one is not None]
        assert len(rows) == len(self.chosen)
        joined = {
            name: torch.cat([getattr(one, name) for one in rows])
            for name in ("logits", "margin", "reached", "loss", "no_gradient", "images")
        }
        scores_vary = (self.range[:, 0] < self.range[:, 1]).to(joined["reached"].device)
        queries = self.queries.to(joined["reached"].device)
        return ModelOutput(gradient=None, queries=queries, scores_vary=scores_vary, **joined)


def _eps(ball: Ball) -> Tensor:
    assert isinstance(ball.eps, Tensor)
    return ball.eps.flatten()
