"""Can attacks be seen? Detectors fitted and tested on one classifier's images: rows of numbers, and what to draw.

Every cell (twins, features) is kept in DIR/cells, so that a killed run goes on; fits are quick and made again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medrobust import detectors as detectors_room
from medrobust import seeds
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.data.corruptions import CORRUPTIONS
from medrobust.detectors import DETECTORS, Detector, Features, Guard, clustered, embedding
from medrobust.detectors.crossfit import FPRS, Crossfit, Rates, Seen, by_layer
from medrobust.errors import InputError
from medrobust.progress import NoProgress, Progress
from medrobust.stats import Estimate, proportion
from medrobust.studies.bench import FURTHER, Bench, whose_images
from medrobust.studies.spec import attack_named
from medrobust.studies.store import Store
from medrobust.studies.twins import Twins
from medrobust.threat import Ball, Linf

PROTOCOLS = ("clean", "paper")

LEAST = 10
"""Twins without which no detector is fitted."""
PREVALENCE = 0.001
"""One attacked study in 1,000: a guess, for the predictive value; nobody knows the true share."""


@dataclass(frozen=True)
class Ask:
    """What is asked of a detection study. detectors, attacks: names; the first attack sets the guards' thresholds."""

    detectors: tuple[str, ...] = tuple(DETECTORS)
    attacks: tuple[str, ...] = ("fgsm", "bim", "pgd", "cw")
    ball: Ball = field(default_factory=lambda: Linf(1 / 255))
    protocols: tuple[str, ...] = PROTOCOLS
    layers: tuple[str, ...] = ("penultimate",)
    """The last one is what detectors of one layer read; the others are compared with it."""
    limit: int | None = 300
    corruptions: tuple[tuple[str, int], ...] = ()
    corrupted: int = 100
    """Images that are corrupted."""
    main: str = "pgd"
    """The attack that guards are fitted on."""
    prevalence: float = PREVALENCE
    fprs: tuple[float, ...] = FPRS
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.detectors:
            if name not in DETECTORS:
                raise InputError(f"detector {name!r} is not known; choose from {', '.join(DETECTORS)}")
        for name in self.protocols:
            if name not in PROTOCOLS:
                raise InputError(f"protocol {name!r} is not known; choose clean, paper or both")
        for name in self.attacks:
            attack_named(name)
        if not self.detectors or not self.attacks or not self.layers:
            raise InputError("name at least one detector, one attack and one layer")
        if not 0 < self.prevalence < 1:
            raise InputError(f"prevalence is a share between 0 and 1, got {self.prevalence:g}")
        for name, _ in self.corruptions:
            if name not in CORRUPTIONS:
                raise InputError(f"corruption {name!r} is not known; choose from {', '.join(CORRUPTIONS)}")

    @property
    def guarded(self) -> str:
        """The attack that guards are fitted on."""
        return next((a for a in self.attacks if a.partition(":")[0] == self.main), self.attacks[0])

    def written(self) -> dict[str, Any]:
        """Everything that numbers depend on, for a cell's key; plain JSON."""
        told = {k: v for k, v in vars(self).items() if k not in ("ball", "detectors")}
        return {**told, "ball": [self.ball.name, float(self.ball.eps)]}


class Detection:
    """One classifier and its test images under one Ask.

    Detectors compare with images of ``data``'s training split and take thresholds from its validation split; where
    ``test`` is all there is, both come from the test images that are not attacked.
    """

    def __init__(
        self, ask: Ask, folder: Path, classifier: Classifier, data: Dataset, test: Dataset,
        progress: Progress | None = None,
    ) -> None:  # fmt: skip
        self.ask, self.progress = ask, progress or NoProgress()
        data, test = data.for_classes(classifier.classes), test.for_classes(classifier.classes)
        Features(classifier, ask.layers)  # a wrong name is found before anything is computed
        self.twins = Twins(Store(Path(folder)), classifier, test, limit=ask.limit, seed=ask.seed)
        self.bench = Bench(self.twins, ask.layers, self.progress.advance)
        self.data, self.others = data, other_images(data, test, self.twins)
        self.rows: list[dict[str, Any]] = []

    def run(self) -> dict[str, Any]:
        """All rows, and the facts they stand on. Writes nothing but cells."""
        self._features()
        self.progress.start("Fitting and testing detectors", len(self.ask.detectors))
        for name in self.ask.detectors:
            self._kept(name, "rates", self._one)
            self._kept(name, "layers", self._layers)
            self.progress.advance()
        self.progress.stop()
        return {"facts": self._facts(), "rows": self.rows}

    # -- pieces of work ----------------------------------------------------------------------------------

    def _features(self) -> None:
        ask = self.ask
        n = len(self.twins)
        others = sum(min(FURTHER, len(part)) for part in self.others)
        self.progress.start("Attacking, reading features", n * (2 + len(ask.attacks)) + others)
        self.clean = self.bench.clean()
        self.reference, self.held_out = (self.bench.further(part) for part in self.others)
        self.noise = self.bench.noisy(ask.ball)
        self.tried = {a: self.bench.attacked(a, attack_named(a), ask.ball, failed=True) for a in ask.attacks}
        self.attacked = {a: seen.take(self._wrong(seen)) for a, seen in self.tried.items()}
        self.progress.stop()
        self.progress.start("Corrupting", len(ask.corruptions) * min(ask.corrupted, n))
        self.corrupted = {c: self.bench.corrupted(*c, ask.corrupted) for c in ask.corruptions}
        self.progress.stop()

    def _wrong(self, seen: Seen) -> np.ndarray:
        """bool (n,): decided otherwise than the clean image, which is decided right."""
        return np.asarray(seen.predicted.numpy() != self.clean.predicted.numpy()[seen.twin])

    def _one(self, name: str) -> None:
        """A detector fitted on each attack, tested on all, on noise and on corruptions."""
        ask = self.ask
        for fitted_on, twins in self.attacked.items():
            try:
                if "paper" in ask.protocols:
                    self._as_published(name, fitted_on)
                if "clean" not in ask.protocols:
                    continue
                fit = self._fit(DETECTORS[name](), twins)
            except InputError as error:
                nothing = Estimate(np.nan, np.nan, np.nan, len(twins))
                self._add(name, fitted_on, fitted_on, "auroc", nothing, note=str(error))
                continue
            for tested_on, others in self.attacked.items():
                self._rates(name, fitted_on, tested_on, fit.against(others))
            if fitted_on == ask.guarded:
                self._false_alarms(name, fit)

    def _false_alarms(self, name: str, fit: Crossfit) -> None:
        """Of clean, noisy and corrupted images that are classified right."""
        guarded = self.ask.guarded
        kept = fit.false_alarms()
        for fpr, share in kept.items():
            self._add(name, guarded, "clean", f"alarms@{fpr:g}", share)
            self._add(name, guarded, "clean", f"alarms_per_1000@{fpr:g}", clustered.per_thousand(share))
            hit = proportion(fit.alarms(self.attacked[guarded], fpr), self.attacked[guarded].groups)
            worth = clustered.predictive_value(hit, share, self.ask.prevalence)
            self._add(
                name, guarded, "clean", f"predictive_value@{fpr:g}", worth, note=f"{self.ask.prevalence:g} attacked"
            )
        self._rates(name, guarded, "noise", fit.against(self.noise))
        for (corruption, severity), seen in self.corrupted.items():
            self._rates(name, guarded, f"{corruption}:{severity}", fit.against(seen))

    def _fit(self, recipe: Detector, twins: Seen) -> Crossfit:
        return Crossfit(
            recipe, self.clean, twins, self.held_out, reference=self.reference, seed=self.ask.seed, fprs=self.ask.fprs
        )

    def _as_published(self, name: str, attack: str) -> None:
        """The paper's protocol, with its leaks."""
        result = detectors_room.evaluate(
            DETECTORS[name](), self.clean.features, self.tried[attack].features, protocol="paper",
            groups=self.clean.groups.tolist(), reference=self.reference.features,
            reference_labels=self.reference.classes, seed=self.ask.seed,
        )  # fmt: skip
        self._add(name, attack, attack, "auroc", result.auroc, protocol="paper")
        self._add(name, attack, attack, "seen@0.01", result.tpr_at_1, protocol="paper")
        self._add(name, attack, attack, "seen@0.05", result.tpr_at_5, protocol="paper")

    def _layers(self, name: str) -> None:
        """Each layer by itself, for detectors that read one, against the guarded attack."""
        guarded = self.ask.guarded
        twins = self.attacked[guarded]
        if len(self.ask.layers) < 2 or "clean" not in self.ask.protocols or len(twins) < LEAST:
            return
        found = by_layer(
            DETECTORS[name](), self.ask.layers, self.clean, twins, self.held_out, reference=self.reference,
            seed=self.ask.seed,
        )  # fmt: skip
        for layer, rates in found.items():
            self._rates(name, guarded, guarded, rates, layer=layer)

    def _kept(self, name: str, kind: str, work: Callable[[str], None]) -> None:
        """The rows that ``work`` adds for a detector, from their cell where they are known."""

        def compute() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
            before, self.rows = self.rows, []
            try:
                work(name)
                return {"rows": self.rows}, {}
            finally:
                self.rows = before

        spec = self.twins.key(
            self.twins.part, kind=f"detector {kind}", detector=name, ask=self.ask.written(),
            settings=DETECTORS[name]().settings, data=self.data.digest(),
        )  # fmt: skip
        self.rows += self.twins.store.once(spec, compute).facts["rows"]

    def picture(self, path: Path) -> Path:
        """t-SNE of the clean images and the guarded attack's twins, in the layer that detectors read."""
        layer, twins = self.ask.layers[-1], self.attacked[self.ask.guarded]
        points = embedding.embed(np.concatenate([self.clean.features[layer], twins.features[layer]]), self.ask.seed)
        truth = self.clean.predicted.numpy()  # these are classified right
        labels = np.concatenate([truth, truth[twins.twin]])
        attacked = np.arange(len(labels)) >= len(truth)
        title = f"{self.data.name}: {layer} features, {self.ask.guarded}, {self.ask.ball}"
        return embedding.draw(path, points, labels, attacked, self.twins.classifier.classes, title)

    def guards(self, folder: Path, fpr: float) -> dict[str, Path]:
        """Each detector fitted on all images and the guarded attack's twins, its threshold set, saved."""
        twins, saved = self.attacked[self.ask.guarded], {}
        for name in self.ask.detectors:
            if len(twins) < LEAST:
                break
            detector = DETECTORS[name]().fit(
                self.bench.features, self.clean.features, twins.features, reference=self.reference.features,
                labels=self.reference.classes,
                groups=self.clean.groups.tolist(), adversarial_groups=twins.groups.tolist(), seed=self.ask.seed,
            )  # fmt: skip
            scores = detector.score_features(self.held_out.features, self.held_out.predicted)
            guard = Guard(self.twins.classifier, detector, detector.threshold_at(scores, fpr))
            saved[name] = guard.save(folder / name)
        return saved

    # -- rows --------------------------------------------------------------------------------------------

    def _rates(self, name: str, fitted_on: str, tested_on: str, rates: Rates, layer: str = "") -> None:
        self._add(name, fitted_on, tested_on, "auroc", rates.auroc, layer=layer)
        self._add(name, fitted_on, tested_on, "auroc_paired", rates.paired, layer=layer)
        for fpr in self.ask.fprs:
            self._add(name, fitted_on, tested_on, f"alarms@{fpr:g}", rates.at[fpr], layer=layer)
            self._add(name, fitted_on, tested_on, f"seen@{fpr:g}", rates.seen[fpr], layer=layer)

    def _add(
        self, detector: str, fitted_on: str, tested_on: str, metric: str, e: Estimate, *, protocol: str = "clean",
        layer: str = "", note: str = "",
    ) -> None:  # fmt: skip
        value, low, high = (float(v) if np.isfinite(v) else None for v in e[:3])
        self.rows.append(
            {
                "detector": detector, "layer": layer, "fitted_on": fitted_on, "tested_on": tested_on,
                "eps": float(self.ask.ball.eps), "norm": self.ask.ball.name, "protocol": protocol, "metric": metric,
                "value": value, "low": low, "high": high, "n": e.n, "note": note,
            }
        )  # fmt: skip

    def _facts(self) -> dict[str, Any]:
        return {
            "data": self.data.name, "classes": list(self.twins.classifier.classes), "accuracy": self.twins.accuracy,
            "guesses": self.twins.guessing.text,
            "n_clean": len(self.clean), "n_patients": len(set(self.clean.groups.tolist())),
            "n_reference": len(self.reference), "pooled": self.reference.pooled,
            "n_held_out": len(self.held_out),
            "n_attacked": {a: len(t) for a, t in self.attacked.items()}, "n_noise": len(self.noise),
            "eps": float(self.ask.ball.eps), "norm": self.ask.ball.name, "layers": list(self.ask.layers),
            "seed": self.ask.seed, "model": self.twins.model_digest,
        }  # fmt: skip


def other_images(data: Dataset, test: Dataset, twins: Twins) -> tuple[Dataset, Dataset]:
    """(for reference, for thresholds): training and validation images, or two halves of the test images left over."""
    sides = set(data.sides.tolist())
    if {"train", "val"} <= sides and len(test) < len(data):
        return data.split("train"), data.split("val")
    attacked = set(twins.part.ids)
    free = [i for i, name in enumerate(test.ids) if name not in attacked]
    whose = whose_images(test)
    first = [seeds.generator(twins.seed, "other images", str(whose[i])).random() < 0.5 for i in free]
    return (
        test.select([i for i, f in zip(free, first, strict=True) if f]).by_id(),
        test.select([i for i, f in zip(free, first, strict=True) if not f]).by_id(),
    )
