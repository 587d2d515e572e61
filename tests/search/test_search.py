"""The run itself, the spaces, and what single optimisers promise beyond the contract."""

from __future__ import annotations

import pytest
import torch

from medrobust import InputError, search
from medrobust.search.ga import simulated_binary


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
    run.keep([])
    assert run.done
    with pytest.raises(InputError, match="every row has left"):
        run.ask()
    with pytest.raises(InputError, match="float32 or float64, not in torch"):
        search.Box(torch.zeros(2).half(), torch.ones(2).half())


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


def test_gradient_steps_are_charged_and_land_on_the_optimum():
    optimum = torch.tensor([0.3, -0.2, 0.7, -0.6])
    box, gradients = search.Box(-1.0, 1.0, 4), []

    def function(x):
        gradients.append(x.requires_grad)
        return ((x - optimum) ** 2).sum(-1) + 0.1

    for budget in (400, 401, 402):
        gradients.clear()
        both = search.Then(search.GWO(10), search.Adam(0.02), share=0.5)
        result = search.minimise(both, function, box, [0, 1], budget)
        steps = sum(gradients)
        # 200 values in 20 generations of 10, the gradients, and what was left over for values
        assert result.evaluations == result.history.shape[1] == budget
        assert steps == (budget - budget // 2) // search.GRADIENT_COST
        alone = search.minimise(search.GWO(10), function, box, [0, 1], budget)
        assert (result.best_f - 0.1).max() < 1e-4
        assert (result.best_f <= alone.best_f).all()


def test_a_search_before_a_descent_is_the_search_alone_with_its_share():
    box = search.Box(-1.0, 1.0, 3)
    function = lambda x: (x - 0.4).abs().sum(-1)  # noqa: E731
    alone = search.minimise(search.WOA(8), function, box, [5], 100)
    both = search.minimise(search.Then(search.WOA(8), search.Adam(), share=0.25), function, box, [5], 400)
    assert torch.equal(both.history[:, :100], alone.history)


def test_every_optimiser_may_be_followed_by_a_descent_in_any_batch():
    box = search.Box(-5.0, 5.0, 5, torch.float64)
    function = lambda x: ((x - 1.5) ** 2).sum(-1)  # noqa: E731
    for make in search.OPTIMISERS.values():
        optimiser = search.Then(make(), search.Adam(0.02))
        both = search.minimise(optimiser, function, box, [3, 8], 301)
        one = search.minimise(optimiser, function, box, [8], 301)
        assert both.evaluations == 301
        assert torch.equal(both.history[1:], one.history)
        assert both.best_f.max() < 0.5


def test_a_descent_wants_its_gradients():
    run = search.Adam().start(search.Box(-1.0, 1.0, 2), [0], 9)
    x = run.ask()
    assert run.needs_gradient
    with pytest.raises(InputError, match=r"want gradients of shape \(1, 1, 2\), got none"):
        run.tell(x.sum(-1))
    run.tell(x.sum(-1), torch.ones_like(x))
    assert run.evaluations == 3


def test_fireflies_pay_for_every_move_or_for_a_generation():
    box = search.Box(-5.0, 5.0, 3)
    function = lambda x: (x - 1).square().sum(-1)  # noqa: E731
    for evaluate, sizes in (("move", {1, 12}), ("generation", {12})):
        run, asked = search.FA(12, evaluate=evaluate).start(box, [0], 120), set()
        while not run.done:
            x = run.ask()
            asked.add(x.shape[1])
            run.tell(function(x))
        assert asked == sizes


def test_a_generation_of_fireflies_moves_as_the_authors_loop_does():
    """Without noise, against the loop over pairs written out; two shine alike, and do not attract each other."""
    box = search.Box(torch.tensor([-1.0, 0.0, 5.0]).double(), torch.tensor([1.0, 4.0, 5.5]).double())
    run = search.FA(6, attraction=0.8, absorption=2.0, noise=0.0).start(box, [0], 100)
    start, f = run.ask()[0], torch.tensor([3.0, 1.0, 2.0, 2.0, 5.0, 4.0])
    run.tell(f[None])
    expected = []
    for i in range(6):
        x = start[i]
        for j in f.argsort(stable=True).flip(0):
            if f[j] < f[i]:
                distance2 = ((start[j] - x) / (box.high - box.low)).square().mean()
                x = x + 0.8 * torch.exp(-2 * distance2) * (start[j] - x)
        expected.append(x)
    moved = run.ask()[0]
    torch.testing.assert_close(moved.sort(0).values, torch.stack(expected).sort(0).values)
    assert (moved == start[1]).all(1).any()  # the brightest is where it was, to the bit


def test_fireflies_that_shine_alike_wander():
    run = search.FA(4).start(search.Box(0.0, 1.0, 2), [0], 100)
    first = run.ask()
    run.tell(torch.zeros(1, 4))
    assert (run.ask() != first).all()


def test_children_of_a_crossover_take_from_both_parents():
    run = search.GA().start(search.Box(-1.0, 2.0, 4000), [0, 1], 64)
    mother, father = torch.zeros(2, 1, 4000), torch.ones(2, 1, 4000)
    children = simulated_binary(run, mother, father, share=1.0, eta=15.0)
    torch.testing.assert_close(children.sum(1), torch.ones(2, 4000))
    # half of the components mix, and half of those change sides
    assert ((children[:, 0] > 0.5).float().mean(1) - 0.25).abs().max() < 0.03


def test_the_genetic_algorithm_gets_ahead_of_random_search_in_many_dimensions():
    box, seeds = search.Box(-5.0, 5.0, 270), list(range(10))
    reached = {}
    for optimiser in (search.GA(), search.RandomSearch()):
        result = search.minimise(optimiser, lambda x: (x - 1).square().sum(-1), box, seeds, 1200)
        reached[type(optimiser)] = result.best_f
    assert reached[search.GA].max() < 0.75 * reached[search.RandomSearch].min()


def test_a_worn_food_source_is_left():
    """On a plateau no neighbour is better, so every source wears out; scouts then look anywhere."""
    run = search.ABC(8, limit=2).start(search.Box(0.0, 1.0, 6), [0], 400)
    first = run.ask().clone()
    while not run.done:
        run.tell(torch.zeros(run.ask().shape[:2]))
    assert (run.state.x[:, :, None] == first[:, None]).all(-1).sum() < 4


@pytest.mark.parametrize("name", ["gwo", "woa", "tlbo", "gwo-pso"])
def test_the_docstring_names_a_bias_to_the_origin(name):
    assert "origin of the coordinates" in search.OPTIMISERS[name].__doc__


# Agreement with independent implementations; benchmarks/optimisers.py has the full table.

SHIFT = torch.tensor([0.7, -1.1, 1.6, -0.4], dtype=torch.float64)


def rastrigin(x):
    z = x - SHIFT
    return (z * z - 10 * (2 * torch.pi * z).cos() + 10).sum(-1)


def ranks_overlap(ours: torch.Tensor, theirs: list[float]) -> bool:
    """Each median lies within the other's range."""
    a, b = ours.sort().values, torch.tensor(theirs).sort().values
    return bool(a[0] <= b.median() <= a[-1] and b[0] <= a.median() <= b[-1])


def test_de_agrees_with_scipy():
    from scipy.optimize import differential_evolution

    box, P, budget = search.Box(-5.0, 5.0, 4, torch.float64), 20, 1200
    ours = search.minimise(search.DE(P), rastrigin, box, range(8), budget).best_f
    theirs = [
        differential_evolution(
            lambda x: float(rastrigin(torch.from_numpy(x))),
            [(-5, 5)] * 4,
            strategy="rand1bin",
            popsize=P // 4,
            maxiter=budget // P - 1,
            mutation=0.5,
            recombination=0.9,
            polish=False,
            init="random",
            tol=0,
            atol=0,
            seed=seed,
            updating="deferred",
        ).fun
        for seed in range(8)
    ]
    assert ranks_overlap(ours, theirs)


def test_cma_es_agrees_with_pycma():
    cma = pytest.importorskip("cma")

    def sphere(x):
        return ((x - SHIFT) ** 2).sum(-1)

    box = search.Box(-5.0, 5.0, 4, torch.float64)
    start = torch.full((8, 4), -2.0, dtype=torch.float64)
    ours = search.minimise(search.CMAES(8, sigma=0.2), sphere, box, range(8), 401, start=start).best_f
    theirs = []
    for seed in range(1, 9):
        strategy = cma.CMAEvolutionStrategy(
            [-2.0] * 4, 2.0, {"seed": seed, "popsize": 8, "verbose": -9, "bounds": [-5, 5]}
        )
        for _ in range(50):
            points = strategy.ask()
            strategy.tell(points, [float(sphere(torch.from_numpy(x))) for x in points])
        theirs.append(strategy.result.fbest)
    assert ranks_overlap(ours, theirs)


@pytest.mark.parametrize("make", [search.CMAES, search.SepCMAES])
def test_no_seed_of_cma_es_gets_lost_in_the_mirrors(make):
    """In the folded box a distribution wider than the box would learn nothing, and never come back."""
    box = search.Box(-5.0, 5.0, 10, torch.float64)
    for optimum in (0.0, 4.9, 5.0):  # in the middle, near the corner, in it
        result = search.minimise(make(), lambda x: ((x - optimum) ** 2).sum(-1), box, range(10), 1500)  # noqa: B023
        assert result.best_f.max() < 1e-3
