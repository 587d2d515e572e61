"""The interface of detectors: numbers that describe an image, and a rule that turns them into one score."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from medrobust.classifier import Classifier
from medrobust.detectors.features import (
    LOGITS,
    PENULTIMATE,
    Features,
    LayerFeatures,
    gathered,
    joined,
    predicted_class,
    rows,
)
from medrobust.detectors.rule import Rule
from medrobust.detectors.splitting import halves
from medrobust.errors import InputError
from medrobust.images import Images, Lazy, PerImage

LEAST = 5
"""Images of a kind, clean or attacked, below which nothing is fitted."""


class Detector(ABC):
    """A detector: hyper-parameters go to ``__init__``, data to ``fit``; learned attributes end in ``_``.

    layers: what it reads, None for every layer of the features it is fitted on.
    """

    title: ClassVar[str]
    source: ClassVar[str]
    needs_attacks: ClassVar[bool] = True
    """Cannot be fitted without examples of attacked images."""
    uses_bank: ClassVar[bool] = False
    """Compares with clean images that serve for nothing else (``reference``)."""
    block: ClassVar[int] = 64
    """Rows that are scored at once: always so many, padded, so that a row's score is the same to the bit in any batch.
    One image pays for all of them."""
    sorts: ClassVar[bool] = False
    """Is scored in blocks of one decision each, because it then has less to compute."""

    def __init__(self, layers: Sequence[str] | None = (PENULTIMATE,)) -> None:
        self.layers = None if layers is None else tuple(layers)
        self.layers_: tuple[str, ...] = ()
        self.arrays_: dict[str, Tensor] = {}
        self.rule_: Rule | None = None
        self.features_: Features | None = None
        self.info_: dict[str, object] = {}
        """How it was fitted: numbers of images, seed, digest of the classifier; plain JSON."""

    # -- what a detector implements -----------------------------------------------------------------------

    @abstractmethod
    def represent(self, table: LayerFeatures, predicted: Tensor) -> Tensor:
        """Numbers float64 (n, s) for rows of features; differentiable where the detector is."""

    @abstractmethod
    def make_rule(self, supervised: bool) -> Rule:
        """A fresh rule; supervised: attacked images will be there to fit it."""

    def learn(self, bank: LayerFeatures, classes: Tensor, seed: int) -> None:  # noqa: B027 - many have nothing to learn here
        """Learn ``arrays_`` from ``bank``: the reference images and their classes (n,); where a detector uses none,
        the rows it is fitted on."""

    def represent_block(self, table: LayerFeatures, predicted: Tensor) -> Tensor:
        """``represent`` for a block of rows, all of one decision where the detector ``sorts``; without a graph."""
        return self.represent(table, predicted)

    def represent_published(self, clean: LayerFeatures, attacked: LayerFeatures) -> tuple[Tensor, Tensor]:
        """Numbers of clean images and of the same images attacked, as the paper's code computes them."""
        return self.numbers(clean), self.numbers(attacked)

    # -- fitting ------------------------------------------------------------------------------------------

    @property
    def layer(self) -> str:
        """The layer it reads; the first where there are several."""
        return (self.layers_ or self.layers or (PENULTIMATE,))[0]

    @property
    def settings(self) -> dict[str, Any]:
        """All arguments of ``__init__``, plain JSON: ``type(self)(**settings)`` is the same detector, not fitted."""
        names = [name for name in inspect.signature(type(self).__init__).parameters if name != "self"]
        return {name: getattr(self, name) for name in names}

    def blank(self) -> Self:
        """The same detector, not fitted."""
        return type(self)(**self.settings)

    def fit(
        self,
        source: Classifier | Features | None,
        clean: Images | Lazy | LayerFeatures,
        adversarial: Images | Lazy | LayerFeatures | None = None,
        *,
        reference: Images | Lazy | LayerFeatures | None = None,
        labels: Tensor | None = None,
        groups: Sequence[object] | None = None,
        adversarial_groups: Sequence[object] | None = None,
        seed: int = 0,
    ) -> Self:
        """Learn from clean and attacked images, or from their features (``Features(...)(images)``).

        adversarial: None for detectors that need no attacks (then nothing but the clean images sets the scale).
        reference: clean images for the detector's bank, best those the classifier was trained on, and none of
            ``clean``. Without them, half of ``clean`` (whole groups) becomes the bank; their copies are left out.
        labels: true classes of ``reference`` (of ``clean`` where no reference is given); default: the decisions.
        groups: patient of each clean image; the attacked ones have the same where they are as many, else
            ``adversarial_groups``. InputError where images are too few or do not fit together.
        """
        features = Features(source, self.layers or (PENULTIMATE,)) if isinstance(source, Classifier) else source

        def table(images: Images | Lazy | LayerFeatures) -> LayerFeatures:
            if isinstance(images, Mapping):
                return images
            if features is None:
                raise InputError("images were given without a classifier to take features of; give fit(classifier, …)")
            return features(images)

        self.features_ = features
        self.fit_features(
            table(clean),
            None if adversarial is None else table(adversarial),
            reference=None if reference is None else table(reference),
            labels=labels,
            groups=groups,
            adversarial_groups=adversarial_groups,
            seed=seed,
        )
        if features is not None:
            self.info_["classifier"] = features.classifier.digest()
        return self

    def fit_features(
        self,
        clean: LayerFeatures,
        adversarial: LayerFeatures | None = None,
        *,
        reference: LayerFeatures | None = None,
        labels: Tensor | None = None,
        groups: Sequence[object] | None = None,
        adversarial_groups: Sequence[object] | None = None,
        seed: int = 0,
    ) -> Self:
        """``fit`` on features: layer -> (n, d), with "logits"."""
        if adversarial is None and self.needs_attacks:
            raise InputError(f"{self.title} learns from attacked images: give adversarial=")
        count = len(clean[LOGITS])
        self.layers_ = self.reads(clean)
        self._check_rows(clean, adversarial)
        bank = reference
        if self.uses_bank and bank is None:
            kept, fitted_on, attacked_on = halves(
                count, None if adversarial is None else len(adversarial[LOGITS]), groups, adversarial_groups, seed
            )
            bank, labels = rows(clean, kept), None if labels is None else labels[kept]
            clean = rows(clean, fitted_on)
            adversarial = None if adversarial is None else rows(adversarial, attacked_on)
        elif not self.uses_bank:
            bank, labels = clean if adversarial is None else joined(clean, adversarial), None
        assert bank is not None
        classes = predicted_class(bank) if labels is None else labels.long()
        if len(classes) != len(bank[LOGITS]):
            raise InputError(f"{len(bank[LOGITS])} reference images have {len(classes)} labels; give one an image")
        self.arrays_, self.info_ = {}, {}
        self.learn(bank, classes, seed)
        # as they come back from disk: another order in memory runs another kernel, and the last bits differ
        self.arrays_ = {name: values.contiguous() for name, values in self.arrays_.items()}
        info = {**self.info_, "clean": len(clean[LOGITS]), "bank": len(classes) if self.uses_bank else 0, "seed": seed}
        self.info_ = {**info, "adversarial": 0 if adversarial is None else len(adversarial[LOGITS])}
        numbers = self.numbers(clean)
        attacked = numbers[:0] if adversarial is None else self.numbers(adversarial)
        self.rule_ = self.make_rule(adversarial is not None)
        fit_rule(self.rule_, numbers, attacked, seed)
        return self

    def _check_rows(self, clean: LayerFeatures, adversarial: LayerFeatures | None) -> None:
        counts = {"clean": len(clean[LOGITS])}
        if adversarial is not None:
            counts["attacked"] = len(adversarial[LOGITS])
        if min(counts.values()) < LEAST:
            raise InputError(
                f"{self.title} is fitted on at least {LEAST} images a kind, got "
                f"{' and '.join(f'{n} {kind}' for kind, n in counts.items())}; give more"
            )
        for table in (clean, adversarial or {}):
            if not all(bool(torch.isfinite(table[name]).all()) for name in self.layers_ if name in table):
                raise InputError("a detector needs images with finite features; is the network's output NaN?")

    def reads(self, table: LayerFeatures) -> tuple[str, ...]:
        """The layers it would read of these features; InputError where one is missing."""
        names = tuple(name for name in table if name != LOGITS) if self.layers is None else self.layers
        missing = [name for name in names if name not in table]
        if missing or not names:
            raise InputError(
                f"{self.title} reads layer {(missing or [PENULTIMATE])[0]!r}, the features hold {', '.join(table)}; "
                "make them with Features(classifier, layers=(…))"
            )
        return names

    # -- scoring ------------------------------------------------------------------------------------------

    def suspicion(self, table: LayerFeatures, predicted: Tensor | None = None) -> PerImage:
        """(n,), higher = more suspicious: the plain formula on rows as they come, with its graph.

        For evasion: differentiable with respect to the features where the detector is. ``score_features`` is the
        detector's word: the same up to rounding, and to the bit in any batch.
        """
        predicted = predicted_class(table) if predicted is None else predicted
        return self._rule.decide(self.represent(table, predicted))

    @property
    def _rule(self) -> Rule:
        if self.rule_ is None:
            raise InputError(f"{self.title} is not fitted yet; call fit(classifier, clean, adversarial) first")
        return self.rule_

    def score_features(self, table: LayerFeatures, predicted: Tensor | None = None) -> PerImage:
        """float64 (n,) on the CPU: the scores of rows of features. predicted: default, from their "logits"."""
        rule = self._rule

        def scores(block: LayerFeatures, decided: Tensor) -> Tensor:
            return rule.decide(self.represent_block(block, decided))

        return self._in_blocks(scores, table, predicted)

    def numbers(self, table: LayerFeatures, predicted: Tensor | None = None) -> Tensor:
        """float64 (n, s): what the rule is given, computed in full blocks."""
        return self._in_blocks(self.represent_block, table, predicted)

    def score(self, images: Images | Lazy) -> PerImage:
        """float64 (n,): how much each image (n, c, h, w) looks attacked; images are streamed."""
        if self.features_ is None:
            raise InputError(f"{self.title} has no classifier to take features with; call attach(classifier) first")
        parts = [self.score_features(table) for table in gathered(self.features_.stream(images), self.block)]
        return torch.cat(parts) if parts else torch.empty(0, dtype=torch.float64)

    def attach(self, classifier: Classifier) -> Self:
        """Read this classifier: the one it was fitted on, or InputError."""
        wanted = self.info_.get("classifier")
        if wanted is not None and classifier.digest() != wanted:
            raise InputError(
                f"{self.title} was fitted on another classifier (weights or settings differ); "
                "give that one, or fit the detector again"
            )
        self.features_ = Features(classifier, self.layers_ or self.layers or (PENULTIMATE,))
        return self

    @staticmethod
    def threshold_at(scores: Tensor | Sequence[float] | np.ndarray, fpr: float = 0.05) -> float:
        """The lowest threshold at which at most a share ``fpr`` of these clean images scores above it.

        An alarm is a score strictly above. With fewer than 1 / fpr images no alarm is allowed: the highest score.
        """
        values = np.sort(np.asarray(scores, dtype=float))[::-1]
        if not values.size or np.isnan(values).any():
            raise InputError("a threshold needs scores of clean images, none of them NaN")
        if not 0 <= fpr < 1:
            raise InputError(f"fpr must lie in [0, 1), got {fpr}")
        return float(values[math.floor(fpr * values.size + 1e-9)])

    @torch.no_grad()
    def _in_blocks(
        self, formula: Callable[[LayerFeatures, Tensor], Tensor], table: LayerFeatures, predicted: Tensor | None
    ) -> Tensor:
        """``formula`` on ``block`` rows at a time, the last of them filled up with copies of its first row."""
        predicted = predicted_class(table) if predicted is None else predicted
        if not len(predicted):
            raise InputError("no rows of features to score; give at least one image")
        read = {name: table[name] for name in dict.fromkeys((*self.layers_, LOGITS)) if name in table}
        sizes, order = [len(predicted)], None
        if self.sorts:
            order = predicted.argsort(stable=True)
            sizes = predicted.unique(return_counts=True)[1].tolist()
            read, predicted = rows(read, order), predicted[order]
        parts, end = [], 0
        for size in sizes:
            start, end = end, end + size
            for first in range(start, end, self.block):
                some = slice(first, min(first + self.block, end))
                piece = {name: filled(values[some], self.block) for name, values in read.items()}
                scores = formula(piece, filled(predicted[some], self.block))[: some.stop - first]
                parts.append(scores.detach().cpu().double())
        scored = torch.cat(parts)
        return scored if order is None else torch.empty_like(scored).index_copy_(0, order.cpu(), scored)

    # -- keeping ------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write detector.safetensors and detector.json; InputError where it is not fitted or not writable."""
        from medrobust.detectors import saving

        return saving.save(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path, classifier: Classifier | None = None) -> Detector:
        """The detector that ``save`` wrote, of whatever kind; ``classifier``: attach it, to score images."""
        from medrobust.detectors import saving

        return saving.load(Path(folder), classifier)

    def on(self, name: str, like: Tensor) -> Tensor:
        """A learned array where ``like`` lies."""
        return self.arrays_[name].to(like.device)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.settings.items())})"


def fit_rule(rule: Rule, clean: Tensor, attacked: Tensor, seed: int, scale_on: Tensor | None = None) -> None:
    """Fit a rule on numbers of clean and attacked images; scale_on: see ``Rule.fit``."""
    numbers = torch.cat([clean, attacked])
    if not len(clean) or not bool(torch.isfinite(numbers).all()):
        raise InputError("a detector needs clean images with finite features; is the network's output NaN?")
    rule.fit(numbers, torch.arange(len(numbers)) >= len(clean), seed=seed, scale_on=scale_on)
    rule.arrays = {name: values.contiguous() for name, values in rule.arrays.items()}


def filled(values: Tensor, count: int) -> Tensor:
    """(count, ...): the rows, and copies of the first behind them."""
    missing = count - len(values)
    return torch.cat([values, values[:1].expand(missing, *values.shape[1:])]) if missing else values
