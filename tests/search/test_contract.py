"""What every optimiser promises: the exact budget, the bounds, the same bytes alone and in any batch, progress."""

from __future__ import annotations

import pytest
import torch

from medrobust import InputError, search

DIMS = 7  # no multiple of a vector register's width
OPTIMUM = torch.tensor([1.7, -2.3, 3.1, 0.6, -0.9, 2.6, -3.3], dtype=torch.float64)
SPACE = search.Box(-5.0, 5.0, DIMS, torch.float64)

every = pytest.mark.parametrize("make", search.OPTIMISERS.values(), ids=search.OPTIMISERS)


def shifted_sphere(x: torch.Tensor) -> torch.Tensor:
    return ((x - OPTIMUM.to(x.dtype)) ** 2).sum(-1)


def bent(x: torch.Tensor) -> torch.Tensor:
    """Uneven, with flat steps and ties."""
    return ((x - OPTIMUM.to(x.dtype)) * torch.arange(1, DIMS + 1)).abs().sum(-1).mul(4).floor() + x[..., 0].sin()


def finish(run: search.SearchRun, function=bent) -> list[torch.Tensor]:
    asked = []
    while not run.done:
        x = run.ask()
        asked.append(x)
        run.tell(function(x))
    return asked


@every
@pytest.mark.parametrize("budget", [64, 501])
def test_the_budget_is_spent_exactly_and_inside_the_bounds(make, budget):
    seen = []

    def counted(x):
        seen.append(x.shape[1])
        assert x.shape[0] == 2
        assert x.shape[2] == DIMS
        assert x.isfinite().all()
        assert (x >= -5).all()
        assert (x <= 5).all()
        return bent(x)

    result = search.minimise(make(), counted, SPACE, [0, 1], budget)
    assert sum(seen) == result.evaluations == result.history.shape[1] == budget
    assert (result.history.diff(dim=1) <= 0).all()
    assert torch.equal(result.history[:, -1], result.best_f)
    assert torch.equal(bent(result.best_x[:, None])[:, 0], result.best_f)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_seed_s_bytes_do_not_depend_on_its_batch(make, dtype):
    space = search.Box(-5.0, 5.0, DIMS, dtype)
    batch = search.minimise(make(), bent, space, [4, 0, 11, 7, 2], 300)
    for seeds, rows in ([[11], [2]], [[7, 4], [3, 0]]):
        some = search.minimise(make(), bent, space, seeds, 300)
        assert torch.equal(some.history, batch.history[rows])
        assert torch.equal(some.best_x, batch.best_x[rows])


@every
def test_rows_that_leave_do_not_touch_the_others(make):
    together = finish(make().start(SPACE, [0, 1, 2, 3], 400))
    run = make().start(SPACE, [0, 1, 2, 3], 400)
    rows, leaving = [0, 1, 2, 3], iter([[1, 2, 3], [False, True, True], [1]])
    for step, expected in enumerate(together):
        if step in (1, 3, 4):  # once between ask and tell, once before asking, once more
            run.ask()
        if step in (1, 2, 4):
            stay = next(leaving)
            run.keep(stay)
            rows = (
                [r for r, s in zip(rows, stay, strict=True) if s]
                if isinstance(stay[0], bool)
                else [rows[i] for i in stay]
            )
        x = run.ask()
        assert torch.equal(x, expected[rows])
        run.tell(bent(x))
    assert run.done
    assert rows == [3]


@every
def test_it_beats_random_search_where_the_optimum_is_shifted(make):
    if make is search.RandomSearch:
        pytest.skip("the baseline itself")
    seeds, budget = range(4), 2000
    chance = search.minimise(search.RandomSearch(), shifted_sphere, SPACE, seeds, budget).best_f.median()
    found = search.minimise(make(), shifted_sphere, SPACE, seeds, budget).best_f.median()
    assert found < chance / 3


@every
def test_nan_is_refused_in_one_line_and_nothing_is_lost(make):
    run = make().start(SPACE, [0, 1], 300)
    run.tell(bent(run.ask()))
    x, best, spent = run.ask(), run.best_f.clone(), run.evaluations
    broken = bent(x)
    broken[1, -1] = torch.nan
    with pytest.raises(InputError, match=r"NaN in row 1 at point .* the best so far is kept") as caught:
        run.tell(broken)
    assert "\n" not in str(caught.value)
    assert torch.equal(run.best_f, best)
    assert run.evaluations == spent
    assert torch.equal(run.ask(), x)
    run.tell(bent(x))
    assert (run.best_f <= best).all()


@every
def test_nan_may_count_as_the_worst(make):
    def holed(x):
        return torch.where(x[..., 1] > 0, torch.nan, bent(x))

    result = search.minimise(make(), holed, SPACE, range(4), 800, nan="worst")
    assert result.best_f.isfinite().all()
    assert (result.best_x[:, 1] <= 0).all()
    chance = search.minimise(search.RandomSearch(), holed, SPACE, range(4), 800, nan="worst")
    assert result.best_f.median() <= chance.best_f.median()


@every
def test_a_given_start_is_tried_first_and_kept(make):
    start = (OPTIMUM + 1e-3).expand(3, DIMS)
    result = search.minimise(make(), shifted_sphere, SPACE, [0, 1, 2], 200, start=start)
    assert (result.best_f <= shifted_sphere(start) + 1e-12).all()


@every
def test_a_budget_that_moves_nothing_is_refused(make):
    least = make().least(DIMS)
    if least > 1:
        with pytest.raises(
            InputError, match=f"evaluates {least} points before it moves, more than the whole budget of"
        ):
            make().start(SPACE, [0], least - 1)
    search.minimise(make(), bent, SPACE, [0], least)


@every
def test_a_population_too_small_is_refused_and_the_smallest_works(make):
    optimiser = make(population=max(2, make.smallest) if issubclass(make, search.CMAES) else make.smallest)
    search.minimise(optimiser, bent, SPACE, [0, 1], 40)
    with pytest.raises(InputError, match="needs a population of at least"):
        make(population=optimiser.population - 1).start(SPACE, [0], 40)


@every
def test_mixed_kinds_are_decoded(make):
    space = search.Space(
        {"rate": search.Real(1e-4, 1.0, log=True), "hidden": search.Integer(2, 9), "mask": search.Binary(5)}
    )

    def function(v):
        assert v["hidden"].dtype == torch.int64
        assert v["hidden"].min() >= 2
        assert v["hidden"].max() <= 9
        assert v["mask"].dtype == torch.bool
        assert v["mask"].shape[-1] == 5
        assert v["rate"].min() >= 1e-4
        wrong = (v["mask"] != torch.tensor([True, False, True, True, False])).sum(-1)
        return (v["rate"].log10() + 2).abs() + (v["hidden"] - 6).abs() + wrong

    result = search.minimise(make(), function, space, range(2), 1000)
    assert result.best_f.median() < 1.0  # at most the logarithm's part is left
    assert torch.equal(result.best["hidden"], torch.tensor([6, 6]))


@every
def test_one_dimension_and_one_that_is_held_still(make):
    single = search.minimise(make(), lambda x: (x[..., 0] - 0.3).abs(), search.Box(-1.0, 1.0, 1), [0, 1], 150)
    assert single.best_f.max() < 0.1
    held = search.Box(torch.tensor([-1.0, 0.5, -1.0]), torch.tensor([1.0, 0.5, 1.0]))
    result = search.minimise(make(), lambda x: (x - 0.3).abs().sum(-1), held, [0, 1], 150)
    assert (result.best_x[:, 1] == 0.5).all()
    assert result.best_f.isfinite().all()
