"""A classifier with a detector in front: accept the answer, or refer the image to a person."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from medrobust import atomic, json_files, own_files
from medrobust.classifier import Classifier
from medrobust.detectors.detector import Detector
from medrobust.detectors.features import LOGITS, PENULTIMATE, Features, gathered, predicted_class
from medrobust.errors import InputError
from medrobust.images import Images, Labels, Lazy, PerImage

CARD, FORMAT = "guard.json", "medrobust guard 1"


@dataclass(frozen=True)
class Guarded:
    """One entry an image, on the CPU.

    label: int64 (n,), the decision. confidence: float32 (n,), its probability. suspicion: float64 (n,).
    referred: bool (n,), the suspicion lies above the threshold, or is no number.
    """

    label: Labels
    confidence: PerImage
    suspicion: PerImage
    referred: Tensor

    @property
    def verdict(self) -> tuple[str, ...]:
        """ "accept" or "refer" for each image."""
        return tuple("refer" if r else "accept" for r in self.referred.tolist())


class Guard:
    """guard(images) classifies and judges every image in one forward pass.

    threshold: from ``detector.threshold_at`` on clean images that were not used to fit it. InputError where it is not
    finite, or the detector is not fitted or belongs to another classifier.

    What it accepts is not safe: an attack that knows the detector can pass it; ``medrobust.evasion`` measures how
    easily.
    """

    def __init__(self, classifier: Classifier, detector: Detector, threshold: float) -> None:
        if not math.isfinite(threshold):
            raise InputError(f"a guard's threshold must be a finite number, got {threshold}")
        if detector.rule_ is None:
            raise InputError(f"{detector.title} is not fitted yet; call fit(classifier, clean, adversarial) first")
        self.classifier = classifier
        self.detector = detector if _reads(detector, classifier) else detector.attach(classifier)
        self.threshold = float(threshold)
        self._features = Features(classifier, detector.layers_ or (PENULTIMATE,))

    def __call__(self, images: Images | Lazy) -> Guarded:
        """Images (n, c, h, w) in [0, 1], or a Dataset; an image's row is the same in any batch."""
        parts = [self._one(table) for table in gathered(self._features.stream(images), self.detector.block)]
        if not parts:
            raise InputError("no images to guard; give at least one")
        return Guarded(*(torch.cat([getattr(p, name) for p in parts]) for name in Guarded.__dataclass_fields__))

    def _one(self, table: dict[str, Tensor]) -> Guarded:
        label = predicted_class(table)
        confidence = self.classifier.to_probabilities(table[LOGITS]).gather(1, label[:, None])[:, 0]
        suspicion = self.detector.score_features(table, label)
        # written so that a suspicion that is no number is referred too
        return Guarded(label, confidence, suspicion, ~(suspicion <= self.threshold))

    def save(self, folder: str | Path) -> Path:
        """Write guard.json, detector/ and model/; a network without the name of its architecture cannot be saved."""
        folder = Path(folder)
        own_files.check_json(folder / CARD, lambda content: content.get("format") == FORMAT, "guard")
        with atomic.disk_errors(folder):
            (folder / CARD).unlink(missing_ok=True)  # written last: where it stands, the guard is whole
        self.classifier.save(folder / "model")
        self.detector.save(folder / "detector")
        card = {"format": FORMAT, "threshold": self.threshold, "classifier": self.classifier.digest()}
        atomic.write_text(folder / CARD, json.dumps(card, indent=1, sort_keys=True) + "\n")
        return folder

    @classmethod
    def load(cls, folder: str | Path, *, trust_code: bool | str = False) -> Guard:
        """The guard that ``save`` wrote; InputError where files are missing or do not belong together.

        trust_code: as in ``Classifier.load``.
        """
        folder = Path(folder)
        if not (folder / CARD).is_file():
            raise InputError(f"no guard in {folder}: {CARD} is missing; was its writing interrupted?")
        card = json_files.read_object(folder / CARD)
        threshold = card.get("threshold")
        if card.get("format") != FORMAT or isinstance(threshold, bool) or not isinstance(threshold, int | float):
            raise InputError(f"{folder / CARD} describes no guard; give the folder that Guard.save wrote")
        classifier = Classifier.load(folder / "model", trust_code=trust_code)
        if classifier.digest() != card.get("classifier"):
            raise InputError(f"{folder / 'model'} is not the classifier that this guard was made with; restore both")
        return cls(classifier, Detector.load(folder / "detector"), card["threshold"])


def _reads(detector: Detector, classifier: Classifier) -> bool:
    return detector.features_ is not None and detector.features_.classifier is classifier
