"""How well a detector tells attacked images from clean ones: fairly, and as it was published, leaks included."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import medrobust.detectors.clustered as clustered
from medrobust import seeds, stats
from medrobust.classifier import Classifier
from medrobust.detectors.detector import Detector, fit_rule
from medrobust.detectors.features import LOGITS, PENULTIMATE, Features, LayerFeatures, predicted_class, rows
from medrobust.detectors.splitting import aside, named, with_copies
from medrobust.errors import InputError
from medrobust.images import Images, Lazy
from medrobust.stats import Estimate

PROTOCOLS = ("clean", "paper")


@dataclass(frozen=True)
class Tested:
    """Scores of one repeat's test side, above 0 where an image is called attacked.

    clean_at, attacked_at: int64, the position of each among the images that take part.
    """

    clean: np.ndarray
    attacked: np.ndarray
    clean_at: np.ndarray
    attacked_at: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """Test results, each the mean over the repeats, with a 95 % interval in which an image counts once.

    auroc: area under the ROC curve; Obuchowski's interval, a patient's images and their copies move together.
    auroc_paired: the same against the clean images of the attacked images only. Where few attacks succeed, they do at
        images that were borderline before: whatever tells borderline images apart then seems to see attacks. Far
        below ``auroc``, that is what happened.
    tpr_at_1, tpr_at_5: share of attacked images that scores above the threshold at which 1 % and 5 % of the test
        side's own clean images do (none of them where they are fewer than 100 and 20).
    accuracy: mean of the shares called right of clean and of attacked images, at the boundary that was learned.
    n_clean, n_attacked: images that entered, both sides of the split; left_out: why others did not, with their number.
    repeats: auroc of each repeat. tested: the scores behind it all.

    Intervals are of the images drawn for testing; what another training side would change shows in ``repeats``.
    """

    protocol: str
    auroc: Estimate
    auroc_paired: Estimate
    tpr_at_1: Estimate
    tpr_at_5: Estimate
    accuracy: Estimate
    n_clean: int
    n_attacked: int
    left_out: dict[str, int]
    repeats: tuple[float, ...]
    tested: tuple[Tested, ...]


def evaluate(
    detector: Detector,
    clean: Images | Lazy | LayerFeatures,
    adversarial: Images | LayerFeatures,
    protocol: str = "clean",
    *,
    source: Classifier | Features | None = None,
    labels: Tensor | None = None,
    groups: Sequence[object] | None = None,
    reference: Images | Lazy | LayerFeatures | None = None,
    reference_labels: Tensor | None = None,
    tested_on: Images | LayerFeatures | None = None,
    repeats: int = 3,
    share: float = 0.8,
    seed: int = 0,
) -> Evaluation:
    """Fit ``detector``'s recipe on a ``share`` of the images and test it on the rest, ``repeats`` times.

    clean, adversarial: images and their adversarial copies, in the same order, or their features; the detector given is
    not changed. tested_on: copies by another attack, to be tested on instead. source: the classifier, where images are
    given. labels: true classes (default: the decisions on the clean images). groups: a patient for each image.
    reference: other clean images for the detector's bank, best of the classifier's training; without them some of
    the clean images, never scored, serve.

    "clean": images classified right, and those adversarial copies that changed the decision; patients, pairs and
    duplicates of an image on one side; everything is learned on the training side.
    "paper": as the code of Ma et al. 2020 does it, to show what its leaks are worth: images classified right and all
    their copies; the attacked ones drawn again with replacement BEFORE the split: duplicates stand on both sides;
    pairs and patients split; the scale taken from all rows; LID in batches that hold the image or its copy.

    InputError where copies are not as many, the protocol is unknown or images are too few.
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol {protocol!r} is not known; choose one of {', '.join(PROTOCOLS)}")
    if not 0 < share < 1 or repeats < 1:
        raise InputError(f"share must lie between 0 and 1 and repeats be at least 1, got {share} and {repeats}")
    features = Features(source, detector.layers or (PENULTIMATE,)) if isinstance(source, Classifier) else source

    def table(images: Any) -> LayerFeatures:
        if isinstance(images, Mapping):
            return images
        if features is None:
            raise InputError("images were given without a classifier to take features of; give source=classifier")
        return features(images)

    cases = _Cases(
        table(clean),
        table(adversarial),
        None if tested_on is None else table(tested_on),
        labels,
        groups,
        fooled_only=protocol == "clean",
    )
    cases.bank, cases.bank_labels = None if reference is None else table(reference), reference_labels
    run = _clean if protocol == "clean" else _paper
    tested = tuple(run(detector, cases, share, seed, r) for r in range(repeats))
    return _summary(protocol, cases, tested)


class _Cases:
    """The images that take part, classified right; fooled_only: learn from and test those that changed the decision."""

    def __init__(
        self,
        clean: LayerFeatures,
        attacked: LayerFeatures,
        other: LayerFeatures | None,
        labels: Tensor | None,
        groups: Sequence[object] | None,
        *,
        fooled_only: bool,
    ) -> None:
        self.bank: LayerFeatures | None = None
        self.bank_labels: Tensor | None = None
        count = len(clean[LOGITS])
        for copies in (attacked, *(() if other is None else (other,))):
            if len(copies[LOGITS]) != count:
                raise InputError(f"{count} clean and {len(copies[LOGITS])} attacked images; give one copy an image")
        if labels is not None and len(labels) != count:
            raise InputError(f"{count} images have {len(labels)} labels; give one an image")
        truth = predicted_class(clean) if labels is None else labels.cpu()
        right = predicted_class(clean) == truth
        self.given = torch.arange(count)[right]
        self.clean, self.attacked = rows(clean, right), rows(attacked, right)
        self.other = self.attacked if other is None else rows(other, right)
        self.patients = named(count, groups)[right.numpy()]
        self.groups = with_copies(self.patients, *self.clean.values())
        self.labels = truth[right]
        kept = torch.ones(len(self.given), dtype=torch.bool)
        self.fit_on = predicted_class(self.attacked) != self.labels if fooled_only else kept
        self.test_on = predicted_class(self.other) != self.labels if fooled_only else kept
        self.left_out = {"classified wrongly": count - len(self.given)}
        if fooled_only:
            self.left_out["attack failed"] = int((~self.test_on).sum())
        if len(self.given) < 10 or int(self.fit_on.sum()) < 4 or int(self.test_on.sum()) < 4:
            raise InputError(
                f"{len(self.given)} images are classified right, {int(self.fit_on.sum())} copies can be learned "
                f"from, {int(self.test_on.sum())} tested; 10, 4 and 4 are the least: give more images or a larger eps"
            )


def _clean(recipe: Detector, cases: _Cases, share: float, seed: int, repeat: int) -> Tested:
    test = torch.from_numpy(aside(cases.groups, 1 - share, seed, f"detector test {repeat}"))
    near, far = ~test, ~test & cases.fit_on
    names = cases.groups
    detector = recipe.blank().fit_features(
        rows(cases.clean, near),
        rows(cases.attacked, far),
        reference=cases.bank,
        labels=cases.labels[near] if cases.bank is None else cases.bank_labels,
        groups=names[near.numpy()].tolist(),
        adversarial_groups=names[far.numpy()].tolist(),
        seed=seed + repeat,
    )
    hit = test & cases.test_on
    if not bool(hit.any()):
        raise InputError("no attacked image fell to the test side; give more images or another seed")
    return Tested(
        detector.score_features(rows(cases.clean, test)).numpy(),
        detector.score_features(rows(cases.other, hit)).numpy(),
        np.flatnonzero(test.numpy()),
        np.flatnonzero(hit.numpy()),
    )


def _paper(recipe: Detector, cases: _Cases, share: float, seed: int, repeat: int) -> Tested:
    detector = recipe.blank()
    index, bank, bank_labels = _rows_and_bank(detector, cases, seed + repeat)
    clean, attacked, other = (rows(t, index) for t in (cases.clean, cases.attacked, cases.other))
    detector.layers_ = detector.reads(clean)
    detector.learn(bank, predicted_class(bank) if bank_labels is None else bank_labels, seed)
    clean_numbers, attacked_numbers = detector.represent_published(clean, attacked)
    same = cases.other is cases.attacked
    tested_numbers = attacked_numbers if same else detector.represent_published(clean, other)[1]
    generator = seeds.generator(seed, "paper protocol", repeat)
    n = len(index)
    # over-sampled before the split: the leak
    again = torch.from_numpy(generator.integers(0, n, n))
    order = torch.from_numpy(generator.permutation(2 * n))
    train, test = order[: int(share * 2 * n)], order[int(share * 2 * n) :]
    numbers = torch.cat([clean_numbers, attacked_numbers[again]])
    rule = detector.make_rule(True)
    fit_rule(rule, numbers[train[train < n]], numbers[train[train >= n]], seed, scale_on=numbers)
    clean_at, attacked_at = test[test < n], again[test[test >= n] - n]
    if not len(clean_at) or not len(attacked_at):
        raise InputError("the test side holds clean or attacked images only; give more images or another seed")
    return Tested(
        rule.decide(clean_numbers[clean_at]).numpy(),
        rule.decide(tested_numbers[attacked_at]).numpy(),
        index[clean_at].numpy(),
        index[attacked_at].numpy(),
    )


def _rows_and_bank(detector: Detector, cases: _Cases, seed: int) -> tuple[Tensor, LayerFeatures, Tensor | None]:
    """Positions of the images that are scored, and what the detector learns its arrays from."""
    everyone = torch.arange(len(cases.given))
    if not detector.uses_bank:
        return everyone, {k: torch.cat([v, cases.attacked[k]]) for k, v in cases.clean.items()}, None
    if cases.bank is not None:
        return everyone, cases.bank, cases.bank_labels
    if type(detector).represent_published is not Detector.represent_published:
        # compares the images with each other as published; the arrays it learns are not used
        return everyone, cases.clean, cases.labels
    kept = torch.from_numpy(aside(cases.groups, 0.5, seed, "detector bank"))
    return everyone[~kept], rows(cases.clean, kept), cases.labels[kept]


def _summary(protocol: str, cases: _Cases, tested: tuple[Tested, ...]) -> Evaluation:
    groups = cases.groups
    areas = tuple(
        stats.auroc(np.r_[t.clean, t.attacked], np.arange(len(t.clean) + len(t.attacked)) >= len(t.clean))[0]
        for t in tested
    )
    one, five = (_rate(tested, groups, fpr) for fpr in (0.01, 0.05))
    copies = tuple(_paired_only(t) for t in tested)
    return Evaluation(
        protocol,
        _area(tested, groups),
        _area(copies, groups),
        one,
        five,
        _accuracy(tested, groups),
        len(cases.given),
        int(cases.test_on.sum()),
        cases.left_out,
        areas,
        tested,
    )


def _paired_only(tested: Tested) -> Tested:
    paired = np.isin(tested.clean_at, tested.attacked_at)
    return dataclasses.replace(tested, clean=tested.clean[paired], clean_at=tested.clean_at[paired])


def _area(tested: tuple[Tested, ...], groups: np.ndarray) -> Estimate:
    """Repeats are folds to ``clustered.auroc``: an image that is tested twice belongs to one group, its own."""
    fold = [np.full(len(t.clean), r) for r, t in enumerate(tested)]
    fold_attacked = [np.full(len(t.attacked), r) for r, t in enumerate(tested)]
    area = clustered.auroc(
        np.concatenate([t.clean for t in tested]),
        np.concatenate([t.attacked for t in tested]),
        np.concatenate(fold),
        np.concatenate(fold_attacked),
        np.concatenate([groups[t.clean_at] for t in tested]),
        np.concatenate([groups[t.attacked_at] for t in tested]),
    )
    if not area.n:
        return area
    k = len(np.unique(np.concatenate([t.clean_at for t in tested])))
    m = len(np.unique(np.concatenate([t.attacked_at for t in tested])))
    return area._replace(n=k + m)


def _rate(tested: tuple[Tested, ...], groups: np.ndarray, fpr: float) -> Estimate:
    hits = [t.attacked > Detector.threshold_at(t.clean, fpr) for t in tested]
    return _share(hits, [t.attacked_at for t in tested], groups)


def _accuracy(tested: tuple[Tested, ...], groups: np.ndarray) -> Estimate:
    specificity = _share([t.clean <= 0 for t in tested], [t.clean_at for t in tested], groups)
    sensitivity = _share([t.attacked > 0 for t in tested], [t.attacked_at for t in tested], groups)
    value = (specificity.value + sensitivity.value) / 2
    # Newcombe's square-and-add interval of a mean of two shares (1998, Stat Med 17:873)
    down = np.hypot(specificity.value - specificity.low, sensitivity.value - sensitivity.low) / 2
    up = np.hypot(specificity.high - specificity.value, sensitivity.high - sensitivity.value) / 2
    return Estimate(value, float(value - down), float(value + up), specificity.n + sensitivity.n)


def _share(hits: list[np.ndarray], at: list[np.ndarray], groups: np.ndarray) -> Estimate:
    """Share of hits; an image that was tested in several repeats enters once, with its mean."""
    image, index = np.unique(np.concatenate(at), return_inverse=True)
    mean = np.bincount(index, weights=np.concatenate(hits).astype(float)) / np.bincount(index)
    return stats.proportion(mean, groups[image])
