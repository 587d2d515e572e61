"""Accuracy against epsilon on the grid of Ma et al. 2020: medrobust and its peers, in turn, one process.

    python benchmarks/curve.py MODEL DATA [--attacks PGD] [--n 64] [--peers torchattacks foolbox] [--rounds 5]

MODEL is a folder saved by medrobust, DATA a data spec; needs the extra `peers`. The same network, images, steps and
epsilons (0.1 to 1.0 and 2 to 10 grey levels) for everyone; every library gets batches of the same size. --attacks: any
of FGSM, BIM, PGD and CW (the margin loss in sign steps), 20 steps each; with several also their worst case. A peer's
user attacks at each eps the images that still hold; --every-image: all images at every eps. Both sides run in turn,
--rounds times each. Prints CPU seconds of the process, gradient evaluations an image (counted inside the network), the
ratio with its spread, the accuracy that each reaches, and image by image whose smallest eps is larger.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import medrobust as mr
from counting import Counted, images_for
from medrobust import attacks, stats
from medrobust.experiments.config import GRID

STEPS = 20
STEP = {"BIM": 1 / STEPS, "PGD": 2 / STEPS, "CW": 2 / STEPS}
"""Length of a step as a fraction of eps."""
OURS = {
    "FGSM": attacks.FGSM(),
    "BIM": attacks.BIM(steps=STEPS),
    "PGD": attacks.PGD(steps=STEPS),
    "CW": attacks.CWLinf(steps=STEPS),
}
Smallest = dict[str, Tensor]
"""Name of an attack to the smallest eps of each image, infinite where it holds."""
Attacked = Callable[[nn.Module, Tensor, Tensor, float, str], Tensor]


def ours(net: Counted, clf: mr.Classifier, x: Tensor, y: Tensor, batch: int, names: list[str]) -> Smallest:
    counted = mr.Classifier(net, clf.classes, channels=x.shape[1], batch_size=batch)
    order = [name for name in ("PGD", "BIM", "CW", "FGSM") if name in names]
    curves = attacks.sweep_all([OURS[name] for name in order], counted, x, mr.Untargeted(y), mr.Linf, GRID)
    return {name: curve.min_eps for name, curve in zip(order, curves, strict=True)}


def each_eps(attack: Attacked, every_image: bool) -> Callable[..., Smallest]:
    """A peer attacks at each eps the images that hold; what broke at an eps counts as broken above it, as for us."""

    def curve(net: Counted, _: mr.Classifier, x: Tensor, y: Tensor, batch: int, names: list[str]) -> Smallest:
        with torch.no_grad():
            right = torch.cat([net(part).argmax(1) for part in x.split(batch)]) == y
        smallest = {name: torch.where(right, torch.inf, 0.0) for name in names}
        for name in names:
            for eps in GRID:
                rows = torch.arange(len(x)) if every_image else smallest[name].isinf().nonzero()[:, 0]
                for part in rows.split(batch) if len(rows) else ():
                    adv = attack(net, x[part], y[part], eps, name)
                    with torch.no_grad():
                        wrong = net(adv).argmax(1) != y[part]
                    smallest[name][part] = smallest[name][part].minimum(torch.where(wrong, eps, torch.inf))
        return smallest

    return curve


def gap(logits: Tensor, y: Tensor) -> Tensor:
    """The best other logit less that of the label (Carlini & Wagner)."""
    label = nn.functional.one_hot(y, logits.shape[1]).bool()
    return logits.masked_fill(label, -torch.inf).amax(1) - logits[label]


def of_torchattacks(net: nn.Module, x: Tensor, y: Tensor, eps: float, name: str) -> Tensor:
    import torchattacks

    class CW(torchattacks.PGD):  # its CW is for L2: PGD with the loss exchanged, as its user would write it
        def forward(self, images: Tensor, labels: Tensor) -> Tensor:
            adv = images.clone()
            for _ in range(self.steps):
                adv.requires_grad = True
                (grad,) = torch.autograd.grad(gap(self.get_logits(adv), labels).sum(), adv)
                adv = adv.detach() + self.alpha * grad.sign()
                adv = (images + (adv - images).clamp(-self.eps, self.eps)).clamp(0, 1).detach()
            return adv

    if name == "FGSM":
        return torchattacks.FGSM(net, eps=eps)(x, y)
    settings = {"eps": eps, "alpha": STEP[name] * eps, "steps": STEPS}
    if name == "BIM":
        return torchattacks.BIM(net, **settings)(x, y)
    return (CW if name == "CW" else torchattacks.PGD)(net, random_start=name == "PGD", **settings)(x, y)


def of_foolbox(net: nn.Module, x: Tensor, y: Tensor, eps: float, name: str) -> Tensor:
    import eagerpy
    import foolbox

    class CW(foolbox.attacks.LinfPGD):
        def get_loss_fn(self, model: Callable[[Tensor], Tensor], labels: Tensor) -> Callable[[Tensor], Tensor]:
            return lambda inputs: eagerpy.astensor(gap(model(inputs).raw, labels.raw).sum())

    if name == "FGSM":
        attack = foolbox.attacks.LinfFastGradientAttack()
    else:
        kind = CW if name == "CW" else foolbox.attacks.LinfPGD
        attack = kind(rel_stepsize=STEP[name], steps=STEPS, random_start=name == "PGD")
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    return attack(model, x, y, epsilons=eps)[1]


def of_art(net: nn.Module, x: Tensor, y: Tensor, eps: float, name: str) -> Tensor:
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    with torch.no_grad():
        classes = int(net(x[:1]).shape[1])
    loss: Callable[[Tensor, Tensor], Tensor] = nn.CrossEntropyLoss()
    if name == "CW":
        loss = lambda logits, labels: gap(logits, labels).mean()  # noqa: E731
    model = PyTorchClassifier(net, loss, tuple(x.shape[1:]), classes, clip_values=(0, 1))
    if name == "FGSM":
        attack = FastGradientMethod(model, eps=eps, batch_size=len(x))
    else:
        attack = ProjectedGradientDescentPyTorch(
            model,
            eps=eps,
            eps_step=STEP[name] * eps,
            max_iter=STEPS,
            num_random_init=int(name == "PGD"),
            batch_size=len(x),
            verbose=False,
        )
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


PEERS: dict[str, Attacked] = {"torchattacks": of_torchattacks, "foolbox": of_foolbox, "ART": of_art}


def spread(values: list[float]) -> str:
    """Median (minimum to maximum)."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def accuracy(smallest: Smallest) -> str:
    """Worst case over the attacks at four epsilons, with 95 % intervals."""
    worst, shown = torch.stack(list(smallest.values())).amin(0), []
    for level in (0.3, 0.5, 1, 2):
        eps = min(GRID, key=lambda e: abs(e * 255 - level))
        interval = stats.proportion((worst > eps * (1 + 1e-6)).numpy())
        shown.append(f"{interval.value:.0%} ({interval.low:.0%} to {interval.high:.0%})")
    return ", ".join(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--attacks", nargs="+", default=["PGD"], choices=list(OURS))
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--peers", nargs="*", default=["torchattacks", "foolbox"], choices=list(PEERS))
    parser.add_argument("--every-image", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    clf = mr.Classifier.load(options.model)
    data, x, y = images_for(clf, options.data, options.n)
    batch = clf.batch_size(x.shape)
    libraries = {"medrobust": ours, **{name: each_eps(PEERS[name], options.every_image) for name in options.peers}}
    seconds: dict[str, list[float]] = {name: [] for name in libraries}
    gradients: dict[str, list[float]] = {name: [] for name in libraries}
    last: dict[str, Smallest] = {}
    for turn in range(options.rounds):
        for name, run in libraries.items():
            net = Counted(clf)
            net(x[:batch])
            net.count.rows = 0
            torch.manual_seed(turn)
            begin = time.process_time()
            last[name] = run(net, clf, x, y, batch, options.attacks)
            seconds[name].append(time.process_time() - begin)
            gradients[name].append(net.count.rows / len(x))
    print(f"{data}, n = {len(x)}, {tuple(x.shape[1:])}, batch {batch}, {torch.get_num_threads()} thread(s)")
    print(f"{', '.join(options.attacks)}; {'every image' if options.every_image else 'survivors only'}\n")
    print(
        "| library | CPU seconds | gradients an image | time / ours | gradients / ours | eps*: ours larger, smaller |"
    )
    print("|---|---|---|---|---|---|")
    for name in libraries:
        row = [name, spread(seconds[name]), f"{statistics.median(gradients[name]):.1f}"]
        if name != "medrobust":
            for cost in (seconds, gradients):
                row.append(spread([a / b for a, b in zip(cost[name], cost["medrobust"], strict=True)]))
            pairs = [(last["medrobust"][a], last[name][a]) for a in options.attacks]
            if len(options.attacks) > 1:
                pairs.append(tuple(torch.stack(list(last[k].values())).amin(0) for k in ("medrobust", name)))
            close = 1 + 1e-6  # eps* of ours is float32
            larger = [f"{int((o > p * close).sum())}, {int((o * close < p).sum())}" for o, p in pairs]
            row.append("; ".join(larger))
        print(f"| {' | '.join(row)} |")
    print()
    for name in libraries:
        print(f"accuracy at 0.3, 0.5, 1, 2/255, {name}: {accuracy(last[name])}")


if __name__ == "__main__":
    main()
