"""The run itself, the spaces, and what single optimisers promise beyond the contract."""

from __future__ import annotations

import pytest
import torch

from medrobust import InputError, search


def test_integers_share_the_axis_evenly():
    space = search.Space({"k": search.Integer(-1, 2)})
    x = space.low + (space.high - space.low) * ((torch.arange(4000) + 0.5) / 4000)[:, None]
    counts = space.decode(x)["k"].unique(return_counts=True)[1]
    assert counts.tolist() == [1000, 1000, 1000, 1000]


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (torch.tensor([0.0, 3.0]), torch.tensor([1.0, 2.0]), "low must not lie above high, but does in dimension 1"),
        (torch.tensor([0.0, -torch.inf]), torch.ones(2), "bounds must be finite"),
        (torch.zeros(2), torch.ones(3), "bounds must agree in shape"),
        (0.0, 1.0, "give dims=D"),
    ],
)
def test_bad_bounds_are_refused_in_one_line(low, high, message):
    with pytest.raises(InputError, match=message) as caught:
        search.Box(low, high)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (search.Real(0.0, 1.0, log=True), "searched by its logarithm, so low must be > 0"),
        (search.Integer(3, 1), "low must not lie above high"),
        (search.Binary(0), "size 0"),
    ],
)
def test_bad_parts_of_a_space_are_named(part, message):
    with pytest.raises(InputError, match=f"'it'.*{message}"):
        search.Space({"it": part})


def test_a_run_says_what_was_given_wrongly():
    box = search.Box(0.0, 1.0, 3)
    with pytest.raises(InputError, match="at least one seed"):
        search.DE().start(box, [], 100)
    with pytest.raises(InputError, match="start lies outside the bounds"):
        search.DE().start(box, [0], 100, start=torch.full((1, 3), 2.0))
    with pytest.raises(InputError, match=r"start must be \(1, 3\)"):
        search.DE().start(box, [0], 100, start=torch.zeros(1, 4))
    with pytest.raises(InputError, match="bounds for 2 rows but 1 seeds"):
        search.DE().start(search.Box(torch.zeros(2, 3), torch.ones(2, 3)), [0], 100)
    run = search.DE().start(box, [0], 32)
    with pytest.raises(InputError, match="ask for points first"):
        run.tell(torch.zeros(1, 32))
    x = run.ask()
    with pytest.raises(InputError, match=r"expected values of shape \(1, 32\) .* got \(32, 1\)"):
        run.tell(torch.zeros(32, 1))
    run.tell(x.sum(-1))
    with pytest.raises(InputError, match="the budget of 32 evaluations is spent"):
        run.ask()


def test_what_was_found_before_nan_is_carried_by_the_error():
    box, calls = search.Box(-1.0, 1.0, 3), []

    def breaks(x):
        calls.append(1)
        return x.square().sum(-1) if len(calls) < 4 else x.sum(-1) * torch.nan

    with pytest.raises(search.StoppedError, match="NaN in row 0") as caught:
        search.minimise(search.PSO(10), breaks, box, [0, 1], 100)
    found = caught.value.result
    assert found.evaluations == 30
    assert found.history.shape == (2, 30)
    assert torch.equal(found.best_x.square().sum(-1).double(), found.best_f)


def test_each_row_may_have_bounds_of_its_own():
    low = torch.tensor([[0.0, 0.0], [10.0, -4.0]])
    run = search.PSO(8).start(search.Box(low, low + 1), [(5, 100), (5, "b")], 80)
    while not run.done:
        x = run.ask()
        assert (x >= low[:, None]).all()
        assert (x <= low[:, None] + 1).all()
        run.tell(-x.sum(-1))
    assert torch.allclose(run.best_x, low + 1, atol=1e-3)


def test_all_optimisers_of_a_seed_begin_at_the_same_points():
    box = search.Box(-1.0, 1.0, 4)
    first = [
        search.OPTIMISERS[name](population=12).start(box, [3], 100).ask() for name in ("random", "de", "pso", "ga")
    ]
    assert all(torch.equal(first[0], other) for other in first)


def test_a_particle_follows_the_swarm_not_its_own_best():
    """With no pull of its own past, everyone ends where the swarm's best is, not where they were."""
    swarm = search.PSO(population=9, inertia=0.3, own=0.0, swarm=1.5)
    run = swarm.start(search.Box(-5.0, 5.0, 3), [0], 9 * 60)
    target = run.ask()[0, 4].clone()  # the only point worth anything, and it is never improved
    while not run.done:
        x = run.ask()
        run.tell((x - target).norm(dim=-1).sign())
    assert (x - target).abs().max() < 1e-2


def test_de_takes_three_different_others():
    draws = search.draws.Draws([0, 1], "test", torch.device("cpu"), torch.float32)
    for points, count in ((6, 5), (9, 3)):
        chosen = search.moves.others(draws, points, count)
        assert chosen.shape == (2, points, count)
        assert chosen.min() == 0
        assert chosen.max() == points - 1
        for i in range(points):
            for row in chosen[:, i].tolist():
                assert len({i, *row}) == count + 1


def test_cma_es_does_not_care_about_rotation_and_its_separable_form_does():
    basis = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    scales = 10 ** torch.linspace(0, 3, 6, dtype=torch.float64)

    def ellipsoid(x):
        return (((x - 0.3) @ basis * scales) ** 2).sum(-1)

    box = search.Box(-1.0, 1.0, 6, torch.float64)
    full = search.minimise(search.CMAES(), ellipsoid, box, range(5), 2500).best_f.median()
    separable = search.minimise(search.SepCMAES(), ellipsoid, box, range(5), 2500).best_f.median()
    assert full < 1e-9
    assert separable > 1e-4
