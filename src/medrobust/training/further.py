"""Train a classifier further, as it is: on its own or under attack. The classifier given stays untouched.

The test split is never asked for.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from medrobust import code_digest
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.inspection import EXAMINED
from medrobust.progress import NoProgress, Progress
from medrobust.training.adversary import Adversary
from medrobust.training.augment import Augment
from medrobust.training.evaluate import Scores
from medrobust.training.fit import key, refuse_untrainable, splits, versions
from medrobust.training.pixels import Pixels
from medrobust.training.recipe import Recipe
from medrobust.training.trainer import Trainer, own_randomness

if TYPE_CHECKING:
    from medrobust.data import Dataset

KEEP = ("best", "last")


def further(
    classifier: Classifier,
    data: Dataset,
    *,
    seed: int = 0,
    epochs: int = 5,
    lr: float | None = None,
    batch: int = 32,
    optimiser: str = "adamw",
    weight_decay: float | None = None,
    augment: bool | Augment = True,
    freeze: float = 0.0,
    adversary: Adversary | None = None,
    keep: str = "best",
    progress: Progress | None = None,
    resume: str | Path | None = None,
) -> Classifier:
    """A copy of ``classifier``, trained so many epochs more on the train split of ``data``, where it computes.

    keep: "best" takes the best epoch on the untouched val split; "last" takes the last epoch, as a training under
    attack must (the best on untouched images is the one that defends least).
    adversary: attacks during training, see Adversary. The other settings are those of ``fit``; lr: by default that
    of weights trained before. InputError as there, and where classifier and data do not belong together.
    """
    if keep not in KEEP:
        raise InputError(f"keep must be {' or '.join(KEEP)}, got {keep!r}")
    data = data.for_network(classifier)
    head = classifier.head.name
    recipe = Recipe.filled(True, epochs, lr, batch, optimiser, weight_decay, augment, None, freeze, head)
    check_trainable(classifier, data)
    progress = progress or NoProgress()
    train, validation = splits(data)
    at = {"name": data.name, "digest": data.digest(), "train": len(train), "validation": len(validation)}
    record = {
        "from": classifier.digest(),
        "data": at,
        "seed": seed,
        "training": recipe.plain(),
        "keep": keep,
        "adversary": None if adversary is None else adversary.settings,
        "code": code_digest.of_module(__name__),
    }
    if adversary is not None:
        record["adversary code"] = code_digest.of_class(type(adversary))
    clf = classifier.with_net(copy.deepcopy(classifier.net))
    with own_randomness(clf.device):
        pixels = Pixels(train, progress, "training"), Pixels(validation, progress, "validation")
        trainer = Trainer(clf, recipe, seed, *pixels, progress, adversary=adversary, last=keep == "last")
        state = trainer.run(None if resume is None else Path(resume), key(record))
    kept = state.history[state.best_epoch - 1]
    record |= {
        "epoch_kept": state.best_epoch,
        "validation": {k: kept[k] for k in Scores._fields},
        "history": state.history,
        "versions": versions(),
    }
    before = classifier.provenance.get("further", [])
    clf.provenance = classifier.provenance | {"data": at, "further": [*before, record]}
    return clf


def check_trainable(classifier: Classifier, data: Dataset) -> None:
    """InputError now rather than after the first perturbations: for a classifier or data that cannot be trained on."""
    train, _ = splits(data)
    refuse_untrainable(classifier.inspection or classifier.examine(train.images(range(min(EXAMINED, len(train))))))
