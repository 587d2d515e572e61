"""Performance of a detector on images it never saw, at thresholds fixed beforehand on other clean images.

Cross-fitted: images are dealt into folds by patient; each fold is scored by a detector that was fitted on the others,
clean images and adversarial copies together. Thresholds come from further clean images. Every image is tested once, and
one fit answers for its own attack, other attacks, noise and corruptions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import medrobust.detectors.clustered as clustered
from medrobust import stats
from medrobust.detectors.detector import Detector
from medrobust.detectors.splitting import with_copies
from medrobust.errors import InputError
from medrobust.stats import Estimate

FPRS = (0.01, 0.05)

A_CLASS = 5
"""Reference images a class, on average, below which a class's density or mean would be that of single images."""


@dataclass(frozen=True)
class ImageFeatures:
    """Features of some images, one row an image.

    features: layer to (n, d). predicted: int64 (n,). groups: str (n,), whose image it is. pair_of: int64 (n,), of
    which clean image it is the adversarial copy (its position there).
    """

    features: Mapping[str, Tensor]
    predicted: Tensor
    groups: np.ndarray
    pair_of: np.ndarray

    def __len__(self) -> int:
        return len(self.pair_of)

    def take(self, rows: np.ndarray) -> ImageFeatures:
        """Those rows: bool (n,) or positions."""
        index = torch.from_numpy(np.flatnonzero(rows) if rows.dtype == bool else rows)
        features = {name: value[index] for name, value in self.features.items()}
        return ImageFeatures(features, self.predicted[index], self.groups[index.numpy()], self.pair_of[index.numpy()])

    @property
    def pooled(self) -> bool:
        """As reference images, too few to tell classes apart: they serve as one class."""
        return len(self) < A_CLASS * len(self.predicted.unique())

    @property
    def classes(self) -> Tensor:
        """int64 (n,): the classes they stand for as reference images: as decided, or 0 for all where ``pooled``."""
        return torch.zeros_like(self.predicted) if self.pooled else self.predicted


@dataclass(frozen=True)
class Rates:
    """How well a detector separates some images from the clean ones."""

    auroc: Estimate
    paired: Estimate
    """The area against the clean images of these copies only. Where few attacks succeed, they do so on images near the
    boundary: the area against all clean images then tells how near, not that there was an attack."""
    at: dict[float, Estimate]
    """False-positive rate that the threshold was set for on other clean images, to the share of these images that raise
    an alarm. What a guard does: where the other images differ from these, the promised rate does not hold."""
    seen: dict[float, Estimate]
    """The same at thresholds set on the clean images of each fold themselves: what the ROC curve shows. With fewer
    than 1 / rate images in a fold, no false alarm is allowed there."""


class Crossfit:
    """One recipe of a detector, fitted k times on clean images and one attack's copies.

    recipe: a detector, fitted or not; its settings are taken. clean: right before the attack. attacked: the copies that
    succeeded. held_out: further clean images, of other patients, for thresholds only; None: no threshold is set, and
    there are no rates of alarms. reference: clean images that the detector may compare with (``Detector.fit``), best of
    the classifier's training. InputError where folds cannot be filled.

    fprs: false-positive rates that thresholds are set for.
    """

    def __init__(
        self,
        recipe: Detector,
        clean: ImageFeatures,
        attacked: ImageFeatures,
        held_out: ImageFeatures | None,
        *,
        reference: ImageFeatures | None = None,
        k: int = 5,
        seed: int = 0,
        fprs: Sequence[float] = FPRS,
    ) -> None:
        if len(attacked) < 2 * k:
            raise InputError(
                f"only {len(attacked)} attacked images succeeded, {2 * k} are needed to fit and test a detector; "
                "give a larger eps or more images"
            )
        fold = clustered.folds(with_copies(clean.groups, *clean.features.values()), k, seed)
        detectors = []
        for number in range(k):
            training = fold != number
            near, far = clean.take(training), attacked.take(training[attacked.pair_of])
            detectors.append(
                recipe.blank().fit_features(
                    near.features,
                    far.features,
                    reference=None if reference is None else reference.features,
                    labels=None if reference is None else reference.classes,
                    groups=near.groups.tolist(),
                    adversarial_groups=far.groups.tolist(),
                    seed=seed,
                )
            )
        self._set(detectors, clean, fold, held_out, fprs)

    @classmethod
    def without_attacks(
        cls,
        recipe: Detector,
        clean: ImageFeatures,
        held_out: ImageFeatures | None,
        reference: ImageFeatures,
        *,
        seed: int = 0,
        fprs: Sequence[float] = FPRS,
    ) -> Crossfit:
        """One detector fitted on the reference images alone, for any number of ``clean`` images: it sees none of them.

        InputError where the recipe learns from attacked images, or there are too few reference images.
        """
        detector = recipe.blank().fit_features(
            reference.features, labels=reference.classes, groups=reference.groups.tolist(), seed=seed
        )
        made = cls.__new__(cls)
        made._set([detector], clean, np.zeros(len(clean), np.int64), held_out, fprs)
        return made

    def _set(
        self,
        detectors: list[Detector],
        clean: ImageFeatures,
        fold: np.ndarray,
        held_out: ImageFeatures | None,
        fprs: Sequence[float],
    ) -> None:
        self.fprs, self.clean, self.fold, self.detectors = tuple(fprs), clean, fold, detectors
        self.thresholds: list[dict[float, float]] = []
        """Of each fold; empty without held-out images."""
        for detector in detectors:
            if held_out is None:
                break
            scores = detector.score_features(held_out.features, held_out.predicted)
            self.thresholds.append({fpr: float(detector.threshold_at(scores, fpr)) for fpr in self.fprs})
        self.clean_scores = self.scores(clean)
        of_fold = [self.clean_scores[fold == number] for number in range(len(detectors))]
        self.own = {fpr: np.array([Detector.threshold_at(s, fpr) for s in of_fold]) for fpr in self.fprs}

    def scores(self, samples: ImageFeatures) -> np.ndarray:
        """float64 (n,): each image scored by the detector that was fitted without it and its patient."""
        out = np.empty(len(samples))
        for fold, detector in enumerate(self.detectors):
            rows = np.flatnonzero(self.fold[samples.pair_of] == fold)
            if rows.size:
                part = samples.take(rows)
                out[rows] = detector.score_features(part.features, part.predicted).double().numpy()
        return out

    def alarms(self, samples: ImageFeatures, fpr: float, scores: np.ndarray | None = None) -> np.ndarray:
        """bool (n,): above its fold's threshold. Only where there were held-out images."""
        scores = self.scores(samples) if scores is None else scores
        edge = np.array([t[fpr] for t in self.thresholds])
        return np.asarray(scores > edge[self.fold[samples.pair_of]])

    def against(self, samples: ImageFeatures) -> Rates:
        """The rates of changed copies of any kind against the clean images."""
        if not len(samples):
            nothing = dict.fromkeys(self.fprs, stats.NOTHING)
            return Rates(stats.NOTHING, stats.NOTHING, nothing, nothing)
        scores = self.scores(samples)
        every, paired_clean = np.arange(len(self.clean)), np.unique(samples.pair_of)
        fold, groups = self.fold[samples.pair_of], samples.groups
        area, paired = (
            clustered.auroc(self.clean_scores[of], scores, self.fold[of], fold, self.clean.groups[of], groups)
            for of in (every, paired_clean)
        )
        alarms = {f: self._alarm_rate(samples, f, scores) for f in self.fprs}
        own = {f: stats.proportion(scores > self.own[f][fold], groups) for f in self.fprs}
        return Rates(area, paired, alarms, own)

    def false_alarms(self) -> dict[float, Estimate]:
        """False-positive rates on clean images that set no threshold, to be compared with the nominal rates."""
        return {f: self._alarm_rate(self.clean, f, self.clean_scores) for f in self.fprs}

    def _alarm_rate(self, samples: ImageFeatures, fpr: float, scores: np.ndarray) -> Estimate:
        if not self.thresholds:
            return stats.NOTHING
        return stats.proportion(self.alarms(samples, fpr, scores), samples.groups)


def fit_what_can_be(
    recipe: Detector,
    clean: ImageFeatures,
    attacked: ImageFeatures,
    held_out: ImageFeatures | None,
    *,
    reference: ImageFeatures | None,
    seed: int,
    fprs: Sequence[float],
) -> tuple[Crossfit, str]:
    """Cross-fitted; where that cannot be, without attacks if the recipe needs none. And why it is so, else empty.

    InputError where neither can be.
    """
    try:
        return Crossfit(recipe, clean, attacked, held_out, reference=reference, seed=seed, fprs=fprs), ""
    except InputError as error:
        if recipe.needs_attacks or reference is None:
            raise
        made = Crossfit.without_attacks(recipe, clean, held_out, reference, seed=seed, fprs=fprs)
        return made, f"{error}; fitted without attacks instead"


def transfer(
    recipe: Detector,
    clean: ImageFeatures,
    attacked: Mapping[str, ImageFeatures],
    held_out: ImageFeatures,
    *,
    reference: ImageFeatures | None = None,
    k: int = 5,
    seed: int = 0,
) -> dict[tuple[str, str], Rates]:
    """(fitted on, tested on) to rates, for every pair of attacks."""
    table = {}
    for name, attacked_features in attacked.items():
        fitted = Crossfit(recipe, clean, attacked_features, held_out, reference=reference, k=k, seed=seed)
        table.update({(name, other): fitted.against(samples) for other, samples in attacked.items()})
    return table


def by_layer(
    recipe: Detector,
    layers: Sequence[str],
    clean: ImageFeatures,
    attacked: ImageFeatures,
    held_out: ImageFeatures | None,
    *,
    reference: ImageFeatures | None = None,
    k: int = 5,
    seed: int = 0,
) -> dict[str, Rates]:
    """Layer to the rates of the recipe reading that layer alone; empty for a detector that reads no layer."""
    if "layers" not in recipe.settings:
        return {}
    table = {}
    for layer in layers:
        alone = type(recipe)(**{**recipe.settings, "layers": (layer,)})
        fitted = Crossfit(alone, clean, attacked, held_out, reference=reference, k=k, seed=seed)
        table[layer] = fitted.against(attacked)
    return table
