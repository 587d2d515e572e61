"""What is tried against attacks: no defence, a filter at the input, a detector as guard, another classifier.

Each answers images and is attacked by who knows it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from medrobust import code_digest
from medrobust.attacks import APGD, PGD, Attack, Auto
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.defences import InputDefence, defended
from medrobust.detectors import Detector, Guard, detector_named
from medrobust.errors import InputError
from medrobust.evasion import OrthogonalPGD, SelectivePGD, strongest
from medrobust.evasion.evasion import Evasion
from medrobust.experiments import robustness_cells
from medrobust.experiments.context import Advance, Context
from medrobust.experiments.system import groups
from medrobust.images import Images, Labels, Logits
from medrobust.results import withstands
from medrobust.store import Result
from medrobust.threat import Untargeted, margin

STEPS = 40
"""Of the attack on a random defence."""
FOLLOWED, JUDGED = range(8), range(1000, 1032)
"""Seeds of the draws of a random defence that attacks follow, and of those on which they are counted."""
FITTED = 400
"""Training images, at most, that a detector is fitted on; half of them are those it compares with."""
EVASIONS: Mapping[str, Callable[[], Evasion]] = {"selective": SelectivePGD, "orthogonal": OrthogonalPGD}
"""Attacks on a classifier and its guard together."""


class Answers(NamedTuple):
    """right, referred: float32 (n,), whether each image is answered rightly, and whether it goes to a person.

    Of a random defence, the share of fresh draws. What is neither was answered wrongly.
    """

    right: Tensor
    referred: Tensor

    @property
    def wrong(self) -> Tensor:
        return 1 - self.right - self.referred


class Tried(ABC):
    """kind: one of "none", "input", "guard" and "classifier". settings: what it depends on, as JSON.

    random: it answers the same image differently from call to call.
    """

    kind: str
    random = False

    def __init__(self, title: str, source: str, settings: Mapping[str, object]) -> None:
        self.title, self.source, self.settings = title, source, dict(settings)

    @property
    @abstractmethod
    def key(self) -> Mapping[str, object]:
        """What its cells depend on, beside images, classifier, ball and seed."""

    @abstractmethod
    def once(self, images: Images) -> tuple[Logits, Tensor]:
        """Logits (n, k) as a user gets them at one call, and bool (n,): referred instead."""

    @abstractmethod
    def judge(self, images: Images, labels: Labels) -> Answers:
        """The answers to images (n, c, h, w) against labels (n,) or (n, k)."""

    @abstractmethod
    def attacked(self, shard: Dataset, eps: Sequence[float], seed: int, advance: Advance) -> Result:
        """Under an attack that knows it: right, referred float32 (n, sizes) and no_gradient bool (n,)."""


class Answering(Tried):
    """A classifier as it is: the one that is defended, or another in its place. through: what attacks follow."""

    def __init__(
        self,
        context: Context,
        kind: str,
        classifier: Classifier,
        through: Classifier,
        title: str,
        source: str = "",
        settings: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(title, source, settings or {})
        self.context, self.kind, self.classifier, self.through = context, kind, classifier, through

    @cached_property
    def key(self) -> Mapping[str, object]:
        return {"defence": self.kind, "network": self.classifier.digest(), "attack": code_digest.described(Auto())}

    def once(self, images: Images) -> tuple[Logits, Tensor]:
        return self.classifier.logits(images), torch.zeros(len(images), dtype=torch.bool)

    def judge(self, images: Images, labels: Labels) -> Answers:
        return _answers(right(self.classifier, None, images, labels))

    def attacked(self, shard: Dataset, eps: Sequence[float], seed: int, advance: Advance) -> Result:
        return _swept(self.context, [self.through], self.classifier, shard, eps, seed, advance)


class Filtered(Tried):
    """The classifier behind a defence at the input."""

    kind = "input"

    def __init__(self, context: Context, name: str, defence: InputDefence) -> None:
        super().__init__(defence.title, defence.source, defence.settings)
        self.context, self.name, self.defence, self.random = context, name, defence, defence.random

    @property
    def attack(self) -> Attack:
        return APGD(STEPS, loss=margin) if self.random else Auto()

    @property
    def key(self) -> Mapping[str, object]:
        code = code_digest.of_class(type(self.defence))
        attack = code_digest.described(self.attack)
        return {"defence": self.name, "settings": self.settings, "defence code": code, "attack": attack}

    def once(self, images: Images) -> tuple[Logits, Tensor]:
        behind = defended(self.context.classifier, self.defence, draws=JUDGED[:1])
        return behind.logits(images), torch.zeros(len(images), dtype=torch.bool)

    def judge(self, images: Images, labels: Labels) -> Answers:
        return _answers(right(self.context.classifier, self.defence, images, labels))

    def attacked(self, shard: Dataset, eps: Sequence[float], seed: int, advance: Advance) -> Result:
        context = self.context
        if not self.random:
            judged = defended(context.classifier, self.defence)
            ways = [defended(context.attacked, self.defence, known=True, way=way) for way in range(self.defence.ways)]
            return _swept(context, ways, judged, shard, eps, seed, advance)
        images, labels = shard.tensors()
        through = defended(context.attacked, self.defence, known=True, draws=FOLLOWED)
        shares = []
        for e in eps:
            ball, goal = context.ball(e), Untargeted(labels)
            changed = self.attack(through, images, goal, ball, seed=seed, ids=shard.ids, full=True)
            shares.append(self.judge(changed, labels))
        advance(len(shard))
        return _result(shares, np.zeros(len(shard), dtype=bool))


class Guarded(Tried):
    """The classifier with a detector that refers to a person what it takes for attacked.

    The detector is fitted on training images; its threshold is set so that a share ``referrals`` of the validation
    images lies above it. InputError where the data has no such images beside the test images.
    """

    kind = "guard"

    def __init__(self, context: Context, name: str, referrals: float, eps: float) -> None:
        self.context, self.name, self.referrals, self.eps = context, name, referrals, eps
        detector = detector_named(name)
        super().__init__(
            f"Guard: {detector.title}", detector.source, {"referrals": referrals, **detector.settings, "detector": name}
        )
        if context.classifier.head.multilabel:
            raise InputError("a detector as guard is fitted to one answer an image, not to several findings")
        self.train, self.validation = beside(context)

    @property
    def key(self) -> Mapping[str, object]:
        return {
            "defence": f"guard {self.name}",
            "settings": self.settings,
            "eps of fitting": self.eps,
            "fitted on": [self.train.digest(), self.validation.digest()],
            "attack": [code_digest.described(make()) for make in EVASIONS.values()],
            "detector code": code_digest.described(detector_named(self.name)),
        }

    @cached_property
    def fitted_on(self) -> tuple[Dataset, Dataset]:
        """Whole patients: what the detector learns from, and what it compares with."""
        sample = self.train.sample(FITTED, self.context.config.seed)
        known = groups(sample)
        patients = np.array(sample.ids) if known is None else known
        first = np.isin(patients, np.unique(patients)[::2])
        return sample.select(np.flatnonzero(first)), sample.select(np.flatnonzero(~first))

    @cached_property
    def guard(self) -> Guard:
        classifier, seed = self.context.classifier, self.context.config.seed
        clean, reference = self.fitted_on
        detector = detector_named(self.name)
        images, labels = clean.tensors()
        attacked = None
        if detector.needs_attacks:
            ball, goal = self.context.ball(self.eps), Untargeted(labels)
            attacked = PGD(STEPS)(self.context.attacked, images, goal, ball, seed=seed, ids=clean.ids, full=True)
        detector.fit(
            classifier,
            images,
            attacked,
            reference=reference,
            labels=torch.from_numpy(reference.labels) if detector.uses_bank else None,
            groups=None if (known := groups(clean)) is None else known.tolist(),
            seed=seed,
        )
        scores = detector.score(self.validation)
        return Guard(classifier, detector, Detector.threshold_at(scores, self.referrals))

    def once(self, images: Images) -> tuple[Logits, Tensor]:
        return self.context.classifier.logits(images), self.guard(images).referred

    def judge(self, images: Images, labels: Labels) -> Answers:
        referred = self.guard(images).referred.float()
        return Answers(right(self.context.classifier, None, images, labels) * (1 - referred), referred)

    def attacked(self, shard: Dataset, eps: Sequence[float], seed: int, advance: Advance) -> Result:
        images, labels = shard.tensors()
        guard, reference = self.guard, self.fitted_on[1]
        outcomes, no_gradient = [], np.zeros(len(images), dtype=bool)
        for e in eps:
            evaded = strongest(
                self.context.attacked,
                guard.detector,
                images,
                Untargeted(labels),
                self.context.ball(e),
                guard.threshold,
                evasions=EVASIONS,
                seed=seed,
                ids=shard.ids,
                reference=reference,
            )
            outcomes.append(self.judge(evaded.images, labels))
            no_gradient |= evaded.no_gradient.numpy() & (outcomes[-1].wrong.numpy() == 0)
        advance(len(shard))
        return _result(outcomes, no_gradient)


def beside(context: Context) -> tuple[Dataset, Dataset]:
    """(training, validation) images; InputError where all images are test images."""
    data, test = context.system.data, context.test
    if len(test) == len(data) or not {"train", "val"} <= set(data.split_of.tolist()):
        raise InputError(
            f"{data.name} has no training and validation images beside its test images: mark some in a split column"
        )
    return data.split("train"), data.split("val")


def right(classifier: Classifier, defence: InputDefence | None, images: Images, labels: Labels) -> Tensor:
    """float32 (n,): whether answers behind the defence are right; of a random one the share of fresh draws."""

    def answers(judged: Classifier) -> Tensor:
        goal = Untargeted(labels).prepare(judged.head, len(judged.classes), len(images), images.device)
        return (~goal.reached(judged.head, judged.logits(images))).float()

    if defence is None:
        return answers(classifier)
    if not defence.random:
        return answers(defended(classifier, defence))
    return torch.stack([answers(defended(classifier, defence, draws=(seed,))) for seed in JUDGED]).mean(0)


def _answers(right: Tensor) -> Answers:
    """Of one that refers no image."""
    return Answers(right, torch.zeros_like(right))


def _swept(
    context: Context,
    ways: Sequence[Classifier],
    judged: Classifier,
    shard: Dataset,
    eps: Sequence[float],
    seed: int,
    advance: Advance,
) -> Result:
    """By Auto along the first of ``ways`` and APGD along the others, the worst for each image."""
    min_eps, no_gradient = np.full(len(shard), np.inf, dtype=np.float32), np.ones(len(shard), dtype=bool)
    for way, through in enumerate(ways):
        attack, tell = (APGD(loss=margin), _nothing) if way else (Auto(), advance)
        _, arrays = robustness_cells.swept(attack, through, shard, context.ball, tuple(eps), None, seed, tell, judged)
        min_eps, no_gradient = np.minimum(min_eps, arrays["min_eps"]), no_gradient & arrays["no_gradient"]
    held = [torch.from_numpy(withstands(min_eps, e).astype(np.float32)) for e in eps]
    return _result([_answers(h) for h in held], no_gradient)


def _nothing(_: int) -> None:
    """Progress is told once, not for every way."""


def _result(at_each: Sequence[Answers], no_gradient: np.ndarray) -> Result:
    each = {name: torch.stack([getattr(a, name) for a in at_each], 1).numpy() for name in Answers._fields}
    return {}, {**each, "no_gradient": no_gradient}
