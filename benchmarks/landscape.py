"""The loss landscape of 17 x 17 points for some images: seconds, memory, and against one pass a point.

    python benchmarks/landscape.py MODEL DATA [--images 16] [--compare 4]

MODEL is a folder saved by medrobust, DATA a data spec. "batched": `explain.landscape`, the points of all images in full
batches. "one by one": one image and one point a pass, on the first --compare images. Both give the same losses: the
largest difference is printed. Memory is the process's largest so far, printed for the images and for four times as
many, so that it can be seen to stay.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

import medrobust as mr
from counting import images_for
from medrobust import explain


def one_by_one(
    clf: mr.Classifier, images: torch.Tensor, labels: torch.Tensor, first: torch.Tensor, second: torch.Tensor
) -> torch.Tensor:
    net = clf.net.eval().requires_grad_(False)
    mean, std = torch.tensor(clf.mean).view(1, -1, 1, 1), torch.tensor(clf.std).view(1, -1, 1, 1)
    out = torch.empty(len(images), len(explain.GRID), len(explain.GRID))
    with torch.no_grad():
        for i in range(len(images)):
            for a, x in enumerate(explain.GRID):
                for b, y in enumerate(explain.GRID):
                    at = (images[i : i + 1] + x * first[i] + y * second[i]).clamp(0, 1)
                    out[i, a, b] = torch.nn.functional.cross_entropy(net((at - mean) / std), labels[i : i + 1])
    return out


def peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--compare", type=int, default=4)
    options = parser.parse_args()
    clf = mr.Classifier.load(options.model)
    data, x, y = images_for(clf, options.data, 4 * options.images)
    first = explain.loss_gradient(clf, x, y).sign
    second = explain.random_direction(x)
    print(f"{data}, {tuple(x.shape[1:])}, {torch.get_num_threads()} threads, {clf.provenance.get('architecture')}")
    print("\n| way | images | points | seconds | ms a point | largest memory, MiB |")
    print("|---|---|---|---|---|---|")
    times, surface = {}, None
    for n in (options.images, 4 * options.images):
        begin = time.perf_counter()
        made = explain.landscape(clf, x[:n], y[:n], first[:n], second[:n])
        times[n] = time.perf_counter() - begin
        surface = made if surface is None else surface
        print(
            f"| batched | {n} | {made.numel()} | {times[n]:.1f} | {times[n] / made.numel() * 1e3:.2f} | {peak():.0f} |"
        )
    compared = slice(0, options.compare)
    begin = time.perf_counter()
    alone = one_by_one(clf, x[compared], y[compared], first[compared], second[compared])
    took = time.perf_counter() - begin
    each = took / alone.numel() * 1e3
    print(f"| one by one | {options.compare} | {alone.numel()} | {took:.1f} | {each:.2f} | {peak():.0f} |")
    assert surface is not None
    gap = float((surface[compared].float() - alone).abs().max())
    ratio = each / 1e3 / (times[options.images] / surface.numel())
    print(f"\nlargest difference {gap:.1g} nats of {float(alone.max()):.3g}; batched is {ratio:.1f} x as fast a point")


if __name__ == "__main__":
    main()
