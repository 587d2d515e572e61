"""What an attack means for patients: findings missed and invented in 1,000 studies, before the attack and under it.

A study with the disease is missed under the attack where it was missed before, or was read correctly and is turned. So
the share missed is 1 - s (1 - f): s of the rows of performance without an attack, f of those of the attack. The two are
estimated apart, and their intervals are put together by the method of variance estimates recovery (Zou & Donner 2008,
doi:10.1002/sim.3095).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medrobust import prevalence, stats
from medrobust.errors import InputError
from medrobust.report import finding_words
from medrobust.report.comparison import Share
from medrobust.report.findings import Findings, Verdict, in_doubt
from medrobust.report.run import Run
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table, TableCell, n_text
from medrobust.report.words import NBSP, NOTHING, listing, number, percent
from medrobust.results import Kind

STUDIES = 1000
MOST = 3
"""Classes or findings on the first page."""


@dataclass(frozen=True)
class Range:
    """A share with its 95 % interval; None where it has none."""

    value: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, share: Share) -> Range:
        return cls(share.value, share.low, share.high)

    @property
    def others(self) -> Range:
        """The share of all others."""
        low, high = (None if v is None else 1 - v for v in (self.high, self.low))
        return Range(1 - self.value, low, high)

    def per_studies(self, share: float) -> str:
        """In 1,000 studies, where it is one of that share of them: "45 (28–69)"."""
        value, low, high = (None if v is None else v * share * STUDIES for v in (self.value, self.low, self.high))
        interval = "" if low is None or high is None else f" ({_count(low)}–{_count(high)})"
        return f"{_count(value)}{interval}"


def _count(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:.0f}" if value >= 9.95 or value < 0.005 else number(float(f"{value:.2g}"))


def product(a: Range, b: Range) -> Range:
    """Of two shares that are estimated apart, with the interval recovered on the logarithm of each."""
    value = a.value * b.value
    if a.low is None or b.low is None or a.high is None or b.high is None:
        return Range(value, None, None)
    if value == 0:
        return Range(0.0, 0.0, a.high * b.high)
    down = math.hypot(*(math.inf if r.low == 0 else math.log(r.value / r.low) for r in (a, b) if r.low is not None))
    up = math.hypot(math.log(a.high / a.value), math.log(b.high / b.value))
    return Range(value, value * math.exp(-down), min(1.0, value * math.exp(up)))


def total(a: Range, b: Range) -> Range:
    """Of two shares that add up, with the interval recovered from both."""
    value = a.value + b.value
    if a.low is None or b.low is None or a.high is None or b.high is None:
        return Range(value, None, None)
    down, up = math.hypot(a.value - a.low, b.value - b.low), math.hypot(a.high - a.value, b.high - b.value)
    return Range(value, max(0.0, value - down), min(1.0, value + up))


@dataclass(frozen=True)
class PatientLine:
    """One class or finding. prevalence: share of the studies that have it.

    missed: of the studies with it, before and under the attack; invented: of those without it. None: not measured.
    """

    name: str
    prevalence: float
    missed: tuple[Range, Range | None]
    invented: tuple[Range, Range | None]

    @property
    def cases(self) -> tuple[str, ...]:
        """Missed before and under the attack, invented before and under it, in 1,000 studies."""
        shares = [(r, self.prevalence) for r in self.missed] + [(r, 1 - self.prevalence) for r in self.invented]
        return tuple(NOTHING if r is None else r.per_studies(share) for r, share in shares)


def lines(f: Findings) -> list[PatientLine]:
    """A line a disease where it is known which classes are, else a line a class or finding; those that are missed most
    often under the attack first. Empty where the classifier guesses, or sensitivity and specificity are not known."""
    if f.verdict is Verdict.CHANCE or f.reference is None:
        return []
    names = f.disease if f.directed and not f.several else f.run.conditions.classes
    measured = shares_of_test_images(f)
    shares = prevalence.completed(f.run.conditions.prevalence, measured, several=f.several)
    every = [_line(f, name, shares[name]) for name in names if name in measured]
    return sorted(every, key=lambda line: -line.prevalence * (line.missed[1] or line.missed[0]).value)


def shares_of_test_images(f: Findings) -> dict[str, float]:
    """Of the test images, the share that has each class or finding; those that were measured."""
    measured = {c: [_clean(f, m, c) for m in ("sensitivity", "specificity")] for c in f.run.conditions.classes}
    return {name: a.n / (a.n + b.n) for name, (a, b) in measured.items() if a is not None and b is not None}


def with_prevalence(run: Run, shares: float | Mapping[str, float]) -> Run:
    """The run with these shares of studies. InputError where they are none of its classes, or it is no audit."""
    c = run.conditions
    if run.command != "audit":
        raise InputError(f"--prevalence is for the run of an audit; this one is of medrobust {run.command}")
    disease = [run.class_name(i) for i in c.disease_classes]
    placed = prevalence.placed(shares, c.classes, disease, several=c.head == "multilabel")
    return replace(run, conditions=c.model_copy(update={"prevalence": placed}))


def _clean(f: Findings, metric: str, name: str) -> Share | None:
    return Share.of(f.run.find(Kind.CLEAN, metric, class_name=name))


def _line(f: Findings, name: str, share: float) -> PatientLine:
    recognised, kept_out = _clean(f, "sensitivity", name), _clean(f, "specificity", name)
    assert recognised is not None
    assert kept_out is not None
    right, right_others = Range.of(recognised), Range.of(kept_out)
    lost, gained = _turned(f, name)
    missed = None if lost is None else product(right, Range.of(lost).others).others
    if gained is None:
        invented = None
    elif f.several or len(f.run.conditions.classes) == 2:
        invented = product(right_others, Range.of(gained).others).others
    else:  # an image of another class that was read correctly may also be turned to a third
        correct = _pooled([_clean(f, "sensitivity", c) for c in f.run.conditions.classes if c != name])
        added = None if correct is None else product(Range.of(correct), Range.of(gained))
        invented = None if added is None else total(right_others.others, added)
    return PatientLine(name, share, (right.others, missed), (right_others.others, invented))


def _turned(f: Findings, name: str) -> tuple[Share | None, Share | None]:
    """Of the images that were read correctly, those that lose the class or finding, and those that gain it."""
    assert f.reference is not None
    if f.several:
        goals = (finding_words.HIDE, finding_words.INVENT)
        rows = [finding_words.row(f, "success", goal, f.reference, class_name=name) for goal in goals]
        return Share.of(rows[0]), Share.of(rows[1])
    if f.strongest is None:
        return None, None
    others = [c for c in f.run.conditions.classes if c != name]
    lost, gained = (f.turned(a, b, f.strongest, f.reference) for a, b in (([name], others), (others, [name])))
    return Share.of(lost), Share.of(gained)


def _pooled(shares: Sequence[Share | None]) -> Share | None:
    known = [s for s in shares if s is not None]
    n = sum(s.n for s in known)
    if not n or len(known) < len(shares):
        return None
    e = stats.proportion(np.arange(n) < sum(s.hits for s in known))
    return Share(e.value, e.low, e.high, n)


def _noun(f: Findings) -> str:
    """What is counted: images of no known disease are no studies."""
    return "studies" if f.directed or f.several else "images"


def title(f: Findings) -> str:
    return "What it means for patients" if f.directed or f.several else f"What it means for {STUDIES:,} images"


def share_text(share: float) -> str:
    """0.03 -> "3.0 %"; 0.0004 -> "0.04 %"."""
    return percent(share) if share >= 0.01 else f"{100 * share:.2g}{NBSP}%"


def _shares(f: Findings, shown: Sequence[PatientLine]) -> str:
    """Where the shares of studies come from."""
    if not f.run.conditions.prevalence:
        return "of which as many have it as of these test images (for your own share: --prevalence)"
    images = shares_of_test_images(f)
    each = listing([f"{percent(images[line.name])} {line.name}" for line in shown])
    return f"with the shares that --prevalence states (of the test images: {each})"


def table(f: Findings, every: Sequence[PatientLine], label: str = "tab:cases", most: int = MOST) -> Table:
    """In 1,000 studies. every: of ``lines``; those beyond ``most`` are left out."""
    assert f.reference is not None
    doubt = f.verdict is Verdict.INCONCLUSIVE or (f.strongest is not None and in_doubt(f, f.strongest))
    shown = every[:most]
    body = [
        [TableCell(line.name), TableCell(share_text(line.prevalence)), *(TableCell(text) for text in line.cases)]
        for line in shown
    ]
    clean = [f.run.find(Kind.CLEAN, m, class_name=x.name) for x in shown for m in ("sensitivity", "specificity")]
    turned = [share for line in shown for share in _turned(f, line.name) if share is not None]
    attacked = sorted({share.n for share in turned})
    caption = f"In {STUDIES:,} {_noun(f)}, {_shares(f, shown)}; with 95 % intervals. "
    caption += "Missed: reported as absent; invented: reported though absent. " if f.directed or f.several else ""
    caption += f"Before: {n_text(clean)} images. "
    if attacked:
        ends = f"{attacked[0]}–{attacked[-1]}" if len(attacked) > 1 else str(attacked[0])
        caption += f"Under attack: changes of at most {short_size(f, f.reference)}, n = {ends} images read correctly."
    if len(every) > len(shown):
        caption += f" The {len(shown)} of {len(every)} that are missed most often; the others are below."
    what = "Finding" if f.several else "Class"
    head = [what, f"Share of {_noun(f)}", "Missed before", "Missed under attack"]
    head += ["Invented before", "Invented under attack"]
    cells = [TableCell(t, doubt and t.endswith("under attack")) for t in head]
    return Table(caption, cells, body, label)
