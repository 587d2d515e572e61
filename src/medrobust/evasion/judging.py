"""The grader of evasions: the classifier itself, the real detector, its thresholds as they were fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from medrobust import judging, stats
from medrobust.classifier import Classifier
from medrobust.detectors import Detector, Features, clustered
from medrobust.errors import InputError
from medrobust.images import Images, save_at
from medrobust.stats import NOTHING, Estimate
from medrobust.threat import Ball, Goal


@dataclass(frozen=True)
class ScoredImages:
    """Decisions and detector scores of one attacked version of each image (n)."""

    fooled: np.ndarray
    """bool: legal, and the goal is reached in float32."""
    score: np.ndarray
    """float64: the real detector's; NaN where it gave none."""
    alarm: Mapping[float, np.ndarray]
    """False-positive rate that a threshold was set for, to bool (n,): above it, or no number."""


@dataclass(frozen=True)
class EvasionOutcome:
    """Graded per image (n); every share with its 95 % interval.

    Images at which the goal was reached without an attack count in none of the numbers.
    """

    reached_before: np.ndarray
    clean_score: np.ndarray
    after: ScoredImages
    """The evasion, as computed."""
    saved: ScoredImages
    """The evasion after saving at ``bits``."""
    plain: ScoredImages | None
    """An attack that knows nothing of the detector."""
    groups: np.ndarray
    fold: np.ndarray
    """int64: which of several fitted detectors judged it; scores are compared within one only."""
    bits: int

    @property
    def fooled(self) -> Estimate:
        """Share of the images at which the classifier is fooled, seen or not."""
        return self._share(self.after.fooled)

    @property
    def plain_fooled(self) -> Estimate:
        """The same for the attack that knows nothing of the detector."""
        return NOTHING if self.plain is None else self._share(self.plain.fooled)

    def detected(self, fpr: float) -> Estimate:
        """Of the images that fool the classifier, the share that raises an alarm (true-positive rate)."""
        return self._rate(self.after, fpr)

    def plain_detected(self, fpr: float) -> Estimate:
        """The same for the attack that knows nothing of the detector."""
        return NOTHING if self.plain is None else self._rate(self.plain, fpr)

    def success(self, fpr: float) -> Estimate:
        """Share of the images that fool the classifier and raise no alarm."""
        return self._share(self.evaded(fpr))

    def success_saved(self, fpr: float) -> Estimate:
        """The same after saving at ``bits``."""
        return self._share(self.saved.fooled & ~self.saved.alarm[fpr])

    def plain_success(self, fpr: float) -> Estimate:
        """The same for the attack that knows nothing of the detector."""
        return NOTHING if self.plain is None else self._share(self.plain.fooled & ~self.plain.alarm[fpr])

    def evaded(self, fpr: float) -> np.ndarray:
        """bool (n,): fooled and no alarm."""
        return np.asarray(self.after.fooled & ~self.after.alarm[fpr])

    @property
    def auroc(self) -> Estimate:
        """Of the images that fool the classifier against clean ones; below 0.5 they look cleaner than clean."""
        return self._area(self.after)

    @property
    def plain_auroc(self) -> Estimate:
        """The same for the attack that knows nothing of the detector."""
        return NOTHING if self.plain is None else self._area(self.plain)

    def _share(self, hits: np.ndarray) -> Estimate:
        attacked = ~self.reached_before
        return stats.proportion(hits[attacked], self.groups[attacked])

    def _rate(self, scored: ScoredImages, fpr: float) -> Estimate:
        fooled = ~self.reached_before & scored.fooled
        return stats.proportion(scored.alarm[fpr][fooled], self.groups[fooled])

    def _area(self, scored: ScoredImages) -> Estimate:
        clean, hit = ~self.reached_before, ~self.reached_before & scored.fooled
        if not hit.any() or not clean.any():
            return NOTHING
        # a score that is no number raises an alarm: it counts as the highest
        clean_score, score = (
            np.nan_to_num(s, nan=1e300, posinf=1e300, neginf=-1e300)
            for s in (self.clean_score[clean], scored.score[hit])
        )
        return clustered.auroc(
            clean_score, score, self.fold[clean], self.fold[hit], self.groups[clean], self.groups[hit]
        )


@torch.no_grad()
def judge(
    classifier: Classifier,
    detector: Detector,
    images: Images,
    adversarial: Images,
    goal: Goal,
    ball: Ball,
    thresholds: Mapping[float, float],
    *,
    plain: Images | None = None,
    groups: Sequence[object] | np.ndarray | None = None,
    bits: int = 8,
) -> EvasionOutcome:
    """Grade ``adversarial`` (n, c, h, w) against ``images`` with the real detector.

    thresholds: false-positive rate to the score above which there is an alarm, as ``Detector.threshold_at`` gave it on
    clean images that took no part here. plain: the same images under an attack that knows nothing of the detector.
    groups: a patient for each image. InputError where shapes do not fit.
    """
    if not thresholds:
        raise InputError("no threshold to judge at; give thresholds={0.05: detector.threshold_at(clean scores, 0.05)}")
    n = len(images)
    if groups is not None and len(groups) != n:
        raise InputError(f"{n} images have {len(groups)} groups; give one an image")
    features = Features(classifier, detector.layers_)

    def scored(pixels: Images) -> np.ndarray:
        return detector.score_features(features(pixels)).double().numpy()

    def measured(pixels: Images, fooled: torch.Tensor) -> ScoredImages:
        score = scored(pixels)
        return ScoredImages(fooled.numpy(), score, {f: ~(score <= t) for f, t in thresholds.items()})

    def stored(pixels: Images) -> Images:
        return pixels.detach().float().nan_to_num(0.0, 1.0, 0.0).clamp(0, 1).to(images.device)

    judged = judging.judge(classifier, images, adversarial, goal, ball, bits=bits)
    naive = None if plain is None else judging.judge(classifier, images, plain, goal, ball, bits=bits)
    names = [f"image {i}" for i in range(n)] if groups is None else [str(g) for g in groups]
    return EvasionOutcome(
        reached_before=judged.reached_before.numpy(),
        clean_score=scored(images),
        after=measured(stored(adversarial), judged.reached),
        saved=measured(save_at(stored(adversarial), bits), judged.survives),
        plain=None if plain is None or naive is None else measured(stored(plain), naive.reached),
        groups=np.asarray(names, dtype=np.str_),
        fold=np.zeros(n, dtype=np.int64),
        bits=bits,
    )


def combine(outcomes: Sequence[EvasionOutcome]) -> EvasionOutcome:
    """Outcomes of different images before detectors fitted apart, as one; InputError where there is none."""
    if not outcomes:
        raise InputError("no outcomes to put together; give at least one")

    def joined(parts: Sequence[ScoredImages]) -> ScoredImages:
        alarm = {f: np.concatenate([p.alarm[f] for p in parts]) for f in parts[0].alarm}
        return ScoredImages(np.concatenate([p.fooled for p in parts]), np.concatenate([p.score for p in parts]), alarm)

    plain = [o.plain for o in outcomes if o.plain is not None]
    return replace(
        outcomes[0],
        reached_before=np.concatenate([o.reached_before for o in outcomes]),
        clean_score=np.concatenate([o.clean_score for o in outcomes]),
        after=joined([o.after for o in outcomes]),
        saved=joined([o.saved for o in outcomes]),
        plain=joined(plain) if len(plain) == len(outcomes) else None,
        groups=np.concatenate([o.groups for o in outcomes]),
        fold=np.concatenate([np.full(len(o.fold), i) for i, o in enumerate(outcomes)]),
    )
