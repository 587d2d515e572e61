"""What honest and masked networks reach in the comparison of the gradient with finite differences.

    medrobust train --data medmnist:pneumoniamnist.npz --model small_cnn --epochs 5 runs/small
    python benchmarks/gradient_check.py --model runs/small --data medmnist:pneumoniamnist.npz

Prints a row a network: cosine of predicted and true changes, the share of the pixel range by which every pixel must
change before a decision could turn, and the verdict. --beside NAME=VALUE,… (model, data, weights, mean, std, label,
size) adds a row for another honest network and may be repeated. Well under a minute on a quiet CPU.
"""

from __future__ import annotations

import argparse
import copy
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from medrobust import Classifier
from medrobust.attacks.derivative import derivative
from medrobust.data import Dataset
from medrobust.experiments import ask
from medrobust.experiments.gradient_check import compared
from medrobust.experiments.system import assemble
from medrobust.progress import NoProgress
from medrobust.run_folder import RunFolder

Change = Callable[[nn.Module, Tensor], Tensor]


class Around(nn.Module):
    """A network with something done to its images, its outputs or its gradient; images in [0, 1]."""

    def __init__(self, net: nn.Module, change: Change) -> None:
        super().__init__()
        self.net, self.change = net, change

    def forward(self, images: Tensor) -> Tensor:
        return self.change(self.net, images)


class Scaled(nn.Module):
    def __init__(self, whole: Classifier) -> None:
        super().__init__()
        self.net, self.mean, self.std = whole.net, whole.mean[0], whole.std[0]

    def forward(self, images: Tensor) -> Tensor:
        return self.net((images - self.mean) / self.std)


class Winners(nn.Module):
    """A tenth of the activations, the largest (Xiao et al. 2020, arXiv:1905.10510)."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        least = flat.topk(max(1, flat.shape[1] // 10), 1).values[:, -1:]
        return torch.where(flat >= least, flat, torch.zeros_like(flat)).view_as(x)


class Stairs(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.round(F.relu(x) * 4) / 4


class Random(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, images: Tensor) -> Tensor:  # noqa: ARG004
        return images.clone()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return torch.randn_like(gradients[0]) * gradients[0].abs().mean()


def with_activation(net: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
    net = copy.deepcopy(net)
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(module, name, make())
    return net


def term(images: Tensor, out: Tensor) -> Tensor:
    """The outputs with a gradient that has nothing to do with the network."""
    return out + 1e-5 * images.flatten(1).sum(1, keepdim=True) * torch.linspace(-1, 1, out.shape[1])


def rounded(images: Tensor, levels: int) -> Tensor:
    return torch.round(images * (levels - 1)) / (levels - 1)


def median(images: Tensor) -> Tensor:
    around = F.pad(images, (1, 1, 1, 1), mode="reflect").unfold(2, 3, 1).unfold(3, 3, 1)
    return around.flatten(4).median(-1).values


def blurred(images: Tensor) -> Tensor:
    return F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="reflect"), 3, 1)


def thermometer(images: Tensor) -> Tensor:
    levels = [(images > level).float() for level in torch.linspace(0.03, 0.97, 16)]
    return torch.stack(levels).mean(0)


def jpeg(images: Tensor) -> Tensor:
    """Of grey images."""
    done = []
    for image in images.detach():
        stream = io.BytesIO()
        Image.fromarray((image[0].clamp(0, 1) * 255).round().byte().numpy()).save(stream, "JPEG", quality=60)
        done.append(torch.from_numpy(np.asarray(Image.open(stream)).astype(np.float32) / 255)[None])
    return torch.stack(done)


def voted(net: nn.Module, images: Tensor) -> Tensor:
    mean = torch.stack([net(images), net(images + 0.01), net(images - 0.01)]).mean(0)
    return F.one_hot(mean.argmax(1), mean.shape[1]).float()


def honest(net: nn.Module) -> dict[str, nn.Module]:
    half, brain = copy.deepcopy(net).half(), copy.deepcopy(net).bfloat16()
    return {
        "as it is (ReLU, BatchNorm)": net,
        "SiLU for ReLU": with_activation(net, nn.SiLU),
        "logits x 1000": Around(net, lambda n, x: 1000 * n(x)),
        "logits / 1000": Around(net, lambda n, x: n(x) / 1000),
        "3 tanh(logits / 3)": Around(net, lambda n, x: 3 * torch.tanh(n(x) / 3)),
        "log-softmax": Around(net, lambda n, x: n(x).log_softmax(1)),
        "median filter before": Around(net, lambda n, x: n(median(x))),
        "blurred before": Around(net, lambda n, x: n(blurred(x))),
        "8 bit, straight-through gradient": Around(net, lambda n, x: n(x + (rounded(x, 256) - x).detach())),
        "float16": Around(half, lambda n, x: n(x.half()).float()),
        "bfloat16": Around(brain, lambda n, x: n(x.bfloat16()).float()),
    }


def masked(net: nn.Module) -> dict[str, nn.Module]:
    """All but the sign, the random gradient and the winners carry a linear term of 1e-5, so that no gradient is 0."""
    stairs = with_activation(net, Stairs)
    return {
        "detached": Around(net, lambda n, x: term(x, n(x.detach()))),
        "sign turned": Around(net, lambda n, x: n(2 * x.detach() - x)),
        "random gradient": Around(net, lambda n, x: n(Random.apply(x))),
        "8 bit": Around(net, lambda n, x: term(x, n(rounded(x, 256)))),
        "16 levels": Around(net, lambda n, x: term(x, n(rounded(x, 16)))),
        "3 bit": Around(net, lambda n, x: term(x, n(rounded(x, 8)))),
        "JPEG 60": Around(net, lambda n, x: term(x, n(jpeg(x)))),
        "median filter, detached": Around(net, lambda n, x: term(x, n(median(x.detach())))),
        "thermometer": Around(net, lambda n, x: term(x, n(thermometer(x)))),
        "k winners take all": with_activation(net, Winners),
        "tanh(1000 logits)": Around(net, lambda n, x: term(x, torch.tanh(1000 * n(x)))),
        "clipped and rounded logits": Around(net, lambda n, x: term(x, torch.round(4 * n(x).clamp(-3, 3)) / 4)),
        "hard vote": Around(net, lambda n, x: term(x, voted(n, x))),
        "stairs for ReLU": Around(stairs, lambda n, x: term(x, n(x))),
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
    asked = parser.parse_args()
    torch.manual_seed(0)
    whole, part = loaded({"model": asked.model, "data": asked.data})
    print(f"{len(part)} images of {part.name}, {part.size} px\n")
    print("| network | gradient | cosine | range needed | verdict | seconds of CPU |\n|---|---|---|---|---|---|")
    net = Scaled(whole).eval()
    for kind, networks in (("honest", honest(net)), ("masked", masked(net))):
        for name, made in networks.items():
            made.eval()
            row(name, kind, Classifier(made, whole.classes, head=whole.head.name, channels=whole.channels), part)
    for text in asked.beside:
        options = dict(pair.split("=", 1) for pair in text.split(","))
        other, images = loaded(options)
        row(f"{Path(options['model']).name}, {images.name}, {images.size} px", "honest", other, images)


if __name__ == "__main__":
    main()
