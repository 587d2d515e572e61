"""One change for all images without any gradient: Koga & Takemoto 2022, Algorithms 15(5):144.

    medrobust study run studies/koga2022.py --size small --data DATA [--models MODELS]

smoke: phantoms, seconds. small: chest X-rays and fundus photographs at 128 px with a MobileNetV2, U-SimBA and tiles,
from 100 images, at 2,000 to 20,000 image queries, judged on 300 others. DATA is a folder with chest_xray/, fundus/ and
weights/ (see docs/studies.md); MODELS holds chest/ and fundus/ where they are trained already. paper: the paper's three
sets at 299 px and a million queries. Duration of small: about 50 minutes on one core with trained models. Paper: not
run here.

Published, on skin with Inception V3 and a million queries: Rf 47 % on held-out images, random changes 12 %.
Nontargeted with 20,000 queries (docs/results/universal-queries.csv, made by a script of an earlier revision): tiles
55.0 % on fundus and 30 % on chest; U-SimBA less than random changes (22 and 30 %).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import hirano2021
import sets

from medrobust.experiments import catalogue
from medrobust.grid import Chart, Model, Part, Published, Study, StudyTable

TITLE, SOURCE = "Koga & Takemoto 2022", "Algorithms 15(5):144 (2022)"
NONE = catalogue.NONTARGETED
SETTING = "skin, Inception V3, 299 px, 100 images, p = 2, 4 %"


def study(size: str) -> Study:
    return {"smoke": smoke, "small": small, "paper": paper}[size]()


def smoke() -> Study:
    return whole([sets.tiny("tiny")], {"simba": {"step": 0.2}}, (100, 200), 16, 24, 0.1, (), measured=16)


def small() -> Study:
    desk = sets.desk()
    methods: dict[str, dict[str, float]] = {"simba": {}, "tile": {}}
    budgets = (2_000, 5_000, 20_000)
    return whole([desk["chest"], desk["fundus"]], methods, budgets, 100, 300, 0.04, ("normal",), measured=400)


def paper() -> Study:
    models = [
        hirano2021._network(a, d)
        for d in (hirano2021.ISIC, hirano2021.OCT, hirano2021.KERMANY)
        for a in ("inception_v3", "vgg16", "resnet50")
    ]
    return whole(models, {"simba": {}}, (100_000, 1_000_000), 100, None, 0.04, (), measured=100)


def whole(
    models: Sequence[Model],
    methods: dict[str, dict[str, float]],
    budgets: Sequence[int],
    n: int,
    images: int | None,
    zeta: float,
    targets: Sequence[str],
    measured: int,
) -> Study:
    cells = []
    for model in models:
        for goal in (NONE, *targets):
            for method, how in methods.items():
                for budget in budgets:
                    v = catalogue.universal(
                        model,
                        goal,
                        "l2",
                        zeta,
                        method,
                        {**how, "queries": budget},
                        n=n,
                        measured=measured,
                        seconds=budget / 100,
                    )
                    made = catalogue.judged(v, None, ("test",), images)
                    cells.append(replace(made, labels={**made.labels, "budget": budget}))
        cells.append(catalogue.random(model, (NONE, *targets), "l2", zeta, images=images, measured=measured))
    shown = {name: {**rate, "split": "test"} for name, rate in catalogue.rates((NONE, *targets)).items()}
    part = Part(
        "queries",
        "Against image queries",
        cells,
        note="Rf or Rs on held-out images of a change that was found by asking the classifier alone.",
        show=[
            *(
                Chart(f"{name} against queries", rows, "budget", ("attack", "goal"), ("data", "model"), name)
                for name, rows in shown.items()
            ),
            *(
                StudyTable(f"{name} on test images", rows, ("data", "model", "goal", "budget"), "attack")
                for name, rows in shown.items()
            ),
        ],
        published=[
            Published(
                "Nontargeted, a million queries",
                "Rf 47 % (random 12 %)",
                TITLE,
                "code",
                SETTING,
                shown["Rf"] | {"budget": budgets[-1], "attack": "simba"},
                "other sets and networks, 128 px, fewer queries",
            )
        ],
    )
    return Study(TITLE, SOURCE, [part])
