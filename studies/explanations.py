"""Why medical models break: saliency, representation, loss landscape, Ma et al. 2020, as measured claims.

    medrobust study run studies/explanations.py --size small --data DATA [--models MODELS]

smoke: phantoms, seconds. small: 100 images each of chest X-rays, skin lesions and fundus photographs at 128 px against
ImageNet images in the same architecture, PneumoniaMNIST against CIFAR-10, and phantoms with lesion masks; all are
images that the classifier reads rightly, one a patient. DATA holds chest_xray/, skin/, fundus/, natural/,
pneumoniamnist.npz, cifar10_test3000.npz and weights/ (see docs/studies.md), MODELS holds chest/, skin/, fundus/,
chest_scratch/, pneumonia/ where they are trained already. paper: 500 images, ResNet-50 at 224 px.
Duration of small: about 3 minutes of one undisturbed core for each set of 128 px and 2 for each small one, training not
included. Paper: not run.

Expected with small on chest X-rays: median eps* 0.142/255; the slope of the loss foretells eps* (Spearman -0.96), how
widely it is spread does not (0.10); the attack moves the centre of Grad-CAM by 4.5 % of the diagonal, noise of its size
by 1.5 %. Of the claims one is confirmed on every set: an attack moves Grad-CAM further on medical images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sets

from medrobust.experiments import catalogue
from medrobust.explain import MEASURES
from medrobust.grid import ANY, Chart, Data, Model, Part, Published, Study, StudyTable

TITLE, SOURCE = "Why medical models break", "after Ma et al. 2020, arXiv:1907.10456"
GREY = catalogue.GREY
EXPENSIVE = ("curvature", "integrated-gini", "integrated-half", "smooth-gini", "smooth-half")
"""Dozens of gradients an image: at 128 px on the first images only."""
CHEAP = tuple(name for name in MEASURES if name not in EXPENSIVE)
LAYERED = {
    "relative-rank": "Effective rank of each layer over the largest possible",
    "spectral-entropy": "Spectral entropy of each layer",
    "spatial-entropy": "Spatial entropy of each layer",
}


def study(size: str) -> Study:
    return Study(TITLE, SOURCE, {"smoke": smoke, "small": small, "paper": paper}[size]())


def smoke() -> list[Part]:
    tiny, skin = sets.tiny("tiny"), sets.tiny("tiny-skin", sets.PHANTOM_SKIN)
    reduced: dict[str, Any] = {"eps": 32 * GREY, "limit": 16, "surfaces": 1, "expensive": ("curvature",)}
    reduced["measures"] = ("saliency-half", "linear-eps")
    return [explained([(tiny, None)], skin, **reduced), lesions(tiny, **reduced)]


def small() -> list[Part]:
    desk = sets.desk()
    masks = Data("phantom 64 px", "phantom:chest@64", size=64)
    at_128 = [(desk["chest"], desk["chest_scratch"]), (desk["skin"], None), (desk["fundus"], None)]
    cifar, other = sets.cifar_resnet(20, "cifar10_resnet20-12fca82f.th"), "cifar10_resnet56-4bfd9763.th"
    common: dict[str, Any] = {"limit": 100, "surfaces": 8}
    return [
        explained(at_128, sets.natural(), measures=CHEAP, expensive=EXPENSIVE, **common),
        explained(
            [(desk["pneumonia"], None)],
            cifar,
            natural_second=sets.cifar_resnet(56, other),
            name="small images",
            title="Why does it break? Images of 28 and 32 px",
            measures=tuple(MEASURES),
            **common,
        ),
        lesions(Model("phantom", masks, "resnet18", {"epochs": 6}, seconds=90), measures=tuple(MEASURES), **common),
    ]


def paper() -> list[Part]:
    homes = (sets.MESSIDOR, sets.CXR2, sets.MELANOMA)
    pairs = [(sets.resnet(d), sets.resnet(d, seed=1)) for d in homes]
    return [explained(pairs, sets.natural_resnet(), measures=CHEAP, expensive=EXPENSIVE, limit=500, surfaces=64)]


# -- the study, at any size ------------------------------------------------------------------------------------


def explained(
    models: Sequence[tuple[Model, Model | None]],
    natural: Model,
    natural_second: Model | None = None,
    name: str = "explanations",
    title: str = "Why does it break?",
    published: Sequence[Published] = (),
    **settings: Any,
) -> Part:
    """Each medical classifier, with an independent one for the published plane, against a natural one.

    settings: of ``catalogue.explained``.
    """
    cells = [catalogue.explained(model, second, seconds=150, **settings) for model, second in models]
    outside = catalogue.explained(natural, natural_second, seconds=150, **settings)
    claims = catalogue.claimed(cells, outside)
    clean = [catalogue.clean(model) for model in (*(m for m, _ in models), natural)]
    return Part(
        name,
        title,
        [*clean, *cells, outside, claims],
        note="Images that the classifier reads rightly, one a patient. What the paper reads off pictures is asked of "
        "numbers, one an image: how often a medical image has the larger one, against one of the natural set. "
        "Classifiers and numbers of classes differ between the sets, so that a difference need not come from the "
        "images.",
        show=[
            StudyTable(
                "Claims: pairs in which the medical image has the larger number, 50 %: no difference",
                {"metric": "larger"},
                ("claim", "by", "claimed"),
                "data",
                "Confirmed: every interval lies on the claimed side; not confirmed: one lies on the other side.",
            ),
            *_tables(settings),
        ],
        published=published,
    )


def lesions(model: Model, **settings: Any) -> Part:
    """Images whose lesions are known: how explanations agree with them."""
    means = {"lesion-point": "Largest value lies in the lesion", "lesion-auroc": "AUROC of the lesion's pixels"}
    means |= {"lesion-share": "Share of the map's mass in the lesion"}
    return Part(
        "lesions",
        "Do explanations find the lesion?",
        [catalogue.explained(model, seconds=120, **settings)],
        note="Phantoms with lesion masks: maps of clean images, and of attacked ones where the attack succeeded. "
        "Median over images with a lesion.",
        show=[
            StudyTable("Area of the lesion, share of the image", {"metric": "lesion-area"}, ("data",), "metric"),
            *(
                StudyTable(title, {"metric": metric, "when": ["clean", "attacked"]}, ("map",), "attack")
                for metric, title in means.items()
            ),
            *_tables(settings),
        ],
    )


def _tables(settings: Mapping[str, Any]) -> list[StudyTable | Chart]:
    """Of every classifier by itself. settings: of ``catalogue.explained``."""
    measures = [*settings.get("measures", catalogue.EXPLAINED), *settings.get("expensive", ())]
    both = {"when": ["clean", "attacked"]}
    return [
        StudyTable("Median of the smallest ε that fools", {"metric": "min_eps_median"}, ("data", "model"), "attack"),
        StudyTable(
            "Saliency, representation, landscape: median over images",
            {"metric": measures, "when": "clean", "layer": None, "at": None},
            ("metric",),
            "data",
        ),
        StudyTable(
            "Which measure foretells ε*: Spearman's rank correlation",
            {"metric": "rank_correlation"},
            ("measure",),
            "data",
            "Whole patients drawn for the interval.",
        ),
        Chart(
            "Rise of the loss around an image",
            {"metric": "rise"},
            "at",
            ("direction",),
            ("data",),
            "cross-entropy above that of the image (nats)",
        ),
        StudyTable(
            "How far the centre of Grad-CAM moves, median share of the diagonal",
            {"metric": "cam-shift", "when": ["change", "noise"]},
            ("data",),
            "attack",
            "Noise has the size of the attack.",
        ),
        StudyTable(
            "Pairs in which an attacked image's Grad-CAM moves further than a noisy one's",
            {"metric": "larger_than_noise"},
            ("data",),
            "attack",
        ),
        StudyTable(
            "Attacked images apart from clean ones in the last features",
            {"metric": ["probe", "silhouette"], "of": "attacked"},
            ("data",),
            "metric",
            "probe: a linear one, 50 % is chance; silhouette: 0 where they do not lie apart.",
        ),
        *(
            StudyTable(title, both | {"metric": metric, "layer": ANY}, ("data", "layer"), "attack")
            for metric, title in LAYERED.items()
        ),
    ]
