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
from medrobust.detectors import DETECTORS, Features, Guard, clustered, embedding
from medrobust.detectors.crossfit import FPRS, Crossfit, Rates, Seen, by_layer, fit_what_can_be
from medrobust.detectors.detector import LEAST as FITTED
from medrobust.errors import InputError
from medrobust.experiments.adversarial_pairs import Twins
from medrobust.experiments.config import attack_named
from medrobust.experiments.features_cache import FURTHER, Bench, whose_images
from medrobust.progress import NoProgress, Progress
from medrobust.stats import Estimate
from medrobust.store import Store
from medrobust.threat import Ball, Linf

PROTOCOLS = ("clean", "paper")

LEAST = 10
"""Twins without which no detector is fitted on an attack."""
THRESHOLD = 20
"""Other clean images without which no threshold is set: it would allow no false alarm in 20, and hold for fewer still.
"""
NO_ATTACK = "no attack"
"""What a detector was fitted on where the attacked images were too few and it needs none."""
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
    ``test`` is all there is, both come from the test images that are not attacked. What lacks images is left out, and
    ``run`` says so. InputError where no image is classified right.
    """

    def __init__(
        self,
        ask: Ask,
        folder: Path,
        classifier: Classifier,
        data: Dataset,
        test: Dataset,
        progress: Progress | None = None,
    ) -> None:
        self.ask, self.progress = ask, progress or NoProgress()
        data, test = data.for_classes(classifier.classes), test.for_classes(classifier.classes)
        Features(classifier, ask.layers)  # a wrong name is found before anything is computed
        self.twins = Twins(Store(Path(folder)), classifier, test, limit=ask.limit, seed=ask.seed, least=1)
        self.bench = Bench(self.twins, ask.layers, self.progress.advance)
        self.data, self.others = data, other_images(data, test, self.twins)
        self.rows: list[dict[str, Any]] = []
        self.left_out: list[dict[str, str]] = []

    def run(self) -> dict[str, Any]:
        """All rows, and the facts they stand on. Writes nothing but cells."""
        self._features()
        self.progress.start("Fitting and testing detectors", len(self.ask.detectors))
        for name in self.ask.detectors:
            self._kept(name, "rates", self._one)
            self._kept(name, "layers", self._layers)
            self.progress.advance()
        self.progress.stop()
        for row in self.rows:
            if row["value"] is None and row["note"] and row["metric"] == "auroc":
                how = ", as published" if row["protocol"] == "paper" else ""
                self._leave_out(f"{row['detector']}, fitted on {row['fitted_on']}{how}", row["note"])
        return {"facts": self._facts(), "rows": self.rows, "left_out": self.left_out}

    def _leave_out(self, part: str, why: str) -> None:
        self.left_out.append({"part": part, "why": why})

    # -- pieces of work ----------------------------------------------------------------------------------

    def _features(self) -> None:
        ask = self.ask
        n = len(self.twins)
        others = sum(min(FURTHER, len(part)) for part in self.others)
        self.progress.start("Attacking, reading features", n * (2 + len(ask.attacks)) + others)
        self.clean = self.bench.clean()
        self.reference, self.held_out = other_features(self.bench, self.others, self._leave_out)
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
            if "paper" in ask.protocols:
                try:
                    self._as_published(name, fitted_on)
                except InputError as error:
                    self._add(name, fitted_on, fitted_on, "auroc", _none_of(twins), protocol="paper", note=str(error))
            if "clean" not in ask.protocols:
                continue
            try:
                fit, why = fit_what_can_be(
                    DETECTORS[name](),
                    self.clean,
                    twins,
                    self.held_out,
                    reference=self.reference,
                    seed=ask.seed,
                    fprs=ask.fprs,
                )
            except InputError as error:
                self._add(name, fitted_on, fitted_on, "auroc", _none_of(twins), note=str(error))
                continue
            known = NO_ATTACK if why else fitted_on
            if why:
                self._add(name, fitted_on, fitted_on, "auroc", _none_of(twins), note=why)
            if known != NO_ATTACK or fitted_on == ask.guarded:  # without attacks it is the same one for all of them
                for tested_on, others in self.attacked.items():
                    self._rates(name, known, tested_on, fit.against(others))
            if fitted_on == ask.guarded:
                self._false_alarms(name, fit, known)

    def _false_alarms(self, name: str, fit: Crossfit, known: str) -> None:
        """Of clean, noisy and corrupted images that are classified right. known: what it was fitted on."""
        hits = fit.against(self.attacked[self.ask.guarded]).at
        for fpr, share in fit.false_alarms().items():
            if self.held_out is None:
                break
            self._add(name, known, "clean", f"alarms@{fpr:g}", share)
            self._add(name, known, "clean", f"alarms_per_1000@{fpr:g}", clustered.per_thousand(share))
            worth = clustered.predictive_value(hits[fpr], share, self.ask.prevalence)
            self._add(
                name, known, "clean", f"predictive_value@{fpr:g}", worth, note=f"{self.ask.prevalence:g} attacked"
            )
        self._rates(name, known, "noise", fit.against(self.noise))
        for (corruption, severity), seen in self.corrupted.items():
            self._rates(name, known, f"{corruption}:{severity}", fit.against(seen))

    def _as_published(self, name: str, attack: str) -> None:
        """The paper's protocol, with its leaks."""
        result = detectors_room.evaluate(
            DETECTORS[name](),
            self.clean.features,
            self.tried[attack].features,
            protocol="paper",
            groups=self.clean.groups.tolist(),
            seed=self.ask.seed,
            reference=None if self.reference is None else self.reference.features,
            reference_labels=None if self.reference is None else self.reference.classes,
        )
        self._add(name, attack, attack, "auroc", result.auroc, protocol="paper")
        self._add(name, attack, attack, "seen@0.01", result.tpr_at_1, protocol="paper")
        self._add(name, attack, attack, "seen@0.05", result.tpr_at_5, protocol="paper")

    def _layers(self, name: str) -> None:
        """Each layer by itself, for detectors that read one, against the guarded attack."""
        guarded = self.ask.guarded
        twins = self.attacked[guarded]
        if len(self.ask.layers) < 2 or "clean" not in self.ask.protocols or len(twins) < LEAST:
            return
        try:
            found = by_layer(
                DETECTORS[name](),
                self.ask.layers,
                self.clean,
                twins,
                self.held_out,
                reference=self.reference,
                seed=self.ask.seed,
            )
        except InputError:  # the same is said of the detector as a whole
            return
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
            self.twins.part,
            kind=f"detector {kind}",
            detector=name,
            ask=self.ask.written(),
            settings=DETECTORS[name]().settings,
            data=self.data.digest(),
        )
        self.rows += self.twins.store.once(spec, compute).facts["rows"]

    def picture(self, path: Path) -> Path | None:
        """t-SNE of the clean images and the guarded attack's twins, in the layer that detectors read.

        None where images are too few; ``left_out`` then says so.
        """
        layer, twins = self.ask.layers[-1], self.attacked[self.ask.guarded]
        try:
            points = embedding.embed(np.concatenate([self.clean.features[layer], twins.features[layer]]), self.ask.seed)
        except InputError as error:
            self._leave_out("picture", str(error))
            return None
        truth = self.clean.predicted.numpy()  # these are classified right
        labels = np.concatenate([truth, truth[twins.twin]])
        attacked = np.arange(len(labels)) >= len(truth)
        title = f"{layer} features, {self.ask.guarded}, {self.ask.ball}"
        return embedding.draw(path, points, labels, attacked, self.twins.classifier.classes, title)

    def guards(self, folder: Path, fpr: float) -> dict[str, Path]:
        """Each detector fitted on all images and the guarded attack's twins, its threshold set, saved.

        Those that cannot be fitted are missing; ``left_out`` then says so.
        """
        saved: dict[str, Path] = {}
        for name in self.ask.detectors:
            try:
                saved[name] = self._guard(name, fpr).save(folder / name)
            except InputError as error:
                self._leave_out(f"guard {name}", str(error))
        return saved

    def _guard(self, name: str, fpr: float) -> Guard:
        twins = self.attacked[self.ask.guarded]
        if self.held_out is None:
            raise InputError("there are no images for its threshold")
        if len(twins) < LEAST:
            raise InputError(f"only {len(twins)} attacked images succeeded, {LEAST} are needed to fit one")
        detector = DETECTORS[name]().fit(
            self.bench.features,
            self.clean.features,
            twins.features,
            reference=None if self.reference is None else self.reference.features,
            labels=None if self.reference is None else self.reference.classes,
            groups=self.clean.groups.tolist(),
            adversarial_groups=twins.groups.tolist(),
            seed=self.ask.seed,
        )
        scores = detector.score_features(self.held_out.features, self.held_out.predicted)
        return Guard(self.twins.classifier, detector, detector.threshold_at(scores, fpr))

    # -- rows --------------------------------------------------------------------------------------------

    def _rates(self, name: str, fitted_on: str, tested_on: str, rates: Rates, layer: str = "") -> None:
        self._add(name, fitted_on, tested_on, "auroc", rates.auroc, layer=layer)
        self._add(name, fitted_on, tested_on, "auroc_paired", rates.paired, layer=layer)
        for fpr in self.ask.fprs:
            self._add(name, fitted_on, tested_on, f"alarms@{fpr:g}", rates.at[fpr], layer=layer)
            self._add(name, fitted_on, tested_on, f"seen@{fpr:g}", rates.seen[fpr], layer=layer)

    def _add(
        self,
        detector: str,
        fitted_on: str,
        tested_on: str,
        metric: str,
        e: Estimate,
        *,
        protocol: str = "clean",
        layer: str = "",
        note: str = "",
    ) -> None:
        value, low, high = (float(v) if np.isfinite(v) else None for v in e[:3])
        self.rows.append(
            {
                "detector": detector,
                "layer": layer,
                "fitted_on": fitted_on,
                "tested_on": tested_on,
                "eps": float(self.ask.ball.eps),
                "norm": self.ask.ball.name,
                "protocol": protocol,
                "metric": metric,
                "value": value,
                "low": low,
                "high": high,
                "n": e.n,
                "note": note,
            }
        )

    def _facts(self) -> dict[str, Any]:
        return {
            "data": self.data.name,
            "classes": list(self.twins.classifier.classes),
            "accuracy": self.twins.accuracy,
            "guesses": self.twins.guessing.text,
            "n_clean": len(self.clean),
            "n_patients": len(set(self.clean.groups.tolist())),
            "n_reference": 0 if self.reference is None else len(self.reference),
            "pooled": self.reference is not None and self.reference.pooled,
            "n_held_out": 0 if self.held_out is None else len(self.held_out),
            "n_attacked": {a: len(t) for a, t in self.attacked.items()},
            "n_noise": len(self.noise),
            "eps": float(self.ask.ball.eps),
            "norm": self.ask.ball.name,
            "layers": list(self.ask.layers),
            "seed": self.ask.seed,
            "model": self.twins.model_digest,
        }


def _none_of(twins: Seen) -> Estimate:
    return Estimate(np.nan, np.nan, np.nan, len(twins))


def other_features(
    bench: Bench, others: tuple[Dataset, Dataset], leave_out: Callable[[str, str], None]
) -> tuple[Seen | None, Seen | None]:
    """Features of images for reference and for thresholds; None, and said by leave_out(part, why), where too few."""

    def those(part: Dataset, least: int, what: str) -> Seen | None:
        try:
            return bench.further(part, least=least)
        except InputError as error:
            leave_out(what, str(error))
            return None

    return (
        those(others[0], FITTED, "images to compare with (half of the clean test images serve instead)"),
        those(others[1], THRESHOLD, "thresholds, and with them alarms"),
    )


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
