"""Attacks without gradients: medrobust and its peers, in turn, one process, the same budget.

    python benchmarks/blackbox.py MODEL DATA [--n 32] [--eps 8] [--queries 200] [--weights FILE]

MODEL is a folder saved by medrobust, or the name of an architecture whose --weights are given; DATA a data spec; eps in
grey levels; needs the extra `peers`. Every library gets the same network and the same correctly read images, and may
ask as often. Prints wall time, rows that went through the network (counted inside it) and the share fooled, judged by
medrobust for all.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import medrobust as mr
from counting import Count, Counted, images_for
from medrobust import stats
from medrobust.attacks import OnePixel, SimBA, Square
from medrobust.experiments import ask
from medrobust.experiments.system import assemble
from medrobust.progress import NoProgress

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]
POPULATION = 20


class AllRows(Counted):
    """Counts every row, wanted with a gradient or not."""

    def __init__(self, clf: mr.Classifier) -> None:
        super().__init__(clf)
        self.all = Count()

    def forward(self, x: Tensor) -> Tensor:
        self.all.rows += x.shape[0]
        return super().forward(x)


def ours(attack: mr.attacks.Attack, ball: mr.threat.Ball, clf: mr.Classifier) -> Attack:
    def attacked(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        counted = mr.Classifier(net, clf.classes, channels=x.shape[1])
        return attack(counted, x, mr.Untargeted(y), ball)

    return attacked


def square_torchattacks(eps: float, queries: int) -> Attack:
    import torchattacks

    return lambda net, x, y: torchattacks.Square(net, eps=eps, n_queries=queries - 1, loss="margin")(x, y)


def one_pixel_torchattacks(queries: int) -> Attack:
    import torchattacks

    # scipy evaluates steps + 1 generations, and asks about the best once a generation to see whether it succeeded
    steps = queries // (POPULATION + 1) - 1
    return lambda net, x, y: torchattacks.OnePixel(net, pixels=1, steps=steps, popsize=POPULATION)(x, y)


def art(make: Callable[..., object]) -> Attack:
    from art.estimators.classification import PyTorchClassifier

    def attacked(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            classes = int(net(x[:1]).shape[1])
        model = PyTorchClassifier(net, nn.CrossEntropyLoss(), tuple(x.shape[1:]), classes, clip_values=(0, 1))
        return torch.from_numpy(make(model).generate(x.numpy(), np.eye(classes)[y.numpy()]))  # type: ignore[attr-defined]

    return attacked


def square_art(eps: float, queries: int) -> Attack:
    from art.attacks.evasion import SquareAttack

    return art(lambda model: SquareAttack(model, norm=np.inf, max_iter=queries - 1, eps=eps, p_init=0.8, verbose=False))


def simba_art(eps: float, queries: int) -> Attack:
    """A pixel in turn by +-eps, each once, so that it stays inside the ball. One image at a time."""
    from art.attacks.evasion import SimBA as Peer
    from art.estimators.classification import PyTorchClassifier

    def attacked(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            classes = int(net(x[:1]).shape[1])
        # it wants probabilities
        model = PyTorchClassifier(
            nn.Sequential(net, nn.Softmax(1)), nn.CrossEntropyLoss(), tuple(x.shape[1:]), classes, clip_values=(0, 1)
        )
        # each direction costs it two questions, whichever helps
        attack = Peer(model, "px", max_iter=queries // 2, epsilon=eps, verbose=False, batch_size=1)
        return torch.from_numpy(attack.generate(x.numpy(), np.eye(classes)[y.numpy()]))

    return attacked


def loaded(options: argparse.Namespace) -> tuple[mr.Classifier, str, Tensor, Tensor]:
    """The classifier, and images that it reads correctly."""
    if options.weights:
        spec = ask(data=options.data, model=options.model, weights=options.weights, limit=2 * options.n)
        subject = assemble(spec, None, NoProgress(), "cpu")
        clf, name, (x, y) = subject.classifier, subject.data.name, subject.sample.tensors()
    else:
        clf = mr.Classifier.load(options.model)
        name, x, y = images_for(clf, options.data, 2 * options.n)
    right = (clf.predict(x) == y).nonzero()[: options.n, 0]
    return clf, name, x[right], y[right]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--n", type=int, default=32)
    parser.add_argument("--eps", type=float, default=8.0)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--weights")
    options = parser.parse_args()
    clf, name, x, y = loaded(options)
    eps, q = options.eps / 255, options.queries
    inside, anything = mr.Linf(eps), mr.Linf(1.0)
    contests = {
        "Square": {
            "medrobust": (ours(Square(q), inside, clf), inside),
            "torchattacks": (square_torchattacks(eps, q), inside),
            "ART": (square_art(eps, q), inside),
        },
        "SimBA, pixels": {"medrobust": (ours(SimBA(q), inside, clf), inside), "ART": (simba_art(eps, q), inside)},
        "one pixel": {
            "medrobust": (ours(OnePixel(q, population=POPULATION), anything, clf), anything),
            "torchattacks": (one_pixel_torchattacks(q), anything),
        },
    }
    print(f"{name}, n = {len(x)}, {tuple(x.shape[1:])}, {options.eps:g}/255, {torch.get_num_threads()} threads\n")
    print("| attack | library | seconds | rows an image | fooled, 95 % interval | ratio to medrobust |")
    print("|---|---|---|---|---|---|")
    for attack, libraries in contests.items():
        base = None
        for library, (run, ball) in libraries.items():
            print(line(attack, library, run, ball, clf, x, y, base), flush=True)
            base = base or SECONDS[-1]


SECONDS: list[float] = []


def line(
    attack: str,
    library: str,
    run: Attack,
    ball: mr.threat.Ball,
    clf: mr.Classifier,
    x: Tensor,
    y: Tensor,
    base: float | None,
) -> str:
    """One library at one attack: a row of the table."""
    net = AllRows(clf)
    net(x[:8])
    net.all.rows, begin = 0, time.perf_counter()
    try:
        attacked = run(net, x, y)
    except Exception as error:  # a peer that cannot do it is a result
        SECONDS.append(time.perf_counter() - begin)
        return f"| {attack} | {library} | – | – | fails: {type(error).__name__}: {error} | – |"
    SECONDS.append(time.perf_counter() - begin)
    outcome = mr.judge(clf, x, attacked.float(), mr.Untargeted(y), ball)
    e = stats.proportion(outcome.reached.numpy())
    ratio = "1" if base is None else f"{SECONDS[-1] / base:.1f} x time"
    rows = net.all.rows / len(x)
    share = f"{e.value:.0%} ({e.low:.0%} to {e.high:.0%})"
    return f"| {attack} | {library} | {SECONDS[-1]:.1f} | {rows:.0f} | {share} | {ratio} |"


if __name__ == "__main__":
    main()
