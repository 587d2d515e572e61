"""Are large networks, fine-tuned ones and those of many classes more fragile? Ma et al. 2020, on many networks.

    medrobust study run studies/over_parameterisation.py --size small --data DATA [--models MODELS]

smoke: phantoms, seconds. small: small CNNs of nine sizes on PneumoniaMNIST and chest X-rays at 32 px, stopped at one
validation accuracy and at their best epoch; MobileNetV2 fine-tuned and from scratch, at 128 px until it is good and at
64 px until both are as accurate; sets of two to seven classes of fundus photographs and skin lesions at 64 px. DATA is
a folder with chest_xray/, fundus/, skin/, pneumoniamnist.npz and weights/ (see docs/studies.md); MODELS holds chest/,
chest_scratch/, fundus/, fundus_scratch/ where they are trained already. paper: small with ten seeds of every network,
MobileNetV2 at 224 px.
Duration of small: about 10 s of one undisturbed core for each of 172 small CNNs, 20 s for each of 34 networks of
classes, 100 s for each of 12 of one accuracy. Paper: not run here.

To expect (docs/results/parameters.md, made by a script of an earlier revision with these recipes): Spearman of the
number of weights with the median of min_eps 0.44 (0.00 to 0.71) on PneumoniaMNIST at one accuracy (42 networks): large
networks are not more fragile. An image of a fine-tuned network needs the larger eps in 0.90 (chest) and 0.91 (fundus)
of the pairs at 128 px, in 0.67 and 0.70 at one accuracy. Number of classes: -0.53 (fundus) and -0.41 (skin), both
intervals with 0.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import sets

from medrobust.experiments import catalogue
from medrobust.experiments.network_cells import Measured, measured, more_robust, trend
from medrobust.grid import Chart, Data, Model, Node, Part, Published, Study, StudyTable

TITLE, SOURCE = "Size, pretraining, number of classes", "after Ma et al. 2020, arXiv:1907.10456"
GREY = catalogue.GREY
ATTACK = "pgd:steps=10"
MEASURES = ("slope-l1", "margin", "margin-slope", "linear-eps")
SIZES = {
    **{f"small_cnn:width={w}": 5 for w in (2, 4, 8, 16, 32, 64)},
    **{f"small_cnn:width={w}:depth={d}": 4 for w, d in ((8, 4), (16, 2), (16, 4))},
}
"""Architecture to the number of seeds."""
FUNDUS = ("normal", "diabetic_retinopathy", "cataract", "glaucoma")
SKIN = ("nv", "mel", "bcc", "akiec", "bkl")
RARE = ("df", "vasc")
KEPT = tuple(g * GREY for g in (0.1, 0.2, 0.3, 0.5))


def study(size: str) -> Study:
    return {"smoke": smoke, "small": small, "paper": paper}[size]()


def smoke() -> Study:
    data = replace(sets.PHANTOM, name="phantom chest, 60 a class", each=60)
    grid: dict[str, Any] = {"eps": tuple(g * GREY for g in (1, 4, 16, 64)), "limit": 16}
    sized = by_size([(data, 0.7)], {"small_cnn:width=2": 1, "small_cnn:width=4": 1}, 2, detector=None, **grid)
    first, second = sets.tiny("tiny"), sets.tiny("tiny-b", seed=1)
    fundus = Data("phantom fundus", "phantom:fundus@32:n=360")
    classes = by_classes([_subsets(_tiny, fundus, ("normal", "diabetic retinopathy"), (2,), 30, 2)], "none", **grid)
    return Study(TITLE, SOURCE, [sized, started([(first, second)], None, **grid), classes])


def small() -> Study:
    desk = sets.desk()
    return _whole(5, 64, [(desk[name], desk[f"{name}_scratch"]) for name in ("chest", "fundus")])


def paper() -> Study:
    """Ten seeds of every network, and photographs at the size of the paper."""
    pairs = [
        (sets.mobilenet(d.name, d, 20), sets.mobilenet(f"{d.name} from scratch", d, 50, scratch=True))
        for d in (_sized(sets.CHEST, 224), _sized(sets.FUNDUS, 224))
    ]
    return _whole(10, 224, pairs)


def _whole(seeds: int, px: int, pairs: Sequence[tuple[Model, Model]]) -> Study:
    homes = [(_each(sets.PNEUMONIA, 400), 0.87), (_each(_sized(sets.CHEST, 32), 400), 0.85)]
    sizes = {name: n + seeds - 5 for name, n in SIZES.items()}
    chest, fundus, skin = (_sized(d, px) for d in (sets.CHEST, sets.FUNDUS, sets.SKIN7))
    equal = [
        _of_one_accuracy(data, target, seed)
        for data, target in ((chest, 0.91), (fundus, 0.62))
        for seed in range(seeds - 2)
    ]
    return Study(
        TITLE,
        SOURCE,
        [
            by_size(homes, sizes, 12, detector=8 * GREY, limit=120),
            started(pairs, GREY, limit=60),
            started(equal, None, limit=100, name="matched", title="Fine-tuned or from scratch, at one accuracy"),
            by_classes(
                [
                    _subsets(partial(_tuned, 3), fundus, FUNDUS, (4, 3, 2), 150, 3),
                    _subsets(partial(_tuned, 4), skin, SKIN, (5, 4, 3, 2), 70, 3, every=2, rare=(*SKIN, *RARE)),
                ],
                "7 classes",
                limit=60,
            ),
        ],
    )


# -- the study, at any size ------------------------------------------------------------------------------------


def by_size(
    homes: Iterable[tuple[Data, float]], sizes: dict[str, int], epochs: int, detector: float | None, **common: Any
) -> Part:
    """Networks of growing size on one set of images, at one validation accuracy and at the best epoch."""
    cells: list[Node] = []
    for data, target in homes:
        for epoch, aim in (("at one accuracy", target), ("best", None)):
            options = {"epochs": epochs, "patience": None, "target": aim, "outputs": "logits"}
            made = [
                _measured(
                    Model(f"{name}, {data.name}, {epoch}, {seed}", data, name, options, seed=seed, seconds=8),
                    name,
                    name,
                    detector,
                    **common,
                )
                for name, seeds in sizes.items()
                for seed in range(seeds)
            ]
            cells.append(trend(made, target=aim, data=data.name, epoch=epoch))
    lines = ("data", "epoch")
    mean = {"metric": "network_mean"}
    return Part(
        "size",
        "Number of weights",
        cells,
        note="Means over seeds with Student's interval; rank correlations with the number of weights, whole "
        "architectures drawn for the interval. At one accuracy: the epoch whose validation accuracy is nearest to the "
        "target is kept; networks that miss it by more than 1 % are left out where it says near.",
        show=[
            StudyTable("Networks", mean, (*lines, "network", "weights"), "quantity"),
            StudyTable(
                "Spearman's correlation", {"metric": "rank_correlation"}, (*lines, "networks", "quantity"), "given"
            ),
            Chart(
                "Median min_eps against the number of weights",
                mean | {"quantity": "median min_eps (/255)"},
                "weights",
                ("epoch",),
                ("data",),
                "median min_eps (/255)",
            ),
        ],
        published=[
            Published(
                "Over-parameterised networks are more fragile",
                "gradients grow with the size of a network",
                "Ma et al. 2020",
                "text",
                "medical classifiers beside natural ones, no size varied alone",
                {"metric": "rank_correlation", "quantity": "median min_eps (/255)", "given": "nothing"},
                "small CNNs of one kind, 424 to 370,626 weights",
            )
        ],
    )


def started(
    pairs: Sequence[tuple[Model, Model]],
    detector: float | None,
    name: str = "start",
    title: str = "Fine-tuned or from scratch",
    **common: Any,
) -> Part:
    """Pairs of networks on the same images: the first one fine-tuned, the second one from scratch."""
    cells: list[Node] = []
    for pair in pairs:
        first, second = (_measured(m, m.architecture, m.name, detector, **common) for m in pair)
        cells += [*first.cells(), *second.cells(), more_robust(first.curve, second.curve)]
    lines = ("data", "model")
    seen = [StudyTable("AUROC of the detector", {"metric": "auroc", "same": True, "layer": None}, lines, "detector")]
    return Part(
        name,
        title,
        cells,
        show=[
            StudyTable("Accuracy on test images", {"metric": "accuracy", "attack": "none"}, lines, "metric"),
            StudyTable("Median min_eps", {"metric": "min_eps_median"}, lines, "attack"),
            StudyTable("Measures", {"metric": list(MEASURES)}, lines, "metric"),
            *(seen if detector else []),
            StudyTable(
                "Pairs in which the first network's image needs the larger eps", {"metric": "larger"}, lines, "against"
            ),
        ],
    )


def by_classes(sets_of: Sequence[Sequence[tuple[Model, tuple[str, ...]]]], aside: str, **common: Any) -> Part:
    """Networks of several sets of classes; ``aside``: the kind that no correlation is over."""
    cells = []
    for models in sets_of:
        made = [
            replace(_measured(m, f"{len(c)} classes", "-".join(c) or m.name, None, **common), x=len(c))
            for m, c in models
        ]
        name = models[0][0].data.name.partition(",")[0]
        cells.append(trend(made, "classes", KEPT, aside=[aside], data=name))
    return Part(
        "classes",
        "Number of classes",
        cells,
        note="MobileNetV2, fine-tuned. Means over networks with Student's interval; rank correlations with the number "
        "of classes, whole sets of classes drawn for the interval; seven classes, two of them rare, are not in them.",
        show=[
            StudyTable("Networks", {"metric": "network_mean"}, ("data", "network"), "quantity"),
            StudyTable(
                "Spearman's correlation", {"metric": "rank_correlation"}, ("data", "networks", "quantity"), "given"
            ),
        ],
    )


def _measured(
    model: Model,
    line: str,
    group: str,
    detector: float | None,
    eps: tuple[float, ...] = catalogue.LOG_GRID,
    limit: int = 60,
) -> Measured:
    """All that is measured of one network. detector: eps of the attack that it looks for; None: no detector."""
    clean = catalogue.clean(model)
    curve = catalogue.curve(model, ATTACK, eps, limit=limit, seconds=3.0)
    slopes = measured(model, MEASURES, limit=limit, seconds=1)
    found = None
    if detector is not None:
        *_, found = catalogue.detectors(
            model, ("kd",), (ATTACK,), detector, limit=limit, protocols=("clean",), seconds=2
        )
    return Measured(model, clean, curve, slopes, line, group, found)


def _of_one_accuracy(data: Data, target: float, seed: int) -> tuple[Model, Model]:
    """The fine-tuned one learns slowly; both are stopped at the target, which networks from scratch reach."""
    options: dict[str, Any] = {"epochs": 10, "patience": None, "target": target}
    scratch = sets.mobilenet(f"{data.name}, from scratch, {seed}", data, 10, scratch=True, seed=seed)
    tuned = sets.mobilenet(f"{data.name}, fine-tuned, {seed}", data, 10, seed=seed)
    return (
        replace(tuned, options={**tuned.options, **options, "lr": 5e-5}),
        replace(scratch, options={**scratch.options, **options}),
    )


def _subsets(
    network: Callable[[str, Data, int], Model],
    home: Data,
    names: tuple[str, ...],
    counts: Sequence[int],
    each: int,
    seeds: int,
    every: int = 1,
    rare: tuple[str, ...] = (),
) -> list[tuple[Model, tuple[str, ...]]]:
    """A network for each set of classes, the largest ones with several seeds.

    every: of the smaller sets one in so many, so that each class is in as many of them. rare: a set of its own, with
    classes of which there are few images.
    """
    made = []
    for k in counts:
        some = list(itertools.combinations(names, k))[:: every if k < 4 else 1]
        made += [(c, seed) for c in some for seed in range(seeds if k == max(counts) else 1)]
    made += [(rare, seed) for seed in range(seeds)] if rare else []
    found = []
    for c, seed in made:
        data = replace(home, name=f"{home.name}, {' '.join(c)}", classes=c, each=each)
        found.append((network(f"{data.name}, {seed}", data, seed), c))
    return found


def _tuned(epochs: int, name: str, data: Data, seed: int) -> Model:
    made = sets.mobilenet(name, data, epochs, seed=seed)
    return replace(made, options={**made.options, "patience": None})


def _tiny(name: str, data: Data, seed: int) -> Model:
    return sets.tiny(name, data, seed, epochs=1)


def _sized(data: Data, px: int) -> Data:
    return replace(data, name=f"{data.name} {px} px", size=px)


def _each(data: Data, n: int) -> Data:
    return replace(data, name=f"{data.name}, {n} a class", each=n)
