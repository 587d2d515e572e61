"""Does nature-inspired search train better networks? After Jindal & Kumar 2022, a review of such training.

    medrobust study run studies/jindal2022.py --size small --data DATA [--models MODELS]

Three questions: optimisers at an equal number of evaluations on functions whose optimum is known, at the centre of the
box and shifted away from it; networks trained by search on features of images, beside logistic regression and Adam at
the same number of evaluations (a gradient counts as three), whole patients on one side of every fold; and evolved
networks under attack, beside controls trained by gradients to the same accuracy.
smoke: seconds. small: every optimiser, 10 dimensions, 5,000 evaluations, 20 seeds; breast cancer (in scikit-learn) and
chest X-rays, skin lesions, fundus photographs and PneumoniaMNIST through ImageNet features, 300 images each, 1,200
evaluations, 20 seeds, 2 folds; 30 images attacked. DATA holds chest_xray/, skin/, fundus/, natural/,
pneumoniamnist.npz and weights/ (see docs/studies.md), MODELS holds pneumonia/ where it is trained already. paper: 30
dimensions, 50,000 evaluations, 30 seeds; 3 folds, every image, 6,000 evaluations, weights, masks, thresholds and
hyper-parameters.
Duration of small: 39 minutes on a core shared with many jobs.

Measured with small (docs/results-studies.md): of 23 nature-inspired searches none trains a better network than Adam
on any of five sets; 0, 5, 0, 15 and 1 train worse ones. Grey wolf is the best (87.5 % on chest X-rays; Adam 90.0 %,
logistic regression 92.2 %, random search 65.5 %), a search that Adam follows does as well as Adam. Grey wolf, whale,
TLBO and GWO-PSO are drawn to the centre (sphere, whale: 2.5e-29 there, 3.0 shifted away); CMA-ES and ACO_R find its
optimum in both to the last digit. Evolved networks under attack: two networks a method on 30 images tell too little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sets

from medrobust.experiments import search_catalogue
from medrobust.grid import Data, Model, Node, Part, Published, Study, StudyTable, grid

TITLE, SOURCE = "After Jindal & Kumar 2022", "a review; its own tables are not at hand"
ALL = (
    "random",
    "ga",
    "pso",
    "de",
    "shade",
    "cma-es",
    "sep-cma-es",
    "gwo",
    "woa",
    "abc",
    "aco-r",
    "cs",
    "fa",
    "ba",
    "sa",
    "hs",
    "gsa",
    "bbo",
    "tlbo",
    "mfo",
    "pso-ga",
    "gwo-pso",
    "pso-abc",
    "bbo-pso",
)
FOLLOWED = ("ga+adam", "pso+adam", "de+adam", "gwo+adam", "woa+adam")
SOME = ("random", "ga", "pso", "de", "gwo")
"""Searches of what is not the weights."""
PILOT = "a pilot of this project"
METRICS = ["balanced_accuracy", "accuracy", "sensitivity", "specificity", "auroc"]


def study(size: str) -> Study:
    return {"smoke": smoke, "small": small, "paper": paper}[size]()


def smoke() -> Study:
    tiny = sets.tiny("tiny")
    tables = [search_catalogue.features_table(), search_catalogue.features_table(tiny, limit=60)]
    common = {"budget": 300, "seeds": 3, "folds": 2}
    return Study(
        TITLE,
        SOURCE,
        [
            functions(("random", "de", "gwo"), 4, 300, 5),
            trained(tables, ("random", "gwo", "gwo+adam"), ("threshold",), tables[:1], ("random",), **common),
            attacked([(tiny, ("gwo",))], seeds=1, images=12, budget=300, limit=60),
        ],
    )


def small() -> Study:
    imagenet = sets.natural()
    small = Data("pneumonia 128 px", sets.PNEUMONIA.spec, size=128, get=sets.PNEUMONIA.get)
    homes = (sets.CHEST, sets.SKIN, sets.FUNDUS, small)
    tables = [search_catalogue.features_table(), *(search_catalogue.features_table(imagenet, home) for home in homes)]
    common = {"budget": 1200, "seeds": 20, "folds": 2}
    return Study(
        TITLE,
        SOURCE,
        [
            functions(ALL, 10, 5000, 20),
            trained(tables, (*ALL, *FOLLOWED), ("masks", "threshold"), tables[:1], SOME, **common),
            attacked([(sets.desk()["pneumonia"], ("pso", "gwo"))], seeds=2, images=30, budget=1200),
        ],
    )


def paper() -> Study:
    """Every optimiser with room to converge, on whole sets, and everything that the review says is searched."""
    imagenet = sets.natural()
    homes = (sets.CHEST, sets.SKIN, sets.FUNDUS)
    tables = [
        search_catalogue.features_table(),
        *(search_catalogue.features_table(imagenet, home, limit=None) for home in homes),
    ]
    common = {"budget": 6000, "seeds": 30, "folds": 3}
    desk = sets.desk()
    cases = [(desk[name], ("pso", "de", "gwo", "cma-es")) for name in ("chest", "skin", "fundus", "pneumonia")]
    return Study(
        TITLE,
        SOURCE,
        [
            functions(ALL, 30, 50_000, 30),
            trained(tables, (*ALL, *FOLLOWED), ("masks", "threshold", "hyper"), tables, SOME, **common),
            attacked(cases, seeds=5, images=200, budget=6000, limit=None),
        ],
    )


# -- the study, at any size ------------------------------------------------------------------------------------


def functions(optimisers: Sequence[str], dims: int, budget: int, seeds: int) -> Part:
    names = ("sphere", "rastrigin")
    cells = grid(
        search_catalogue.minimised,
        optimiser=list(optimisers),
        function=list(names),
        shifted=[False, True],
        dims=dims,
        budget=budget,
        seeds=seeds,
    )
    return Part(
        "search",
        "Optimisers at equal evaluations",
        cells,
        note=f"Median over {seeds} seeds of the best value after {budget:,} evaluations, {dims} dimensions; 0 is the "
        "optimum.",
        show=[StudyTable(f"Best value, {f}", {"metric": "objective", "data": f}, ("model",), "optimum") for f in names],
        published=[
            Published(
                "Grey wolf on the sphere, optimum at 0 / shifted",
                "7e-5 / 0.79",
                PILOT,
                "recalled",
                "other dimensions and budget",
                {"model": "gwo", "data": "sphere"},
                "another implementation, number of dimensions and budget",
            )
        ],
    )


def trained(
    tables: Sequence[Node],
    methods: Sequence[str],
    others: Sequence[str],
    other_tables: Sequence[Node],
    other_methods: Sequence[str],
    **common: Any,
) -> Part:
    """Weights by every method on every table; masks, thresholds and hyper-parameters by some."""
    weights = [search_catalogue.compared(table, methods, "weights", **common) for table in tables]
    more = [
        search_catalogue.compared(t, other_methods, question, **common) for question in others for t in other_tables
    ]
    mine = {"question": "weights"}
    return Part(
        "networks",
        "Networks trained by search",
        [*weights, search_catalogue.ranked(weights), *more],
        note=f"A network with one hidden layer of 8 tanh units on features of images; {common['budget']:,} "
        f"evaluations for every method, {common['seeds']} seeds, {common['folds']} folds, whole patients on one side. "
        "Medians over seeds and their intervals, each of n images; the interval of a difference is corrected for "
        "training sets that overlap, its p by Holm.",
        show=[
            StudyTable("Balanced accuracy, weights", mine | {"metric": "balanced_accuracy"}, ("model",), "data"),
            StudyTable("Balanced accuracy less Adam's", mine | {"metric": "difference"}, ("model",), "data"),
            StudyTable("Mean rank over the sets", mine | {"metric": "rank"}, ("model",), "data", "1 is the best."),
            StudyTable(
                "All figures of some methods",
                mine | {"metric": METRICS, "model": ["logistic", "adam", "gwo", "pso", "random"]},
                ("data", "model"),
                "metric",
            ),
            *(
                StudyTable(
                    f"Balanced accuracy, {q}", {"question": q, "metric": "balanced_accuracy"}, ("model",), "data"
                )
                for q in others
            ),
        ],
        published=_networks_published(),
    )


def attacked(cases: Sequence[tuple[Model, Sequence[str]]], **common: Any) -> Part:
    cells = [search_catalogue.evolved_under_attack(source, methods, **common) for source, methods in cases]
    return Part(
        "attacked",
        "Are evolved networks more or less robust?",
        cells,
        note="Networks on the features of a classifier, attacked through it. The control of an evolved network is a "
        "point on Adam's way that reads the test images, and those that are attacked, as well as it does.",
        show=[
            StudyTable("Accuracy under PGD, at some ε", {"metric": "accuracy"}, ("data", "model"), "eps"),
            StudyTable(
                "Balanced accuracy on test images, which controls are matched by",
                {"metric": "matched"},
                ("data", "model"),
                "attack",
            ),
            StudyTable(
                "Median of the smallest ε that fools", {"metric": "min_eps_median"}, ("data", "model"), "attack"
            ),
            StudyTable(
                "ε that fools an evolved network over its control's",
                {"metric": "ratio"},
                ("data", "model"),
                "attack",
                "Geometric mean over images that both read rightly; 1: no difference. The interval is that of "
                "images; another search finds another network: see how far they differ.",
            ),
        ],
    )


def _networks_published() -> list[Published]:
    setting = "398 images, 257 weights, 12 splits, 6,000 evaluations"
    pilot = {
        "gwo": "96.2 %",
        "de": "95.4 %",
        "pso": "94.6 %",
        "random": "91.0 %",
        "adam": "97.0 %",
        "logistic": "97.5 %",
    }
    return [
        Published(
            "Nature-inspired search against gradient descent",
            "significantly optimises",
            TITLE,
            "text",
            "many sets and networks, reviewed",
            {"metric": "difference", "question": "weights", "data": "chest", "model": ["ga", "pso", "de", "gwo"]},
            "equal evaluations, equal starts, patients kept apart: what the review's sources do not say",
        ),
        *(
            Published(
                f"Accuracy, breast cancer, {name}",
                text,
                PILOT,
                "recalled",
                setting,
                {"metric": "accuracy", "question": "weights", "data": search_catalogue.BREAST_CANCER, "model": name},
                "a fifth of the evaluations, half of the images to learn from",
            )
            for name, text in pilot.items()
        ),
    ]
