"""Train a classifier further, as it is: on its own or under attack. The classifier given stays untouched.

The test split is never asked for.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from medrobust import code_digest
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.inspection import EXAMINED
from medrobust.progress import NoProgress, Progress
from medrobust.training.adversarial.method import AdversarialTraining
from medrobust.training.adversary import Adversary
from medrobust.training.augment import Augment
from medrobust.training.evaluate import Scores
from medrobust.training.fit import key, refuse_untrainable, splits, versions
from medrobust.training.pace import planned_epochs
from medrobust.training.pixels import Pixels
from medrobust.training.recipe import RATES, Recipe
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
    patience: int | None = None,
    adversary: Adversary | None = None,
    method: AdversarialTraining | None = None,
    minutes: float | None = None,
    keep: str = "best",
    progress: Progress | None = None,
    resume: str | Path | None = None,
) -> Classifier:
    """A copy of ``classifier``, trained so many epochs more on the train split of ``data``, where it computes.

    keep: "best" takes the best epoch on the untouched val split, with a ``method`` the best under attack; "last" takes
    the last epoch, as with an ``adversary`` it must (the best on untouched images is the one that defends least).
    adversary: changes images during training, see Adversary. method: of adversarial training. minutes: of wall time;
    as many epochs are planned as fit by a trial, at most ``epochs``. The other settings are those of ``fit``; lr: by
    default that of weights trained before, with a ``method`` that of new ones, since a network that falls to the
    smallest changes has far to go. InputError as there, and where classifier and data do not belong together.
    """
    if keep not in KEEP:
        raise InputError(f"keep must be {' or '.join(KEEP)}, got {keep!r}")
    data = data.for_network(classifier)
    head = classifier.head.name
    if minutes is not None and not minutes > 0:
        raise InputError(f"minutes must be a positive number, got {minutes}")
    if lr is None and method is not None:
        lr = RATES.get((optimiser, False))
    recipe = Recipe.filled(True, epochs, lr, batch, optimiser, weight_decay, augment, patience, freeze, head)
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
    if method is not None:
        record |= {
            "method": {"title": method.title, **method.settings},
            "method code": code_digest.of_class(type(method)),
        }
    folder = None if resume is None else Path(resume)
    with own_randomness(classifier.device):
        pixels = Pixels(train, progress, "training"), Pixels(validation, progress, "validation")

        def trainer(recipe: Recipe) -> Trainer:
            net = copy.deepcopy(classifier.net)
            if method is not None:
                method.prepare(net)
            return Trainer(
                classifier.with_net(net),
                recipe,
                seed,
                *pixels,
                progress,
                adversary=adversary,
                method=method,
                last=keep == "last",
                minutes=minutes,
            )

        if minutes is not None:
            planned = planned_epochs(lambda: trainer(recipe), minutes, epochs, folder, key(record))
            recipe = replace(recipe, epochs=planned)
            progress.note(f"{planned} of {epochs} epochs are planned within {minutes:g} minutes")
        training = trainer(recipe)
        clf, state = training.clf, training.run(folder, key(record))
        if method is not None:
            method.finish(clf.net)
            clf = clf.with_net(clf.net)  # what was found out about the network under training is forgotten
    kept = state.history[state.best_epoch - 1]
    record |= {
        "training": recipe.plain(),
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
