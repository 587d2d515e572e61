"""How small is a change that a file can hold, and what does it survive on its way?

    medrobust study run studies/stored.py --size small --data DATA

The smallest eps among images of 8, 12 and 16 bits beside images that are not rounded; the fewest pixels changed by one
stored level; and what saving, compression, resizing, another window and a screenshot leave of an attack, plain and
optimised through each. Small networks at 64 px on chest X-rays and skin lesions; the fewest pixels also on fine-tuned
networks at 224 px.

Duration: smoke half a minute; small: see docs/results/stored.md.
"""

from dataclasses import replace

from sets import CHEST, PHANTOM, SKIN, mobilenet, tiny

from medrobust.experiments import catalogue, stored_catalogue
from medrobust.grid import Chart, Model, Part, Study, StudyTable, grid

GREY = catalogue.GREY
GRID = tuple(0.02 * GREY * 1.1**k for k in range(80))
"""0.02 to 37 grey levels, each 10 % above the one before; on the grid of a depth, the whole levels among them."""


def study(size: str) -> Study:
    if size == "smoke":
        models, limit, attack, grid_of_eps = [tiny("small_cnn", PHANTOM)], 6, "pgd:steps=5", catalogue.LOG_GRID[::4]
        depths, sizes, ways = [255], [2 * GREY], ("8 bits", "JPEG 75", "half size and back, OpenCV")
        strong, large = attack, [tiny("small_cnn again", PHANTOM, seed=1)]
    else:
        sets = [replace(CHEST, size=64), replace(SKIN, size=64)]
        models = [Model(data.name, data, "small_cnn:width=32", {"epochs": 20}, seconds=400) for data in sets]
        limit, attack, grid_of_eps = (60 if size == "small" else None), "auto:steps=20:queries=20", GRID
        depths, sizes, ways = [255, 4095, 65535], [4 * GREY], None
        strong = "pgd:steps=20"
        wide = [replace(data, size=224, name=f"{data.name}, 224 px") for data in (CHEST, SKIN)]
        large = [mobilenet(data.name, data, 2) for data in wide]
    common = {"model": models, "limit": limit}
    smallest = grid(stored_catalogue.stored, **common, levels=[0, *depths], attack=attack, eps=grid_of_eps)
    sparsest = grid(stored_catalogue.sparsest, **common, levels=depths)
    of_large = grid(stored_catalogue.sparsest, model=large, limit=None if size == "paper" else 20, levels=depths[:2])
    survived = grid(stored_catalogue.survived, **common, eps=sizes, transformations=ways, attack=strong)
    clean = grid(catalogue.clean, model=models)
    by_levels = [
        ("Median number of pixels", "pixels_median"),
        ("Median number of pixels, images that both ways turn", "pixels_turned"),
        ("Images that no pixels turn by one level", "not_by_one_level"),
    ]
    of_pixels = [
        *(StudyTable(title, {"metric": metric}, ("model", "attack"), "levels") for title, metric in by_levels),
        Chart("Images turned", {"metric": "turned_within"}, "pixels", ("levels",), ("model",)),
    ]
    return Study(
        "Images as a file holds them",
        "",
        [
            Part(
                "stored-smallest",
                "The smallest change",
                [*clean, *smallest],
                [
                    StudyTable(
                        "Median min_eps by stored levels (0: not rounded)",
                        {"metric": "min_eps_median", "kind": "stored"},
                        ("model", "attack"),
                        "levels",
                    ),
                    StudyTable(
                        "Clean",
                        {"metric": ["accuracy", "auroc"], "attack": "none", "class_name": None},
                        ("model",),
                        "metric",
                    ),
                ],
            ),
            Part("stored-sparsest", "The fewest pixels changed by one level", sparsest, of_pixels),
            Part(
                "stored-sparsest-large",
                "The fewest pixels changed by one level, on fine-tuned networks at 224 px",
                [*grid(catalogue.clean, model=large), *of_large],
                [
                    *of_pixels,
                    StudyTable(
                        "Accuracy", {"metric": "accuracy", "attack": "none", "class_name": None}, ("model",), "metric"
                    ),
                ],
            ),
            Part(
                "stored-survived",
                "What survives on the way",
                survived,
                [
                    StudyTable(
                        "Images turned after the transformation",
                        {"metric": "success"},
                        ("model", "transformation", "eps"),
                        "made",
                    ),
                    StudyTable(
                        "Decisions that the transformation changes by itself",
                        {"metric": "changed_by_itself"},
                        ("transformation",),
                        "model",
                    ),
                ],
            ),
        ],
    )
