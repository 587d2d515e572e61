"""Does one change fool a medical classifier on every image? Hirano et al. 2021, BMC Medical Imaging 21:9.

    medrobust study run studies/hirano2021.py --size small --data DATA [--models MODELS]

smoke: phantoms, seconds. small: chest X-rays, skin lesions (two classes, and seven) and fundus photographs at 128 px,
MobileNetV2 and a small network, both norms, every target, sizes from 1 to 8 %, random controls, and retraining on
PneumoniaMNIST; DATA is a folder with chest_xray/, skin/, fundus/, pneumoniamnist.npz and weights/ (see
docs/studies.md); MODELS holds chest/, skin/, skin7/, fundus/, chest_small/, pneumonia/ where they are trained already.
paper: seven architectures at 299 px on the paper's three sets, for a GPU or a cluster.
Duration of small: about 15 minutes of one undisturbed core with trained models (50 were taken on a busy one), 25 more
without. Paper: not run here.

Measured with small at zeta = 4 %, p = 2, three passes, n = 200 held-out images (docs/results-studies.md): targeted 90.5
to 100 %; nontargeted 54 % on chest X-rays, 63 % on skin, 81.5 % on fundus, 90.5 % on seven kinds of skin
lesions; random changes of the same size 10 to 48 %. On the small network random changes do more (72 %) than the
nontargeted search (49.5 %), and on the chest X-rays they alone send 99.5 % to pneumonia. Retraining on PneumoniaMNIST
makes fresh perturbations weaker (59.8 to 37.5 %, n = 624), not harmless.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sets

from medrobust.experiments import catalogue
from medrobust.grid import Chart, Data, Model, Node, Part, Published, Study, StudyTable

TITLE, SOURCE = "Hirano et al. 2021", "BMC Medical Imaging 21:9 (2021)"
NONE = catalogue.NONTARGETED
SEVEN = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
FUNDUS = ("cataract", "diabetic_retinopathy", "glaucoma", "normal")
CHEST, SKIN = ("normal", "pneumonia"), ("benign", "malignant")
BEHIND = [
    "targeted_base",
    "targeted_success_new",
    "targeted_success_saved",
    "fooling_rate_saved",
    "fooling_cap",
    "accuracy_before",
    "accuracy_after",
]
SOURCE_SETTING = "seven architectures at 299 px; skin, OCT, chest X-ray"
MATCHED = "MobileNetV2 at 128 px instead of seven architectures at 299 px; pixels are clipped to [0, 1], as stored"


def study(size: str) -> Study:
    return {"smoke": smoke, "small": small, "paper": paper}[size]()


def smoke() -> Study:
    tiny, other = sets.tiny("tiny"), sets.tiny("tiny-skin", sets.PHANTOM_SKIN)
    fast = {"passes": 1}
    cases = [(tiny, ("normal",)), (other, ())]
    retrained = catalogue.retraining(
        tiny, {"rounds": 1, "epochs": 1, "perturbations": 1, "limit": 16}, method_settings=fast, zeta=0.1, measured=16
    )
    common = {"n": 16, "measured": 16, "settings": fast}
    return Study(
        TITLE,
        SOURCE,
        [
            perturbed(cases, (0.1,), ("l2", "linf"), 24, **common),
            sizes([(tiny, NONE)], (0.05, 0.2), 24, **common),
            defended([retrained]),
        ],
    )


def small() -> Study:
    desk = sets.desk()
    cases = [
        (desk["chest"], CHEST),
        (desk["chest_small"], CHEST),
        (desk["skin"], SKIN),
        (desk["fundus"], FUNDUS),
        (desk["skin7"], ("mel", "nv")),
    ]
    retrained = catalogue.retraining(
        desk["pneumonia"], {"rounds": 2, "epochs": 3, "perturbations": 4, "limit": 200}, zeta=0.04, seconds=240
    )
    common = {"n": 200, "measured": 200, "settings": {"passes": 3}, "seconds": 20.0}
    return Study(
        TITLE,
        SOURCE,
        [
            perturbed(cases, (0.04,), ("l2", "linf"), 200, **common),
            sizes([(desk["chest"], NONE), (desk["chest"], "normal")], (0.01, 0.02, 0.08), 200, **common),
            defended([retrained]),
        ],
    )


def paper() -> Study:
    """Seven architectures, three sets, both norms, nontargeted and every target, 1 to 8 %."""
    models = [_network(a, d) for d in (ISIC, OCT, KERMANY) for a in ARCHITECTURES]
    goals = {"isic2018": SEVEN, "oct": ("CNV", "DME", "DRUSEN", "NORMAL"), "chest": ("NORMAL", "PNEUMONIA")}
    cases = [(m, goals[m.data.name]) for m in models]
    common: dict[str, Any] = {"n": 7840, "measured": 7840, "settings": {"passes": 15}, "method": "sim"}
    levels = (0.01, 0.02, 0.03, 0.06, 0.08)
    retrained = [
        catalogue.retraining(m, {"rounds": 5, "epochs": 5, "perturbations": 10, "limit": None}, goal, seconds=8 * 3600)
        for m in models
        if m.name.startswith("inception_v3")
        for goal in (NONE, goals[m.data.name][0])
    ]
    return Study(
        TITLE,
        SOURCE,
        [
            perturbed(cases, (0.02, 0.04), ("l2", "linf"), None, **common),
            sizes([(m, g) for m, _ in cases for g in (NONE, goals[m.data.name][-1])], levels, None, **common),
            defended(retrained),
        ],
    )


# -- the study, at any size ------------------------------------------------------------------------------------


def perturbed(
    cases: Sequence[tuple[Model, Sequence[str]]],
    zetas: Sequence[float],
    norms: Sequence[str],
    images: int | None,
    **common: Any,
) -> Part:
    """Every model, nontargeted and to each target, judged on training and on test images, beside random changes."""
    cells: list[Node] = []
    on = ("test", "train")
    for model, targets in cases:
        for norm in norms:
            for zeta in zetas:
                goals = (NONE, *targets)
                cells += [
                    catalogue.judged(catalogue.universal(model, g, norm, zeta, **common), None, on, images)
                    for g in goals
                ]
                cells.append(catalogue.random(model, goals, norm, zeta, ("test",), images, measured=common["measured"]))
    lines = ("data", "model", "norm", "zeta", "goal")
    return Part(
        "perturbations",
        "One change for every image",
        cells,
        note="Rf: share of the images whose decision changes. Rs: share that is read as the target. The change is "
        "made from training images and judged on others; random changes have the same size.",
        show=[
            *(
                StudyTable(f"{name} on {images} images", {**rate, "split": split}, lines, "attack")
                for split, images in (("test", "test"), ("train", "training"))
                for name, rate in catalogue.rates([NONE, *(t for _, targets in cases for t in targets)]).items()
            ),
            StudyTable(
                "What stands behind it, test images",
                {"metric": BEHIND, "split": "test", "attack": common.get("method", "sga")},
                lines,
                "metric",
                "before: share read as the target without the change. of the others: Rs among the rest. cap: the "
                "largest Rf of a change that sends all images to one class.",
            ),
        ],
        published=_published(),
    )


def sizes(cases: Sequence[tuple[Model, str]], zetas: Sequence[float], images: int | None, **common: Any) -> Part:
    cells = [
        catalogue.judged(catalogue.universal(model, goal, "l2", zeta, **common), None, ("test",), images)
        for model, goal in cases
        for zeta in zetas
    ]
    rates = catalogue.rates(goal for _, goal in cases)
    towards_pneumonia = Published(
        "Chest, to PNEUMONIA, p = 2, 2 %",
        "Rs 93.7 % (test)",
        TITLE,
        "code",
        "Inception V3, 299 px",
        {"data": "chest", "goal": "normal", "zeta": 0.02, **catalogue.TARGETED, "split": "test"},
        f"the target here is normal, the direction that hides a disease; {MATCHED}",
    )
    return Part(
        "sizes",
        "Against the size of the change",
        cells,
        show=[
            *(
                Chart(f"{name} against ζ, p = 2", {**rate, "split": "test"}, "zeta", ("model", "goal"), (), name)
                for name, rate in rates.items()
            ),
            *(
                StudyTable(f"{name}, p = 2, test images", {**rate, "split": "test"}, ("data", "model", "goal"), "zeta")
                for name, rate in rates.items()
            ),
        ],
        published=[towards_pneumonia] if "Rs" in rates else [],
    )


def defended(cells: Sequence[Node]) -> Part:
    return Part(
        "retraining",
        "Does retraining help?",
        cells,
        note="Perturbations are made against the classifier, added to half of the training images, and new ones made "
        "against what was trained. Fresh ones tell, not those that it was trained on.",
        show=[
            *(
                StudyTable(f"{name} of perturbations, by round", rate, ("data", "model", "goal", "round"), "pool")
                for name, rate in catalogue.rates(str(cell.args["goal"]) for cell in cells).items()
            ),
            StudyTable("Accuracy on untouched images", {"metric": "accuracy"}, ("data", "model", "goal"), "round"),
        ],
        published=[
            Published(
                "Adversarial retraining",
                "helps in very few cases",
                TITLE,
                "text",
                SOURCE_SETTING,
                {**catalogue.FOOLING, "pool": "fresh"},
                "PneumoniaMNIST at 28 px with a ResNet-18 and fewer, shorter rounds",
            )
        ],
    )


def _published() -> list[Published]:
    def near(data: str, goal: str) -> dict[str, Any]:
        rate = catalogue.FOOLING if goal == NONE else catalogue.TARGETED
        return {**rate, "data": data, "goal": goal, "split": "test", "attack": "sga", "norm": "l2"}

    untargeted = [
        Published(
            f"Nontargeted, 4 %, {d}", "Rf above 80 %", TITLE, "text", SOURCE_SETTING, near(d, NONE), f"{more}{MATCHED}"
        )
        for d, more in (("chest", "two classes: sending all to one gives no more than the cap; "), ("skin7", ""))
    ]
    targeted = [
        Published(
            f"To {goal}, {d}",
            "Rs above 80 % (at 2 %)",
            TITLE,
            "text",
            SOURCE_SETTING,
            near(d, goal),
            f"at 4 % here; {MATCHED}",
        )
        for d, goal in (("chest", "pneumonia"), ("skin7", "mel"), ("skin7", "nv"))
    ]
    return [*untargeted, *targeted]


# -- paper size: what the authors used -------------------------------------------------------------------------

ARCHITECTURES = ("inception_v3", "vgg16", "vgg19", "resnet50", "inception_resnet_v2", "densenet121", "densenet169")
_LAYOUT = "a folder with the images and labels.csv (columns file, label, split, patient)"
ISIC = Data(
    "isic2018",
    "csv:{data}/isic2018/labels.csv",
    size=299,
    get=f"ISIC 2018 task 3 (challenge.isic-archive.com/data, free), 7000 train and 3015 test, isic2018/: {_LAYOUT}.",
)
OCT = Data(
    "oct",
    "csv:{data}/oct/labels.csv",
    size=299,
    get="Retinal OCT of Kermany et al. 2018 (Mendeley Data 10.17632/rscbjbr9sj, free), 7840 train and 3360 test, oct/: "
    f"{_LAYOUT}. The paper's split shares patients between train and test for 81 % of the test images.",
)
KERMANY = Data(
    "chest",
    "csv:{data}/chest_xray/labels.csv",
    size=299,
    get="Chest X-rays of Kermany et al. 2018 (Mendeley Data 10.17632/rscbjbr9sj, free), 1800 train and 540 test, "
    f"balanced, chest_xray/: {_LAYOUT}.",
)


def _network(architecture: str, data: Data) -> Model:
    options = {"pretrained": "hub", "epochs": 50, "optimiser": "sgd", "lr": 1e-3, "batch": 32}
    return Model(f"{architecture}-{data.name}", data, architecture, options, seconds=4 * 3600)
