"""What do natural corruptions cost, beside an attack of one grey level?

    medrobust study run studies/natural_corruptions.py --size small --data DATA

Small networks on PneumoniaMNIST at 28 px and chest X-rays at 64 px: corruptions of radiographs at five severities, and
those of MedMNIST-C (Di Salvo et al. 2024, arXiv:2406.17536), PGD and noise on the same images.

Duration: smoke a minute; small: see docs/results/robustness.md.
"""

from dataclasses import replace

from sets import CHEST, PHANTOM, PNEUMONIA, tiny

from medrobust.experiments import catalogue
from medrobust.grid import ANY, Chart, Model, Part, Study, StudyTable, grid

GREY = catalogue.GREY


def study(size: str) -> Study:
    if size == "smoke":
        models, limit, eps = [tiny("small_cnn", PHANTOM)], 12, (GREY, 64 * GREY)
    else:
        chest = replace(CHEST, size=64)
        models = [
            Model("pneumonia, 28 px", PNEUMONIA, "small_cnn", {"epochs": 6}, seconds=60),
            Model("chest, 64 px", chest, "small_cnn", {"epochs": 10}, seconds=90),
        ]
        limit, eps = (150 if size == "small" else None), (0.5 * GREY, GREY, 2 * GREY, 4 * GREY)
    common = {"model": models, "limit": limit}
    cells = [
        *grid(catalogue.clean, model=models),
        *grid(catalogue.corrupted, **common, corruptions=["xray"]),
        *grid(catalogue.curve, **common, attack=["pgd"], eps=eps),
        *grid(catalogue.noise, **common, eps=eps),
    ]
    medmnist_c = grid(catalogue.corrupted, **common, corruptions=["medmnist-c:pneumoniamnist"])
    shares = {"metric": "accuracy", "corruption": ANY}
    lines = ("model", "corruption")
    accuracy = StudyTable("Accuracy by severity", shares, lines, "severity")
    errors = {"metric": ["balanced_error", "relative_balanced_error"]}
    return Study(
        "Natural corruptions",
        "",
        [
            Part(
                "radiographs",
                "Corruptions of radiographs, and an attack",
                cells,
                [
                    accuracy,
                    StudyTable(
                        "Sensitivity by severity",
                        {"metric": "sensitivity", "corruption": ANY, "class_name": "pneumonia"},
                        lines,
                        "severity",
                    ),
                    StudyTable(
                        "Accuracy under attack and noise",
                        {"metric": "accuracy", "attack": ["pgd", "noise"]},
                        ("model", "eps"),
                        "attack",
                    ),
                    Chart("Accuracy against severity", shares, "severity", ("corruption",), ("model",)),
                ],
            ),
            Part(
                "medmnist-c",
                "Corruptions of MedMNIST-C for PneumoniaMNIST",
                medmnist_c,
                [accuracy, StudyTable("BE and rBE", errors, lines, "metric")],
            ),
        ],
    )
