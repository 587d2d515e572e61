"""The images that studies stand on: phantoms (smoke), public sets at a desk's size (small), larger ones (paper).

``{data}`` is the folder of --data. The layout that each set must have there is in its ``get``.
"""

from __future__ import annotations

from typing import Any

from medrobust.grid import Data, Model

# -- smoke: drawn by the package, nothing to download ----------------------------------------------------------

PHANTOM = Data("phantom chest", "phantom:chest@32:n=720")
PHANTOM_SKIN = Data("phantom skin", "phantom:skin@32:n=720", channels=1)


def tiny(name: str, data: Data = PHANTOM, seed: int = 0, epochs: int = 3) -> Model:
    """A small network that learns a phantom in seconds."""
    return Model(name, data, "small_cnn", {"epochs": epochs}, seed=seed, seconds=2)


# -- small: what fits a desk, at 128 px ------------------------------------------------------------------------

_TABLE = "a folder with the images and labels.csv (columns file, label[, split, patient])"
CHEST = Data(
    "chest",
    "csv:{data}/chest_xray/labels.csv",
    size=128,
    get=f"Chest X-rays of Kermany et al. 2018 (Mendeley Data 10.17632/rscbjbr9sj, CC BY 4.0), chest_xray/: {_TABLE}.",
)
SKIN = Data(
    "skin",
    "csv:{data}/skin/labels.csv",
    size=128,
    get=f"HAM10000, one image a lesion (Harvard Dataverse 10.7910/DVN/DBW86T, CC BY-NC 4.0), skin/: {_TABLE}; column "
    "label malignant or benign, column diagnosis one of seven.",
)
SKIN7 = Data("skin7", "csv:{data}/skin/labels.csv", size=128, label="diagnosis", get=SKIN.get)
FUNDUS = Data(
    "fundus",
    "csv:{data}/fundus/labels.csv",
    size=128,
    get=f"Fundus photographs of four classes (normal, diabetic_retinopathy, cataract, glaucoma), fundus/: {_TABLE}.",
)
PNEUMONIA = Data(
    "pneumonia",
    "medmnist:{data}/pneumoniamnist.npz",
    get="PneumoniaMNIST (zenodo.org/records/10519652, CC BY 4.0): pneumoniamnist.npz.",
)
NATURAL = Data(
    "natural",
    "csv:{data}/natural/labels.csv",
    size=128,
    label="index",
    get=f"One ImageNet image a class (github.com/EliSchwartz/imagenet-sample-images), natural/: {_TABLE}; column index "
    "the class.",
)
CIFAR = Data(
    "cifar10",
    "medmnist:{data}/cifar10_test3000.npz",
    get="3000 CIFAR-10 test images in MedMNIST layout: cifar10_test3000.npz.",
)

MOBILENET: dict[str, Any] = {
    "pretrained": "{data}/weights/mobilenetv2_100_imagenet.safetensors",
    "mean": [0.5],
    "std": [0.5],
}
"""MobileNetV2 with ImageNet weights whose input was normalised with mean and std 0.5."""


def mobilenet(name: str, data: Data, epochs: int, *, scratch: bool = False, seed: int = 0) -> Model:
    """A MobileNetV2 fine-tuned from ImageNet weights, or trained from scratch."""
    options = {"epochs": epochs} | ({} if scratch else MOBILENET)
    return Model(name, data, "mobilenetv2_100", options, seed=seed, seconds=60 * epochs)


def desk() -> dict[str, Model]:
    """The classifiers of the small studies, by name: --models FOLDER gives trained ones (FOLDER/NAME/model)."""
    found = [
        mobilenet("chest", CHEST, 4),
        mobilenet("skin", SKIN, 5),
        mobilenet("fundus", FUNDUS, 5),
        mobilenet("skin7", SKIN7, 8),
        mobilenet("chest_scratch", CHEST, 10, scratch=True),
        mobilenet("fundus_scratch", FUNDUS, 12, scratch=True),
        Model("chest_small", CHEST, "small_cnn", {"epochs": 10}, seconds=120),
        Model("pneumonia", PNEUMONIA, "resnet18", {"epochs": 5}, seconds=150),
    ]
    return {m.name: m for m in found}


def natural() -> Model:
    """ImageNet's own MobileNetV2 on natural images, used as it is: the other side of a comparison at 128 px."""
    colours = {"mean": [0.5] * 3, "std": [0.5] * 3}
    return Model("natural", NATURAL, "mobilenetv2_100", colours, weights=MOBILENET["pretrained"], seconds=2)


def cifar_resnet(depth: int, file: str) -> Model:
    """A CIFAR-10 ResNet of github.com/akamaster/pytorch_resnet_cifar10, used as it is."""
    return Model(f"resnet{depth}", CIFAR, f"cifar_resnet{depth}", weights=f"{{data}}/weights/{file}", seconds=2)


# -- paper: what Ma et al. 2020 used, at 224 px ----------------------------------------------------------------

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


def resnet(data: Data, seed: int = 0) -> Model:
    """A ResNet-50 fine-tuned from ImageNet weights."""
    options = {"pretrained": "hub", "epochs": 50, "optimiser": "sgd", "lr": 1e-3}
    return Model(f"resnet50-{data.name}-{seed}", data, "resnet50", options, seed=seed, seconds=4 * 3600)


def natural_resnet() -> Model:
    """ImageNet's own ResNet-50 on natural images, used as it is."""
    data = Data(
        "natural",
        "csv:{data}/natural/labels.csv",
        size=224,
        label="index",
        get=f"{NATURAL.get} And ImageNet weights of timm's resnet50 as weights/resnet50_imagenet.safetensors.",
    )
    options = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    return Model(
        "natural", data, "resnet50", options, weights="{data}/weights/resnet50_imagenet.safetensors", seconds=30
    )
