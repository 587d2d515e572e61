"""How far does an attacker come who sees only a model's answers, and does `auto` break what other attacks break?

    medrobust study run studies/black_box.py --size small --data DATA [--models MODELS]

smoke: phantoms, seconds. small: 50 images each of PneumoniaMNIST (ResNet-18, 28 px), CIFAR-10 (ResNet-20, 32 px) and
chest X-rays (MobileNetV2, 128 px); DATA holds chest_xray/, pneumoniamnist.npz, cifar10_test3000.npz and weights/ (see
docs/studies.md), MODELS holds pneumonia/, chest/, chest_small/, chest_scratch/ where they are trained already. paper:
1,000 images, ResNet-50 at 224 px.
Duration of small: 15 to 20 minutes of one core with trained models, estimated from the cost of a query. Paper: not run.

Expected with small: auto breaks everything that the worst of FGSM, BIM, PGD and CW breaks, and more on chest X-rays at
0.2/255 (16 % left against 38 %). Without gradients little is reached where PGD reaches all: of chest images at 1/255
7 % within 100 queries, of CIFAR-10 at 1/255 24 % within 200. What a small surrogate leads to is no better than random
noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sets

from medrobust.attacks.auto import MEMBERS
from medrobust.experiments import catalogue
from medrobust.grid import Model, Node, Part, Study, StudyTable, grid

TITLE, SOURCE = "Attacks without gradients, and the ensemble auto", "after Ma et al. 2020 and Croce & Hein 2020"
GREY = catalogue.GREY
CLASSIC = ("fgsm", "bim", "pgd", "cw")
COUNTS = (10, 50, 100, 200, 300)
TRIES = 10
"""Random changes an image that the control may try."""

Sizes = Sequence[tuple[str, float]]
"""Norms and sizes of a classifier's attacks."""


def study(size: str) -> Study:
    return Study(TITLE, SOURCE, {"smoke": smoke, "small": small, "paper": paper}[size]())


def smoke() -> list[Part]:
    tiny, other = sets.tiny("tiny"), sets.tiny("tiny-b", seed=1)
    sizes = {tiny: (("linf", 16 * GREY), ("l2", 2.0))}
    return [
        ensemble({tiny: sizes[tiny][:1]}, 8, "auto:steps=5:queries=20"),
        queries(sizes, {tiny: 20}, {tiny: 8}, 8, least=20),
        transferred([(tiny, other)], ("pgd", "transferable"), (8 * GREY,), limit=8),
    ]


def small() -> list[Part]:
    desk = sets.desk()
    chest, pneumonia = desk["chest"], desk["pneumonia"]
    cifar = sets.cifar_resnet(20, "cifar10_resnet20-12fca82f.th")
    fine = {
        pneumonia: (("linf", 2 * GREY), ("linf", 4 * GREY), ("l2", 0.5)),
        cifar: (("linf", 0.5 * GREY), ("linf", GREY), ("l2", 0.1)),
        chest: (("linf", 0.2 * GREY), ("linf", GREY)),
    }
    coarse = {
        pneumonia: (("linf", 4 * GREY), ("linf", 8 * GREY), ("l2", 0.5)),
        cifar: (("linf", GREY), ("linf", 2 * GREY), ("l2", 0.5)),
        chest: (("linf", GREY), ("linf", 2 * GREY), ("l2", 0.5)),
    }
    # a query of the 128 px network costs seven times one of the 28 px one
    budgets, frequencies = {pneumonia: 300, cifar: 200, chest: 100}, {pneumonia: 28, cifar: 32, chest: 28}
    pairs = [(chest, desk["chest_small"]), (chest, desk["chest_scratch"])]
    return [
        ensemble(fine, 50),
        queries(coarse, budgets, frequencies, 50),
        transferred(pairs, ("pgd", "transferable"), tuple(g * GREY for g in (1, 2, 4, 8)), limit=50),
    ]


def paper() -> list[Part]:
    models = [sets.resnet(d) for d in (sets.MESSIDOR, sets.CXR2, sets.MELANOMA)]
    sizes: dict[Model, Sizes] = dict.fromkeys(models, (("linf", GREY / 5), ("linf", GREY), ("l2", 0.5)))
    return [
        ensemble(sizes, 1000),
        queries(sizes, dict.fromkeys(models, 300), dict.fromkeys(models, 28), 1000),
        transferred(
            [(m, sets.resnet(m.data, seed=1)) for m in models], ("pgd", "transferable"), (GREY, 4 * GREY), 1000
        ),
    ]


# -- the study, at any size ------------------------------------------------------------------------------------


def ensemble(sizes: Mapping[Model, Sizes], limit: int, auto: str = "auto") -> Part:
    """Auto beside the classic attacks, and which of its members broke an image."""
    cells: list[Node] = []
    for model, each in sizes.items():
        for norm, eps in each:
            common = {"model": model, "eps": (eps,), "norm": norm, "limit": limit, "seconds": 30.0}
            classic = grid(catalogue.curve, attack=list(CLASSIC), **common)
            strong = catalogue.curve(attack=auto, **common)
            cells += [*classic, catalogue.worst(classic, "worst of four"), strong]
            cells.append(catalogue.worst([*classic, strong], "worst of all"))
    lines = ("data", "norm", "eps")
    shown = [auto, "worst of four", "worst of all", *CLASSIC]
    return Part(
        "auto",
        "The ensemble auto",
        cells,
        note="One size at a time, from nothing. Where worst of all leaves less than auto, another attack broke an "
        "image that held against auto.",
        show=[
            StudyTable("Accuracy", {"metric": "accuracy", "attack": shown}, lines, "attack"),
            StudyTable(
                "Images by the member that broke them", {"metric": "broken_by"}, lines, "member", ", ".join(MEMBERS)
            ),
            StudyTable(
                "Cost of auto an image",
                {"attack": auto, "metric": ["gradients_per_image", "forwards_per_image"]},
                lines,
                "metric",
            ),
        ],
    )


def queries(
    sizes: Mapping[Model, Sizes],
    budgets: Mapping[Model, int],
    frequencies: Mapping[Model, int],
    limit: int,
    least: int = 200,
) -> Part:
    """Success against queries. frequencies: cosines a side that SimBA chooses from. least: queries from which on the
    slower attacks are tried."""
    cells: list[Node] = []
    for model, each in sizes.items():
        budget = budgets[model]
        counts = (*(c for c in COUNTS if c < budget), budget)
        for norm, eps in each:
            names = ["square", f"simba-dct:frequencies={frequencies[model]}", "cma-es"]
            names += ["simba", "pso", "genattack"] if norm == "linf" and budget >= least else []
            cells += grid(
                catalogue.queried,
                model=model,
                attack=names,
                eps=eps,
                queries=counts,
                norm=norm,
                limit=limit,
                seconds=20.0,
            )
            cells.append(catalogue.queried(model, "noise", eps, (TRIES,), norm, limit, seconds=5))
        pixels = [f"one-pixel:pixels={k}" for k in ((1, 5) if budget >= least else (5,))]
        cells += grid(catalogue.queried, model=model, attack=pixels, eps=1.0, queries=counts, limit=limit, seconds=20.0)
    lines = ("data", "norm", "eps", "attack")
    return Part(
        "queries",
        "Success against queries",
        cells,
        note="Share fooled of the images that are read rightly, within so many queries an image. Noise: random "
        "changes of the same size, one a query. One-pixel attacks set pixels to any value, which no ball of these "
        "sizes holds.",
        show=[
            StudyTable("Fooled within so many queries", {"metric": "success_at"}, lines, "queries"),
            StudyTable("Median queries until an image is fooled", {"metric": "queries_median"}, lines, "metric"),
        ],
    )


def transferred(
    pairs: Sequence[tuple[Model, Model]], attacks: Sequence[str], eps: tuple[float, ...], limit: int | None = None
) -> Part:
    """pairs: each classifier, and another one on which its attacks are made."""
    models = list(dict.fromkeys(model for model, _ in pairs))
    cells = [
        catalogue.transfer(model, surrogate, attack, eps, limit=limit, seconds=25.0)
        for model, surrogate in pairs
        for attack in attacks
    ]
    own = [catalogue.curve(model, attack, eps, limit=limit, seconds=25.0) for model in models for attack in attacks]
    noise = [catalogue.noise(model, eps, limit=limit) for model in models]
    return Part(
        "transfer",
        "Made on another network",
        [*cells, *own, *noise],
        note="Attacks made at full strength on an independently trained network and shown to this one, beside the "
        "same attacks made on this one (no entry in made_on) and random changes of the same size.",
        show=[
            StudyTable(
                "Accuracy",
                {"metric": "accuracy", "attack": [*attacks, "noise"]},
                ("data", "model", "made_on", "eps"),
                "attack",
            )
        ],
    )
