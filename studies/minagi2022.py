"""Can the change be made from natural images alone? Minagi, Hirano, Takemoto 2022, J. Imaging 8(2):38.

    medrobust study run studies/minagi2022.py --size small --data DATA [--models MODELS]

smoke: phantoms, seconds. small: chest X-rays and fundus photographs at 128 px, MobileNetV2 fine-tuned from ImageNet and
from scratch, perturbations from training images, 400 ImageNet images, drawn phantoms and noise; 400 and 1,000 natural
images as they are and varied, on skin lesions too; across architectures. DATA is a folder with chest_xray/, skin/,
fundus/, natural/ and weights/ (see docs/studies.md); MODELS holds chest/, skin/, skin7/, fundus/, chest_scratch/,
fundus_scratch/, chest_small/ where they are trained already. paper: three architectures at 299 px, 100,000 ImageNet and
Open Images each, for a GPU or a cluster.
Duration of small: about 40 minutes on one core with trained models, 40 more without. Paper: not run here.

To expect at zeta = 4 %, p = 2, n = 300 (docs/results/universal-natural.md, made by a script of an earlier revision with
the same settings), nontargeted: from training images 78.7 % on chest and 91.0 % on fundus; from 400 natural images 64.0
and 65.7 %, varied 68.0 and 71.7 %; the published method from 1,000 natural images 1.3 and 3.7 %; random changes 22 to
47 %; from natural images on networks from scratch 30.0 and 48.7 %. Between architectures little more than random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sets

from medrobust.experiments import catalogue
from medrobust.grid import Data, Model, Node, Part, Published, Study, StudyTable

TITLE, SOURCE = "Minagi et al. 2022", "J. Imaging 8(2):38 (2022)"
NONE = catalogue.NONTARGETED
SETTING = "skin (ISIC 2018), Inception V3, 299 px, nontargeted, p = 2, 4 %"
LOG = "the published log"


def study(size: str) -> Study:
    return {"smoke": smoke, "small": small, "paper": paper}[size]()


def smoke() -> Study:
    tuned, scratch = sets.tiny("tiny"), sets.tiny("tiny-b", seed=1)
    common: dict[str, Any] = {"n": 16, "measured": 16, "settings": {"passes": 1}, "zeta": 0.1}
    skin = sets.PHANTOM_SKIN
    ways = _ways(skin, 8, {"method": "sim", "settings": {"passes": 1}})
    across = [([tuned, scratch], (NONE,))]
    return whole([(tuned, (NONE,), ("training", skin, "noise"))], [(tuned, (NONE,), ways)], across, 24, **common)


def small() -> Study:
    desk = sets.desk()
    goals = (NONE, "normal")
    common: dict[str, Any] = {"n": 400, "measured": 400, "settings": {"passes": 3}, "zeta": 0.04, "seconds": 25.0}
    cases = [
        (desk[name], goals, ("training", GREY if grey else sets.NATURAL, drawn, "noise"))
        for name, grey, drawn in (
            ("chest", True, DRAWN_CHEST),
            ("chest_scratch", True, DRAWN_CHEST),
            ("fundus", False, DRAWN_FUNDUS),
            ("fundus_scratch", False, DRAWN_FUNDUS),
        )
    ]
    sequential = {"method": "sim", "settings": {"passes": 1, "step": STEP}}
    natural = [
        (desk[name], (NONE, target), _ways(GREY if name == "chest" else sets.NATURAL, 1000, sequential))
        for name, target in (("fundus", "normal"), ("chest", "normal"), ("skin", "benign"), ("skin7", "nv"))
    ]
    across = [([desk["chest"], desk["chest_scratch"], desk["chest_small"]], (NONE, "normal", "pneumonia"))]
    return whole(cases, natural, across, 300, **common)


def paper() -> Study:
    """Skin, OCT and chest X-ray; Inception V3, VGG16 and ResNet-50, pretrained and from scratch; two natural sets."""
    goals = {"isic2018": "NV", "oct": "NORMAL", "chest": "NORMAL"}
    models = [_network(a, d, tuned) for d in (ISIC, OCT, KERMANY) for a in ARCHITECTURES for tuned in (True, False)]
    cases = [(m, (NONE, goals[m.data.name]), ("training", IMAGENET, OPEN_IMAGES)) for m in models]
    across = [([m for m in models if m.data == d and "scratch" not in m.name], (NONE,)) for d in (ISIC, OCT, KERMANY)]
    common: dict[str, Any] = {"n": 100_000, "measured": 7000, "zeta": 0.04, "method": "sim"}
    common["settings"] = {"passes": 1, "step": STEP}
    return whole(cases, [], across, None, **common)


# -- the study, at any size ------------------------------------------------------------------------------------

Case = tuple[Model, Sequence[str], Sequence[str | Data]]
Way = Mapping[str, Any]
Across = tuple[Sequence[Model], Sequence[str]]


def _ways(natural: Data, more: int, sequential: Way) -> list[Way]:
    """Training images, natural ones as they are and varied; ``more`` of them: varied, and by the published method."""
    return [
        {},
        {"source": natural},
        {"source": natural, "vary": True},
        {"source": natural, "vary": True, "n": more, "settings": {"passes": 1}},
        {"source": natural, "n": more, **sequential},
    ]


def whole(
    cases: Sequence[Case],
    natural: Sequence[tuple[Model, Sequence[str], Sequence[Way]]],
    across: Sequence[Across],
    images: int | None,
    **common: Any,
) -> Study:
    parts = [made_from(cases, images, **common), between(across, images, **common)]
    if natural:
        parts.insert(1, from_natural(natural, images, **common))
    return Study(TITLE, SOURCE, parts)


def made_from(cases: Sequence[Case], images: int | None, **common: Any) -> Part:
    cells: list[Node] = []
    for model, goals, sources in cases:
        for goal in goals:
            for source in sources:
                v = catalogue.universal(model, goal, source=source, **common)
                cells.append(catalogue.judged(v, None, ("test",), images))
        cells.append(
            catalogue.random(model, goals, "l2", common["zeta"], ("test",), images, measured=common["measured"])
        )
    shown = {"split": "test"}
    rates = catalogue.rates(goal for _, goals, _ in cases for goal in goals)
    before = StudyTable(
        "Read as the target without any change",
        shown | {"metric": "targeted_base"},
        ("data", "model", "goal"),
        "source",
        "The same images, whatever the change was made from.",
    )
    return Part(
        "sources",
        "Made from other images",
        cells,
        note="Rf (nontargeted) or Rs (to a class) on medical test images, of a change that was made from images of "
        "another kind with the medical classifier's gradients. Random changes have the same size; of their three "
        "kinds each is a line of its own below.",
        show=[
            *(
                StudyTable(
                    f"{name} by where the images come from",
                    {**shown, **rate, "attack": ["sga", "sim"]},
                    ("data", "model", "goal"),
                    "source",
                )
                for name, rate in rates.items()
            ),
            *(
                StudyTable(
                    f"{name} of random changes of the same size",
                    {**shown, **rate, "source": "random"},
                    ("data", "model", "goal"),
                    "attack",
                )
                for name, rate in rates.items()
            ),
            *([before] if "Rs" in rates else []),
        ],
        published=_published(),
    )


def from_natural(
    cases: Sequence[tuple[Model, Sequence[str], Sequence[Way]]], images: int | None, **common: Any
) -> Part:
    """Natural images as they are and varied (``medrobust.universal.Varied``), beside training images."""
    cells = [
        catalogue.judged(catalogue.universal(model, goal, **{**common, **way}), None, ("test",), images)
        for model, goals, ways in cases
        for goal in goals
        for way in ways
    ]
    return Part(
        "natural",
        "From natural images alone",
        cells,
        note="Varied: cropped, recoloured, smoothed and framed, until a medical classifier gives all of its answers.",
        show=[
            StudyTable(
                f"{name} by the images it is made from",
                {**rate, "split": "test"},
                ("data", "model", "goal", "attack", "images"),
                "source",
            )
            for name, rate in catalogue.rates(goal for _, goals, _ in cases for goal in goals).items()
        ],
    )


def between(across: Sequence[Across], images: int | None, **common: Any) -> Part:
    cells: list[Node] = []
    for models, goals in across:
        made = [catalogue.universal(made_on, goal, **common) for made_on in models for goal in goals]
        cells += [catalogue.judged(v, model, ("test",), images) for v in made for model in models]
        cells += [
            catalogue.random(model, goals, "l2", common["zeta"], ("test",), images, measured=common["measured"])
            for model in models
        ]
    return Part(
        "architectures",
        "From one network to another",
        cells,
        show=[
            StudyTable(f"{name}, {what}", {**rate, "split": "test", "source": source}, ("data", "goal", line), "model")
            for name, rate in catalogue.rates(goal for _, goals in across for goal in goals).items()
            for source, what, line in (
                ("training", "made from training images", "made_on"),
                ("random", "random changes of the same size", "attack"),
            )
        ],
    )


def _published() -> list[Published]:
    def near(model: str, source: str) -> dict[str, Any]:
        return {"model": model, **catalogue.FOOLING, "source": source, "split": "test"}

    other = "another set and network, 128 px; SGA (batched) from 400 images instead of the sequential method"
    log = [
        Published(
            f"From {n:,} ImageNet images",
            f"Rf {rate} % (random {chance} %)",
            LOG,
            "code",
            SETTING,
            near("fundus", "natural"),
            other,
        )
        for n, rate, chance in ((1_000, "6.0", "3.2"), (10_000, "17.8", "11.2"), (100_000, "83.6", "14.7"))
    ]
    return [
        *log,
        Published(
            "From scratch instead of from ImageNet weights",
            "lowers it, does not remove it",
            TITLE,
            "text",
            "skin, OCT, chest X-ray",
            near("fundus_scratch", "natural"),
            other,
        ),
        Published(
            "From scratch instead of from ImageNet weights",
            "lowers it, does not remove it",
            TITLE,
            "text",
            "skin, OCT, chest X-ray",
            near("chest_scratch", "natural grey"),
            other,
        ),
    ]


STEP = 0.00025
"""Of a pixel in the sequential method: the published 0.0005 on the scale from -1 to 1."""
GREY = Data("natural grey", sets.NATURAL.spec, size=128, channels=1, label="index", get=sets.NATURAL.get)
DRAWN_CHEST = Data("phantom chest", "phantom:chest@128")
DRAWN_FUNDUS = Data("phantom fundus", "phantom:fundus@128")

# -- paper size: what the authors used -------------------------------------------------------------------------

ARCHITECTURES = ("inception_v3", "vgg16", "resnet50")
_LAYOUT = "a folder with the images and labels.csv (columns file, label, split, patient)"
ISIC = Data(
    "isic2018",
    "csv:{data}/isic2018/labels.csv",
    size=299,
    get=f"ISIC 2018 task 3 (challenge.isic-archive.com/data, free), isic2018/: {_LAYOUT}.",
)
OCT = Data(
    "oct",
    "csv:{data}/oct/labels.csv",
    size=299,
    get=f"Retinal OCT of Kermany et al. 2018 (Mendeley Data 10.17632/rscbjbr9sj, free), oct/: {_LAYOUT}.",
)
KERMANY = Data(
    "chest",
    "csv:{data}/chest_xray/labels.csv",
    size=299,
    get=f"Chest X-rays of Kermany et al. 2018 (the same address as OCT, free), chest_xray/: {_LAYOUT}.",
)
IMAGENET = Data(
    "imagenet",
    "folder:{data}/imagenet/train",
    size=299,
    get="ImageNet ILSVRC 2012 training images (image-net.org, REGISTRATION needed), imagenet/train/CLASS/*.JPEG.",
)
OPEN_IMAGES = Data(
    "open images",
    "csv:{data}/open_images/labels.csv",
    size=299,
    get=f"Open Images V6 test images (storage.googleapis.com/openimages, free), open_images/: {_LAYOUT}.",
)


def _network(architecture: str, data: Data, tuned: bool) -> Model:
    options = {"epochs": 50, "optimiser": "sgd", "lr": 1e-3, "batch": 32} | ({"pretrained": "hub"} if tuned else {})
    name = f"{architecture}-{data.name}" + ("" if tuned else "-scratch")
    return Model(name, data, architecture, options, seconds=4 * 3600)
