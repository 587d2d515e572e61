"""How small a change fools a medical classifier, and how easily is it seen? Ma et al. 2020, arXiv:1907.10456.

    medrobust study run studies/ma2020.py --size small --data DATA [--models MODELS]

smoke: phantoms, seconds. small: chest X-rays, skin lesions (two classes, and seven) and fundus photographs at 128 px
with a MobileNetV2, PneumoniaMNIST, CIFAR-10 and ImageNet's own MobileNetV2 beside them; DATA holds chest_xray/, skin/,
fundus/, natural/, pneumoniamnist.npz, cifar10_test3000.npz and weights/ (see docs/studies.md); MODELS holds chest/,
skin/, skin7/, fundus/, pneumonia/, chest_small/, chest_scratch/, fundus_scratch/ where they are trained already.
paper: the paper's grid, ResNet-50 at 224 px, for a GPU or a cluster.
Duration of small: about 20 minutes of one undisturbed core with trained models, 35 more without. Paper: not run here.

Measured with small (docs/results/studies.md): BIM, PGD and CW leave 0.0 % (0.0 to 6.0, n = 60) at 1/255 on two
classes, PGD and CW at 0.3/255 on seven; FGSM leaves 33.3 % on chest X-rays and 18.3 % on skin at 1/255, noise 90.0
and 75.0 %. Kernel density sees PGD with an AUROC of 0.918 and 0.991, FGSM with 0.546 and 0.593. Attacks made on
another network do no more than noise. Of what the paper reads off pictures, attacked images lie apart (a probe reads
93 to 99 %) and Grad-CAM moves further than on natural images (69 to 89 % of pairs); steeper loss is not confirmed (10
to 15 %).
At 160 px (docs/results/robustness.md, n = 150): ImageNet's MobileNetV2 keeps 14.7 % at 0.3/255 and 0.0 % at 1/255, a
ResNet-18 on PneumoniaMNIST 90.7 % at 1/255. Saved at 8 bits, attacks of 0.3/255 leave chest and skin as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sets
from black_box import transferred
from detection import Case, detected
from explanations import explained

from medrobust.experiments import catalogue
from medrobust.grid import Chart, Model, Node, Part, Published, Study, StudyTable, grid

TITLE, SOURCE = "Ma et al. 2020", "arXiv:1907.10456, Pattern Recognition 110 (2021)"
GREY = catalogue.GREY
ATTACKS = ("fgsm", "bim", "pgd", "cw")
FINE = tuple(g / 10 * GREY for g in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10))
WIDE = (*FINE, *(g * GREY for g in range(2, 11)))
DETECTORS = ("kd", "lid", "dfeat", "qfeat")

MATCHED = "MobileNetV2 at 128 px instead of ResNet-50 at 224 px; other images and splits"


def study(size: str) -> Study:
    return Study(TITLE, SOURCE, {"smoke": smoke, "small": small, "paper": paper}[size]())


def smoke() -> list[Part]:
    """As small as it can be: detection.py, black_box.py and explanations.py try the parts that they share with this."""
    two, skin = sets.tiny("tiny"), sets.tiny("tiny-skin", sets.PHANTOM_SKIN)
    pictures = {"limit": 12, "surfaces": 1, "measures": ("linear-eps",)}
    return [
        curves([two, skin], ("fgsm", "pgd"), tuple(g * GREY for g in (2, 8, 32)), limit=8, shards=2),
        saving([two]),
        detected([Case(two, 32 * GREY)], ("kd",), ("pgd",), limit=24, published=_detection_published()),
        transferred([(two, sets.tiny("tiny-b", seed=1))], ("fgsm",), (8 * GREY,), limit=8),
        explained([(two, None)], skin, eps=32 * GREY, published=_explanations_published([two.data.name]), **pictures),
    ]


def small() -> list[Part]:
    desk = sets.desk()
    chest, skin = desk["chest"], desk["skin"]
    natural, cifar = sets.natural(), sets.cifar_resnet(20, "cifar10_resnet20-12fca82f.th")
    models = [chest, skin, desk["pneumonia"], natural, cifar]
    grid_eps = (*FINE, *(g * GREY for g in (2, 4, 8)))
    surrogates = [(chest, desk["chest_small"]), (chest, desk["chest_scratch"])]
    medical = [(chest, desk["chest_scratch"]), (skin, None), (desk["fundus"], desk["fundus_scratch"])]
    published = _explanations_published([model.data.name for model, _ in medical])
    return [
        curves([*models, desk["skin7"]], ATTACKS, grid_eps, limit=60),
        saving(models),
        detected([Case(chest), Case(skin)], DETECTORS, ATTACKS, limit=100, published=_detection_published()),
        transferred(surrogates, ATTACKS, (GREY, 4 * GREY), limit=60),
        explained(medical, natural, limit=60, surfaces=8, published=published),
    ]


def paper() -> list[Part]:
    """The full grid: three sets of two classes, chest X-rays of two, three and four classes, ResNet-50 at 224 px."""
    homes = (sets.MESSIDOR, sets.CXR2, sets.MELANOMA)
    two = [sets.resnet(d) for d in homes]
    pairs = [(model, sets.resnet(d, seed=1)) for model, d in zip(two, homes, strict=True)]
    many = [sets.resnet(d) for d in (sets.CXR3, sets.CXR4)]
    published = _explanations_published([d.name for d in homes])
    return [
        curves([*two, *many], ATTACKS, WIDE, shards=8),
        saving(two),
        detected([Case(m) for m in two], DETECTORS, ATTACKS, limit=None, published=_detection_published()),
        transferred(pairs, ATTACKS, (GREY, 4 * GREY)),
        explained(pairs, sets.natural_resnet(), limit=500, surfaces=64, published=published),
    ]


def curves(
    models: Sequence[Model], attacks: Sequence[str], eps: tuple[float, ...], limit: int | None = None, shards: int = 1
) -> Part:
    models = list(models)
    clean = grid(catalogue.clean, model=models)
    cells: list[Node] = [*clean, *grid(catalogue.noise, model=models, eps=eps, limit=limit)]
    for model in models:
        many = grid(
            catalogue.curve, model=model, attack=list(attacks), eps=eps, limit=limit, shards=shards, seconds=60.0
        )
        cells += [*many, catalogue.worst(many)]
    top = {"metric": "accuracy", "attack": [*attacks, "worst", "noise"]}
    return Part(
        "curves",
        "Accuracy under attack",
        cells,
        note="Four attacks without knowledge of each other, and for each image the worst of them, on images that the "
        "classifier was not trained on; noise is a random change of every pixel by the same size.",
        show=[
            StudyTable(
                "Clean performance",
                {"attack": "none", "metric": ["accuracy", "balanced_accuracy", "auroc"], "class_name": None},
                ("data", "model"),
                "metric",
            ),
            Chart("Accuracy against ε", top, "eps", ("attack",), ("data", "model"), "accuracy"),
            StudyTable(
                "Accuracy at some ε",
                top | {"eps": [0.3 * GREY, 0.5 * GREY, GREY, 8 * GREY]},
                ("data", "model", "eps"),
                "attack",
            ),
            StudyTable(
                "Median of the smallest ε that fools",
                {"metric": "min_eps_median", "attack": [*attacks, "worst"]},
                ("data", "model"),
                "attack",
                "In 8-bit grey levels, of the images that were read rightly.",
            ),
        ],
        published=_curves_published(),
    )


def saving(models: list[Model]) -> Part:
    """A change below half a grey level is gone in an 8-bit file."""
    return Part(
        "saving",
        "After saving",
        grid(catalogue.saved, model=models),
        note="PGD at full strength on 32 images each, as computed and after rounding to what a file of so many bits "
        "holds.",
        show=[
            StudyTable("Accuracy as computed", {"metric": "accuracy_full"}, ("data", "model"), "eps"),
            StudyTable("Accuracy after saving", {"metric": "accuracy_saved"}, ("data", "model", "eps"), "bits"),
        ],
    )


def _explanations_published(names: list[str]) -> list[Published]:
    setting = "ResNet-50, 224 px, medical beside ImageNet, as pictures"
    said = [
        ("Medical images fall to smaller changes", "eps*", "1/255 suffices, natural ones need about 8/255", "text"),
        (
            "Their gradient spreads over more pixels",
            "pixels holding half the gradient",
            "spread out, natural ones concentrate",
            "code",
        ),
        ("The middle layer sees less in them", "rank over the largest possible", "much simpler", "code"),
        ("The loss rises more steeply around them", "rise at 1/255 along the gradient", "steeper", "code"),
    ]
    reasons = {
        "eps*": "an attack with many steps at the smallest sizes; the paper takes the natural figure from others",
        "rise at 1/255 along the gradient": "a natural network knows 1,000 classes, and its loss can rise further; it "
        "begins lower",
    }
    found = [
        Published(
            f"{claim} ({by})",
            text,
            TITLE,
            kind,
            setting,
            {"metric": "larger", "claim": claim, "by": by, "data": names},
            "; ".join(r for r in (reasons.get(by), "numbers instead of a few pictures", MATCHED) if r),
        )
        for claim, by, text, kind in said
    ]
    found.append(
        Published(
            "Attacked images form groups of their own (t-SNE)",
            "clearly apart",
            TITLE,
            "code",
            setting,
            {"metric": "probe", "of": "attacked", "data": names},
            f"a linear probe, patients kept apart; {MATCHED}",
        )
    )
    found.append(
        Published(
            "An attack moves Grad-CAM",
            "shown on examples",
            TITLE,
            "code",
            setting,
            {"metric": "larger_than_noise", "data": names},
            f"against noise of the same size; {MATCHED}",
        )
    )
    return found


def _curves_published() -> list[Published]:
    def at(data: str, attack: str, eps: float = GREY) -> dict[str, Any]:
        return {"metric": "accuracy", "data": data, "attack": attack, "eps": eps}

    setting = "ResNet-50, 224 px, fundus, chest X-ray, skin"
    return [
        *(
            Published(f"{a.upper()} at 1/255, {data}", "about 0 %", TITLE, "recalled", setting, at(data, a), MATCHED)
            for data in ("chest", "skin")
            for a in ("bim", "pgd", "cw")
        ),
        *(
            Published(
                f"FGSM at 1/255, {data}",
                "single digits to about 30 %",
                TITLE,
                "recalled",
                setting,
                at(data, "fgsm"),
                MATCHED,
            )
            for data in ("chest", "skin")
        ),
        Published(
            "Several classes: at 0.3/255",
            "attacks succeed",
            TITLE,
            "text",
            "chest X-ray, 2 to 4 classes",
            at("skin7", "pgd", 0.3 * GREY),
            f"seven skin diagnoses instead of chest findings; {MATCHED}",
        ),
        Published(
            "Clean accuracy, chest X-ray",
            "93.0 %",
            TITLE,
            "recalled",
            setting,
            {"data": "chest", "attack": "none", "metric": "accuracy"},
            MATCHED,
        ),
        Published(
            "Clean accuracy, skin",
            "87.6 %",
            TITLE,
            "recalled",
            setting,
            {"data": "skin", "attack": "none", "metric": "accuracy"},
            MATCHED,
        ),
        Published(
            "Natural images need about 8/255",
            "8/255",
            TITLE,
            "text",
            "ImageNet networks of others",
            at("cifar10", "pgd", 8 * GREY),
            "CIFAR-10 at 32 px instead of ImageNet: a small network on lossy images falls earlier",
        ),
    ]


def _detection_published() -> list[Published]:
    return [
        Published(
            f"KD sees PGD, {data}, {named}",
            "AUROC above 0.98",
            TITLE,
            "text",
            "all sets and attacks, 1/255",
            {"data": data, "detector": "kd", "fitted_on": "pgd", "attack": "pgd", "metric": "auroc", "protocol": how},
            f"{MATCHED}" + ("; the published protocol tests on copies of training images" if how == "clean" else ""),
        )
        for data in ("chest", "skin")
        for how, named in (("paper", "as published"), ("clean", "clean protocol"))
    ]
