"""Can detectors be evaded? Attacks that know the detector, on images it never saw, at thresholds fixed beforehand.

Each image is attacked against the detector of its fold. Every (detector, fold, eps) is a cell, so that a killed run
goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from medrobust import code_digest, stats
from medrobust.data import Dataset
from medrobust.detectors import DETECTORS, Detector, MaxSoftmax
from medrobust.detectors.crossfit import Crossfit
from medrobust.detectors.detector import LEAST as FITTED
from medrobust.errors import InputError
from medrobust.evasion import Evasion as EvasionAttack
from medrobust.evasion import EvasionOutcome, combine, judge, run, smallest, strongest
from medrobust.experiments import checks
from medrobust.experiments.catalogue import NO_DETECTOR
from medrobust.experiments.clean import CleanExperiment
from medrobust.experiments.conditions import described
from medrobust.experiments.context import Context, Experiment, ExperimentResult, Step, base_name
from medrobust.experiments.detection import DetectionConfig, DetectionExperiment, add_row
from medrobust.experiments.detector_data import DetectorData
from medrobust.experiments.evasion_config import EvasionConfig, evasion_named
from medrobust.results import INCONCLUSIVE, OK, Check, Kind, Rows
from medrobust.stats import NOTHING
from medrobust.store import Result
from medrobust.threat import Ball, Untargeted

QUICK = ("selective", "matching")
"""What is tried at other sizes than that of the pairs."""
PRESSED = 16
"""Images on which more steps and larger eps are tried."""


@dataclass(frozen=True)
class Case:
    """The images of one fold, and the detector that saw none of them. rows: their positions among the pairs."""

    fold: int
    part: Dataset
    rows: np.ndarray
    detector: Detector
    thresholds: dict[float, float]


@dataclass
class _Found:
    """What the evasions of one detector found, image by image. min_eps: inf where no size sufficed."""

    outcomes: list[EvasionOutcome] = field(default_factory=list)
    min_eps: list[np.ndarray] = field(default_factory=list)
    steps: list[np.ndarray] = field(default_factory=list)
    by: list[np.ndarray] = field(default_factory=list)
    rows: list[np.ndarray] = field(default_factory=list)
    no_gradient: int = 0
    """Images that did not get past, on which an evasion had no usable gradient: they prove nothing."""


class EvasionExperiment(Experiment):
    """Every detector of ``data``, fitted on its first attack, and attacks that know it, beside that attack itself.

    ``data.config.fprs`` must hold ``config.goal``; fprs: what is reported. names: of the detectors that are evaded; by
    default those of ``data``, and before them NO_DETECTOR where the config has sizes.
    """

    name = "evasion"

    def __init__(
        self,
        context: Context,
        config: EvasionConfig,
        data: DetectorData,
        fprs: Sequence[float],
        names: Sequence[str] | None = None,
    ) -> None:
        self.context, self.config, self.data, self.fprs = context, config, data, tuple(fprs)
        self.attack = data.config.attacks[0]
        self.names = ([NO_DETECTOR] if config.eps else []) + list(data.config.detectors) if names is None else names
        self.strict = max(self.fprs)

    def steps(self) -> Sequence[Step]:
        evade = [Step(f"evade {name}", partial(self._numbers, name), self.data.ready) for name in self.names]
        return [*self.data.steps(), *evade]

    def outcome(self) -> ExperimentResult:
        outcome, data = ExperimentResult(self.context.rows()), self.data
        if not data.failure:
            data.load()
            outcome.left_out += [(f"evasion {name}", _NO_BANK) for name in self.config.evasions if not self._able(name)]
        for name in self.names:
            if name == NO_DETECTOR and data.failure:
                continue
            numbers = self._numbers(name)
            outcome.rows.adopt(numbers["rows"])
            outcome.checks += [Check.read(check) for check in numbers["checks"]]
            outcome.left_out += [(part, why) for part, why in numbers["left_out"]]
        used = {name: evasion_named(name) for name in self.config.evasions}
        outcome.conditions["evasion"] = {
            "name": self.config.name,
            "attack": self.attack,
            "evasions": {name: described(evasion) for name, evasion in used.items()},
            "n": 0 if data.failure else len(self._chosen(None)),
            "eps": float(data.ball.eps),
            "goal": self.config.goal,
        }
        return outcome

    # -- one detector ------------------------------------------------------------------------------------

    def _numbers(self, name: str) -> Mapping[str, Sequence[Any]]:
        """Rows, checks and what was left out of a detector, from its cell where they are known."""
        if self.data.failure:
            return self._failed(name, self.data.failure)
        compute = partial(self._without_detector if name == NO_DETECTOR else self._evaded, name)
        key = {"kind": "evade", "name": name, **self._key(name), "fprs": [*self.fprs, *self.data.config.fprs]}
        key |= {"evasions": [self._described(e) for e in self.config.evasions]} | asdict(self.config)
        return self.context.cell(self.data.pairs.part, key, compute).facts

    def _evaded(self, name: str) -> Result:
        data, evasions = self.data, self._evasions
        try:
            if data.held_out is None or not evasions:
                raise InputError("no threshold is known" if evasions else "no evasion is left to try")
            fit, why = data.fit(name, self.attack)
        except InputError as error:
            return self._failed(name, str(error)), {}
        left_out = [(f"{name}, fitted on {self.attack}", why)] if why else []
        chosen = self._chosen(fit)
        cases, collected = list(self._cases(fit, chosen)), _Found()
        self.context.progress.start(f"Evading {DETECTORS[name]().title}", len(self._sizes) * len(chosen))
        try:
            for case in cases:
                self._case(name, case, collected)
        finally:
            self.context.progress.stop()
        rows, combined = self._rows(name, collected), combine(collected.outcomes)
        pressed = self._pressed(name, cases[0]) if self.config.pressed else []
        facts = {"rows": rows.plain(), "checks": [c.plain() for c in pressed], "left_out": left_out}
        return facts, {"image": np.concatenate(collected.rows), "evaded": combined.evaded(self.strict)}

    def _failed(self, name: str, why: str) -> Mapping[str, Sequence[Any]]:
        """No number of this detector."""
        rows, required = self._empty(), self.data.config.required
        for attack in (self.attack, self.config.name):
            add_row(rows, Kind.EVASION, "fooled", NOTHING, self.data, why, detector=name, attack=attack)
        return {"rows": rows.plain(), "checks": [], "left_out": [(f"detector {name}", why)] if required else []}

    @property
    def _evasions(self) -> tuple[str, ...]:
        """Those that can be tried: without reference images none that learns from them."""
        return tuple(name for name in self.config.evasions if self._able(name))

    def _able(self, name: str) -> bool:
        return self.data.reference is not None or not evasion_named(name).needs_reference

    @property
    def _quick(self) -> tuple[str, ...]:
        return tuple(e for e in self._evasions if base_name(e) in QUICK) or self._evasions

    @property
    def _sizes(self) -> tuple[float, ...]:
        return self.config.eps or (float(self.data.ball.eps),)

    def _ball(self, eps: float) -> Ball:
        return self.context.ball(eps)

    @property
    def _seed(self) -> int:
        return self.context.config.seed

    def _chosen(self, fit: Crossfit | None) -> np.ndarray:
        """Positions of the images that are attacked."""
        n = len(self.data.pairs)
        order = np.argsort(fit.fold, kind="stable") if fit is not None and self.config.whole_folds else np.arange(n)
        return order[: self.config.attacked]

    def _cases(self, fit: Crossfit, chosen: np.ndarray) -> Iterator[Case]:
        for fold in np.unique(fit.fold[chosen]):
            rows = chosen[fit.fold[chosen] == fold]
            part = self.data.pairs.part.select(rows)
            yield Case(int(fold), part, rows, fit.detectors[fold], fit.thresholds[fold])

    def _key(self, name: str) -> Mapping[str, object]:
        """What the search past a detector depends on, beside images and threshold."""
        return {
            "detector": name,
            **({} if name == NO_DETECTOR else self.data.key(name)),
            "limit": self.data.config.limit,
        }

    @staticmethod
    def _described(evasion: str) -> str:
        return code_digest.described(evasion_named(evasion))

    # -- the search --------------------------------------------------------------------------------------

    def _case(self, name: str, case: Case, collected: _Found) -> None:
        """The outcome at the size of the pairs; the smallest size an image at the strictest threshold."""
        data, (images, labels) = self.data, case.part.tensors()
        goal, strict = Untargeted(labels), case.thresholds[self.strict]
        min_eps, best = np.full(len(images), np.inf), images.clone()
        score, fooled = np.full(len(images), np.inf), np.zeros(len(images), bool)
        for eps in self._sizes:
            main = eps == float(data.ball.eps)
            left = np.arange(len(images)) if main else np.flatnonzero(np.isinf(min_eps))
            if len(left):
                done = self._search(name, case, eps, left, main=main)
                better = done["fooled"] & (~fooled[left] | (done["score"] < score[left]))
                best[left[better]] = torch.from_numpy(done["images"])[better]
                score[left[better]], fooled[left[better]] = done["score"][better], True
                past = done["fooled"] & (done["score"] <= strict)
                min_eps[left[past]] = np.minimum(min_eps[left[past]], eps)
            self.context.progress.advance(len(images))
            if not main:
                continue
            outcome = judge(
                self.context.attacked,
                case.detector,
                images,
                best,
                goal,
                data.ball,
                {fpr: case.thresholds[fpr] for fpr in self.fprs},
                plain=data.pairs.pixels(case.rows, self.attack, data.attacks[self.attack], data.ball),
                groups=data.pairs.groups[case.rows],
            )
            collected.outcomes.append(outcome)
            collected.steps.append(done["steps"])
            collected.by.append(done["by"])
            collected.no_gradient += int((~outcome.evaded(self.strict) & done["no_gradient"]).sum())
        collected.min_eps.append(min_eps)
        collected.rows.append(case.rows)

    def _search(self, name: str, case: Case, eps: float, left: np.ndarray, *, main: bool) -> Mapping[str, np.ndarray]:
        """The strongest evasion of the images ``left`` at ``eps``, kept; its claims are graded again by ``judge``."""
        evasions = self._evasions if main else self._quick
        threshold = case.thresholds[self.config.goal if main else self.strict]
        part = case.part.select(left)

        def compute() -> Result:
            images, labels = part.tensors()
            outcome = strongest(
                self.context.attacked,
                case.detector,
                images,
                Untargeted(labels),
                self._ball(eps),
                threshold,
                evasions=_table(evasions),
                seed=self._seed,
                ids=part.ids,
                reference=self.data.bank,
            )
            return {}, {
                k: getattr(outcome, k).numpy() for k in ("images", "fooled", "score", "steps", "by", "no_gradient")
            }

        return self._kept(part, compute, "evasion", name, evasions, at=eps, threshold=threshold, fold=case.fold)

    def _kept(
        self, part: Dataset, compute: Callable[[], Result], kind: str, name: str, evasions: Sequence[str], **key: object
    ) -> Mapping[str, np.ndarray]:
        searched = {"evasions": [self._described(e) for e in evasions], "norm": self.context.config.norm}
        # not by the context, which would count its seconds twice
        spec = self.data.pairs.key(part, kind=kind, **self._key(name), **searched, **key)
        return self.context.store.once(spec, compute).arrays

    def _without_detector(self, name: str) -> Result:
        """How many images fall at each size where no detector looks: the same search, no threshold in its way."""
        data, evasions = self.data, self._quick
        part = data.pairs.part.select(self._chosen(None))
        fitted_on = next((s for s in (data.clean, data.reference) if s is not None and len(s) >= FITTED), None)
        if fitted_on is None or not evasions:
            right = f"{len(data.clean)} images are classified right, {FITTED} are needed"
            why = right if evasions else "no evasion is left"
            return {"rows": [], "checks": [], "left_out": [("the same search without a detector", why)]}, {}

        images, labels = part.tensors()
        needed = smallest(
            self.context.attacked,
            MaxSoftmax().fit_features(fitted_on.features),
            images,
            Untargeted(labels),
            [self._ball(eps) for eps in self.config.eps],
            np.inf,
            evasions=_table(evasions),
            seed=self._seed,
            ids=part.ids,
            reference=data.bank,
        )
        rows = self._empty()
        self._reach(rows, name, needed.eps, data.pairs.groups[: len(part)])
        return {"rows": rows.plain(), "checks": [], "left_out": []}, {"min_eps": needed.eps}

    def _pressed(self, name: str, case: Case) -> list[Check]:
        """Does the evasion get better with steps and with eps, each tried from nothing? (Tramer et al. 2020)"""
        part = case.part.select(range(min(PRESSED, len(case.part))))
        threshold, eps = case.thresholds[self.strict], float(self.data.ball.eps)
        evasion = self._evasions[0]
        steps = evasion_named(evasion).steps

        def past(at: float, count: int) -> np.ndarray:
            attack = evasion_named(evasion)
            attack.steps = count

            def compute() -> Result:
                images, labels = part.tensors()
                outcome = run(
                    attack,
                    self.context.attacked,
                    case.detector,
                    images,
                    Untargeted(labels),
                    self._ball(at),
                    threshold,
                    seed=self._seed,
                    ids=part.ids,
                    reference=self.data.bank,
                )
                return {}, {"past": (outcome.fooled & (outcome.score <= threshold)).numpy()}

            key = {"at": at, "threshold": threshold, "fold": case.fold, "steps": count}
            return self._kept(part, compute, "evasion pressed", name, [evasion], **key)["past"]

        counts, sizes = [max(1, steps // 4), steps, 2 * steps], [eps / 2, eps, 2 * eps]
        who = f"{evasion} past {name}"
        return [
            checks.grows_with_steps(who, counts, [past(eps, count) for count in counts]),
            checks.grows_with_eps(who, sizes, [past(at, steps) for at in sizes], scale=self.context.grey_scale),
        ]

    # -- rows --------------------------------------------------------------------------------------------

    def _empty(self) -> Rows:
        """For a cell: without names of data and model."""
        return Rows(norm=self.context.rows().norm, seed=self._seed)

    def _rows(self, name: str, collected: _Found) -> Rows:
        """Beside the attack that knows of no detector, on the same images."""
        rows, outcome = self._empty(), combine(collected.outcomes)
        groups, n = outcome.groups, len(outcome.groups)
        note = f"{collected.no_gradient} of {n} images had no usable gradient" if collected.no_gradient else ""
        doubtful = collected.no_gradient >= max(1, checks.TOLERATED * n)

        def add(attack: str, metric: str, estimate: stats.Estimate, fpr: float | None = None, **more: Any) -> None:
            own = attack == self.config.name
            status, why = (INCONCLUSIVE if own and doubtful else OK), note if own else ""
            columns = {"attack": attack, "detector": name, "at_fpr": fpr, **more}
            add_row(rows, Kind.EVASION, metric, estimate, self.data, columns.pop("note", why), status, **columns)

        for attack, fooled, auroc, detected, success in (
            (self.attack, outcome.plain_fooled, outcome.plain_auroc, outcome.plain_detected, outcome.plain_success),
            (self.config.name, outcome.fooled, outcome.auroc, outcome.detected, outcome.success),
        ):
            add(attack, "fooled", fooled)
            add(attack, "auroc", auroc)
            for fpr in self.fprs:
                add(attack, "detected", detected(fpr), fpr)
                add(attack, "success", success(fpr), fpr)
        for fpr in self.fprs:
            add(self.config.name, "success_saved", outcome.success_saved(fpr), fpr)
        by = np.concatenate(collected.by)
        winners = {e: int((by == i).sum()) for i, e in enumerate(self._evasions)}
        steps = stats.mean(np.concatenate(collected.steps), groups)
        add(self.config.name, "steps", steps, note=", ".join(f"{e} {k}" for e, k in winners.items() if k))
        if self.config.eps:
            self._reach(rows, name, np.concatenate(collected.min_eps), groups)
        return rows

    def _reach(self, rows: Rows, name: str, min_eps: np.ndarray, groups: np.ndarray) -> None:
        """Share of the images that each size suffices for, and the size that suffices for half of them."""
        attack, fpr = self.config.name, self.strict
        for eps in self.config.eps:
            share = stats.proportion(min_eps <= eps, groups)
            add_row(
                rows, Kind.EVASION, "reach", share, self.data, "", detector=name, attack=attack, at_fpr=fpr, eps=eps
            )
        if name != NO_DETECTOR:
            median, largest = stats.median(min_eps, groups), max(self.config.eps)
            note = "above the largest eps" if np.isinf(median.value) else ""
            metric = "min_eps_median"
            rows.add(Kind.EVASION, metric, median, detector=name, attack=attack, at_fpr=fpr, eps=largest, note=note)


_NO_BANK = "it learns from other clean images, of which there are too few"


def _table(evasions: Sequence[str]) -> dict[str, Callable[[], EvasionAttack]]:
    return {name: partial(evasion_named, name) for name in evasions}


def experiments(context: Context, options: Mapping[str, Any]) -> list[Experiment]:
    """Of `medrobust evade`: the detectors without an attacker who knows them, then with one."""
    detectors = DetectionConfig.read(options["detection"])
    config = EvasionConfig.read(options["evasion"])
    thresholds = replace(detectors, fprs=tuple(dict.fromkeys((*detectors.fprs, config.goal))))
    data = DetectorData(context, thresholds, partial(context.ball, options["eps"]))
    return [
        CleanExperiment(context),
        DetectionExperiment(context, thresholds, [data]),
        EvasionExperiment(context, config, data, detectors.fprs),
    ]
