"""Scores of kernel density and LID against the reference way, and features of all layers in flat memory.

    python benchmarks/detectors.py MODEL [--images 10000] [--bank 2000] [--rounds 3]

MODEL is a folder saved by medrobust, a ResNet-18 at 28 px for 512 features; the images are phantoms of its size.
Kernel density: scikit-learn's KernelDensity, one a class, every image scored under the class that it is decided as.
LID: scipy's distances from a minibatch of 100 clean images, sorted by numpy, as in the code of Ma et al. 2018. Both
sides in turn, in one process, on the same features; the smallest time of each side's rounds counts. Slower peers are
timed on fewer images (said in the table). scikit-learn sums its kernels along a tree and can lose digits on the way:
both sides are also held against the plain sum. Then the features of every module of the network, streamed for 1,000
images and for all of them, each in a process of its own: the largest resident memory must not grow with the images.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

import medrobust as mr
from medrobust.detectors import LID, Features, KernelDensity
from medrobust.detectors.features import LOGITS, PENULTIMATE, LayerFeatures, predicted_class, rows

BATCH, NEIGHBOURS = 100, 20
FEW = 1000
"""Images that a peer is timed on which would take minutes for all."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--bank", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    clf = mr.Classifier.load(options.model)
    if options.one:
        stream(clf, options.one)
        return
    everything = Features(clf, (PENULTIMATE,))(phantoms(clf, options.images + options.bank))
    bank, images = rows(everything, slice(0, options.bank)), rows(everything, slice(options.bank, None))
    print(f"{options.images:,} images, {images[PENULTIMATE].shape[1]} features, {torch.get_num_threads()} threads\n")
    print("| scores | us an image | n timed | largest difference | reference way over it |")
    print("|---|---|---|---|---|", flush=True)
    density(bank, images, options.rounds)
    dimensionality(bank, images, options.rounds)
    print("\n| images streamed | layers | features an image | seconds | largest memory, MiB |")
    print("|---|---|---|---|---|", flush=True)
    for n in (min(1000, options.images), options.images):
        subprocess.run([sys.executable, __file__, options.model, "--one", str(n)], check=True)


def phantoms(clf: mr.Classifier, n: int) -> mr.data.Dataset:
    return mr.data.load(f"phantom:chest@{clf.size or 28}:n={n}")


def density(bank: LayerFeatures, images: LayerFeatures, rounds: int) -> None:
    """KernelDensity.numbers against scikit-learn's, class by class."""
    from sklearn.neighbors import KernelDensity as Theirs

    ours = KernelDensity().fit_features(bank, reference=bank)
    decided, few = predicted_class(images), slice(0, FEW)
    points, known, x = bank[PENULTIMATE].double().numpy(), predicted_class(bank).numpy(), images[PENULTIMATE].double()
    theirs = {c: Theirs(bandwidth=1.0).fit(points[known == c]) for c in np.unique(known)}

    def reference() -> np.ndarray:
        found, mine = np.empty(FEW), decided[few].numpy()
        for c, estimate in theirs.items():
            found[mine == c] = estimate.score_samples(x[few][mine == c].numpy())
        return -found

    spent, found = in_turn({"scikit-learn": reference, "medrobust": lambda: ours.numbers(images)[:, 0].numpy()}, rounds)
    apart = difference(found["medrobust"][few], found["scikit-learn"])
    told("kernel density", "scikit-learn KernelDensity a class", spent["scikit-learn"] / FEW, FEW)
    told("", "medrobust", spent["medrobust"] / len(x), len(x), apart, spent["scikit-learn"] / FEW)
    plain = np.array([summed(x[i].numpy(), points[known == decided[i].item()]) for i in range(FEW)])
    for who in found:
        told("", f"{who} against the plain sum", np.nan, FEW, difference(found[who][few], plain))


def summed(x: np.ndarray, points: np.ndarray) -> float:
    """-log density of one image, term by term."""
    from scipy.special import logsumexp

    return float(np.log(len(points)) + len(x) / 2 * np.log(2 * np.pi) - logsumexp(-((points - x) ** 2).sum(1) / 2))


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest, as a share of the number where that is above 1."""
    return float((np.abs(a - b) / np.maximum(np.abs(b), 1)).max())


def dimensionality(bank: LayerFeatures, images: LayerFeatures, rounds: int) -> None:
    """LID.numbers and LID as published, each against numpy."""
    from scipy.spatial.distance import cdist

    fixed, first = LID(layers=(PENULTIMATE,)), rows(bank, slice(0, BATCH))
    fixed.fit_features(rows(bank, slice(BATCH, 2 * BATCH)), rows(bank, slice(2 * BATCH, 3 * BATCH)), reference=first)
    x, batch = images[PENULTIMATE].numpy(), first[PENULTIMATE].numpy()
    own = (NEIGHBOURS - 2) / NEIGHBOURS  # the estimate without bias has k - 2 where the published one has k

    def mle(values: np.ndarray, clean: np.ndarray, skipped: int) -> np.ndarray:
        near = np.apply_along_axis(np.sort, 1, cdist(values, clean))[:, skipped : NEIGHBOURS + skipped]
        return np.apply_along_axis(lambda v: -NEIGHBOURS / np.sum(np.log(v / v[-1])), 1, near)

    def sorted_by_numpy(of: Callable[[int], np.ndarray], skipped: int) -> np.ndarray:
        parts = [mle(x[i : i + BATCH], of(i), skipped) for i in range(0, len(x), BATCH)]
        return own * np.concatenate(parts)

    published = LID(layers=(PENULTIMATE,), batch=BATCH)
    for name, reference, mine in (
        ("LID, a fixed bank of 100", lambda: sorted_by_numpy(lambda _: batch, 0), lambda: fixed.numbers(images)),
        (
            "LID as published, in minibatches of 100",
            lambda: sorted_by_numpy(lambda i: x[i : i + BATCH], 1),
            lambda: published.represent_published(images, rows(images, slice(0, len(x))))[0],
        ),
    ):
        spent, found = in_turn({"numpy": reference, "medrobust": lambda mine=mine: mine()[:, 0].numpy()}, rounds)
        # represent_published answers for both sides, clean and attacked
        sides = 2 if "published" in name else 1
        told(name, "scipy distances, numpy sort", spent["numpy"] / len(x), len(x))
        apart = difference(found["medrobust"], found["numpy"])
        told("", "medrobust", spent["medrobust"] / len(x) / sides, len(x), apart, spent["numpy"] / len(x))


def in_turn(ways: dict[str, Callable[[], np.ndarray]], rounds: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """The smallest time of each, and what each found."""
    least, found = dict.fromkeys(ways, np.inf), {}
    for _ in range(rounds):
        for name, way in ways.items():
            begin = time.perf_counter()
            found[name] = way()
            least[name] = min(least[name], time.perf_counter() - begin)
    return least, found


def told(what: str, who: str, seconds: float, n: int, apart: float | None = None, peer: float | None = None) -> None:
    cells = [
        f"{what + ': ' if what else ''}{who}",
        "" if np.isnan(seconds) else f"{seconds * 1e6:.2f}",
        f"{n:,}",
        "" if apart is None else f"{apart:.1e}",
        "" if peer is None else f"{peer / seconds:.1f} x",
    ]
    print("| " + " | ".join(cells) + " |", flush=True)


def stream(clf: mr.Classifier, n: int) -> None:
    """Features of every module of the network, none of them kept."""
    layers = [name for name, _ in clf.net.named_modules() if name]
    features = Features(clf, (*layers, PENULTIMATE))
    begin, seen, width = time.perf_counter(), 0, 0
    for table in features.stream(phantoms(clf, n)):
        seen += len(table[LOGITS])
        width = sum(values.shape[1] for values in table.values())
    top = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {seen:,} | {len(layers) + 2} | {width:,} | {time.perf_counter() - begin:.1f} | {top:.0f} |", flush=True)


if __name__ == "__main__":
    main()
