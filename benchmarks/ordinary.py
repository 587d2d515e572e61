"""Ordinary networks, half of them adversarially trained: does any of them read inconclusive?

    python -m benchmarks.ordinary --data medmnist:pneumoniamnist.npz --out docs/results/gradients-ordinary.csv

Trains ten small networks (three epochs on 1,600 images; "at 4/255": PGD-4 examples in the last two), audits each at
0.25 to 8/255 and prints clean accuracy, the cosine and range needed of the gradient check, and the decisive checks that
failed. About 25 minutes for 16 attacked images of 28 px on a quiet core.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from torch import nn

import medrobust as mr
from medrobust.attacks import PGD
from medrobust.attacks.derivative import derivative
from medrobust.data import Dataset
from medrobust.results import Kind
from medrobust.threat import Linf, Untargeted

SIZES = (0.25 / 255, 0.5 / 255, 1 / 255, 2 / 255, 4 / 255, 8 / 255)
HARD = 4 / 255


def plain(activation: Callable[[], nn.Module], pool: Callable[[int], nn.Module]) -> nn.Module:
    """Three convolutions with BatchNorm."""
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), activation(), pool(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))


def small(name: str, **options: object) -> nn.Module:
    return timm.create_model(name, in_chans=1, num_classes=2, **options)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "ResNet-18": (lambda: small("resnet18"), False),
    "ResNet-10 at 4/255": (lambda: small("resnet10t"), True),
    "DenseNet": (lambda: small("densenet121", growth_rate=12, block_config=(3, 3, 3)), False),
    "MobileNetV2 at 4/255": (lambda: small("mobilenetv2_035"), True),
    "ConvNeXt": (
        lambda: small("convnext_atto", depths=(1, 1, 2, 1), dims=(16, 32, 64, 128), patch_size=2, output_stride=8),
        False,
    ),
    "ViT at 4/255": (
        lambda: small("vit_tiny_patch16_224", img_size=28, patch_size=4, depth=4, embed_dim=96, num_heads=3),
        True,
    ),
    "CNN, average pooling": (lambda: plain(nn.ReLU, nn.AvgPool2d), False),
    "CNN, average pooling at 4/255": (lambda: plain(nn.ReLU, nn.AvgPool2d), True),
    "CNN, GELU, largest pooling": (lambda: plain(nn.GELU, nn.MaxPool2d), False),
    "CNN, SiLU at 4/255": (lambda: plain(nn.SiLU, nn.AvgPool2d), True),
}
"""By name: how it is made, and whether it is adversarially trained."""


def trained(net: nn.Module, data: Dataset, hard: bool, epochs: int, images: int) -> mr.Classifier:
    x, y = data.split("train").sample(images, 0).tensors()
    classifier = mr.Classifier(net, data.classes, mean=[0.5], std=[0.25], channels=1, outputs="logits")
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=epochs * -(-len(x) // 64))
    for epoch in range(epochs):
        for batch in torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch)).split(64):
            given = x[batch]
            if hard and epoch:
                attack = PGD(4, step=0.5)
                net.eval()
                given = attack(classifier, given, Untargeted(y[batch]), Linf(HARD), ids=batch.tolist(), full=True)
            net.train()
            loss = F.cross_entropy(net((given - 0.5) / 0.25), y[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    net.eval()
    return classifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=1600, help="to train on")
    parser.add_argument("--limit", type=int, default=16, help="images that are attacked")
    parser.add_argument("--only", default="", help="networks, separated by ;")
    parser.add_argument("--keep", type=Path, help="a folder for the trained weights, used again where they are there")
    parser.add_argument("--out", type=Path, help="a csv file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    data = mr.data.load(options.data)
    stream = options.out.open("w", newline="") if options.out else sys.stdout
    out = csv.writer(stream)
    failed_ = "decisive checks that failed"
    out.writerow(["network", "n", "clean", "cosine", "range needed", "at 1/255", "at 8/255", failed_, "seconds"])
    for name in options.only.split(";") if options.only else NETWORKS:
        begin = time.process_time()
        torch.manual_seed(0)
        make, hard = NETWORKS[name]
        net = make()
        kept = options.keep and options.keep / f"{name.replace('/', '-')}.pt"
        if kept and kept.exists():
            net.load_state_dict(torch.load(kept, weights_only=True))
            classifier = mr.Classifier(net.eval(), data.classes, mean=[0.5], std=[0.25], channels=1, outputs="logits")
        else:
            classifier = trained(net, data, hard, options.epochs, options.images)
            if kept:
                kept.parent.mkdir(parents=True, exist_ok=True)
                torch.save(net.state_dict(), kept)
        test = data.split("test")
        found = derivative(classifier, test.sample(24, 0).tensors()[0])
        audit = mr.audit(
            classifier,
            test,
            eps=SIZES,
            attacks=("fgsm", "pgd:steps=10"),
            limit=options.limit,
            corruptions="none",
            **dict.fromkeys(("universal", "detect", "explain", "stored"), False),
        ).run
        whole = [r for r in audit.rows if r.metric == "accuracy" and "class_name" not in r.more]
        worst = {r.eps: r for r in whole if r.kind == Kind.WORST}
        clean = next(r for r in whole if r.kind == Kind.CLEAN)
        held = [f"{100 * r.value:.0f} % ({r.status})" for r in (worst[SIZES[2]], worst[SIZES[-1]])]
        failed = "; ".join(c.name for c in audit.checks if c.decisive and c.passed is False) or "none"
        line = [name, options.limit, f"{100 * clean.value:.0f} %", f"{found.cosine:.2f}", f"{found.range_needed:.2g}"]
        line += [*held, failed]
        out.writerow([*line, f"{time.process_time() - begin:.0f}"])
        stream.flush()


if __name__ == "__main__":
    main()
