"""What the rows say, decided once: the strongest attack, which numbers are in doubt, and the verdict.

The rules are lopsided on purpose. One success proves that a model can be fooled; no failure proves that it
cannot. So a failed check or a vanished gradient never weakens the verdict "fooled", and always takes away
the verdict "withstood".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np

from medrobust import stats
from medrobust.grey_scale import NOTICED, reported_size
from medrobust.report.comparison import Share
from medrobust.report.noise_words import BesideNoise
from medrobust.report.run import PROBES, WORST, Run, same
from medrobust.report.words import listing
from medrobust.results import GRADIENT, INCONCLUSIVE, OK, Kind, Row, Rows, among

SINGLE_STEP = ("fgsm",)
"""Too weak to show on their own that a model withstands anything."""
TOLERATED_SHARE = 0.05
"""Share of images without a usable gradient above which an attack's numbers are in doubt."""
FEW = 50
"""Fewer attacked images than this and the page warns of it first."""
WHOLE_AUDIT = ("eps 0 equals clean",)
"""Checks of one attack that put every attack in doubt when they fail."""


class Verdict(Enum):
    NOTHING = "no attack was measured"
    CHANCE = "the classifier does not beat guessing"
    FOOLED = "accuracy halves on the grid"
    WEAKENED = "accuracy falls, but does not halve"
    WITHSTOOD = "no marked effect on the grid"
    INCONCLUSIVE = "the attacks cannot be believed"


@dataclass(frozen=True)
class Flip:
    """Of the n images of class `source` that were read correctly, the share that is turned into `target`."""

    source: str
    target: str
    row: Row


@dataclass(frozen=True)
class Findings:
    run: Run
    doubts: dict[str, list[str]] = field(default_factory=dict)
    """attack -> why its numbers are in doubt."""
    shaken: list[str] = field(default_factory=list)
    """Failed checks that concern the whole audit, not one attack."""
    decisive: list[str] = field(default_factory=list)
    """Failed checks that concern every attack that follows gradients; those attacks are in doubt."""
    unproved: list[str] = field(default_factory=list)
    """Why it is not known whether the gradient is that of the network: the comparison could not have failed."""
    unusable: dict[str, list[str]] = field(default_factory=dict)
    """attack -> why it could not do its work; among its doubts too."""

    @property
    def pages(self) -> frozenset[str]:
        """Values of COMMANDS that sections of its page have."""
        several = self.run.conditions.compared is not None  # and not one classifier
        return frozenset({self.run.command} if several else {self.run.command, "every command"})

    @property
    def pending(self) -> frozenset[str]:
        """Experiments that are still to come."""
        return frozenset(self.run.conditions.pending)

    @cached_property
    def clean(self) -> stats.Estimate | None:
        """Accuracy on the attacked images before any attack; on the test images where that is all there is."""
        labels, predicted = self.run.arrays.get("labels"), self.run.arrays.get("clean_prediction")
        if labels is not None and predicted is not None and labels.shape == predicted.shape and labels.size:
            right = (labels == predicted) | (labels < 0)  # a finding whose label is unknown counts neither way
            whose, attacked = self.run.arrays.get("test_patients"), self.run.arrays.get("attacked")
            known = whose is not None and attacked is not None and attacked.shape == labels.shape[:1]
            patients = whose[attacked] if known and whose is not None else None
            return stats.proportion(right.all(1) if right.ndim == 2 else right, patients)
        row = self.run.find(Kind.CLEAN, "accuracy")
        if row is None or row.value is None:
            return None
        return row.estimate

    @cached_property
    def attacked(self) -> int | None:
        """Number of attacked images."""
        if self.run.conditions.n_attacked is not None:
            return self.run.conditions.n_attacked
        return max((r.n for a in self.run.measured for r in self.run.curve(a)), default=None)

    @property
    def several(self) -> bool:
        """Whether an image has several findings: read correctly means all of them, and no class excludes another."""
        return self.run.conditions.head == "multilabel"

    def half(self, attack: str, metric: str = "accuracy", **more: Any) -> Row | None:
        """The smallest tested eps at which that attack leaves at most half of the clean accuracy."""
        if self.clean is None:
            return None
        for row in self.run.curve(attack, metric, **more):
            if row.value is not None and row.value <= self.clean.value / 2:
                return row
        return None

    def _rank(self, attack: str, shared: list[float]) -> tuple[float, float, float, bool]:
        half = self.half(attack)
        rows = [r for r in self.run.curve(attack) if r.value is not None]
        lowest = 0.0 if half else min((r.value for r in rows if r.value is not None), default=np.inf)
        values = [r.value for r in rows if r.value is not None and r.eps in shared]
        mean = float(np.mean(values)) if values else np.inf
        return (half.eps if half else np.inf, lowest, mean, attack in (*SINGLE_STEP, *PROBES))

    def strongest_of(self, attacks: list[str]) -> str | None:
        """The attack that halves the accuracy at the smallest eps; where none does, that which leaves least; then the
        lowest mean over their shared grid."""
        measured = [a for a in attacks if any(r.value is not None for r in self.run.curve(a))]
        if not measured:
            return None
        grids = [{r.eps for r in self.run.curve(a)} for a in measured]
        shared = sorted(set.intersection(*grids))
        return min(measured, key=lambda a: self._rank(a, shared))

    @cached_property
    def believed(self) -> list[str]:
        """White-box attacks without a doubt on them."""
        if self.shaken or self.decisive:
            return []
        return [a for a in self.run.attacks if a not in self.doubts and a not in PROBES]

    @cached_property
    def strongest(self) -> str | None:
        """What the first page speaks of: the worst case where it was measured, else the strongest attack.

        A probe only where it halves the accuracy at a smaller eps than that.
        """
        worst = WORST in self.run.measured
        overall = WORST if worst else self.strongest_of(self.run.attacks)
        probe = self.strongest_of(self.run.probes)
        if overall is None or (probe and self._halves_at(probe) < self._halves_at(overall)):
            return probe
        if worst or self.half(overall) is not None:
            return overall
        return self.strongest_of(self.believed) or overall

    def _halves_at(self, attack: str) -> float:
        half = self.half(attack)
        return half.eps if half else np.inf

    def name(self, attack: str) -> str:
        """ "CW", or "worst of FGSM, BIM, PGD and CW"."""
        titles = [self.run.title(a) for a in [*self.run.attacks, self.run.ensemble] if a is not None]
        return f"worst of {listing(titles)}" if attack == WORST else self.run.title(attack)

    @cached_property
    def saved_attack(self) -> str | None:
        """The attack whose examples were saved: the strongest if it was, else the one with the most sizes."""
        saved = {r.attack for r in self.run.of_attacks("accuracy_saved")}
        candidates = [a for a in self.run.measured if a in saved and self.run.curve(a, "accuracy_full")]
        if self.strongest in candidates:
            return self.strongest
        return max(candidates, key=lambda a: len(self.run.curve(a, "accuracy_full")), default=None)

    @cached_property
    def reference(self) -> float | None:
        """The eps at which the first page compares.

        Of several findings by how many images keep their set of findings; else that of the headline number where there
        is one, else ``reported_size``.
        """
        if self.strongest is None or self.clean is None:
            return None
        rows = self.run.curve(self.strongest)
        if not rows:
            return None
        sets = self.size_of_sets
        if self.several and sets is not None and any(same(r.eps, sets) for r in rows):
            return sets
        headline = self.run.conditions.headline
        if headline is not None and any(same(r.eps, headline.eps) for r in rows):
            return headline.eps
        held = {r.eps: r.value for r in rows if r.value is not None and r.eps > 0}
        return reported_size(held, self.clean.value, self.grey) if held else rows[-1].eps

    @cached_property
    def size_of_sets(self) -> float | None:
        """The eps at which numbers of findings are given: exact match may leave too few images to tell."""
        rows = among(self.run.rows, kind=Kind.FINDING, metric="success", goal="any")
        kept = {r.eps: 1 - r.value for r in rows if r.value is not None and r.eps > 0}
        return reported_size(kept, 1.0, self.grey) if kept else None

    @property
    def grey(self) -> float | None:
        """One 8-bit grey level as a size; None where the norm knows none."""
        return self.run.conditions.grey_scale.grey if self.run.conditions.norm == "Linf" else None

    @cached_property
    def at_reference(self) -> Row | None:
        if self.strongest is None or self.reference is None:
            return None
        return self.run.at(self.strongest, "accuracy", self.reference)

    def beside_noise(self, row: Row | None) -> BesideNoise | None:
        """An accuracy under attack beside that under random noise of the same size; None where it is not known."""
        attack, before = Share.of(row), Share.of(self.clean)
        if row is None or attack is None or before is None:
            return None
        shares = [Share.of(self.run.at(a, "accuracy", row.eps)) for a in self.run.controls]
        noise = min((s for s in shares if s is not None), key=lambda s: s.value, default=None)
        return BesideNoise(before, attack, noise)

    @cached_property
    def largest(self) -> Row | None:
        """The strongest attack's row at its largest eps."""
        rows = self.run.curve(self.strongest) if self.strongest else []
        return rows[-1] if rows else None

    def min_eps(self, attack: str) -> np.ndarray | None:
        """eps* of the images that were read correctly before the attack (inf: never broken on the grid)."""
        values = self.run.arrays.get(f"min_eps.{attack}")
        return None if values is None else values[values > 0]

    def median(self, attack: str) -> stats.Estimate | None:
        """Median eps* over the images that were read correctly; inf where most were never broken."""
        row, values = self.run.at(attack, "min_eps_median"), self.min_eps(attack)
        if row is None:
            return stats.median(values) if values is not None and values.size else None
        value = row.value
        if value is None:
            if "above" not in (row.note or "") and (
                values is None or not values.size or np.isfinite(np.median(values))
            ):
                return None
            value = np.inf
        # rows hold no infinity: an upper end that is missing beside a lower one is infinite
        high = np.inf if row.low is not None and row.high is None else _or_nan(row.high)
        return stats.Estimate(value, _or_nan(row.low), high, row.n)

    @cached_property
    def verdict(self) -> Verdict:
        if self.strongest is None or self.clean is None:
            return Verdict.NOTHING
        if self.guessing:
            return Verdict.CHANCE
        if self.half(self.strongest) is not None:
            return Verdict.FOOLED
        if self.strongest_of([a for a in self.believed if a not in SINGLE_STEP]) is None:
            return Verdict.INCONCLUSIVE
        values = [r.value for r in self.run.curve(self.strongest) if r.value is not None]
        if self.clean.value - min(values) >= NOTICED:
            return Verdict.WEAKENED
        if self.unproved:
            return Verdict.INCONCLUSIVE
        return Verdict.WITHSTOOD

    @cached_property
    def guessing(self) -> bool:
        """Whether balanced accuracy is not shown to be above that of guessing."""
        row = self.run.find(Kind.CLEAN, "balanced_accuracy")
        if row is None or row.value is None or len(self.run.conditions.classes) < 2:
            return False
        return (row.value if row.low is None else row.low) <= self.guess

    @cached_property
    def guess(self) -> float:
        """Balanced accuracy of an answer that never changes: 1 / number of classes that have test images."""
        row = self.run.find(Kind.CLEAN, "guessing")
        return 1 / len(self.run.conditions.classes) if row is None or row.value is None else row.value

    @cached_property
    def few(self) -> bool:
        return self.attacked is not None and self.attacked < FEW

    # disease and normal

    @cached_property
    def disease(self) -> list[str]:
        return [self.run.class_name(i) for i in self.run.conditions.disease_classes]

    @cached_property
    def normal(self) -> list[str]:
        return [c for c in self.run.conditions.classes if c not in self.disease]

    @cached_property
    def directed(self) -> bool:
        """Whether it is known which classes are disease and which are not."""
        return bool(self.disease) and bool(self.normal)

    def flips(self, attack: str, eps: float) -> list[Flip]:
        """Every direction that was measured, the most frequent first."""
        rows = among(self.run.rows, kind=self.run.kind(attack), metric="flip", attack=attack)
        flips = [Flip(str(r.get("class_name")), str(r.get("target")), r) for r in rows if same(r.eps, eps)]
        return sorted(flips, key=lambda f: -(f.row.value if f.row.value is not None else -1))

    def turned(self, sources: list[str], targets: list[str], attack: str, eps: float) -> Row | None:
        """Share of the correctly read images of `sources` that are read as one of `targets`, pooled over classes.

        For one source and one target this is the row itself, with its interval; pooled shares get Wilson's.
        """
        flips = [f for f in self.flips(attack, eps) if f.source in sources and f.target in targets]
        if len(flips) == 1 and len(sources) == 1:
            return flips[0].row
        measured = [f for f in flips if f.row.value is not None and f.row.n]
        if not measured:
            return flips[0].row if flips else None
        per_source = {f.source: f.row.n for f in measured}
        n = sum(per_source.values())
        hits = sum(round((f.row.value or 0.0) * f.row.n) for f in measured)
        pooled = stats.proportion(np.arange(n) < hits)
        status = OK if all(f.row.ok for f in measured) else INCONCLUSIVE
        rows = Rows()
        rows.add(self.run.kind(attack), "flip", pooled, attack=attack, eps=eps, status=status)
        return rows.rows[0]


def find(run: Run) -> Findings:
    """Gather the doubts of a run."""
    doubts: dict[str, list[str]] = {}
    unusable: dict[str, list[str]] = {}
    shaken: list[str] = []
    decisive: list[str] = []
    unproved: list[str] = []
    for check in run.checks:
        if check.passed is None and check.decisive and check.attack == GRADIENT:
            unproved.append(f"the check “{check.name}” was {check.detail}")
        if check.passed is not False:
            continue
        if check.decisive:
            if check.name not in decisive:
                decisive.append(check.name)
            continue
        # a check of a control, of the black-box probe or of no attack in particular concerns them all
        of_attack = check.attack in (*run.attacks, run.ensemble) and check.attack is not None
        if of_attack and check.attack not in PROBES and check.name not in WHOLE_AUDIT:
            doubts.setdefault(str(check.attack), []).append(f"the check “{check.name}” failed")
        elif check.name not in shaken:
            shaken.append(check.name)
    for attack in [*run.attacks, run.ensemble]:
        if attack is None:
            continue
        # a decisive check is named once, for all attacks
        reasons = [why for why in _unusable(run, attack) if not any(name in why for name in decisive)]
        if reasons:
            unusable[attack] = reasons
            doubts.setdefault(attack, []).extend(reasons)
    return Findings(run, doubts, shaken, decisive, unproved, unusable)


def _unusable(run: Run, attack: str) -> list[str]:
    share = run.at(attack, "inconclusive")
    if share is not None and share.value is not None and share.value > TOLERATED_SHARE:
        return [f"on {100 * share.value:.0f}\u00a0% of the images the attack had no usable gradient"]
    marked = [r for r in run.curve(attack) if not r.ok]
    if marked:
        notes = list(dict.fromkeys(r.note for r in marked if r.note))
        return [f"its rows are marked inconclusive{f' ({notes[0]})' if notes else ''}"]
    return []


def doubts_together(findings: Findings) -> list[str]:
    """ "FGSM and PGD: why", attacks with the same reasons named together, failed common checks last."""
    same_reasons: dict[str, list[str]] = {}
    for attack, why in findings.doubts.items():
        same_reasons.setdefault(listing(why), []).append(findings.run.title(attack))
    lines = [f"all attacks that follow gradients: {_failed(findings.decisive)}"] if findings.decisive else []
    lines += [f"{listing(names)}: {why}" for why, names in same_reasons.items()]
    lines += [f"all attacks: {_failed(findings.shaken)}"] if findings.shaken else []
    return lines + findings.unproved


def _failed(names: Sequence[str]) -> str:
    return f"the check{'' if len(names) == 1 else 's'} {listing([f'“{name}”' for name in names])} failed"


def in_doubt(findings: Findings, attack: str) -> bool:
    """Whether numbers of that attack must be marked wherever they are shown."""
    if findings.shaken:
        return attack not in findings.run.controls
    if findings.decisive:
        return attack not in (*findings.run.controls, *PROBES)
    if attack == WORST:
        # one attack that worked is enough; a probe sees no gradient that could mislead it
        white = [a for a in findings.run.attacks if a not in PROBES] or findings.run.attacks
        return bool(white) and all(a in findings.doubts for a in white)
    return attack in findings.doubts


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
