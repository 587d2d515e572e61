"""Can the attack be seen, and evaded? Detectors as part of an audit, and attacks that know them.

Every detector is one cell, and its evasion one more; twins and their features are cells of the bench. No number picks
the detector that is evaded: all of them are, and the one that the report speaks of is named here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medrobust import code_digest, stats
from medrobust.attacks import Attack
from medrobust.detectors import DETECTORS
from medrobust.detectors.crossfit import Crossfit
from medrobust.errors import InputError
from medrobust.evasion import SelectivePGD, judge, run, together
from medrobust.experiments.adversarial_pairs import Twins
from medrobust.experiments.checks import TOLERATED
from medrobust.experiments.config import digest
from medrobust.experiments.context import Context, Experiment, Outcome, Result, Step
from medrobust.experiments.detection import other_images
from medrobust.experiments.features_cache import Bench
from medrobust.experiments.robustness import Robustness
from medrobust.results import INCONCLUSIVE, OK, Kind, number
from medrobust.stats import Estimate
from medrobust.store import Cell, Store, key
from medrobust.threat import Ball, Untargeted

PAIRS = "adversarial pairs"
"""The step that attacks right images at full strength and reads features; detectors and explanations share it."""
NAMES = ("mahalanobis", "kd", "dfeat")
EVASION = "selective"
"""The attack that knows the detector, as the rows name it."""
LEAD = "mahalanobis"
"""The one that the report's sentences are about, named before any number of the audit is known."""
LAYER = "penultimate"
FPR = 0.05
MOST = 60
"""Images that are attacked once more, at full strength."""
FURTHER, LEAST_FURTHER = 200, 20
"""Other clean images, at most; and below which a threshold of 5 % allows no false alarm at all."""
EVADED = 24
"""Images that are attacked past each detector."""
WIDEST = 4096
"""Features with which a covariance is still estimated and inverted in seconds."""
BESIDE = ("fooled", "detected", "success")
"""Of the plain attack and of the evasion, on the same images: fooled; of these, detected; fooled and not detected."""


class _Timed(Store):
    """The same cells; adds up what the outermost of them took, computed now or before, each once."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seconds, self.depth = 0.0, 0
        self.counted: set[str] = set()

    def once(self, spec: Mapping[str, Any], compute: Callable[[], Result]) -> Cell:
        self.depth += 1
        try:
            cell = super().once(spec, compute)
        finally:
            self.depth -= 1
        name = key(spec)
        if not self.depth and name not in self.counted:
            self.seconds += cell.seconds
        self.counted.add(name)
        return cell


class DetectionExperiment(Experiment):
    """Can the attack of an audit be seen, and can that be evaded? The shown attack, at full strength."""

    name = "detection"

    def __init__(self, context: Context, robustness: Robustness) -> None:
        self.context, self.robustness, self.seed, self.progress = (
            context,
            robustness,
            context.config.seed,
            context.progress,
        )
        self.store = _Timed(context.store.folder)
        self.evasion = SelectivePGD(steps=20)
        self.fits: dict[str, Crossfit] = {}
        self.rows = context.rows()
        self._failure: InputError | None = None
        self._ready = False

    def steps(self) -> Sequence[Step]:
        needs = (f"sweep {self.robustness.main}",)
        detectors = [Step(f"detector {n}", partial(self._step, n), (PAIRS,)) for n in NAMES]
        return [Step(PAIRS, self._prepared, needs), *detectors]

    def outcome(self) -> Outcome:
        """Too few images are no error: the rows say so."""
        self.rows = self.context.rows()
        info = self._info()
        if not self._prepared():
            for name in NAMES:
                self._add_detector(name, [stats.NOTHING] * len(self.measured), str(self._failure))
            self.context.seconds["detect twins"] = self.store.seconds
            return Outcome(self.rows, conditions={"detect": info})
        info |= {"n_clean": len(self.clean), "n_attacked": len(self.attacked), "n_apart": len(self.held_out)}
        self.progress.start("Detectors, and evading them", len(NAMES) * (1 + min(EVADED, len(self.clean))))
        try:
            for name in NAMES:
                self._tried(name)
        finally:
            self.progress.stop()
        self.context.seconds["detect twins"] = self.store.seconds
        return Outcome(self.rows, conditions={"detect": info})

    @property
    def measured(self) -> tuple[tuple[str, str], ...]:
        """Metric and attack of a detector's rows."""
        return (("auroc", self.attack_name), ("alarms", self.attack_name), ("alarms", "none"))

    @property
    def attack_name(self) -> str:
        return self.robustness.shown_attack[0]

    @property
    def attack(self) -> Attack:
        return self.robustness.shown_attack[1]

    @property
    def ball(self) -> Ball:
        return self.robustness.shown_attack[2]

    def _prepared(self) -> bool:
        """Whether pairs and features are there; ``_failure`` says why not."""
        if not self._ready:
            try:
                self._look()
            except InputError as error:
                self._failure = error
            finally:
                self.progress.stop()
            self._ready = True
        return self._failure is None

    def _step(self, name: str) -> None:
        """The cells of one detector; its rows are those of ``outcome``."""
        self.rows = self.context.rows()
        self._tried(name)

    def _tried(self, name: str) -> None:
        """One detector, fitted, and evaded where there is one."""
        if self._prepared() and self._detector(name):
            self._evade(name)

    def _info(self) -> dict[str, Any]:
        made = {name: DETECTORS[name]() for name in NAMES}
        return {
            "attack": self.attack.title,
            "attack_name": self.attack_name,
            "eps": float(self.ball.eps),
            "layer": LAYER,
            "fpr": FPR,
            "lead": LEAD,
            "detectors": [{"name": n, "title": d.title, "source": d.source} for n, d in made.items()],
            "evasion": {
                "name": EVASION,
                "title": self.evasion.title,
                "source": self.evasion.source,
                "settings": self.evasion.settings,
            },
            "n_clean": 0,
            "n_attacked": 0,
            "n_apart": 0,
        }

    # -- pieces of work ----------------------------------------------------------------------------------

    def _look(self) -> None:
        """Features of clean images, of their attacked twins, and of others for comparison and thresholds."""
        system = self.context.system
        self.progress.start("Attacked twins and their features", 2 * MOST + 2 * FURTHER)
        self.twins = Twins(self.store, system.classifier, system.sample, limit=MOST, seed=self.seed)
        self.bench = Bench(self.twins, (LAYER,), self.progress.advance)
        others = other_images(system.data, system.test, self.twins)
        self.reference, self.held_out = (self.bench.further(part, FURTHER, LEAST_FURTHER) for part in others)
        self.others = digest([part.digest() if len(part) else "" for part in others])
        self.clean = self.bench.clean()
        self.attacked = self.bench.attacked(self.attack_name, self.attack, self.ball)
        width = self.clean.features[LAYER].shape[1]
        if width > WIDEST:
            raise InputError(f"the {LAYER} layer has {width} features; an audit reads at most {WIDEST}")

    def _about(self, name: str) -> dict[str, Any]:
        return {
            "detector": code_digest.described(DETECTORS[name]()),
            "layer": LAYER,
            "attack": code_digest.described(self.attack),
            "eps": float(self.ball.eps),
            "fpr": FPR,
            "others": self.others,
            "further": FURTHER,
        }

    def _fit(self, name: str) -> Crossfit:
        """Fitted k times; each image is judged by a detector that saw neither it nor its patient."""
        if name not in self.fits:
            self.fits[name] = Crossfit(
                DETECTORS[name](),
                self.clean,
                self.attacked,
                self.held_out,
                reference=self.reference,
                seed=self.seed,
                fprs=(FPR,),
            )
        return self.fits[name]

    def _detector(self, name: str) -> bool:
        """Its rows; False where there is no detector to evade."""

        def compute() -> Result:
            fit = self._fit(name)
            rates = fit.against(self.attacked)
            found = (rates.auroc, rates.at[FPR], fit.false_alarms()[FPR])
            return {"measured": [_plain(e) for e in found]}, {}

        try:
            facts = self.context.cell(self.twins.part, {"kind": "detect", **self._about(name)}, compute).facts
        except InputError as error:
            self._add_detector(name, [stats.NOTHING] * len(self.measured), str(error))
            return False
        finally:
            self.progress.advance()
        self._add_detector(name, [_estimate(e) for e in facts["measured"]])
        return True

    def _evade(self, name: str) -> None:
        """Attack some images past the detectors that saw none of them, beside the attack that knows of none."""
        about = {
            "kind": "evade",
            "evasion": code_digest.described(self.evasion),
            "most": EVADED,
            "beside": "plain",
            **self._about(name),
        }
        try:
            facts = self.context.cell(self.twins.part, about, lambda: self._evaded(name)).facts
        except InputError as error:
            for attack in (self.attack_name, EVASION):
                self._add_evasion(name, attack, [stats.NOTHING] * len(BESIDE), note=str(error))
            return
        lost, n = facts["blind"], facts["evade"][-1][3]
        doubtful = lost >= max(1, TOLERATED * n)
        note = f"{lost} of {n} images had no usable gradient" if lost else ""
        self._add_evasion(name, self.attack_name, [_estimate(e) for e in facts["plain"]])
        status = INCONCLUSIVE if doubtful else OK
        self._add_evasion(name, EVASION, [_estimate(e) for e in facts["evade"]], status, note)

    def _evaded(self, name: str) -> Result:
        fit, classifier = self._fit(name), self.context.classifier
        # whole folds first: a batch costs the same with one image in it
        chosen = np.argsort(fit.fold, kind="stable")[:EVADED]
        outcomes, blind = [], 0
        for fold in np.unique(fit.fold[chosen]):
            rows = chosen[fit.fold[chosen] == fold]
            part, detector, threshold = self.twins.part.select(rows), fit.detectors[fold], fit.thresholds[fold][FPR]
            images, labels = part.tensors()
            goal = Untargeted(labels)
            done = run(
                self.evasion,
                classifier,
                detector,
                images,
                goal,
                self.ball,
                threshold,
                seed=self.seed,
                ids=part.ids,
                advance=self.progress.advance,
            )
            outcome = judge(
                classifier,
                detector,
                images,
                done.images,
                goal,
                self.ball,
                {FPR: threshold},
                plain=self.twins.pixels(rows, self.attack_name, self.attack, self.ball),
                groups=self.twins.groups[rows],
            )
            outcomes.append(outcome)
            blind += int((torch.from_numpy(~outcome.evaded(FPR)) & done.blind).sum())
        told = together(outcomes)
        plain = (told.plain_fooled, told.plain_detected(FPR), told.plain_success(FPR))
        evaded = (told.fooled, told.detected(FPR), told.success(FPR))
        facts = {"plain": [_plain(e) for e in plain], "evade": [_plain(e) for e in evaded], "blind": blind}
        return facts, {"image": chosen, "evaded": told.evaded(FPR)}

    # -- rows --------------------------------------------------------------------------------------------

    def _add_detector(self, name: str, found: list[Estimate], note: str = "") -> None:
        for (metric, attack), e in zip(self.measured, found, strict=True):
            self._add(Kind.DETECTOR, name, metric, attack, e, note=note)

    def _add_evasion(self, name: str, attack: str, found: list[Estimate], status: str = OK, note: str = "") -> None:
        for metric, e in zip(BESIDE, found, strict=True):
            self._add(Kind.EVASION, name, metric, attack, e, status, note)

    def _add(
        self, kind: Kind, name: str, metric: str, attack: str, e: Estimate, status: str = OK, note: str = ""
    ) -> None:
        if not math.isfinite(e.value):
            status = INCONCLUSIVE
            note = note or ("no image was fooled" if metric == "detected" else "too few images")
        rates: dict[str, Any] = {"detector": name, "at_fpr": None if metric in ("auroc", "fooled") else FPR}
        eps = float(self.ball.eps)
        self.rows.add(kind, metric, e, attack=attack, eps=eps, status=status, note=note, **rates)


def _plain(e: Estimate) -> list[float | int | None]:
    return [*(number(v) for v in e[:3]), int(e.n)]


def _estimate(plain: list[Any]) -> Estimate:
    value, low, high = (math.nan if v is None else float(v) for v in plain[:3])
    return Estimate(value, low, high, int(plain[3]))
