"""What detectors are fitted and tested on: adversarial pairs, further clean images, and their features.

Detection and evasion share one ``DetectorData``: each detector is fitted once for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Self

import numpy as np
import torch

from medrobust import code_digest, seeds
from medrobust.attacks import Attack
from medrobust.data import Dataset
from medrobust.data.corruptions import CORRUPTIONS
from medrobust.detectors import DETECTORS, Features
from medrobust.detectors.crossfit import FPRS, Crossfit, ImageFeatures, fit_what_can_be
from medrobust.detectors.detector import LEAST as REFERENCE
from medrobust.errors import InputError
from medrobust.experiments.adversarial_pairs import PAIRS, AdversarialPairs
from medrobust.experiments.config import attack_named
from medrobust.experiments.context import Context, Step
from medrobust.experiments.features_cache import FeaturesCache, whose_images
from medrobust.threat import Ball

THRESHOLD = 20
"""Other clean images without which no threshold is set: it would allow no false alarm in 20, and hold for fewer still.
"""


@dataclass(frozen=True)
class DetectorConfig:
    """Which detectors, and the images that they are fitted and tested on. detectors, attacks, layers: names.

    limit: images that are attacked, None for all. further: other clean images, at most, for comparison, and as many for
    thresholds. required: where there are too few images an InputError is raised; else the rows say so.
    """

    detectors: tuple[str, ...] = tuple(DETECTORS)
    attacks: tuple[str, ...] = ("fgsm", "bim", "pgd", "cw")
    layers: tuple[str, ...] = ("penultimate",)
    """The last one is what detectors of one layer read; the others are compared with it."""
    limit: int | None = 300
    further: int = 400
    fprs: tuple[float, ...] = FPRS
    """False-positive rates that thresholds are set for."""
    corruptions: tuple[tuple[str, int], ...] = ()
    corrupted: int = 100
    """Images that are corrupted."""
    least: int = 1
    """Images read correctly without which nothing is measured."""
    widest: int | None = None
    """Features of a layer above which nothing is measured."""
    required: bool = True

    def __post_init__(self) -> None:
        for name in self.detectors:
            if name not in DETECTORS:
                raise InputError(f"detector {name!r} is not known; choose from {', '.join(DETECTORS)}")
        for name in self.attacks:
            attack_named(name)
        if not self.detectors or not self.attacks or not self.layers:
            raise InputError("name at least one detector, one attack and one layer")
        for name, _ in self.corruptions:
            if name not in CORRUPTIONS:
                raise InputError(f"corruption {name!r} is not known; choose from {', '.join(CORRUPTIONS)}")

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Self:
        """From JSON, where tuples are lists."""
        return cls(**{name: tuples(value) for name, value in plain.items()})


class DetectorData:
    """The images of one run for one set of detectors, at one size of attack.

    ball: called when images are attacked. needs: the steps that it waits for. label: distinguishes steps of several.
    Detectors compare with images of the training split and take thresholds from the validation split; where the test
    images are all there is, both come from the test images that are not attacked.
    """

    def __init__(
        self,
        context: Context,
        config: DetectorConfig,
        ball: Callable[[], Ball],
        needs: Sequence[str] = (),
        label: str = "",
    ) -> None:
        self.context, self.config, self.label, self.needs = context, config, label, tuple(needs)
        self._ball = ball
        self.attacks: dict[str, Attack] = {name: attack_named(name) for name in config.attacks}
        self.left_out: list[tuple[str, str]] = []
        self._tried: dict[str, ImageFeatures] = {}
        self._fits: dict[tuple[str, str], tuple[Crossfit, str]] = {}
        if config.required:  # a wrong layer, and no image to attack, are found before anything is computed
            Features(context.classifier, config.layers)
            self.pairs  # noqa: B018

    def steps(self) -> list[Step]:
        """Attack, and read features."""
        first, *others = self.config.attacks
        pairs = PAIRS + self.label
        more = [Step(f"pairs of {a}{self.label}", self._if_ready(partial(self.tried, a)), (pairs,)) for a in others]
        if self.config.corruptions:
            more.append(Step(f"corrupted images{self.label}", self._if_ready(lambda: self.corrupted), (pairs,)))
        return [Step(pairs, self._if_ready(partial(self._load, first)), self.needs), *more]

    @property
    def ready(self) -> tuple[str, ...]:
        """The steps after which detectors are fitted."""
        return tuple(step.name for step in self.steps())

    def _if_ready(self, work: Callable[[], object]) -> Callable[[], None]:
        def work_if_ready() -> None:
            if not self.failure:
                work()

        return work_if_ready

    def _load(self, attack: str) -> None:
        self.tried(attack)
        self.load_clean()

    def load_clean(self) -> None:
        """Read what no attack is needed for."""
        self.clean  # noqa: B018
        self.noise  # noqa: B018
        self._others  # noqa: B018

    def load(self) -> None:
        """Read everything, also where detectors are done, so that the same is said of the images then."""
        for attack in self.config.attacks:
            self._load(attack)
        self.corrupted  # noqa: B018
        for name, seconds in self.features.seconds.items():
            if name not in self.context.counted:
                self.context.counted.add(name)
                self.context.seconds["features"] = self.context.seconds.get("features", 0.0) + seconds

    # -- images and features -----------------------------------------------------------------------------

    @cached_property
    def failure(self) -> str:
        """Why nothing can be measured; empty where it can. InputError instead where it is required."""
        try:
            Features(self.context.classifier, self.config.layers)
            width = max(self.clean.features[layer].shape[1] for layer in self.config.layers)
            if self.config.widest is not None and width > self.config.widest:
                layer = self.config.layers[-1]
                raise InputError(f"the {layer} layer has {width} features; at most {self.config.widest} are read here")
        except InputError as error:
            if self.config.required:
                raise
            return str(error)
        return ""

    @cached_property
    def ball(self) -> Ball:
        return self._ball()

    @cached_property
    def pairs(self) -> AdversarialPairs:
        context, config = self.context, self.config
        return AdversarialPairs(
            context.store,
            context.classifier,
            context.sample,
            limit=config.limit,
            seed=context.config.seed,
            least=config.least,
            attacked=lambda: context.attacked,
        )

    @cached_property
    def features(self) -> FeaturesCache:
        return FeaturesCache(self.pairs, self.config.layers, self.context.progress.advance)

    def _read(self, title: str, n: int, work: Callable[[], ImageFeatures]) -> ImageFeatures:
        self.context.progress.start(title, n)
        try:
            return work()
        finally:
            self.context.progress.stop()

    @cached_property
    def clean(self) -> ImageFeatures:
        """Features of the images themselves."""
        return self._read("Features of clean images", len(self.pairs), self.features.clean)

    def tried(self, attack: str) -> ImageFeatures:
        """Of the attacked images, whether or not the attack succeeded."""
        if attack not in self._tried:
            chosen = self.attacks[attack]
            work = partial(self.features.attacked, attack, chosen, self.ball, failed=True)
            title = f"{chosen.title}{self.label} and features of its images"
            self._tried[attack] = self._read(title, len(self.pairs), work)
        return self._tried[attack]

    def attacked(self, attack: str) -> ImageFeatures:
        """Of the images on which the attack succeeded: they are decided otherwise than the clean ones."""
        tried = self.tried(attack)
        return tried.take(np.asarray(tried.predicted.numpy() != self.clean.predicted.numpy()[tried.pair_of]))

    @cached_property
    def noise(self) -> ImageFeatures:
        """Of the images with noise of the attack's size that are still classified right."""
        return self._read("Noise of the same size", len(self.pairs), lambda: self.features.noisy(self.ball))

    @cached_property
    def corrupted(self) -> dict[tuple[str, int], ImageFeatures]:
        """Of the corrupted images that are still classified right, by corruption and severity."""
        n = min(self.config.corrupted, len(self.pairs))
        return {
            (name, severity): self._read(
                f"Corrupting: {name} {severity}",
                n,
                partial(self.features.corrupted, name, severity, self.config.corrupted),
            )
            for name, severity in self.config.corruptions
        }

    @cached_property
    def _others(self) -> tuple[ImageFeatures | None, ImageFeatures | None]:
        system = self.context.system
        reference, held_out = other_images(system.data, system.test, self.pairs)
        what = "images to compare with (half of the clean test images serve instead)"
        return (
            self._further(reference, REFERENCE, what),
            self._further(held_out, THRESHOLD, "thresholds, and with them alarms"),
        )

    def _further(self, part: Dataset, least: int, what: str) -> ImageFeatures | None:
        n = min(self.config.further, len(part))
        try:
            work = partial(self.features.further, part, self.config.further, least)
            return self._read("Features of further clean images", n, work)
        except InputError as error:
            self.left_out.append((what, str(error)))
            return None

    @property
    def reference(self) -> ImageFeatures | None:
        """Clean images that detectors compare with; None where they are too few."""
        return self._others[0]

    @property
    def held_out(self) -> ImageFeatures | None:
        """Clean images that thresholds are set on; None where they are too few."""
        return self._others[1]

    @property
    def bank(self) -> Mapping[str, torch.Tensor] | None:
        """The features of ``reference``."""
        return None if self.reference is None else self.reference.features

    # -- detectors ---------------------------------------------------------------------------------------

    def fit(self, name: str, attack: str) -> tuple[Crossfit, str]:
        """The cross-fitted detector and, where it had to be fitted without attacks, why. InputError where it cannot be
        fitted."""
        if (name, attack) in self._fits:
            return self._fits[name, attack]
        fit = fit_what_can_be(
            DETECTORS[name](),
            self.clean,
            self.attacked(attack),
            self.held_out,
            reference=self.reference,
            seed=self.context.config.seed,
            fprs=self.config.fprs,
        )
        if len(self.attacks) == 1:  # evasion asks for it again; of many attacks, fits would fill the memory
            self._fits[name, attack] = fit
        return fit

    def key(self, name: str) -> Mapping[str, object]:
        """What a cell of this detector depends on, beside the images of the pairs."""
        config = self.config
        return {
            "detector": code_digest.described(DETECTORS[name]()),
            "attacks": {attack: code_digest.described(chosen) for attack, chosen in self.attacks.items()},
            "eps": float(self.ball.eps),
            "layers": list(config.layers),
            "fprs": list(config.fprs),
            "further": config.further,
        }

    @property
    def counts(self) -> Mapping[str, object]:
        """How many images there were, for the conditions of the run."""
        if self.failure:
            return {"eps": float(self.ball.eps), "n_clean": 0, "n_attacked": {}, "n_held_out": 0, "n_reference": 0}
        return {
            "eps": float(self.ball.eps),
            "accuracy": self.pairs.accuracy,
            "n_clean": len(self.clean),
            "n_patients": len(set(self.clean.groups.tolist())),
            "n_attacked": {attack: len(self.attacked(attack)) for attack in self.config.attacks},
            "n_noise": len(self.noise),
            "n_reference": 0 if self.reference is None else len(self.reference),
            "n_held_out": 0 if self.held_out is None else len(self.held_out),
            "pooled": self.reference is not None and self.reference.pooled,
        }


def other_images(data: Dataset, test: Dataset, pairs: AdversarialPairs) -> tuple[Dataset, Dataset]:
    """(for reference, for thresholds): training and validation images, or two halves of the test images left over."""
    split_of = set(data.split_of.tolist())
    if {"train", "val"} <= split_of and len(test) < len(data):
        return data.split("train"), data.split("val")
    attacked = set(pairs.part.ids)
    free = [i for i, name in enumerate(test.ids) if name not in attacked]
    patients = whose_images(test)
    first = [seeds.generator(pairs.seed, "other images", str(patients[i])).random() < 0.5 for i in free]
    return (
        test.select([i for i, f in zip(free, first, strict=True) if f]).by_id(),
        test.select([i for i, f in zip(free, first, strict=True) if not f]).by_id(),
    )


def tuples(value: Any) -> Any:
    """The same value with every list of it as a tuple."""
    return tuple(tuples(v) for v in value) if isinstance(value, (list, tuple)) else value
