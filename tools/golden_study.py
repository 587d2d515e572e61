"""A study with one small cell of every kind, for ``tools/golden.py``: a minute or two on one core."""

from __future__ import annotations

from medrobust.experiments import catalogue, search_catalogue
from medrobust.grid import Data, Model, Part, Study

CHEST = Data("chest", "phantom:chest@32")
SKIN = Data("skin", "phantom:skin@32")
EPS = [1 / 255, 4 / 255]


def study(size: str) -> Study:
    del size
    first = Model("first", CHEST, "small_cnn", {"epochs": 3})
    second = Model("second", CHEST, "small_cnn", {"epochs": 2}, seed=1)
    skin = Model("skin", SKIN, "small_cnn", {"epochs": 2})
    curves = [catalogue.curve(first, attack, EPS, limit=16, shards=2) for attack in ("fgsm", "pgd:steps=5")]
    measures = ("slope-l1", "saliency-half", "margin", "linear-eps")
    medical = catalogue.explained(first, second, limit=10, surfaces=2, measures=measures, steps=5)
    natural = catalogue.explained(skin, limit=10, surfaces=2, measures=measures, steps=5)
    v = catalogue.universal(first, n=40, measured=40)
    table = search_catalogue.features_table(first, limit=60)
    compared = search_catalogue.compared(table, ["pso"], budget=200, seeds=6)
    parts = [
        Part(
            "curves",
            "Curves",
            [
                catalogue.clean(first),
                *curves,
                catalogue.worst(curves),
                catalogue.noise(first, EPS, limit=16),
                catalogue.transfer(second, first, "pgd:steps=5", EPS, limit=16),
            ],
        ),
        Part(
            "detectors",
            "Detectors",
            catalogue.detectors(first, ["kd", "mahalanobis"], ["fgsm", "pgd:steps=5"], eps=4 / 255, limit=60),
        ),
        Part("explained", "Explained", [medical, natural, catalogue.claimed([medical], natural)]),
        Part(
            "universal",
            "Universal",
            [
                catalogue.judged(v, images=60),
                catalogue.judged(v, second, images=60),
                catalogue.random(first, images=60, measured=40),
                catalogue.retraining(first, {"rounds": 1, "epochs": 1, "perturbations": 1, "limit": 40}, measured=40),
            ],
        ),
        Part(
            "search",
            "Search",
            [
                search_catalogue.minimised("pso", "sphere", True, 4, 200, 6),
                compared,
                search_catalogue.ranked([compared, compared]),
                search_catalogue.evolved_under_attack(first, ["pso"], seeds=1, images=10, budget=200, limit=60),
            ],
        ),
    ]
    return Study("Golden", "none", parts)
