"""Attacks that see no gradient: their budgets, what they find where the answer is known, and what they prove."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import medrobust as mr
from medrobust.attacks import BIM, CosineCMAES, CosinePSO, GenAttack, OnePixel, SimBA, Square, Transfer, run, sweep
from medrobust.attacks.lowfreq import LowFrequency
from medrobust.attacks.population import Searches
from medrobust.attacks.subspace import waves
from medrobust.attacks.windows import blotch, pattern
from medrobust.search import DE, Box
from tests.attacks.test_linear import closed_form
from tests.nets import bumpy, grey, linear

ASKING = [
    Square(23),
    SimBA(23),
    SimBA(23, frequencies=4),
    OnePixel(23, population=8),
    GenAttack(23, side=4),
    CosinePSO(23, side=4, population=7),
    CosineCMAES(23, side=4),
    CosineCMAES(23, side=4, separable=False),
]


class Deaf(nn.Module):
    """Answers the same whatever it is shown."""

    def forward(self, x):
        return torch.tensor([[2.0, -1.0]], device=x.device).repeat(len(x), 1) + 0 * x.flatten(1)[:, :1]


class Counted(nn.Module):
    """Counts the rows that it is shown, padding apart."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.rows = inner, 0

    def forward(self, x):
        self.rows += int((x != 0.5).flatten(1).any(1).sum())
        return self.inner(x)


def goal_of(clf, images):
    return mr.Untargeted(clf.predict(images))


@pytest.mark.parametrize("attack", ASKING, ids=repr)
def test_the_budget_is_used_up_exactly_where_an_attack_fails(attack):
    clf, images = mr.Classifier(Counted(linear(2, scale=1e-3).net), ["a", "b"]), grey(9)
    with torch.no_grad():
        clf.net.inner.bias.copy_(torch.tensor([9.0, 0.0]))  # out of reach
    goal = goal_of(clf, images)
    clf.try_narrow(images.shape)
    clf.net.rows = 0
    done = run(attack, clf, images, goal, mr.Linf(0.01), fast=False)
    assert not done.reached.any()
    assert (done.queries == 23).all()
    assert clf.net.rows == 9 * (1 + 23)  # the clean look, and every query once, however often it is repeated
    assert not done.no_gradient.any()


@pytest.mark.parametrize("attack", [a for a in ASKING if not isinstance(a, Square)], ids=repr)
def test_an_image_is_counted_as_broken_by_the_query_that_broke_it(attack):
    """With just so many queries it is broken too, at the same example; with one fewer it holds. (Square's squares
    shrink with its budget, so that another budget is another attack.)"""
    clf, images = bumpy(classes=3), torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(5))
    ball = mr.Linf(1.0) if isinstance(attack, OnePixel) else mr.Linf(0.12)
    goal = goal_of(clf, images)

    def again(budget, i):
        settings = {k.removesuffix("_size"): v for k, v in attack.settings.items() if v is not None}
        return run(
            type(attack)(**(settings | {"queries": budget})),
            clf,
            images[[i]],
            mr.Untargeted(clf.predict(images)[[i]]),
            ball,
            ids=[i],
        )

    done = run(attack, clf, images, goal, ball)
    late = [i for i in done.reached.nonzero()[:, 0].tolist() if done.queries[i] > 8]
    for i in late[:2] or done.reached.nonzero()[:1, 0].tolist():
        queries_used = int(done.queries[i])
        assert torch.equal(again(queries_used, i).images[0], done.images[i])
        if queries_used > 8:
            assert not again(queries_used - 1, i).reached[0]
    assert done.reached.any()


@pytest.mark.filterwarnings("ignore:The network gave the same outputs for all 5 images")
@pytest.mark.parametrize("attack", ASKING, ids=repr)
def test_a_network_that_ignores_the_image_is_inconclusive_not_robust(attack):
    clf, images = mr.Classifier(Deaf(), ["a", "b"], channels=1), grey(5)
    goal = mr.Untargeted(torch.zeros(5, dtype=torch.long))
    done = run(attack, clf, images, goal, mr.Linf(0.5))
    assert not done.reached.any()
    assert done.no_gradient.all()
    curve = sweep(attack, clf, images, goal, mr.Linf, [0.1, 0.5])
    assert curve.inconclusive.all()


@pytest.mark.parametrize(
    ("attack", "ball", "room"),
    [
        (SimBA(75), mr.Linf, 1.001),  # every pixel in turn, either way: the optimum itself
        (SimBA(150, frequencies=6), mr.Linf, 1.6),
        (SimBA(200, step=0.1), mr.L2, 1.5),
        (Square(300), mr.Linf, 1.3),
        (Square(300), mr.L2, 1.9),
        (CosineCMAES(600, side=6, separable=False), mr.Linf, 1.4),
        (CosineCMAES(600, side=6), mr.L2, 1.2),
        (CosinePSO(600, side=6), mr.L2, 1.5),
        (GenAttack(1000, side=6), mr.L2, 2.5),
    ],
    ids=lambda v: repr(v) if isinstance(v, mr.attacks.Attack) else getattr(v, "__name__", str(v)),
)
def test_on_a_linear_model_they_come_close_to_the_closed_form(attack, ball, room):
    clf, images = linear(2), grey(1).repeat(4, 1, 1, 1)  # one distance, four searches
    labels = clf.predict(images)
    distance = float(closed_form(clf, images, labels, ball, targeted=False)[0])
    near = run(attack, clf, images, mr.Untargeted(labels), ball(room * distance))
    assert near.reached.all()
    assert not run(attack, clf, images, mr.Untargeted(labels), ball(0.99 * distance)).reached.any()


@pytest.mark.parametrize("pixels", [1, 3])
def test_one_pixel_changes_at_most_so_many_pixels(pixels):
    clf, images = bumpy(classes=3, channels=3), torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    attacked = OnePixel(60, pixels=pixels, population=10)(clf, images, goal_of(clf, images), mr.Linf(1.0))
    changed = ((attacked - images).abs().amax(1) > 0).flatten(1).sum(1)
    assert changed.max() <= pixels
    assert changed.max() == pixels


def test_one_pixel_finds_the_only_pixel_that_counts():
    clf, images = linear(2, side=4, scale=0.0), torch.full((4, 1, 4, 4), 0.2)
    with torch.no_grad():
        clf.net.weight[1, 9] = 4.0
        clf.net.bias.copy_(torch.tensor([1.6, 0.0]))  # fooled where pixel 9 is above 0.4
    attacked = OnePixel(400, population=20)(clf, images, goal_of(clf, images), mr.Linf(1.0))
    assert (attacked.flatten(1)[:, 9] > 0.4).all()


def test_waves_are_the_cosine_basis_and_do_not_depend_on_the_company():
    few = torch.randn(5, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    whole = waves(few, 11, 13)
    basis = LowFrequency((3, 11, 13), 6)
    padded = torch.nn.functional.pad(few, (0, 0, 0, 2))
    torch.testing.assert_close(whole, basis.patterns(padded))
    assert torch.equal(waves(few[[3]], 11, 13)[0], whole[3])


def test_square_s_pattern_and_windows():
    for side in (1, 3, 4, 9):
        assert pattern(side).norm() == pytest.approx(1)
    assert (pattern(6)[:3] > 0).all()
    assert (pattern(6)[3:] < 0).all()
    side, place = torch.tensor([3, 5]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    shown = blotch(side, place, torch.tensor([False, True]), (8, 7))
    assert torch.equal(shown[0, 0, :3, :3], pattern(3))
    assert torch.equal(shown[1, 0, 3:, 2:], pattern(5).T)
    assert (shown != 0).sum() == 9 + 25


def test_square_s_l2_moves_keep_the_length_where_nothing_is_clipped():
    clf, images = linear(2, side=12, scale=1e-3), grey(4, side=12)
    with torch.no_grad():
        clf.net.bias.copy_(torch.tensor([9.0, 0.0]))
    attacked = Square(40)(clf, images, goal_of(clf, images), mr.L2(0.3))
    assert mr.L2(1.0).size(attacked - images).tolist() == pytest.approx([0.3] * 4, rel=1e-5)


@pytest.mark.parametrize("attack", [BIM(), mr.attacks.PGD(restarts=2), mr.attacks.FMN(steps=20)], ids=repr)
def test_transfer_replays_exactly_what_the_surrogate_leads_to(attack):
    clf, surrogate, images = bumpy(classes=3), bumpy(classes=3, seed=7), torch.rand(9, 1, 16, 16)
    goal, ball, ids = goal_of(clf, images), mr.Linf(0.05), [f"im{i}" for i in range(9)]
    transfer = Transfer(surrogate, attack)
    made = transfer.examples(images, goal, ball, seed=2, ids=ids)
    done = run(transfer, clf, images, goal, ball, seed=2, ids=ids)
    assert torch.equal(done.images, made)
    assert torch.equal(done.reached, mr.judge(clf, images, made, goal, ball).reached)
    assert (done.queries == 1).all()
    assert (done.gradients == 0).all()
    assert torch.equal(
        transfer(clf, images[[4]], mr.Untargeted(goal.labels[[4]]), ball, seed=2, ids=ids[4:5]), made[[4]]
    )
    itself = Transfer(clf, attack)(clf, images, goal, ball, seed=2, ids=ids)
    assert mr.judge(clf, images, itself, goal, ball).reached.float().mean() > done.reached.float().mean()


def test_a_sweep_of_transfer_shows_an_example_of_every_eps():
    clf, surrogate, images = bumpy(classes=3), bumpy(classes=3, seed=7), torch.rand(9, 1, 16, 16)
    goal, grid = goal_of(clf, images), [0.01, 0.05, 0.2]
    curve = sweep(Transfer(surrogate, BIM()), clf, images, goal, mr.Linf, grid)
    alone = torch.stack([run(Transfer(surrogate, BIM()), clf, images, goal, mr.Linf(e)).reached for e in grid])
    first = torch.where(alone.any(0), torch.tensor(grid)[alone.int().argmax(0)], torch.inf)
    assert torch.equal(curve.min_eps, first)


def test_transfer_between_classifiers_of_other_classes_is_refused():
    with pytest.raises(mr.InputError, match="needs the same class names"):
        Transfer(bumpy(classes=3))(
            bumpy(classes=2), grey(2, side=16), mr.Untargeted(torch.zeros(2).long()), mr.Linf(0.1)
        )


def test_rows_leave_and_come_without_touching_the_others_search():
    """Two runs joined, some rows dropped: what is left is asked for the same points as alone."""
    box = Box(0.0, 1.0, 3)

    def searches(names):
        return Searches([DE(6).start(box, [(0, n) for n in names], 30)], torch.arange(len(names)), 30)

    both = searches(["a", "b", "c"]).join(searches(["d", "e"]))[torch.tensor([1, 2, 4])]
    alone = [searches([n]) for n in ("b", "c", "e")]
    for _ in range(3):
        points, row, column = both.ask()
        assert row.tolist() == [i for i in range(3) for _ in range(6)]
        assert column.tolist() == list(range(6)) * 3
        assert torch.equal(points, torch.cat([s.ask()[0] for s in alone]))
        worth = points.sum(1).view(3, 6)
        both.tell(worth)
        for s, w in zip(alone, worth, strict=True):
            s.tell(w[None])
    assert not both.last().any()
    assert len(both.runs) == 2


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Square(0), "queries must be at least 1"),
        (lambda: SimBA(step=0.0), "step must be positive"),
        (lambda: SimBA(frequencies=-1), "side of a block"),
        (lambda: OnePixel(pixels=0), "pixels must be at least 1"),
        (lambda: GenAttack(side=0), "side must be at least 1"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(make, text):
    with pytest.raises(mr.InputError, match=text):
        make()


def test_a_budget_below_the_population_is_spent_on_fewer_candidates():
    clf, images = bumpy(classes=3), torch.rand(3, 1, 16, 16)
    for attack in (OnePixel(1), GenAttack(3), CosinePSO(2), CosineCMAES(1), Square(1), SimBA(1)):
        done = run(attack, clf, images, goal_of(clf, images), mr.Linf(1e-4))
        assert (done.queries == attack.queries).all(), attack


def test_success_against_queries_counts_what_was_asked():
    clf, images = bumpy(classes=3), torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    labels = clf.predict(images)
    labels[0] = (labels[0] + 1) % 3  # wrong before any attack: no success of it
    found = mr.attacks.queried(SimBA(60), clf, images, mr.Untargeted(labels), mr.Linf(0.1), groups=list("aabbccdd"))
    done = run(SimBA(60), clf, images, mr.Untargeted(labels), mr.Linf(0.1))
    assert found.queries_used[0] == 0
    assert torch.equal(torch.isfinite(found.queries_used), done.reached)
    assert torch.equal(found.queries_used[done.reached & ~done.clean], done.queries[done.reached & ~done.clean].float())
    shares = [found.success(q) for q in (0, 1, 20, 60)]
    assert shares[0].value == 0
    assert [s.value for s in shares] == sorted(s.value for s in shares)
    assert all(s.n == 7 for s in shares)
    assert shares[-1].value == pytest.approx(float(done.reached[1:].float().mean()))
    assert found.median.n == 7
