"""An optimiser and its run: ask for points, tell what they are worth, until a hard budget is spent.

An optimiser's body is a generator that reads like its paper. It yields points and receives them back with what they
are worth::

    trial, f = yield trial                  # (S, P, D), then the same with (S, P)

The run owns the bounds, the count, the best so far and one stream of randomness a row. Rows (seeds, or images under
attack) never meet. What must live longer than one ``yield`` is put into ``run.state``, for rows may leave in between
(``keep``): a tensor in a local variable would still hold them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from types import SimpleNamespace
from typing import TypeAlias

import torch
from torch import Tensor

from medrobust.errors import InputError
from medrobust.search.box import Box
from medrobust.search.draws import Draws, Seed
from medrobust.search.moves import WORST, take

Search: TypeAlias = Generator[Tensor, tuple[Tensor, Tensor], None]
GRADIENT_COST = 3
"""A value with its gradient costs about three values: one pass forwards, about two backwards."""


class SearchState(SimpleNamespace):
    """The state of an optimiser: tensors whose first axis is the rows."""

    def keep(self, rows: Tensor) -> None:
        for name, value in vars(self).items():
            setattr(self, name, value[rows])


class Optimiser(ABC):
    """Hyper-parameters at birth; the space, the seeds and the budget at ``start``."""

    title: str
    source: str
    population: int
    """Points in one generation."""
    smallest = 2
    """The smallest population with which the method is defined."""

    @abstractmethod
    def search(self, run: SearchRun) -> Search:
        """Yield points for ever; the run stops asking when the budget is spent."""

    def least(self, dims: int) -> int:  # noqa: ARG002  # CMA-ES's population depends on them
        """The smallest budget: the points that are evaluated before any moves."""
        return self.population

    def start(
        self,
        space: Box,
        seeds: Sequence[Seed],
        budget: int,
        device: torch.device | str | None = None,
        start: Tensor | None = None,
        nan: str = "refuse",
    ) -> SearchRun:
        """A run of this optimiser.

        seeds: one a row; a number, or (number, image id, …).
        budget: evaluations per seed, never exceeded and used up exactly; a gradient counts as three.
        device: where it computes; by default where the bounds lie.
        start: (S, D), one point a row, or (S, P, D): evaluated first, in place of as many of the random first points.
        nan: "refuse" not-a-number with InputError, or count it as the "worst" possible value.
        """
        return SearchRun(self, space, seeds, budget, device, start, nan)


class SearchRun:
    """One search per row, in step. See Optimiser.start.

    evaluations: spent so far, per row.
    best_x (S, D), best_f (S,): the best point so far and its value (float64; inf before the first tell).
    needs_gradient: the points just asked want ``tell(f, gradient)``.
    given: the caller's first points (S, P, D), or None.
    """

    def __init__(
        self,
        optimiser: Optimiser,
        space: Box,
        seeds: Sequence[Seed],
        budget: int,
        device: torch.device | str | None,
        start: Tensor | None,
        nan: str,
    ) -> None:
        seeds = list(seeds)
        self.space, self.budget, self.evaluations, self.nan = space, int(budget), 0, nan
        if optimiser.population < optimiser.smallest:
            raise InputError(
                f"{optimiser.title} needs a population of at least {optimiser.smallest}, got {optimiser.population}"
            )
        least = optimiser.least(space.dims)
        if not seeds:
            raise InputError("a search needs at least one seed")
        if budget < least:
            raise InputError(
                f"{optimiser.title} evaluates {least} points before it moves, more than the whole budget of {budget}; "
                "raise the budget or make the population smaller"
            )
        if nan not in ("refuse", "worst"):
            raise InputError(f'nan must be "refuse" or "worst", got {nan!r}')
        if space.low.ndim == 2 and len(space.low) != len(seeds):
            raise InputError(f"there are bounds for {len(space.low)} rows but {len(seeds)} seeds; give one seed a row")
        self.device = torch.device(device) if device is not None else space.low.device
        rows = len(seeds)
        self.state = SearchState()
        own = space.low.ndim == 2
        self._bounds = SearchState()
        self._bounds.low, self._bounds.high = (
            (b if own else b.expand(rows, -1)).to(self.device)[:, None] for b in (space.low, space.high)
        )
        self.best_x = self.low[:, 0].clone()
        self.best_f = torch.full((rows,), torch.inf, dtype=torch.float64, device=self.device)
        self.draws = Draws(seeds, "search", self.device, space.dtype)
        self._first = Draws(seeds, "search start", self.device, space.dtype)
        self.given = self._checked(start)
        self.needs_gradient = False
        self._stage = (0, self.budget)
        self.gradient: Tensor | None = None
        self._points: Tensor | None = None
        self._values: Tensor | None = None
        self._search = optimiser.search(self)

    # what the caller uses

    @property
    def done(self) -> bool:
        """The budget is spent, or no row is left."""
        return (self.evaluations >= self.budget and self._points is None) or not self.rows

    @property
    def rows(self) -> int:
        return len(self.best_f)

    def ask(self) -> Tensor:
        """Points to evaluate, (S, P, D) within the bounds; P may vary. The same ones again until they were told.

        They are the search's own: do not change them in place.
        """
        if not self.rows:
            raise InputError("every row has left this search; its results were in best_x and best_f before")
        if self.done:
            raise InputError(f"the budget of {self.budget} evaluations is spent; the result is in best_x and best_f")
        if self._points is None:
            if self._values is None:
                points = next(self._search)
            else:
                worth, self._values = self._values, None
                points = self._search.send((self._previous, worth))
            affordable = self._stage[1] - self.evaluations
            if self.needs_gradient:  # what is too little for a gradient is spent on the value alone
                self.needs_gradient = affordable >= GRADIENT_COST
                affordable //= GRADIENT_COST if self.needs_gradient else 1
            self._points = points.clamp(self.low, self.high)[:, :affordable]
        return self._points

    def tell(self, f: Tensor, gradient: Tensor | None = None) -> None:
        """Give the values (S, P) of the points of the last ``ask``, lower is better; with (S, P, D) where it is
        asked."""
        x = self._points
        if x is None:
            raise InputError("tell answers ask: ask for points first")
        f = torch.as_tensor(f, device=self.device).detach().double()
        if f.shape != x.shape[:2]:
            raise InputError(f"expected values of shape {tuple(x.shape[:2])} (rows, points), got {tuple(f.shape)}")
        usable = f
        if not bool(f.isfinite().all()):
            if self.nan == "refuse" and bool(f.isnan().any()):
                row, point = (int(i) for i in f.isnan().nonzero()[0])
                raise InputError(
                    f"the function gave NaN in row {row} at point {point} after {self.evaluations} evaluations; "
                    'nothing was counted and the best so far is kept; fix it, or start with nan="worst"'
                )
            f = f.nan_to_num(torch.inf, torch.inf, -torch.inf)
            usable = f.clamp(-WORST, WORST)
        if self.needs_gradient:
            if gradient is None or gradient.shape != x.shape:
                got = "none" if gradient is None else f"shape {tuple(gradient.shape)}"
                raise InputError(f"these points want gradients of shape {tuple(x.shape)}, got {got}")
            self.gradient = gradient.detach().to(self.device, x.dtype).nan_to_num(0, 0, 0)
        value, at = f.min(1)
        best = take(x, at[:, None])[:, 0]
        better = value < self.best_f
        self.best_x = torch.where(better[:, None], best, self.best_x) if self.evaluations else best
        self.best_f = torch.where(better, value, self.best_f)
        self.evaluations += x.shape[1] * (GRADIENT_COST if self.needs_gradient else 1)
        self._previous, self._values, self._points = x, usable, None

    def keep(self, rows: Tensor | Sequence[int] | Sequence[bool]) -> None:
        """Go on with these rows only (positions, or a mask over the present ones); they notice nothing, to the bit."""
        chosen = torch.as_tensor(rows, device=self.device)
        chosen = chosen.nonzero()[:, 0] if chosen.dtype == torch.bool else chosen.long()
        self.state.keep(chosen)
        self._bounds.keep(chosen)
        self.draws.keep(chosen.tolist())
        self._first.keep(chosen.tolist())
        self.best_x, self.best_f = self.best_x[chosen], self.best_f[chosen]
        for name in ("_points", "_values", "_previous", "given", "gradient"):
            value = getattr(self, name, None)
            if value is not None:
                setattr(self, name, value[chosen])

    # what optimisers use

    @property
    def low(self) -> Tensor:
        """(S, 1, D)."""
        bound: Tensor = self._bounds.low
        return bound

    @property
    def high(self) -> Tensor:
        bound: Tensor = self._bounds.high
        return bound

    @property
    def width(self) -> Tensor:
        """(S, 1, D): high - low."""
        return self.high - self.low

    @property
    def progress(self) -> float:
        """The share of the budget that is spent, in [0, 1): what a paper calls t / T."""
        return (self.evaluations - self._stage[0]) / self.span

    @property
    def span(self) -> int:
        """The budget, or the part of it that this optimiser of several was given."""
        return self._stage[1] - self._stage[0]

    @property
    def stage_over(self) -> bool:
        return self.evaluations >= self._stage[1]

    def begin_stage(self, end: int) -> None:
        """Forget everything but the best point, and go on from it until ``end`` evaluations are spent."""
        if self.evaluations:
            self.given = self.best_x[:, None]
        self.state, self.needs_gradient, self._stage = SearchState(), False, (self.evaluations, end)

    def anywhere(self, points: int) -> Tensor:
        """(S, points, D), uniform within the bounds."""
        return self.low + self.draws.uniform(points, self.space.dims) * self.width

    def first(self, points: int) -> Tensor:
        """The first points: the caller's, then random ones, the same for every optimiser of the same seed."""
        x = self.low + self._first.uniform(points, self.space.dims) * self.width
        if self.given is not None:
            given = self.given[:, :points]
            x = torch.cat((given, x[:, given.shape[1] :]), 1)
        return x

    def _checked(self, start: Tensor | None) -> Tensor | None:
        if start is None:
            return None
        start = start.detach().to(self.device, self.space.dtype)
        start = start[:, None] if start.ndim == 2 else start
        rows, dims = self.rows, self.space.dims
        if start.ndim != 3 or start.shape[0] != rows or start.shape[2] != dims:
            raise InputError(f"start must be ({rows}, {dims}) or ({rows}, P, {dims}), got {tuple(start.shape)}")
        if not bool(((start >= self.low) & (start <= self.high)).all()):
            raise InputError("start lies outside the bounds; widen them or clamp it")
        return start
