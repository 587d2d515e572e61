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

from medrobust.experiments import catalogue
from medrobust.grid import ANY, Chart, Data, Model, Node, Part, Published, Study, StudyTable, grid

TITLE, SOURCE = "Ma et al. 2020", "arXiv:1907.10456, Pattern Recognition 110 (2021)"
GREY = catalogue.GREY
ATTACKS = ("fgsm", "bim", "pgd", "cw")
FINE = tuple(g / 10 * GREY for g in (1, 2, 3, 4, 5, 6, 7, 8, 9, 10))
WIDE = (*FINE, *(g * GREY for g in range(2, 11)))
DETECTORS = ("kd", "lid", "dfeat", "qfeat")

FEW = ("slope-l1", "saliency-half", "linear-eps", "relative-rank", "rise-gradient")

MATCHED = "MobileNetV2 at 128 px instead of ResNet-50 at 224 px; other images and splits"


def study(size: str) -> Study:
    return {"smoke": smoke, "small": small, "paper": paper}[size]()


def smoke() -> Study:
    two, other = sets.tiny("tiny"), sets.tiny("tiny-b", seed=1)
    grey = tuple(g * GREY for g in (2, 8, 32))
    return whole(
        two=[two],
        many=[sets.tiny("tiny-skin", sets.PHANTOM_SKIN)],
        natural=[],
        stored=[two],
        grid_eps=grey,
        limit=8,
        shards=2,
        pairs=[(two, other)],
        detect=[two],
        detectors=("kd", "dfeat"),
        attacks=("fgsm", "pgd"),
        at=32 * GREY,
        twins=24,
        inside=[(two, other)],
        outside=sets.tiny("tiny-skin", sets.PHANTOM_SKIN),
        pictures={"limit": 24, "surfaces": 2, "measures": FEW},
    )


def small() -> Study:
    desk = sets.desk()
    natural = [sets.natural(), sets.cifar_resnet(20, "cifar10_resnet20-12fca82f.th")]
    return whole(
        two=[desk["chest"], desk["skin"], desk["pneumonia"]],
        many=[desk["skin7"]],
        natural=natural,
        stored=[desk["chest"], desk["skin"], desk["pneumonia"], *natural],
        grid_eps=(*FINE, 2 * GREY, 4 * GREY, 8 * GREY),
        limit=60,
        shards=1,
        pairs=[(desk["chest"], desk["chest_small"]), (desk["chest"], desk["chest_scratch"])],
        detect=[desk["chest"], desk["skin"]],
        detectors=DETECTORS,
        attacks=ATTACKS,
        at=GREY,
        twins=100,
        inside=[(desk["chest"], desk["chest_scratch"]), (desk["skin"], None), (desk["fundus"], desk["fundus_scratch"])],
        outside=sets.natural(),
        pictures={"limit": 60, "surfaces": 8},
    )


def paper() -> Study:
    """The full grid: three sets of two classes, chest X-rays of two, three and four classes, ResNet-50 at 224 px."""
    two = [_resnet(d) for d in (MESSIDOR, CXR2, MELANOMA)]
    pairs = [(_resnet(d), _resnet(d, seed=1)) for d in (MESSIDOR, CXR2, MELANOMA)]
    return whole(
        two=two,
        many=[_resnet(d) for d in (CXR3, CXR4)],
        natural=[],
        stored=two,
        grid_eps=WIDE,
        limit=None,
        shards=8,
        pairs=pairs,
        detect=two,
        detectors=DETECTORS,
        attacks=ATTACKS,
        at=GREY,
        twins=None,
        inside=pairs,
        outside=_natural(),
        pictures={"limit": 500, "surfaces": 64},
    )


# -- the study, at any size ------------------------------------------------------------------------------------


def whole(
    two: list[Model],
    many: list[Model],
    natural: list[Model],
    stored: list[Model],
    grid_eps: tuple[float, ...],
    limit: int | None,
    shards: int,
    pairs: Sequence[tuple[Model, Model]],
    detect: list[Model],
    detectors: tuple[str, ...],
    attacks: tuple[str, ...],
    at: float,
    twins: int | None,
    inside: Sequence[tuple[Model, Model | None]],
    outside: Model,
    pictures: dict[str, Any],
) -> Study:
    return Study(
        TITLE,
        SOURCE,
        [
            curves(two + many + natural, attacks, grid_eps, limit, shards),
            saving(stored),
            seen(detect, detectors, attacks, at, twins),
            transferred(pairs, attacks, at, limit),
            explanations(inside, outside, at, **pictures),
        ],
    )


def curves(
    models: list[Model], attacks: tuple[str, ...], eps: tuple[float, ...], limit: int | None, shards: int
) -> Part:
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


def seen(models: list[Model], names: tuple[str, ...], attacks: tuple[str, ...], eps: float, twins: int | None) -> Part:
    cells = [c for m in models for c in catalogue.detectors(m, names, attacks, eps, limit=twins, seconds=40.0)]
    both = {"metric": "auroc", "layer": None}
    return Part(
        "detection",
        "Can the attack be seen?",
        cells,
        note="Detectors read the penultimate layer. Clean protocol: whole patients on one side, everything fitted on "
        "the training side. As published: with the leaks of the published code, for comparison.",
        show=[
            StudyTable(
                "AUROC, clean protocol, fitted and tested on the same attack",
                both | {"protocol": "clean", "same": True},
                ("data", "detector"),
                "attack",
            ),
            StudyTable(
                "AUROC as published (leaks)", both | {"protocol": "paper", "same": True}, ("data", "detector"), "attack"
            ),
            StudyTable(
                "From one attack to another: AUROC, clean protocol",
                both | {"protocol": "clean", "attack": list(attacks)},
                ("data", "detector", "fitted_on"),
                "attack",
            ),
            StudyTable(
                "Clean images that raise an alarm, threshold set for 5 % on other clean images",
                {"metric": "alarms", "at_fpr": 0.05, "attack": "none", "detector": list(names)},
                ("data",),
                "detector",
            ),
        ],
        published=_detection_published(),
    )


def transferred(pairs: Sequence[tuple[Model, Model]], attacks: tuple[str, ...], eps: float, limit: int | None) -> Part:
    cells = [
        catalogue.transfer(model, surrogate, attack, (eps, 4 * eps), limit=limit, seconds=25.0)
        for model, surrogate in pairs
        for attack in attacks
    ]
    return Part(
        "transfer",
        "Made on another network",
        cells,
        note="The same attacks made at full strength on an independently trained network and shown to this one.",
        show=[
            StudyTable(
                "Accuracy under transferred attacks",
                {"metric": "accuracy"},
                ("data", "model", "made_on", "eps"),
                "attack",
            )
        ],
    )


def explanations(models: Sequence[tuple[Model, Model | None]], natural: Model, eps: float, **pictures: Any) -> Part:
    """Each medical classifier, with an independent one for the published plane, held against a natural one."""
    measures = list(pictures.get("measures", catalogue.EXPLAINED))
    cells = [catalogue.explained(model, second, eps=eps, seconds=150, **pictures) for model, second in models]
    outside = catalogue.explained(natural, eps=eps, seconds=150, **pictures)
    claims = catalogue.claimed(cells, outside)
    return Part(
        "explanations",
        "Why does it break?",
        [*cells, outside, claims],
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
            StudyTable(
                "Median of the smallest ε that fools", {"metric": "min_eps_median"}, ("data", "model"), "attack"
            ),
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
            StudyTable(
                "Effective rank of each layer over the largest possible",
                {"metric": "relative-rank", "when": ["clean", "attacked"], "layer": ANY},
                ("data", "layer"),
                "attack",
            ),
        ],
        published=_explanations_published([m.data.name for m, _ in models]),
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


# -- paper size: what the authors used -------------------------------------------------------------------------

_LAYOUT = "a folder with the images and labels.csv (columns file, label, patient, split)"
MESSIDOR = Data(
    "fundoscopy",
    "csv:{data}/diabetic_retinopathy/labels.csv",
    size=224,
    get="Kaggle Diabetic Retinopathy Detection (EyePACS; www.kaggle.com/c/diabetic-retinopathy-detection, REGISTRATION "
    f"and the competition's terms needed), label referable or not, diabetic_retinopathy/: {_LAYOUT}.",
)
_NIH = "NIH ChestX-ray14 (nihcc.app.box.com/v/ChestXray-NIHCC, free), images with a single finding only"
CXR2 = Data(
    "cxr-2",
    "csv:{data}/chestxray14/two.csv",
    size=224,
    get=f"{_NIH}; two.csv: the classes of rank 0 and 5 by frequency, chestxray14/: {_LAYOUT}.",
)
CXR3 = Data(
    "cxr-3",
    "csv:{data}/chestxray14/three.csv",
    size=224,
    get=f"{_NIH}; three.csv: the classes of rank 0, 5 and 6, chestxray14/: {_LAYOUT}.",
)
CXR4 = Data(
    "cxr-4",
    "csv:{data}/chestxray14/four.csv",
    size=224,
    get=f"{_NIH}; four.csv: the classes of rank 0, 4, 5 and 6, chestxray14/: {_LAYOUT}.",
)
MELANOMA = Data(
    "dermoscopy",
    "csv:{data}/isic/labels.csv",
    size=224,
    get=f"ISIC archive (isic-archive.com, free), melanoma against nevus, isic/: {_LAYOUT}.",
)


def _resnet(data: Data, seed: int = 0) -> Model:
    options = {"pretrained": "hub", "epochs": 50, "optimiser": "sgd", "lr": 1e-3}
    return Model(f"resnet50-{data.name}-{seed}", data, "resnet50", options, seed=seed, seconds=4 * 3600)


def _natural() -> Model:
    data = Data(
        "natural",
        "csv:{data}/natural/labels.csv",
        size=224,
        label="index",
        get=f"{sets.NATURAL.get} And ImageNet weights of timm's resnet50 as weights/resnet50_imagenet.safetensors.",
    )
    options = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    return Model(
        "natural", data, "resnet50", options, weights="{data}/weights/resnet50_imagenet.safetensors", seconds=30
    )
