"""Small classifiers of five image sets, plain and adversarially trained, under ``auto`` at fixed sizes: a league table.

    medrobust study run studies/league.py --size small --data DATA
    medrobust league add runs/league-small --to LEAGUE.json

Four small networks (small_cnn, and timm's smallest residual network, EfficientNet and vision transformer, 0.1 to 0.4
million weights), each trained from scratch, and from there by PGD adversarial training and by TRADES against Linf
4/255. ``auto`` with its defaults attacks 60 test images; sizes and images follow the rule in docs/studies.md.

Duration: smoke half a minute; small 20 minutes of one core, 57 classifiers. Measured: see docs/results/league.md.
"""

from dataclasses import replace

from sets import CHEST, FUNDUS, PNEUMONIA, SKIN

from medrobust.experiments import catalogue
from medrobust.grid import Data, Model, Part, Study, StudyTable
from medrobust.league import IMAGES, sizes

ARCHITECTURES = ("small_cnn", "test_resnet", "test_efficientnet", "test_vit")
METHODS = {"plain": None, "AT": "pgd:steps=5", "TRADES": "trades:steps=5"}
AGAINST = 4 / 255
"""Size that is trained against."""
RATE = 1e-3
"""Learning rate of adversarial training: few epochs of small networks want more than the default."""
EPOCHS = {"pneumonia": (2, 1), "chest": (6, 2), "fundus": (6, 3)}
"""By image set, epochs of plain and of adversarial training: fewer where images are many."""


def models(data: Data, architecture: str, epochs: tuple[int, int]) -> list[Model]:
    """The same network by each method; the hardened ones go on from the plain one."""
    networks = []
    for training, method in METHODS.items():
        options: dict[str, object] = {"epochs": epochs[0]}
        if method is not None:
            options["hardening"] = {"method": method, "eps": AGAINST, "epochs": epochs[1], "lr": RATE}
        networks.append(Model(f"{data.name}, {architecture}, {training}", data, architecture, options, seconds=15))
    return networks


def architectures(data: Data) -> tuple[str, ...]:
    """All that take images of that size: test_vit takes 32 px and more."""
    return tuple(name for name in ARCHITECTURES if name != "test_vit" or (data.size or 0) >= 32)


def part(data: Data, names: tuple[str, ...], epochs: tuple[int, int], limit: int) -> Part:
    """All networks of one image set."""
    assert data.size is not None
    cells = []
    for architecture in names:
        for model in models(data, architecture, epochs):
            cells += [catalogue.clean(model), catalogue.curve(model, "auto", sizes(data.size), limit=limit, seconds=40)]
    accuracy = {"metric": "accuracy", "attack": ["none", "auto"]}
    table = StudyTable("Accuracy without attack (eps 0) and under auto", accuracy, ("model",), "eps")
    return Part(data.name, f"{data.name}, {data.size} px", cells, [table])


def study(size: str) -> Study:
    if size == "smoke":
        parts = [part(Data("phantom chest", "phantom:chest@32:n=144", size=32), ("small_cnn",), (8, 2), IMAGES)]
    else:
        phantom = Data("phantom chest", "phantom:chest@32:n=1080", size=32)
        sets = [replace(PNEUMONIA, size=28), *(replace(d, size=32) for d in (CHEST, SKIN, FUNDUS)), phantom]
        parts = [part(d, architectures(d), EPOCHS.get(d.name, (8, 3)), IMAGES) for d in sets]
    return Study("League table", "", parts)
