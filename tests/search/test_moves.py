"""The moves that optimisers share, and formulas of single papers where they have a closed form."""

from __future__ import annotations

import math

import pytest
import torch

from medrobust import search
from medrobust.search import bbo, cmaes, gsa, moves, shade
from medrobust.search.draws import Draws


def draws(rows: int = 1) -> Draws:
    return Draws(range(rows), "test", torch.device("cpu"), torch.float64)


def finish(run: search.SearchRun, function) -> list[torch.Tensor]:
    asked = []
    while not run.done:
        asked.append(run.ask())
        run.tell(function(asked[-1]))
    return asked


def test_mirrors_bring_everything_back_and_leave_inner_points_alone():
    low, high = torch.tensor([-1.0, 2.0]), torch.tensor([3.0, 2.5])
    x = torch.randn(1, 500, 2, generator=torch.Generator().manual_seed(0)) * 20
    folded = moves.mirrored(x, low, high)
    assert (folded >= low).all()
    assert (folded <= high).all()
    assert torch.allclose(moves.mirrored(folded, low, high), folded, atol=1e-5)
    assert torch.allclose(moves.mirrored(high + 0.1, low, high), high - 0.1, atol=1e-6)


def test_halfway_stays_between_parent_and_bound():
    low, high, parent = torch.zeros(3), torch.ones(3), torch.tensor([0.2, 0.6, 0.5])
    trial = torch.tensor([-4.0, 9.0, 0.4])
    assert torch.allclose(moves.halfway(trial, parent, low, high), torch.tensor([0.1, 0.8, 0.4]))


def test_the_roulette_pays_by_weight_and_blindly_where_all_weigh_nothing():
    weights = torch.tensor([[1.0, 0.0, 3.0], [0.0, 0.0, 0.0]])
    spins = moves.roulette(draws(2), weights, 30_000)
    shares = torch.stack([(spins == k).double().mean(1) for k in range(3)], 1)
    assert torch.allclose(shares[0], torch.tensor([0.25, 0.0, 0.75]).double(), atol=0.02)
    assert torch.allclose(shares[1], torch.full((3,), 1 / 3).double(), atol=0.02)


def test_a_tournament_of_two_prefers_the_better_as_often_as_chance_says():
    f = torch.tensor([[3.0, 1.0, 2.0]])
    won = moves.tournament(draws(), f, 30_000, 2)
    shares = [(won == k).double().mean() for k in range(3)]
    assert shares == pytest.approx([1 / 9, 5 / 9, 3 / 9], abs=0.02)


def test_a_levy_flight_has_the_tail_of_its_index():
    steps = moves.levy(draws(), 400_000).abs().flatten()
    far = [(steps > k).double().mean() for k in (20.0, 80.0)]
    assert math.log(far[0] / far[1]) / math.log(4) == pytest.approx(1.5, abs=0.15)


def test_cauchy_above_zero_is_the_cauchy_that_is_drawn_again_until_it_is_positive():
    centre = torch.tensor([[0.05]], dtype=torch.float64)
    ours = shade.cauchy_above_zero(centre.expand(1, 100_000), draws().uniform(100_000))
    plain = centre + 0.1 * torch.tan(math.pi * (draws().uniform(200_000) - 0.5))
    again = plain[plain > 0]
    assert (ours > 0).all()
    at = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9], dtype=torch.float64)
    assert torch.allclose(ours.quantile(at), again.quantile(at), rtol=0.03)


def test_cma_es_has_the_constants_of_pycma():
    cma = pytest.importorskip("cma")
    for lam, n in ((10, 10), (8, 4), (33, 50)):
        ours, theirs = (
            cmaes.Constants(lam, n, diagonal=False),
            cma.CMAEvolutionStrategy([0.0] * n, 1.0, {"popsize": lam, "verbose": -9}).sp,
        )
        assert ours.mu_eff == pytest.approx(theirs.weights.mueff, rel=1e-6)
        assert ours.weights[: ours.mu].tolist() == pytest.approx(theirs.weights.positive_weights.tolist(), rel=1e-6)
        assert ours.c_1 == pytest.approx(theirs.c1, rel=0.05)
        assert ours.c_mu == pytest.approx(theirs.cmu, rel=0.2)


def test_masses_are_shares_and_the_worst_weighs_nothing():
    m = gsa.masses(torch.tensor([[3.0, 1.0, 2.0], [4.0, 4.0, 4.0]], dtype=torch.float64))
    assert torch.allclose(m, torch.tensor([[0, 2 / 3, 1 / 3], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.float64))


def test_middling_habitats_mutate_least():
    rare = bbo.rarity(11)
    assert rare.argmin() in (4, 5, 6)
    assert rare.min() == pytest.approx(0)
    assert rare[0] > 0.95
    assert rare[-1] > 0.95


def test_wolves_end_at_the_mean_of_their_leaders():
    """As a falls to 0, X1, X2, X3 are the leaders themselves (equation 3.7); here nobody ever beats the first three."""
    run = search.GWO(10).start(search.Box(-5.0, 5.0, 3, torch.float64), [0], 10_000)
    leaders = run.ask()[0, [6, 2, 9]].clone()

    def function(x):
        known = (x[:, :, None] == leaders).all(-1)
        return torch.where(known.any(-1), known.to(torch.uint8).argmax(-1), 9)

    last = finish(run, function)[-1][0]
    assert (leaders[0] - leaders[1]).abs().max() > 1
    assert torch.allclose(last, leaders.mean(0).expand(10, 3), atol=0.03)


@pytest.mark.parametrize("optimiser", [search.HS(6, remember=1.0, retune=0.0), search.BBO(6, mutation=0.0)])
def test_recombination_makes_nothing_up(optimiser):
    """Without mutation every component of a later point was some first point's."""
    asked = finish(optimiser.start(search.Box(-5.0, 5.0, 4), [0], 80), lambda x: x.square().sum(-1))
    first = asked[0][0]
    for x in asked[1:]:
        assert (x[0][:, None] == first[None]).any(1).all()


def test_the_first_temperature_leaves_out_what_has_no_value():
    from medrobust.search.annealing import spread

    f = torch.tensor([[1.0, 3.0, moves.WORST, 1.0, 3.0]], dtype=torch.float64)
    assert spread(f).item() == pytest.approx(1.0)
