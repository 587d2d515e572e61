"""What every attack of the table must keep, whatever it does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import medrobust as mr
from medrobust.attacks import ATTACKS, BIM, CWL2, FGSM, FMN, PGD, CWLinf, DeepFool, Square, run, sweep
from medrobust.attacks.active_batch import ActiveBatch
from tests.nets import bumpy, grey, linear

SHORT = {
    "apgd": 12,
    "apgd-margin": 12,
    "fmn": 20,
    "deepfool": 10,
    "bim": 8,
    "pgd": 8,
    "cw": 8,
    "mifgsm": 8,
    "fab": 10,
} | {"transferable": 8}
SPARSE = {"ead": [mr.threat.L1(20.0)], "sigma-zero": [mr.threat.L0(60)]}
ASKING = {"square": 30, "simba": 60, "simba-dct": 30, "one-pixel": 50, "genattack": 25, "pso": 45, "cma-es": 40} | {
    "hopskipjump": 120,
    "cgba": 90,
    "rays": 90,
}
"""Queries of the attacks that see no gradient."""


def make(name):
    """The attack of that name with few steps."""
    if name == "cw-l2":
        return CWL2(rounds=2, inner=8)
    if name == "ead":
        return mr.attacks.EAD(rounds=2, inner=10)
    if name == "sigma-zero":
        return mr.attacks.SigmaZero(steps=20)
    if name == "apgd-margin":
        return mr.attacks.APGD(steps=SHORT[name], loss=mr.threat.margin)
    if name == "auto":
        return mr.attacks.Auto(steps=6, queries=20)
    kind = ATTACKS[name]
    if name in ASKING:
        return kind(queries=ASKING[name])
    return kind(steps=SHORT[name]) if name in SHORT else kind()


def balls(name):
    # few queries want much room: a pixel, or thirty of them, have to do what all did above
    few = [mr.Linf(0.1), mr.L2(1.5)]
    one_norm = {"cgba": few[1:], "rays": few[:1]}
    wide = dict.fromkeys(ASKING, few) | one_norm | {"cw-l2": [mr.L2(1.0)], "one-pixel": [mr.Linf(1.0), mr.L2(1.5)]}
    both = [mr.Linf(0.03), mr.L2(0.4)]
    return (wide | SPARSE | {"fab": [*both, mr.threat.L1(8.0)]}).get(name, both)


CASES = [pytest.param(n, b, id=f"{n}-{b.name}") for n in ATTACKS for b in balls(n)]


@pytest.fixture(scope="module")
def clf():
    return bumpy(classes=3)


@pytest.fixture(scope="module")
def images():
    x = torch.rand(11, 1, 16, 16, generator=torch.Generator().manual_seed(4))
    x[:, :, :4] = 0.0  # black border, as most medical images have
    return x


@pytest.mark.parametrize(("name", "ball"), CASES)
def test_every_attack_is_legal_shaped_and_does_something(name, ball, clf, images):
    labels = clf.predict(images)
    adv = make(name)(clf, images, mr.Untargeted(labels), ball)
    assert adv.shape == images.shape
    assert adv.dtype == torch.float32
    assert ball.legal(images, adv).all()
    assert mr.judge(clf, images, adv, mr.Untargeted(labels), ball).reached.any()


@pytest.mark.parametrize(("name", "ball"), CASES)
def test_a_row_gives_the_same_bytes_alone_in_any_batch_and_order(name, ball, clf, images):
    labels, attack, ids = clf.predict(images), make(name), [f"im{i}" for i in range(len(images))]

    def attacked(rows):
        goal = mr.Untargeted(labels[rows])
        return attack(clf, images[rows], goal, ball, seed=3, ids=[ids[i] for i in rows])

    together = attacked(list(range(11)))
    shuffled = [7, 2, 10, 0, 5]
    assert torch.equal(attacked(shuffled), together[shuffled])
    assert torch.equal(attacked([6]), together[[6]])


@pytest.mark.parametrize("name", ["pgd", "apgd", "square", "fmn", "simba", "genattack", "cma-es", "auto"])
def test_many_more_rows_than_lanes(name, images):
    """Rows enter and leave a batch of four at different times."""
    clf = bumpy(classes=3)
    wide, narrow = clf, mr.Classifier(clf.net, clf.classes, batch_size=4)
    labels, ball = clf.predict(images), balls(name)[0]
    a, b = (make(name)(c, images, mr.Untargeted(labels), ball, seed=1) for c in (wide, narrow))
    # another shape may round differently in the last bit; a lane mixed up would differ by whole steps
    assert ((a - b).abs().amax((1, 2, 3)) < 1e-4).float().mean() >= 0.9
    again = make(name)(narrow, images.flip(0), mr.Untargeted(labels.flip(0)), ball, seed=1, ids=range(10, -1, -1))
    assert torch.equal(again.flip(0), b)


@pytest.mark.parametrize(("name", "ball"), CASES)
def test_black_pixels_stay_attackable(name, ball):
    """Only black and white pixels matter to this model; an attack through atanh would leave them where they are."""
    clf, images = linear(2, side=6), torch.zeros(8, 1, 6, 6)
    images[:, :, 3:] = 1.0
    with torch.no_grad():  # just on one side of the boundary
        weight = clf.net.weight
        clf.net.bias.copy_(torch.tensor([1.0, 0.0]) - weight @ images[0].flatten())
    labels = clf.predict(images)
    wide = type(ball)({"linf": 1.0, "l2": 6.0}.get(ball.name, 36.0))
    adv = make(name)(clf, images, mr.Untargeted(labels), wide)
    assert (clf.predict(adv) != labels).all()
    if isinstance(ball, (mr.threat.L1, mr.threat.L0)):  # all pixels were black or white, and some of either do
        return
    assert (adv[:, :, :3] > 0).any()
    assert (adv[:, :, 3:] < 1).any()


def test_the_seed_is_what_randomness_depends_on(clf, images):
    goal, ball = mr.Untargeted(clf.predict(images)), mr.Linf(0.002)
    a, b, c = (PGD(steps=2)(clf, images, goal, ball, seed=s) for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@pytest.mark.parametrize("attack", [PGD(steps=6), FMN(steps=10), Square(steps=10)], ids=repr)
def test_the_caller_s_model_is_left_as_it_was(attack, images):
    clf = bumpy(classes=3)
    net = clf.net.train()
    net.body[1].eval()  # a frozen BatchNorm inside a model in training
    net.body[0].weight.requires_grad_(False)
    state = {k: v.clone() for k, v in net.state_dict().items()}
    modes = [m.training for m in net.modules()]
    flags = [p.requires_grad for p in net.parameters()]
    attack(clf, images, mr.Untargeted(clf.predict(images)), mr.Linf(0.05))
    assert [m.training for m in net.modules()] == modes
    assert [p.requires_grad for p in net.parameters()] == flags
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


def test_the_caller_s_model_is_left_as_it_was_after_an_exception(images):
    clf = bumpy(classes=3)
    clf.net.train()
    clf.net.body[1].eval()
    modes = [m.training for m in clf.net.modules()]
    calls = []

    def fail_later(*_):
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("the network broke")

    handle = clf.net.body[-1].register_forward_hook(fail_later)
    with pytest.raises(RuntimeError, match="the network broke"):
        PGD()(clf, images, mr.Untargeted(torch.zeros(11, dtype=torch.long)), mr.Linf(0.05), full=True)
    handle.remove()
    assert [m.training for m in clf.net.modules()] == modes
    assert all(p.requires_grad for p in clf.net.parameters())


class Flat(nn.Module):
    """Rounds its input: no gradient, as defences that only look robust."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner((x * 4).round() / 4)


class Cut(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.detach())


@pytest.mark.filterwarnings("ignore:No gradient reaches the image")
@pytest.mark.parametrize("wrapper", [Flat, Cut])
@pytest.mark.parametrize("attack", [FGSM(), BIM(), PGD(), CWLinf()], ids=repr)
def test_a_zero_gradient_is_inconclusive_not_robust(attack, wrapper, images):
    inner = bumpy(classes=3)
    clf = mr.Classifier(wrapper(inner.net), inner.classes)
    curve = sweep(attack, clf, images, mr.Untargeted(clf.predict(images)), mr.Linf, [0.01])
    assert curve.inconclusive[curve.min_eps > 0.01].all()
    assert curve.inconclusive.any()


@pytest.mark.filterwarnings("ignore:The network's outputs are NaN or infinite")
@pytest.mark.filterwarnings("ignore:The network gave the same outputs")
def test_logits_that_are_not_finite_are_inconclusive_and_never_a_success(images):
    class Broken(nn.Module):
        def forward(self, x):
            bad = (x.mean((1, 2, 3)) > 0.4).float()
            z = x[:, 0, :3, :3].sum((1, 2)) / bad.logical_not()
            return torch.stack([z, -z], 1) * 0

    clf = mr.Classifier(Broken(), ["a", "b"], outputs="logits")
    done = run(PGD(steps=3), clf, images, mr.Untargeted(torch.ones(11, dtype=torch.long)), mr.Linf(0.01))
    nan = ~torch.isfinite(clf.logits(images)).all(1)
    assert nan.any()
    assert not done.reached[nan].any()
    assert done.no_gradient[nan].all()


def test_full_steps_give_a_stronger_example_than_the_first_success(clf, images):
    labels, ball = clf.predict(images), mr.Linf(0.05)
    goal = mr.Untargeted(labels)
    first, strong = (PGD(steps=20)(clf, images, goal, ball, full=f) for f in (False, True))
    gap = [-clf.head.gap(clf.logits(x), labels) for x in (first, strong)]
    assert (gap[1] >= gap[0] - 1e-4).all()
    assert gap[1].mean() > gap[0].mean() + 0.1


def test_restarts_take_the_worst_case_for_each_image(clf, images):
    labels, ball = clf.predict(images), mr.Linf(0.006)
    goal = mr.Untargeted(labels)
    fooled = [(clf.predict(PGD(steps=3, restarts=r)(clf, images, goal, ball)) != labels).sum().item() for r in (1, 6)]
    assert fooled[1] >= fooled[0]


def test_images_that_are_wrong_already_are_returned_untouched(clf, images):
    labels = (clf.predict(images) + 1) % 3
    done = run(PGD(), clf, images, mr.Untargeted(labels), mr.Linf(0.05))
    assert torch.equal(done.images, images)
    assert done.gradients.sum() == 0
    curve = sweep(PGD(), clf, images, mr.Untargeted(labels), mr.Linf, [0.01, 0.02])
    assert (curve.min_eps == 0).all()


def test_eps_zero_is_clean(clf, images):
    labels = clf.predict(images)
    labels[:3] = (labels[:3] + 1) % 3
    curve = sweep(PGD(), clf, images, mr.Untargeted(labels), mr.Linf, [0.0, 0.2])
    assert curve.accuracy[0].value == pytest.approx(8 / 11)


def test_a_sweep_s_example_is_a_success_at_its_eps_star(clf, images):
    labels = clf.predict(images)
    grid = [e / 255 for e in (1, 2, 4, 8, 16)]
    curve = sweep(PGD(), clf, images, mr.Untargeted(labels), mr.Linf, grid)
    broken = torch.isfinite(curve.min_eps)
    assert broken.any()
    size = mr.Linf(1.0).size(curve.images - images)
    assert (size[broken] <= curve.min_eps[broken] + 1e-6).all()
    assert (clf.predict(curve.images)[broken] != labels[broken]).all()


def test_gradients_are_counted_as_they_are_made(images):
    """Each counted gradient is one row of one backward pass of the network."""
    clf = bumpy(classes=3)
    clf.try_narrow(images.shape)
    rows = []
    clf.net.body[0].register_full_backward_hook(lambda m, i, o: rows.append((o[0].flatten(1).abs().amax(1) > 0).sum()))
    goal = mr.Untargeted(clf.predict(images))
    done = run(BIM(steps=5), clf, images, goal, mr.Linf(0.004))
    assert int(done.gradients.sum()) == int(sum(rows))
    assert int(done.gradients.max()) <= 5


def test_one_image_class_goals_and_targets_are_checked(clf, images):
    with pytest.raises(mr.InputError, match="target class 7 does not exist"):
        FGSM()(clf, images, mr.Targeted(7), mr.Linf(0.1))
    with pytest.raises(mr.InputError, match="give one label an image"):
        FGSM()(clf, images, mr.Untargeted(torch.zeros(3, dtype=torch.long)), mr.Linf(0.1))
    with pytest.raises(mr.InputError, match=r"labels must lie in 0\.\.2"):
        FGSM()(clf, images, mr.Untargeted(torch.full((11,), 3)), mr.Linf(0.1))
    with pytest.raises(mr.InputError, match="must lie in"):
        FGSM()(clf, images * 255, mr.Untargeted(torch.zeros(11, dtype=torch.long)), mr.Linf(0.1))
    with pytest.raises(mr.InputError, match="must not be negative"):
        mr.Linf(-1 / 255)
    with pytest.raises(mr.InputError, match="8/255"):
        mr.Linf(8)
    with pytest.raises(mr.InputError, match="non-empty"):
        sweep(FGSM(), clf, images, mr.Untargeted(clf.predict(images)), mr.Linf, [])
    with pytest.raises(mr.InputError, match="ascending"):
        sweep(FGSM(), clf, images, mr.Untargeted(clf.predict(images)), mr.Linf, [0.2, 0.1])


def test_multi_label_heads_are_attacked_as_a_set_of_findings():
    clf, images = mr.Classifier(linear(4).net, list("abcd"), head="multilabel"), grey(11)
    labels = clf.predict(images)
    assert labels.shape == (11, 4)
    # any finding may flip: the distance is the smallest over the findings
    weight, z = clf.net.weight.detach(), clf.logits(images)
    nearest = (z.abs() / weight.abs().sum(1)).amin(1)
    found = DeepFool()(clf, images, mr.Untargeted(labels), mr.Linf(1.0))
    assert (clf.predict(found) != labels).any(1).all()
    assert (mr.Linf(1.0).size(found - images) / nearest).min() > 0.999
    toward = PGD()(clf, images, mr.Targeted(2), mr.Linf(0.2))
    assert (clf.predict(toward)[:, 2] == 1).all()


@pytest.mark.parametrize("attack", [BIM(), PGD(), CWLinf(), mr.attacks.APGD(steps=20), FMN()], ids=repr)
def test_a_targeted_attack_reaches_its_class(attack):
    clf, images = linear(3), grey(11)
    for target in range(3):
        adv = attack(clf, images, mr.Targeted(target), mr.Linf(0.3))
        assert (clf.predict(adv) == target).all()


def test_margin_of_negative_logits():
    """torchattacks gives 2 for logits (2, -3); the truth is 5."""
    clf = linear(2)
    z = torch.tensor([[2.0, -3.0], [-2.0, -3.0], [-5.0, -1.0]])
    goal = mr.Untargeted(torch.tensor([0, 0, 0]))
    assert torch.equal(goal.margin(clf.head, z), torch.tensor([-5.0, -1.0, 4.0]))
    assert torch.equal(
        mr.Targeted(1).prepare(clf.head, 2, 3, z.device).margin(clf.head, z), torch.tensor([-5.0, -1, 4])
    )


@pytest.mark.parametrize(("classes", "head"), [(2, "softmax"), (3, "softmax"), (2, "logit")])
def test_auto_pgd_s_margin_loss_works_from_one_logit_up(classes, head):
    clf, images = linear(classes, head=head), grey(6)
    labels = clf.predict(images)
    adv = mr.attacks.APGD(steps=10, loss=mr.threat.margin)(clf, images, mr.Untargeted(labels), mr.Linf(0.2))
    assert (clf.predict(adv) != labels).all()


def test_keeping_rows_keeps_them_together():
    """The batch book-keeping itself: what is kept after a join is what was put in."""
    clf, images = linear(2), grey(5)
    goal = mr.Untargeted(clf.predict(images)).prepare(clf.head, 2, 5, images.device)

    def active(index):
        i = torch.tensor(index)
        batch = mr.attacks.Batch(
            images[i], mr.Linf(0.1).at(i / 10), goal.take(i), torch.zeros(len(i), dtype=torch.long), i * 0, index, 0
        )
        return ActiveBatch(i, i, batch, images[i], {"id": i.float()})

    kept = active([0, 1]).join(active([2, 3, 4])).keep(torch.tensor([True, False, False, True, True]))
    assert kept.image.tolist() == [0, 3, 4]
    assert kept.batch.ids == [0, 3, 4]
    assert kept.state["id"].tolist() == [0, 3, 4]
    assert torch.equal(kept.now, images[[0, 3, 4]])
    assert kept.batch.ball.eps.flatten().tolist() == pytest.approx([0, 0.3, 0.4])


class Uneven(nn.Module):
    """Its answer depends in the last bits on how many rows it is asked about, as some kernels' do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x) * (1 + 1e-6 * x.shape[0])


def test_narrow_batches_are_used_only_where_they_give_the_same_bits(images):
    clf = bumpy(classes=3)
    uneven = mr.Classifier(Uneven(clf.net), clf.classes)
    for c in (clf, uneven):
        c.try_narrow(images.shape)
    assert uneven.fit(3, images.shape) == uneven.batch_size(images.shape)
    one, other = (
        PGD(steps=6)(uneven, x, mr.Untargeted(y), mr.Linf(0.03), ids=i)
        for x, y, i in [(images, clf.predict(images), range(11)), (images[4:6], clf.predict(images[4:6]), [4, 5])]
    )
    assert torch.equal(one[4:6], other)
    assert torch.equal(uneven.logits(images)[7:9], uneven.logits(images[7:9]))


class Island(nn.Module):
    """Its second class is an island: the mean pixel between 0.52 and ``shore``."""

    def __init__(self, shore=0.60):
        super().__init__()
        self.middle, self.half = (0.52 + shore) / 2, (shore - 0.52) / 2

    def forward(self, x):
        mean = x.mean((1, 2, 3))
        return torch.stack([torch.zeros_like(mean), self.half**2 - (mean - self.middle) ** 2], 1)


@pytest.mark.parametrize("attack", [BIM(steps=4), CWLinf(steps=4, step=0.25)], ids=repr)
def test_an_image_that_holds_at_the_largest_eps_is_not_called_held_at_every_eps(attack):
    """Steps of 0.1 jump to and fro over an island that steps of 0.0125 land on."""
    clf, images = mr.Classifier(Island(shore=0.53), ["sea", "island"]), grey(5, spread=0.0)
    goal, grid = mr.Untargeted(torch.zeros(5, dtype=torch.long)), [0.01, 0.05, 0.2, 0.4]
    assert (clf.predict(attack(clf, images, goal, mr.Linf(0.4))) == 0).all()
    curve = sweep(attack, clf, images, goal, mr.Linf, grid)
    assert curve.min_eps.tolist() == pytest.approx([0.05] * 5)


def test_a_sweep_of_fgsm_is_fgsm_at_every_eps_though_it_is_not_monotone():
    """A single step that fails at a large eps may succeed at a smaller one: no level may be taken for granted."""
    clf, images = mr.Classifier(Island(), ["sea", "island"]), grey(7, spread=0.0)
    goal, grid = mr.Untargeted(torch.zeros(7, dtype=torch.long)), [0.01, 0.03, 0.05, 0.15, 0.3]
    alone = [int(clf.predict(FGSM()(clf, images, goal, mr.Linf(e)))[0]) for e in grid]
    assert alone == [0, 1, 1, 0, 0]
    curve = sweep(FGSM(), clf, images, goal, mr.Linf, grid)
    assert curve.min_eps.tolist() == pytest.approx([0.03] * 7)
    assert (curve.gradients == 1).all()
    assert torch.equal(curve.images, FGSM()(clf, images, goal, mr.Linf(0.03)))


class _Peeking(mr.attacks.PGD):
    """PGD that looks at the network once more in every step, and once more in every evaluation."""

    def __init__(self, classifier, looks: str) -> None:
        super().__init__(steps=3)
        self.classifier, self.looks = classifier, looks

    def evaluate(self, classifier, images, batch, state):
        if "evaluate" in self.looks:
            classifier.logits(images)
        return super().evaluate(classifier, images, batch, state)

    def step(self, images, output, batch, state):
        if "step" in self.looks:
            self.classifier.logits(images)
        return super().step(images, output, batch, state)


@pytest.mark.parametrize(("looks", "more"), [("", 0), ("evaluate", 3), ("step", 3), ("evaluate and step", 6)])
def test_a_second_pass_inside_an_attack_is_counted(looks, more, clf, images):
    """Three steps at full strength cost three gradients and a last pass; what an attack does beside them is added."""
    goal = mr.Untargeted(clf.predict(images))
    honest, peeking = (run(_Peeking(clf, how), clf, images, goal, mr.Linf(0.03), full=True) for how in ("", looks))
    assert (peeking.queries - honest.queries).tolist() == [more] * len(images)
    assert (peeking.forwards - honest.forwards).tolist() == [more] * len(images)
    assert honest.gradients.tolist() == peeking.gradients.tolist() == [3] * len(images)
