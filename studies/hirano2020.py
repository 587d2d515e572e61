"""One change that sends most images to a chosen class: Hirano & Takemoto 2020, Algorithms 13(11):268, on CIFAR-10.

    medrobust study run studies/hirano2020.py --size small --data DATA

smoke: phantoms, seconds. small: ResNet-20 and ResNet-56 on 3000 lossy CIFAR-10 images, half of them to make the change
from; the published sequential method and SGA, all ten targets. DATA is a folder with cifar10_test3000.npz and weights/
(see docs/studies.md). paper: the original CIFAR-10 images, trained here. Duration of small: about 15 minutes on one
core. Paper: not run here.

No size but smoke was run here yet, so that no figure of ours stands beside the published one (a network of 0.27 M
parameters, 100 images, target 1): Rs 79.0 % on test images, random 9.7 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sets

from medrobust.experiments import catalogue
from medrobust.grid import Data, Model, Part, Published, Study, StudyTable

TITLE, SOURCE = "Hirano & Takemoto 2020", "Algorithms 13(11):268 (2020)"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
METHODS: dict[str, dict[str, Any]] = {"sim": {"passes": 10, "step": 0.003}, "sga": {"passes": 10}}
"""The published step is 0.006 on the scale from -1 to 1."""


def study(size: str) -> Study:
    return {"smoke": smoke, "small": small, "paper": paper}[size]()


def smoke() -> Study:
    return whole([sets.tiny("tiny")], ("normal",), 24, 16, {"sim": {"passes": 1}, "sga": {"passes": 1}}, 0.1)


def small() -> Study:
    nets = [
        sets.cifar_resnet(20, "cifar10_resnet20-12fca82f.th"),
        sets.cifar_resnet(56, "cifar10_resnet56-4bfd9763.th"),
    ]
    return whole(nets, tuple(str(i) for i in range(10)), 1000, 100, METHODS, 0.048)


def paper() -> Study:
    full = Data(
        "cifar10",
        "folder:{data}/cifar10",
        size=32,
        get="CIFAR-10 (cs.toronto.edu/~kriz/cifar.html, free): cifar10/train/CLASS/*.png and cifar10/test/CLASS/*.png.",
    )
    nets = [
        Model(
            f"{a}-{seed}",
            full,
            a,
            {"epochs": 200, "optimiser": "sgd", "lr": 0.1, "batch": 128},
            seed=seed,
            seconds=3600,
        )
        for a in ("cifar_resnet20", "cifar_resnet56")
        for seed in range(3)
    ]
    return whole(nets, CLASSES, None, 100, METHODS, 0.048)


def whole(
    models: Sequence[Model],
    targets: Sequence[str],
    images: int | None,
    n: int,
    methods: dict[str, dict[str, Any]],
    zeta: float,
) -> Study:
    size = {"norm": "l2", "zeta": zeta, "measured": n}
    cells = [
        catalogue.judged(
            catalogue.universal(m, t, method=name, settings=how, n=n, seconds=10.0, **size),
            None,
            ("test", "train"),
            images,
        )
        for m in models
        for t in targets
        for name, how in methods.items()
    ]
    cells += [catalogue.random(m, tuple(targets), images=images, **size) for m in models]
    lines = ("data", "model", "zeta", "goal")
    near = {**catalogue.TARGETED, "split": "test", "goal": "1", "attack": "sim"}
    part = Part(
        "targeted",
        "To a chosen class",
        cells,
        note="Rs: share of the images that are read as the target under one change for all of them.",
        show=[
            StudyTable("Rs on test images", {**catalogue.TARGETED, "split": "test"}, lines, "attack"),
            StudyTable("Rs on training images", {**catalogue.TARGETED, "split": "train"}, lines, "attack"),
        ],
        published=[
            Published(
                "To class 1, p = 2, 4.8 %",
                "Rs 79.0 % (random 9.7 %)",
                TITLE,
                "code",
                "VGG-20 of 0.27 M parameters, 100 training images",
                near,
                "another network, and lossy images",
            )
        ],
    )
    return Study(TITLE, SOURCE, [part])
