"""What honest and masked networks reach in the comparison of the gradient with finite differences.

    medrobust train --data medmnist:pneumoniamnist.npz --model small_cnn --epochs 5 runs/small
    python -m benchmarks.gradient_check --model runs/small --data medmnist:pneumoniamnist.npz

Prints a row a network: cosine of predicted and true changes, the share of the pixel range by which every pixel must
change before a decision could turn, and the verdict. --beside NAME=VALUE,… (model, data, weights, mean, std, label,
size) adds a row for another honest network and may be repeated. Well under a minute on a quiet CPU.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tests.defences import Around, RandomGradient, Stairs, Winners, jpeg, median, quantised, ramp, replaced, thermometer
from torch import Tensor, nn

from medrobust import Classifier
from medrobust.attacks.derivative import derivative
from medrobust.data import Dataset
from medrobust.experiments import ask
from medrobust.experiments.gradient_check import compared
from medrobust.experiments.system import assemble
from medrobust.progress import NoProgress
from medrobust.run_folder import RunFolder


class Scaled(nn.Module):
    """A classifier's network as one of images in [0, 1]."""

    def __init__(self, whole: Classifier) -> None:
        super().__init__()
        self.net, self.mean, self.std = whole.net, whole.mean[0], whole.std[0]

    def forward(self, images: Tensor) -> Tensor:
        return self.net((images - self.mean) / self.std)


def blurred(images: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="reflect"), 3, 1)


def voted(net: nn.Module, images: Tensor) -> Tensor:
    mean = torch.stack([net(images), net(images + 0.01), net(images - 0.01)]).mean(0)
    return F.one_hot(mean.argmax(1), mean.shape[1]).float()


def honest(net: nn.Module) -> dict[str, nn.Module]:
    half, brain = copy.deepcopy(net).half(), copy.deepcopy(net).bfloat16()
    return {
        "as it is (ReLU, BatchNorm)": net,
        "SiLU for ReLU": replaced(net, nn.ReLU, lambda _: nn.SiLU()),
        "logits x 1000": Around(net, lambda n, x: 1000 * n(x)),
        "logits / 1000": Around(net, lambda n, x: n(x) / 1000),
        "3 tanh(logits / 3)": Around(net, lambda n, x: 3 * torch.tanh(n(x) / 3)),
        "log-softmax": Around(net, lambda n, x: n(x).log_softmax(1)),
        "median filter before": Around(net, lambda n, x: n(median(x))),
        "blurred before": Around(net, lambda n, x: n(blurred(x))),
        "8 bit, straight-through gradient": Around(net, lambda n, x: n(x + (quantised(x, 256) - x).detach())),
        "float16": Around(half, lambda n, x: n(x.half()).float()),
        "bfloat16": Around(brain, lambda n, x: n(x.bfloat16()).float()),
    }


def masked(net: nn.Module) -> dict[str, nn.Module]:
    """All but the sign, the random gradient and the winners carry a linear term of 1e-5, so that no gradient is 0."""
    stairs = replaced(net, nn.ReLU, lambda _: Stairs())
    return {
        "detached": Around(net, lambda n, x: ramp(x, n(x.detach()))),
        "sign turned": Around(net, lambda n, x: n(2 * x.detach() - x)),
        "random gradient": Around(net, lambda n, x: n(RandomGradient.apply(x))),
        "8 bit": Around(net, lambda n, x: ramp(x, n(quantised(x, 256)))),
        "16 levels": Around(net, lambda n, x: ramp(x, n(quantised(x, 16)))),
        "3 bit": Around(net, lambda n, x: ramp(x, n(quantised(x, 8)))),
        "JPEG 60": Around(net, lambda n, x: ramp(x, n(jpeg(x)))),
        "median filter, detached": Around(net, lambda n, x: ramp(x, n(median(x.detach())))),
        "thermometer": Around(net, lambda n, x: ramp(x, n(thermometer(x)))),
        "k winners take all": replaced(net, nn.ReLU, lambda _: Winners()),
        "tanh(1000 logits)": Around(net, lambda n, x: ramp(x, torch.tanh(1000 * n(x)))),
        "clipped and rounded logits": Around(net, lambda n, x: ramp(x, torch.round(4 * n(x).clamp(-3, 3)) / 4)),
        "hard vote": Around(net, lambda n, x: ramp(x, voted(n, x))),
        "stairs for ReLU": Around(stairs, lambda n, x: ramp(x, n(x))),
    }


def row(name: str, kind: str, classifier: Classifier, part: Dataset) -> None:
    images, _ = part.tensors()
    begin = time.process_time()
    found = derivative(classifier, images, ids=part.ids)
    verdict = {True: "holds", False: "masked", None: "cannot be compared"}[found.holds]
    seconds = time.process_time() - begin
    print(
        f"| {name} | {kind} | {found.cosine:.2f} | {found.range_needed:.2g} | {verdict} | {seconds:.1f} |", flush=True
    )


def loaded(options: dict[str, str]) -> tuple[Classifier, Dataset]:
    mean, std = ((float(options[k]),) * 3 if k in options else None for k in ("mean", "std"))
    spec = ask(
        data=options["data"],
        model=options["model"],
        weights=options.get("weights"),
        mean=mean,
        std=std,
        label=options.get("label", "label"),
        size=int(options["size"]) if "size" in options else None,
    )
    with tempfile.TemporaryDirectory() as place, RunFolder(Path(place) / "run", "audit") as run:
        subject = assemble(spec, run, NoProgress(), "cpu")
    return subject.classifier, subject.test.sample(compared(subject.test), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--beside", action="append", default=[])
    arguments = parser.parse_args()
    torch.manual_seed(0)
    whole, part = loaded({"model": arguments.model, "data": arguments.data})
    print(f"{len(part)} images of {part.name}, {part.size} px\n")
    print("| network | gradient | cosine | range needed | verdict | seconds of CPU |\n|---|---|---|---|---|---|")
    net = Scaled(whole).eval()
    for kind, networks in (("honest", honest(net)), ("masked", masked(net))):
        for name, made in networks.items():
            made.eval()
            row(name, kind, Classifier(made, whole.classes, head=whole.head.name, channels=whole.channels), part)
    for text in arguments.beside:
        options = dict(pair.split("=", 1) for pair in text.split(","))
        other, images = loaded(options)
        row(f"{Path(options['model']).name}, {images.name}, {images.size} px", "honest", other, images)


if __name__ == "__main__":
    main()
