"""Other classifiers of the same images: one that is given, or one that an attacker trains on the answers of the first.

The latter is a surrogate as in Papernot et al. 2017 (arXiv:1602.02697), without its queries at synthetic images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from medrobust import training
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.experiments.admission import admit
from medrobust.experiments.context import Context
from medrobust.experiments.tried_defences import beside
from medrobust.run_folder import RunFolder
from medrobust.store import key

ARCHITECTURE, EPOCHS, IMAGES = "small_cnn", 10, 2000
"""Of a surrogate that is trained here; IMAGES at most, and a quarter as many for validation."""
FOLDER = "surrogate"


def loaded(context: Context, folder: str) -> Classifier:
    """The saved classifier of that folder, on the run's device; InputError where it tells other classes apart."""
    classifier, own = Classifier.load(folder, trust_code=context.config.trust_code), context.classifier
    if set(classifier.classes) != set(own.classes) or classifier.head.multilabel != own.head.multilabel:
        raise InputError(
            f"{folder} tells {', '.join(classifier.classes)} apart, the classifier {', '.join(own.classes)}: give one "
            "of the same classes"
        )
    if classifier.classes != own.classes:
        raise InputError(
            f"{folder} has the classes in another order ({', '.join(classifier.classes)}) than the classifier "
            f"({', '.join(own.classes)}): train it on data with the same order"
        )
    classifier.net.to(context.classifier.device)
    classifier = classifier.seeing(context.system.data.surround, context.system.data.storable)
    admit(classifier, context.test, context.progress, context.config.seed)
    return classifier


@dataclass(frozen=True)
class Surrogate:
    """Trained on the answers of the run's classifier to its training images; ``folder`` is the run's."""

    context: Context
    folder: RunFolder

    @property
    def settings(self) -> Mapping[str, object]:
        """What its weights depend on, beside classifier and data."""
        return {"architecture": ARCHITECTURE, "epochs": EPOCHS, "images": IMAGES, "seed": self.context.config.seed}

    def trained(self) -> Classifier:
        """InputError where the data has no images to train on, or all are answered alike. Read where it is there."""
        context, seed = self.context, self.context.config.seed
        parts = [p.sample(m, seed) for p, m in zip(beside(context), (IMAGES, IMAGES // 4), strict=True)]
        data = context.system.data
        ids = {name for part in parts for name in part.ids}
        chosen = data.select([i for i, name in enumerate(data.ids) if name in ids]).by_id()
        classifier = context.classifier
        size = classifier.batch_size((1, *chosen.largest))
        answers = torch.cat([classifier.predict(images) for images, _, _ in chosen.batches(size)]).numpy()
        stolen = replace(chosen, name=f"answers to {data.name}", labels=answers.astype(np.int64))
        name = key({**self.settings, "from": classifier.digest(), "data": data.digest()})[:16]
        place = self.folder.entry(FOLDER) / name
        return training.fit(
            stolen,
            ARCHITECTURE,
            seed=seed,
            epochs=EPOCHS,
            device=str(classifier.device),
            progress=context.progress,
            resume=place / "training",
            keep=place / "model",
        ).seeing(data.surround, data.storable)
