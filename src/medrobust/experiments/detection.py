"""Can attacks be detected? Detectors fitted and tested on one classifier's images (Ma et al. 2020, arXiv:1907.10456).

Features and the numbers of each detector are cells, so that a killed run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from medrobust import detectors as detectors_room
from medrobust.data.corruptions import suited
from medrobust.detectors import DETECTORS, Guard, clustered, embedding
from medrobust.detectors.crossfit import Crossfit, Rates, by_layer
from medrobust.errors import InputError
from medrobust.experiments.clean import CleanExperiment
from medrobust.experiments.conditions import described
from medrobust.experiments.context import Context, Experiment, ExperimentResult, Step
from medrobust.experiments.detector_data import DetectorConfig, DetectorData
from medrobust.results import INCONCLUSIVE, OK, Kind, Rows
from medrobust.stats import NOTHING, Estimate
from medrobust.store import Result

PROTOCOLS = ("clean", "paper")
LEAST = 10
"""Attacked images without which no detector is fitted on an attack."""
NO_ATTACK = "none"
"""What a detector was fitted on where the attacked images were too few and it needs none."""
PREVALENCE = 0.001
"""One attacked study in 1,000: a guess, for the predictive value; nobody knows the true share."""


@dataclass(frozen=True)
class DetectionConfig(DetectorConfig):
    """What is measured of the detectors. The first detector is the one that a report's sentences are about."""

    protocols: tuple[str, ...] = PROTOCOLS
    main: str = "pgd"
    """The attack that guards are fitted on, where it is among the attacks; else their first."""
    prevalence: float = PREVALENCE

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.protocols:
            if name not in PROTOCOLS:
                raise InputError(f"protocol {name!r} is not known; choose clean, paper or both")
        if not 0 < self.prevalence < 1:
            raise InputError(f"prevalence is a share between 0 and 1, got {self.prevalence:g}")

    @property
    def guarded(self) -> str:
        """The attack that guards are fitted on."""
        return next((a for a in self.attacks if a.partition(":")[0] == self.main), self.attacks[0])


class DetectionExperiment(Experiment):
    """Every detector, fitted on each attack and tested on all of them, on noise and on corruptions.

    data: one entry a size of attack. Rows: ``attack`` is the attack tested on, "none" for images without an attack,
    "noise"; ``fitted_on`` the one fitted on.
    """

    name = "detection"

    def __init__(self, context: Context, config: DetectionConfig, data: Sequence[DetectorData]) -> None:
        self.context, self.config, self.data = context, config, tuple(data)

    def steps(self) -> Sequence[Step]:
        steps: list[Step] = []
        for data in self.data:
            names = self.config.detectors
            fits = [Step(f"detector {n}{data.label}", partial(self._numbers, data, n), data.ready) for n in names]
            steps += [*data.steps(), *fits]
        return steps

    def outcome(self) -> ExperimentResult:
        outcome = ExperimentResult(self.context.rows())
        for data in self.data:
            before = len(outcome.rows.rows)
            for name in self.config.detectors:
                outcome.rows.adopt(self._numbers(data, name))
            if not data.failure:
                data.load()
                outcome.left_out += data.left_out
            for row in outcome.rows.rows[before:]:
                if self.config.required and row.metric == "auroc" and row.value is None and row.note:
                    how = ", as published" if row.get("protocol") == "paper" else ""
                    outcome.left_out.append((f"{row.get('detector')}, fitted on {row.get('fitted_on')}{how}", row.note))
        first, detectors = self.data[0], {name: DETECTORS[name]() for name in self.config.detectors}
        outcome.conditions["detection"] = {
            "detectors": {name: {"title": d.title, "source": d.source} for name, d in detectors.items()},
            "attacks": {name: described(attack) for name, attack in first.attacks.items()},
            "guarded": self.config.guarded,
            "layers": list(self.config.layers),
            "fprs": list(self.config.fprs),
            "prevalence": self.config.prevalence,
            "sizes": [data.counts for data in self.data],
        }
        if self.config.required:  # a run of detectors alone: these are the images that it attacks
            patients = first.pairs.part.patients
            outcome.conditions["n_attacked"] = len(first.pairs)
            outcome.conditions["n_patients_attacked"] = None if patients is None else int(np.unique(patients).size)
        return outcome

    # -- one detector ------------------------------------------------------------------------------------

    def _numbers(self, data: DetectorData, name: str) -> Sequence[Mapping[str, Any]]:
        """The rows of a detector, from its cell where they are known."""
        if data.failure:
            collected = _Found(self.context, data, name)
            collected.add(self.config.guarded, "auroc", NOTHING, note=data.failure, fitted_on=self.config.guarded)
            return collected.rows.plain()

        def compute() -> Result:
            collected = _Found(self.context, data, name)
            self._fitted_on_each(collected)
            self._layers(collected)
            return {"rows": collected.rows.plain()}, {}

        key = {
            "kind": "detector",
            **data.key(name),
            "protocols": list(self.config.protocols),
            "guarded": self.config.guarded,
            "prevalence": self.config.prevalence,
            "corruptions": [*map(list, data.config.corruptions), data.config.corrupted],
        }
        return self.context.cell(data.pairs.part, key, compute).fact("rows", list)

    def _fitted_on_each(self, collected: _Found) -> None:
        data, guarded = collected.data, self.config.guarded
        for fitted_on in self.config.attacks:
            columns = {"fitted_on": fitted_on, "protocol": "clean"}
            none = Estimate(np.nan, np.nan, np.nan, len(data.attacked(fitted_on)))
            if "paper" in self.config.protocols:
                try:
                    self._as_published(collected, fitted_on)
                except InputError as error:
                    collected.add(fitted_on, "auroc", none, note=str(error), fitted_on=fitted_on, protocol="paper")
            if "clean" not in self.config.protocols:
                continue
            try:
                fit, why = data.fit(collected.detector, fitted_on)
            except InputError as error:
                collected.add(fitted_on, "auroc", none, note=str(error), **columns)
                continue
            if why:
                collected.add(fitted_on, "auroc", none, note=why, **columns)
                columns["fitted_on"] = NO_ATTACK
            if not why or fitted_on == guarded:  # without attacks it is the same one for all of them
                for tested_on in self.config.attacks:
                    collected.add_rates(tested_on, fit.against(data.attacked(tested_on)), **columns)
            if fitted_on == guarded:
                self._false_alarms(collected, fit, columns)

    def _false_alarms(self, collected: _Found, fit: Crossfit, columns: Mapping[str, Any]) -> None:
        """Of clean, noisy and corrupted images that are classified right."""
        data, prevalence = collected.data, self.config.prevalence
        hits = fit.against(data.attacked(self.config.guarded)).at
        for fpr, share in fit.false_alarms().items():
            if data.held_out is None:
                break
            at = {"at_fpr": fpr, **columns}
            collected.add("none", "alarms", share, **at)
            collected.add("none", "alarms_per_1000", clustered.per_thousand(share), **at)
            value = clustered.predictive_value(hits[fpr], share, prevalence)
            collected.add("none", "predictive_value", value, note=f"{prevalence:g} attacked", **at)
        collected.add_rates("noise", fit.against(data.noise), **columns)
        for (corruption, severity), images in data.corrupted.items():
            collected.add_rates("none", fit.against(images), corruption=corruption, severity=severity, **columns)

    def _as_published(self, collected: _Found, attack: str) -> None:
        """The paper's protocol, with its leaks."""
        data = collected.data
        result = detectors_room.evaluate(
            DETECTORS[collected.detector](),
            data.clean.features,
            data.tried(attack).features,
            protocol="paper",
            groups=data.clean.groups.tolist(),
            seed=self.context.config.seed,
            reference=data.bank,
            reference_labels=None if data.reference is None else data.reference.classes,
        )
        columns = {"fitted_on": attack, "protocol": "paper"}
        collected.add(attack, "auroc", result.auroc, **columns)
        collected.add(attack, "seen", result.tpr_at_1, at_fpr=0.01, **columns)
        collected.add(attack, "seen", result.tpr_at_5, at_fpr=0.05, **columns)

    def _layers(self, collected: _Found) -> None:
        """Each layer by itself, for detectors that read one, against the guarded attack."""
        data, guarded, layers = collected.data, self.config.guarded, self.config.layers
        if len(layers) < 2 or "clean" not in self.config.protocols or len(data.attacked(guarded)) < LEAST:
            return
        try:
            by_name = by_layer(
                DETECTORS[collected.detector](),
                layers,
                data.clean,
                data.attacked(guarded),
                data.held_out,
                reference=data.reference,
                seed=self.context.config.seed,
            )
        except InputError:  # the same is said of the detector as a whole
            return
        for layer, rates in by_name.items():
            collected.add_rates(guarded, rates, fitted_on=guarded, protocol="clean", layer=layer)


class _Found:
    """Collects the rows of one detector, without names of data and model, for its cell."""

    def __init__(self, context: Context, data: DetectorData, detector: str) -> None:
        self.data, self.detector = data, detector
        self.rows = Rows(norm=context.rows().norm, seed=context.config.seed)

    def add(self, attack: str, metric: str, estimate: Estimate, note: str = "", **columns: Any) -> None:
        add_row(
            self.rows,
            Kind.DETECTOR,
            metric,
            estimate,
            self.data,
            note,
            attack=attack,
            detector=self.detector,
            **columns,
        )

    def add_rates(self, attack: str, rates: Rates, **columns: Any) -> None:
        """attack: tested on."""
        self.add(attack, "auroc", rates.auroc, **columns)
        self.add(attack, "auroc_paired", rates.paired, **columns)
        for fpr in rates.at:
            self.add(attack, "alarms", rates.at[fpr], at_fpr=fpr, **columns)
            self.add(attack, "seen", rates.seen[fpr], at_fpr=fpr, **columns)


class GuardExperiment(Experiment):
    """A picture of the features, DIR/tsne.png, and each detector as a guard to use, DIR/guards; no numbers.

    Each detector is fitted on all images and the guarded attack's, and its threshold set for ``fpr``.
    """

    name = "guards"

    def __init__(self, detection: DetectionExperiment, fpr: float) -> None:
        self.detection, self.data, self.fpr = detection, detection.data[-1], fpr
        self.attack = detection.config.guarded

    def steps(self) -> Sequence[Step]:
        return ()

    def outcome(self) -> ExperimentResult:
        outcome, run = ExperimentResult(self.detection.context.rows()), self.data.context.store.run
        for name, make in (("tsne.png", self.picture), ("guards", self._guards)):
            if not make(run.entry(name), outcome):
                run.remove(name)
        return outcome

    def picture(self, path: Any, outcome: ExperimentResult) -> bool:
        """t-SNE of the clean images and the attacked ones, in the layer that detectors read."""
        data, layer = self.data, self.detection.config.layers[-1]
        attacked, seed = data.attacked(self.attack), data.context.config.seed
        try:
            points = embedding.embed(np.concatenate([data.clean.features[layer], attacked.features[layer]]), seed)
        except InputError as error:
            outcome.left_out.append(("picture", str(error)))
            return False
        truth = data.clean.predicted.numpy()  # these are classified right
        labels = np.concatenate([truth, truth[attacked.pair_of]])
        title = f"{layer} features, {self.attack}, {data.ball}"
        is_attacked = np.arange(len(labels)) >= len(truth)
        embedding.draw(path, points, labels, is_attacked, data.context.classifier.classes, title)
        return True

    def _guards(self, folder: Any, outcome: ExperimentResult) -> bool:
        saved = False
        for name in self.detection.config.detectors:
            try:
                self._guard(name).save(folder / name)
                saved = True
            except InputError as error:
                outcome.left_out.append((f"guard {name}", str(error)))
        return saved

    def _guard(self, name: str) -> Guard:
        data = self.data
        clean, attacked, held_out, reference = data.clean, data.attacked(self.attack), data.held_out, data.reference
        if held_out is None:
            raise InputError("there are no images for its threshold")
        if len(attacked) < LEAST:
            raise InputError(f"only {len(attacked)} attacked images succeeded, {LEAST} are needed to fit one")
        detector = DETECTORS[name]().fit(
            data.features.features,
            clean.features,
            attacked.features,
            reference=data.bank,
            labels=None if reference is None else reference.classes,
            groups=clean.groups.tolist(),
            adversarial_groups=attacked.groups.tolist(),
            seed=data.context.config.seed,
        )
        scores = detector.score_features(held_out.features, held_out.predicted)
        return Guard(data.context.classifier, detector, detector.threshold_at(scores, self.fpr))


def add_row(
    rows: Rows,
    kind: Kind,
    metric: str,
    estimate: Estimate,
    data: DetectorData,
    note: str,
    status: str = OK,
    **columns: Any,
) -> None:
    """One number at the size of the attack; inconclusive where there is none."""
    if not np.isfinite(estimate.value):
        estimate = NOTHING._replace(n=estimate.n)
        status = INCONCLUSIVE
        note = note or ("no image was fooled" if metric == "detected" else "too few images")
    rows.add(kind, metric, estimate, **{"eps": float(data.ball.eps), "status": status, "note": note, **columns})


def experiments(context: Context, options: Mapping[str, Any]) -> list[Experiment]:
    """Of `medrobust detect`; the sizes of the attacks are the config's eps. Corruptions are tested once."""
    config = DetectionConfig.read(options["detection"])
    data: list[DetectorData] = []
    sizes = context.config.eps
    for eps in sizes:
        size = context.grey_scale.text(eps) if context.config.norm == "linf" else f"{eps:.4g}"
        names = suited(options["modality"], context.sample.channels) if config.corrupted and not data else ()
        corruptions = tuple((name, severity) for name in names for severity in options["severities"])
        own = replace(config, corruptions=corruptions)
        label = f" at {size}" if len(sizes) > 1 else ""
        data.append(DetectorData(context, own, partial(context.ball, eps), label=label))
    detection = DetectionExperiment(context, config, data)
    follow = any(attack.uses_gradient for attack in data[0].attacks.values())
    return [CleanExperiment(context, gradient=follow), detection, GuardExperiment(detection, options["fpr"])]


def options(config: DetectionConfig, fpr: float) -> Mapping[str, object]:
    """For ``experiments``. fpr: of the guards."""
    return {"detection": asdict(config), "fpr": fpr}
