"""Do the statistics that a network keeps of its training images help to turn them both ways, from natural images alone?

    python studies/universal_statistics.py DATA OUT [SET …]

DATA and OUT as of studies/universal_perturbations.py (classifiers are trained where missing); SET: fundus and skin by
default. Perturbations by SGA's climb alone, without a second one toward a class; p = 2, zeta = 4 %. Images: training,
natural, varied natural ones, and of 3,000 varied ones the 400 whose means and variances at all BatchNorm layers are
together nearest to the running ones, chosen one after the other. Networks: as it is, and copies in which the running
statistics are replaced by those of the images, by half or whole (as in AdaBN, Li et al. 2016, arXiv:1603.04779).
Prints Rf on validation images, and by the class they were called before: this chooses nothing, test images are not
looked at. Duration: about four minutes a set on one core.

To expect: on the fundus no way from natural images does more than a pile into one class would (76 %), where training
images give 89 %; copies with all statistics replaced turn images of all four classes, and fewer of each.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn
from universal_perturbations import share, table
from universal_pieces import CRAFT, Study

import medrobust as mr
from medrobust import stats
from medrobust.images import Images, chunks
from medrobust.universal import SGA, UniversalTask

BATCH = 50
POOL = 3000
"""Varied images from which the nearest are chosen."""
FAR = 20.0
"""A variance so many times that of training counts no further: one channel must not decide."""


def norms(net: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]


def running(layer: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Its running means and variances: the tensors themselves."""
    assert layer.running_mean is not None
    assert layer.running_var is not None
    return layer.running_mean, layer.running_var


def statistics(classifier: mr.Classifier, images: Images) -> tuple[Tensor, Tensor, Tensor]:
    """For each image and each channel before BatchNorm: mean and mean square apart from the running mean, in units of
    the running deviation and variance; and each channel's weight, such that all layers weigh alike."""
    layers = norms(classifier.net)
    kept = [running(m) for m in layers]
    seen: dict[nn.Module, Tensor] = {}
    hooks = [m.register_forward_pre_hook(lambda m, args: seen.__setitem__(m, args[0])) for m in layers]
    means, squares = [], []
    for part in images.split(BATCH):
        with torch.no_grad(), classifier.borrowed():  # as one batch, which ``logits`` might divide or fill up
            classifier.net(classifier._prepare(part))
        apart = [seen[m] - mean.view(1, -1, 1, 1) for m, (mean, _) in zip(layers, kept, strict=True)]
        means.append(torch.cat([a.mean((2, 3)) / var.sqrt() for a, (_, var) in zip(apart, kept, strict=True)], 1))
        squares.append(torch.cat([a.square().mean((2, 3)) / v for a, (_, v) in zip(apart, kept, strict=True)], 1))
    for hook in hooks:
        hook.remove()
    weight = torch.cat([torch.full((m.num_features,), 1 / m.num_features / len(layers)) for m in layers])
    return torch.cat(means), torch.cat(squares).clamp_max(FAR), weight


def distance(means: Tensor, squares: Tensor, weight: Tensor) -> Tensor:
    """Of statistics (…, channels) from those of training."""
    return ((means.square() + (squares - 1).square() / 4) * weight).sum(-1)


def nearest(means: Tensor, squares: Tensor, weight: Tensor, n: int) -> list[int]:
    """Positions of n images that are together nearest to training, each added one the best there is."""
    chosen: list[int] = []
    total = torch.zeros_like(means[0]), torch.zeros_like(means[0])
    for size in range(1, n + 1):
        cost = distance((total[0] + means) / size, (total[1] + squares) / size, weight)
        cost[chosen] = torch.inf
        chosen.append(int(cost.argmin()))
        total = total[0] + means[chosen[-1]], total[1] + squares[chosen[-1]]
    return chosen


def replaced(classifier: mr.Classifier, images: Images, part: float) -> mr.Classifier:
    """A copy whose running statistics are, by that part, those of these images."""
    other = copy.deepcopy(classifier)
    before = [[kept.clone() for kept in running(m)] for m in norms(other.net)]
    for m in norms(other.net):
        m.momentum = None  # a plain mean over batches
        m.reset_running_stats()
        m.train()
    with torch.no_grad():
        for chunk in images.split(2 * BATCH):
            other.net(other._prepare(chunk))
    for m, old in zip(norms(other.net), before, strict=True):
        m.eval()
        for now, then in zip(running(m), old, strict=True):
            now.lerp_(then, 1 - part)
    return other


def lines(study: Study, name: str) -> Iterable[list[str]]:
    network, ball, val = study.network(name), study.eps(name, "l2", 0.04), study.loaded(name).split("val")
    held, _ = val.sample(300, 0).tensors()
    clean = network.predict(held)

    def pixels(kind: str, n: int = CRAFT) -> Images:
        return torch.cat(list(chunks(study.pixels(study.source(kind, name, n)), BATCH)))

    def row(what: str, images: Images, part: float = 0.0, passes: int = 3) -> list[str]:
        target = replaced(network, images, part) if part else network
        fast = target.fast(images.shape)
        with fast.borrowed():
            task = UniversalTask(fast, images, mr.Untargeted(), ball, None)
            found = SGA(passes=passes).climb(task, 0)
        fooled = network.predict((held + found.delta).clamp(0, 1)) != clean
        classes = [f"{fooled[clean == k].float().mean():.0%}" for k in range(len(network.classes))]
        on = {0.0: "the network", 0.5: "copy, half replaced", 1.0: "copy, all replaced"}[part]
        own = found.history[-1]["rate"]
        return [what, on, str(task.gradients), share(stats.proportion(fooled.numpy())), *classes, f"{own:.0%}"]

    yield row(f"{CRAFT} training images", pixels("training"))
    yield row(f"{CRAFT} natural", pixels("natural"))
    varied, pool = pixels("varied"), pixels("varied", POOL)
    known = statistics(network, pool)
    chosen = pool[nearest(*known, CRAFT)]
    for what, images in ((f"{CRAFT} varied", varied), (f"{CRAFT} chosen", chosen)):
        means, squares, weight = statistics(network, images)
        apart = float(distance(means.mean(0), squares.mean(0), weight))
        for part in (0.0, 0.5, 1.0):
            yield row(f"{what} (distance {apart:.2f})", images, part)
    yield row(f"{POOL} varied, one pass", pool, passes=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("sets", nargs="*", default=["fundus", "skin"])
    asked = parser.parse_args()
    study = Study(asked.data, asked.out)
    for name in asked.sets:
        classes = study.network(name).classes
        n = min(300, len(study.loaded(name).split("val")))
        head = ["made from", "on", "gradients", "Rf", *classes, "of its own"]
        table(
            f"**Natural images and the network's statistics** ({name}), n = {n} validation images",
            head,
            lines(study, name),
        )


if __name__ == "__main__":
    main()
