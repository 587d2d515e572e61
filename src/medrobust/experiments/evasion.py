"""Can detectors be evaded? Attacks that know the detector, on images it never saw, at thresholds fixed beforehand.

Detectors are cross-fitted on clean images and an attack's twins (clean protocol); each image is attacked against the
detector of its fold. Every (detector, fold, eps) is a cell in DIR/cells, so that a killed run goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medrobust import code_digest, stats
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.detectors import DETECTORS, Detector, Features, MaxSoftmax
from medrobust.detectors.crossfit import FPRS, Crossfit, fit_what_can_be
from medrobust.detectors.detector import LEAST as FITTED
from medrobust.errors import InputError
from medrobust.evasion import EVASIONS, EvasionOutcome, judge, run, smallest, strongest, together
from medrobust.experiments import checks
from medrobust.experiments.adversarial_pairs import Twins
from medrobust.experiments.config import attack_named
from medrobust.experiments.detection import other_features, other_images
from medrobust.experiments.features_cache import Bench
from medrobust.images import Images
from medrobust.progress import NoProgress, Progress
from medrobust.stats import Estimate
from medrobust.store import Store
from medrobust.threat import Ball, Linf, Untargeted

CALM = 0.5
"""At its own eps an evasion goes on until an image looks cleaner than half of the clean ones, not just past 5 %."""

QUICK = ("selective", "matching")
"""What is tried at the other eps."""

BARE = "none"
"""Stands in a row for no detector at all."""

PRESSED = 16
"""Images on which more steps and larger eps are tried."""


@dataclass(frozen=True)
class EvadeAsk:
    """What is asked. eps: ascending, among them ``ball.eps``, at which detectors were shown attacks."""

    detectors: tuple[str, ...] = tuple(DETECTORS)
    evasions: tuple[str, ...] = tuple(EVASIONS)
    fitted_on: str = "pgd"
    ball: Ball = field(default_factory=lambda: Linf(1 / 255))
    eps: tuple[float, ...] = (0.5 / 255, 1 / 255, 2 / 255, 4 / 255)
    layers: tuple[str, ...] = ("penultimate",)
    limit: int | None = 200
    """Images that detectors are fitted on, together with their twins."""
    attacked: int = 60
    """Of them, how many are attacked past the detector of their fold."""
    fprs: tuple[float, ...] = FPRS
    pressed: bool = True
    """Check that more steps and larger eps do not do worse."""
    seed: int = 0

    def __post_init__(self) -> None:
        for kind, names, known in (("detector", self.detectors, DETECTORS), ("evasion", self.evasions, EVASIONS)):
            for name in names:
                if name not in known:
                    raise InputError(f"{kind} {name!r} is not known; choose from {', '.join(known)}")
        if not self.detectors or not self.evasions or not self.layers or self.attacked < 1:
            raise InputError("name at least one detector, one evasion, one layer and one image to attack")
        if tuple(sorted(set(self.eps))) != self.eps or float(self.ball.eps) not in self.eps:
            raise InputError("eps must be ascending and hold the one that detectors are fitted at")
        attack_named(self.fitted_on)


@dataclass(frozen=True)
class Case:
    """The images of one fold, and the detector that saw none of them."""

    fold: int
    part: Dataset
    rows: np.ndarray
    detector: Detector
    thresholds: dict[float, float]


class Evading:
    """One classifier and its images under one EvadeAsk."""

    def __init__(
        self,
        ask: EvadeAsk,
        folder: Path,
        classifier: Classifier,
        data: Dataset,
        test: Dataset,
        progress: Progress | None = None,
    ) -> None:
        self.ask, self.progress, self.classifier = ask, progress or NoProgress(), classifier
        data, test = data.for_classes(classifier.classes), test.for_classes(classifier.classes)
        Features(classifier, ask.layers)  # a wrong name is found before anything is computed
        self.twins = Twins(Store(Path(folder)), classifier, test, limit=ask.limit, seed=ask.seed, least=1)
        self.bench = Bench(self.twins, ask.layers, self.progress.advance)
        self.data, self.others = data, other_images(data, test, self.twins)
        self.attack = attack_named(ask.fitted_on)
        self.rows: list[dict[str, Any]] = []
        self.checks: list[dict[str, object]] = []
        self.left_out: list[dict[str, str]] = []
        self.evasions = ask.evasions

    def run(self) -> dict[str, Any]:
        """All rows, checks, what was left out for lack of images, and the facts they stand on. Writes only cells."""
        ask = self.ask
        self.progress.start("Attacking, reading features", 2 * len(self.twins))
        self.clean = self.bench.clean()
        self.attacked = self.bench.attacked(ask.fitted_on, self.attack, ask.ball)
        self.progress.stop()
        self.progress.start("Reading further clean images", sum(len(p) for p in self.others))
        self.reference, self.held_out = other_features(self.bench, self.others, self._leave_out)
        self.progress.stop()
        self._drop_evasions()
        self.progress.start("Evading detectors", len(ask.detectors) * len(ask.eps) * min(ask.attacked, len(self.clean)))
        self._bare()
        for name in ask.detectors:
            self._one(name)
        self.progress.stop()
        return {"facts": self._facts(), "rows": self.rows, "checks": self.checks, "left_out": self.left_out}

    def _leave_out(self, part: str, why: str) -> None:
        self.left_out.append({"part": part, "why": why})

    def _drop_evasions(self) -> None:
        """Without reference images those that learn from them are left out."""
        if self.reference is not None:
            return
        for name in self.evasions:
            if EVASIONS[name]().needs_reference:
                self._leave_out(f"evasion {name}", "it learns from other clean images, of which there are too few")
        self.evasions = tuple(e for e in self.evasions if not EVASIONS[e]().needs_reference)

    @property
    def _bank(self) -> Mapping[str, torch.Tensor] | None:
        return None if self.reference is None else self.reference.features

    def _bare(self) -> None:
        """How many images fall at each eps where no detector looks: the same search, no threshold in its way."""
        part, names = self.twins.part.select(range(min(self.ask.attacked, len(self.twins)))), self._quick()
        fitted_on = next((s for s in (self.clean, self.reference) if s is not None and len(s) >= FITTED), None)
        if fitted_on is None or not names:
            why = (
                f"{len(self.clean)} images are classified right, {FITTED} are needed" if names else "no evasion is left"
            )
            self._leave_out("the same search without a detector", why)
            return
        spec = self.twins.key(
            part,
            kind="no detector",
            evasions=[code_digest.described(EVASIONS[e]()) for e in names],
            norm=self.ask.ball.name,
            eps=list(self.ask.eps),
            limit=self.ask.limit,
        )

        def compute() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
            images, labels = part.tensors()
            needed = smallest(
                self.classifier,
                MaxSoftmax().fit_features(fitted_on.features),
                images,
                Untargeted(labels),
                [self._ball(e) for e in self.ask.eps],
                np.inf,
                evasions={e: EVASIONS[e] for e in names},
                seed=self.ask.seed,
                ids=part.ids,
                reference=self._bank,
            )
            return {}, {"star": needed.eps}

        star = self.twins.store.once(spec, compute).arrays["star"]
        for size in self.ask.eps:
            share = stats.proportion(star <= size, self.twins.groups[: len(part)])
            self._add(BARE, size, f"reach@{max(self.ask.fprs):g}", share)

    def _quick(self) -> tuple[str, ...]:
        return tuple(e for e in self.evasions if e in QUICK) or self.evasions

    # -- one detector ------------------------------------------------------------------------------------

    def _one(self, name: str) -> None:
        try:
            if self.held_out is None or not self.evasions:
                raise InputError("no threshold is known" if self.evasions else "no evasion is left to try")
            fit, why = fit_what_can_be(
                DETECTORS[name](),
                self.clean,
                self.attacked,
                self.held_out,
                reference=self.reference,
                seed=self.ask.seed,
                fprs=(*self.ask.fprs, CALM),
            )
        except InputError as error:
            self._leave_out(f"detector {name}", str(error))
            self._add(name, float(self.ask.ball.eps), "fooled", stats.NOTHING, str(error))
            return
        if why:
            self._leave_out(f"{name}, fitted on {self.ask.fitted_on}", why)
        for fpr, share in fit.against(self.attacked).at.items():
            self._add(name, float(self.ask.ball.eps), f"all_plain_detected@{fpr:g}", share)
        outcomes, stars, steps, by = [], [], [], []
        cases = list(self._cases(fit))
        for case in cases:
            outcome, star, spent, found = self._case(name, case)
            outcomes.append(outcome)
            stars.append(star)
            steps.append(spent)
            by.append(found)
        star, groups = np.concatenate(stars), np.concatenate([o.groups for o in outcomes])
        self._numbers(name, together(outcomes), star, groups, np.concatenate(steps), np.concatenate(by))
        if self.ask.pressed:
            self._press(name, cases[0])

    def _cases(self, fit: Crossfit) -> Iterator[Case]:
        mine = fit.fold[: self.ask.attacked]
        for fold in np.unique(mine):
            rows = np.flatnonzero(mine == fold)
            part = self.twins.part.select(rows)
            yield Case(int(fold), part, rows, fit.detectors[fold], fit.thresholds[fold])

    def _case(self, name: str, case: Case) -> tuple[EvasionOutcome, np.ndarray, np.ndarray, np.ndarray]:
        """The outcome at the eps of the ask, eps* an image at the strictest threshold, steps, and which evasion."""
        images, labels = case.part.tensors()
        goal, strict = Untargeted(labels), case.thresholds[max(self.ask.fprs)]
        star, best = np.full(len(images), np.inf), images.clone()
        outcome, steps, by = None, np.zeros(len(images)), np.zeros(len(images))
        score, fooled = np.full(len(images), np.inf), np.zeros(len(images), bool)
        for eps in self.ask.eps:
            main = eps == float(self.ask.ball.eps)
            left = np.arange(len(images)) if main else np.flatnonzero(np.isinf(star))
            found = self._cell(name, case, eps, left, images, labels, main=main)
            self.progress.advance(len(images))
            if found is None:
                continue
            better = found["fooled"] & (~fooled[left] | (found["score"] < score[left]))
            best[left[better]] = torch.from_numpy(found["images"])[better]
            score[left[better]], fooled[left[better]] = found["score"][better], True
            past = found["fooled"] & (found["score"] <= strict)
            star[left[past]] = np.minimum(star[left[past]], eps)
            if main:
                steps, by = found["steps"], found["by"]
                outcome = judge(
                    self.classifier,
                    case.detector,
                    images,
                    best,
                    goal,
                    self._ball(eps),
                    {f: case.thresholds[f] for f in self.ask.fprs},
                    plain=self.twins.pixels(case.rows, self.ask.fitted_on, self.attack, self.ask.ball),
                    groups=self.twins.groups[case.rows],
                )
        assert outcome is not None
        return outcome, star, steps, by

    def _cell(
        self, name: str, case: Case, eps: float, left: np.ndarray, images: Images, labels: torch.Tensor, *, main: bool
    ) -> dict[str, np.ndarray] | None:
        """The strongest evasion of the images ``left`` at ``eps``, kept; the claim is graded again by ``judge``."""
        if not len(left):
            return None
        names = self.evasions if main else self._quick()
        threshold = case.thresholds[CALM if main else max(self.ask.fprs)]
        ids = [case.part.ids[i] for i in left]
        spec = self.twins.key(
            case.part.select(left),
            kind="evasion",
            detector=name,
            settings=code_digest.described(case.detector),
            layers=list(self.ask.layers),
            fitted_on=self.ask.fitted_on,
            fold=case.fold,
            limit=self.ask.limit,
            eps=eps,
            fitted_at=[self.ask.ball.name, float(self.ask.ball.eps)],
            evasions=[code_digest.described(EVASIONS[e]()) for e in names],
            threshold=threshold,
        )

        def compute() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
            found = strongest(
                self.classifier,
                case.detector,
                images[left],
                Untargeted(labels[left]),
                self._ball(eps),
                threshold,
                evasions={e: EVASIONS[e] for e in names},
                seed=self.ask.seed,
                ids=ids,
                reference=self._bank,
            )
            arrays = {k: getattr(found, k).numpy() for k in ("images", "fooled", "score", "steps", "by", "blind")}
            return {}, arrays

        return self.twins.store.once(spec, compute).arrays

    def _ball(self, eps: float) -> Ball:
        return type(self.ask.ball)(eps)

    # -- checks ------------------------------------------------------------------------------------------

    def _press(self, name: str, case: Case) -> None:
        """Does the evasion get better with steps and with eps, each tried from nothing? (Tramer et al. 2020)"""
        images, labels = case.part.select(range(min(PRESSED, len(case.part)))).tensors()
        goal, ids = Untargeted(labels), case.part.ids[: len(images)]
        threshold, eps = case.thresholds[max(self.ask.fprs)], float(self.ask.ball.eps)
        evasion = self.evasions[0]
        steps = vars(EVASIONS[evasion]())["steps"]

        def past(at: float, count: int) -> np.ndarray:
            made = EVASIONS[evasion]()
            made.steps = count
            spec = self.twins.key(
                case.part.select(range(len(images))),
                kind="evasion pressed",
                detector=name,
                settings=code_digest.described(case.detector),
                evasion=code_digest.described(made),
                eps=at,
                threshold=threshold,
                fold=case.fold,
                layers=list(self.ask.layers),
                fitted_on=self.ask.fitted_on,
                limit=self.ask.limit,
            )

            def compute() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
                found = run(
                    made,
                    self.classifier,
                    case.detector,
                    images,
                    goal,
                    self._ball(at),
                    threshold,
                    seed=self.ask.seed,
                    ids=ids,
                    reference=self._bank,
                )
                return {}, {"past": (found.fooled & (found.score <= threshold)).numpy()}

            return self.twins.store.once(spec, compute).arrays["past"]

        counts = [max(1, steps // 4), steps, 2 * steps]
        found = checks.grows_with_steps(f"{evasion} past {name}", counts, [past(eps, c) for c in counts])
        sizes = [eps / 2, eps, 2 * eps]
        more = checks.grows_with_eps(f"{evasion} past {name}", sizes, [past(e, steps) for e in sizes])
        self.checks += [found.plain(), more.plain()]

    # -- rows --------------------------------------------------------------------------------------------

    def _numbers(
        self, name: str, told: EvasionOutcome, star: np.ndarray, groups: np.ndarray, steps: np.ndarray, by: np.ndarray
    ) -> None:
        eps = float(self.ask.ball.eps)
        self._add(name, eps, "fooled", told.fooled)
        self._add(name, eps, "plain_fooled", told.plain_fooled)
        self._add(name, eps, "auroc", told.auroc)
        self._add(name, eps, "plain_auroc", told.plain_auroc)
        for fpr in self.ask.fprs:
            self._add(name, eps, f"detected@{fpr:g}", told.detected(fpr))
            self._add(name, eps, f"plain_detected@{fpr:g}", told.plain_detected(fpr))
            self._add(name, eps, f"success@{fpr:g}", told.success(fpr))
            self._add(name, eps, f"success_saved@{fpr:g}", told.success_saved(fpr))
        strict = max(self.ask.fprs)
        for size in self.ask.eps:
            self._add(name, size, f"reach@{strict:g}", stats.proportion(star <= size, groups))
        self._add(name, max(self.ask.eps), f"eps_median@{strict:g}", stats.median(star, groups))
        winners = {e: int((by == i).sum()) for i, e in enumerate(self.evasions)}
        self._add(name, eps, "steps", stats.mean(steps, groups), ", ".join(f"{e} {k}" for e, k in winners.items() if k))

    def _add(self, detector: str, eps: float, metric: str, e: Estimate, note: str = "") -> None:
        value, low, high = (float(v) if np.isfinite(v) else None for v in e[:3])
        self.rows.append(
            {
                "detector": detector,
                "fitted_on": self.ask.fitted_on,
                "eps": eps,
                "norm": self.ask.ball.name,
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
            "classes": list(self.classifier.classes),
            "n_clean": len(self.clean),
            "n_fitted_on": len(self.attacked),
            "n_reference": 0 if self.reference is None else len(self.reference),
            "n_held_out": 0 if self.held_out is None else len(self.held_out),
            "pooled": self.reference is not None and self.reference.pooled,
            "n_attacked": min(self.ask.attacked, len(self.clean)),
            "eps": float(self.ask.ball.eps),
            "norm": self.ask.ball.name,
            "layers": list(self.ask.layers),
            "evasions": list(self.evasions),
            "seed": self.ask.seed,
            "model": self.twins.model_digest,
            "guesses": self.twins.guessing.text,
        }
