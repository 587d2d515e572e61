"""The rows of a comparison: every run's numbers on the common images, and the paired differences between them.

Rows of a run have a column ``run``. Those of two have ``run`` and ``against``, and ``before`` or ``under`` attack as
their column ``when``: a difference is the share of the run less that of the other. Those of a finding under attack have
a ``goal``: it was to be hidden or invented, and ``kept`` is the share of images in which it was not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from medrobust import ranks, stats
from medrobust.paired.common import Paired, PairedAudit
from medrobust.report import finding_words
from medrobust.report.compared import BEFORE, UNDER
from medrobust.report.run import WORST
from medrobust.results import INCONCLUSIVE, OK, Kind, Row, Rows, withstands
from medrobust.stats import Estimate, members

MANY = 20
"""With more classes than this, numbers for each class would bury the others."""
COPIED = ((Kind.UNIVERSAL, "fooling_rate"), (Kind.DETECTOR, "auroc"))
"""Kinds and metrics of rows that are shown side by side as each run has them: they are not known image by image."""


def rows_of(p: Paired) -> list[Row]:
    """All of them: run by run, then pair by pair."""
    c = p.sides[0].audit.run.conditions
    rows = Rows("compare", c.data, "", c.norm)
    runs = [_OfRun(rows, p, side) for side in p.sides]
    for run in runs:
        run.add_all()
    pairs = [_OfPair(rows, p, first, second) for first, second in combinations(p.sides, 2)]
    p_values = [pair.add_all() for pair in pairs]
    for pair, adjusted in zip(pairs, ranks.holm(np.array(p_values)).tolist(), strict=True):
        pair.add("p_adjusted", _exact(adjusted, len(p.attacked)), p.reference)
    _add_findings(p, runs, pairs)
    return rows.rows


def _add_findings(p: Paired, runs: Sequence[_OfRun], pairs: Sequence[_OfPair]) -> None:
    """Each finding hidden and invented, on the images that all attacked; p adjusted for all of these tests."""
    tests = []
    for goal, name, mask, kept in _by_finding(p):
        owners = members(p.patients, mask)
        columns = {"goal": goal, "class_name": name}
        for run, held in zip(runs, kept, strict=True):
            doubt = run.side.audit.finding_doubt(goal, name, p.reference)
            run.add(Kind.FINDING, "kept", stats.proportion(held, owners), doubt, p.reference, **columns)
        for pair, (a, b) in zip(pairs, combinations(kept, 2), strict=True):
            doubts = (side.audit.finding_doubt(goal, name, p.reference) for side in (pair.first, pair.second))
            of_finding = replace(pair, doubt=next(filter(None, doubts), ""))
            of_finding.difference("kept", a, b, owners, p.reference, **columns)
            tests.append(
                (of_finding, columns, int(mask.sum()), of_finding.changed(a, b, owners, p.reference, **columns))
            )
    adjusted = ranks.holm(np.array([p_value for *_, p_value in tests]))
    for (pair, columns, n, _), value in zip(tests, adjusted.tolist(), strict=True):
        pair.add("p_adjusted", _exact(value, n), p.reference, **columns)


def _exact(value: float, n: int) -> Estimate:
    """A number that has no interval."""
    return Estimate(value, np.nan, np.nan, n)


@dataclass(frozen=True)
class _OfRun:
    """Adds the rows of one run."""

    rows: Rows
    p: Paired
    side: PairedAudit

    def add_all(self) -> None:
        p, side, owners = self.p, self.side, self.p.attacked_patients
        clean = p.doubt(side, 0.0)
        self.add(Kind.CLEAN, "accuracy", stats.proportion(side.right, p.patients), clean)
        for metric, name, mask, hits in _by_class(p, side):
            share = stats.proportion(hits[mask], members(p.patients, mask))
            self.add(Kind.CLEAN, metric, share, clean, class_name=name)
        for eps in (0.0, *p.sizes):
            held, doubt = side.held(eps), p.doubt(side, eps)
            self.add(Kind.WORST, "accuracy", stats.proportion(held, owners), doubt, eps)
            for name, mask in _classes(p) if eps == p.reference else ():
                share = stats.proportion(held[mask], members(owners, mask))
                self.add(Kind.WORST, "sensitivity", share, doubt, eps, class_name=name)
        doubt = next((why for eps in p.sizes if (why := p.doubt(side, eps))), "")
        right = side.held(0.0)
        median = stats.median(side.smallest[right], members(owners, right))
        self.add(Kind.WORST, "min_eps_median", median, doubt)
        halved = next((eps for eps in p.sizes if side.held(eps).sum() <= right.sum() / 2), np.nan)
        self.add(Kind.WORST, "halved_at", _exact(halved, right.size), doubt)
        self._copy()

    def add(self, kind: Kind, metric: str, estimate: Estimate, doubt: str, eps: float = 0.0, **more: str) -> None:
        self.rows.add(
            kind,
            metric,
            estimate,
            attack={Kind.WORST: WORST, Kind.FINDING: finding_words.ATTACK}.get(kind, "none"),
            eps=eps,
            status=INCONCLUSIVE if doubt else OK,
            note=doubt,
            model=self.side.audit.run.conditions.model,
            run=self.side.name,
            **more,
        )

    def _copy(self) -> None:
        run = self.side.audit.run
        noise = run.at("noise", "accuracy", self.p.reference)
        copied = [r for kind, metric in COPIED for r in run.rows if r.kind == kind and r.metric == metric]
        for row in (*([] if noise is None else [noise]), *copied):
            self.rows.rows.append(replace(row, study="compare", more={**row.more, "run": self.side.name}))


@dataclass(frozen=True)
class _OfPair:
    """Adds the rows of two runs: of the second less the first. doubt: why all of them are inconclusive; None: as the
    accuracy of the runs is."""

    rows: Rows
    p: Paired
    first: PairedAudit
    second: PairedAudit
    doubt: str | None = None

    def add_all(self) -> float:
        """Returns p of the primary comparison."""
        p, first, second, owners = self.p, self.first, self.second, self.p.attacked_patients
        self.difference("accuracy", first.right, second.right, p.patients)
        self.changed(first.right, second.right, p.patients)
        for (metric, name, mask, a), (*_, b) in zip(_by_class(p, first), _by_class(p, second), strict=True):
            self.difference(metric, a[mask], b[mask], members(p.patients, mask), class_name=name)
        p_value = np.nan
        for eps in p.sizes:
            a, b = first.held(eps), second.held(eps)
            self.difference("accuracy", a, b, owners, eps)
            if eps == p.reference:
                p_value = self.changed(a, b, owners, eps)
                for name, mask in _classes(p):
                    self.difference("sensitivity", a[mask], b[mask], members(owners, mask), eps, class_name=name)
        return p_value

    def difference(
        self, metric: str, a: np.ndarray, b: np.ndarray, owners: stats.Groups, eps: float = 0.0, **more: str
    ) -> None:
        self.add(metric, stats.paired_difference(a, b, owners), eps, **more)

    def changed(self, a: np.ndarray, b: np.ndarray, owners: stats.Groups, eps: float = 0.0, **more: str) -> float:
        """How many images the second reads correctly and the first does not, and the other way round; p of the test on
        them."""
        p_value = stats.paired_p_value(a, b, owners)
        self.add("gained", stats.proportion(b & ~a, owners), eps, **more)
        self.add("lost", stats.proportion(a & ~b, owners), eps, **more)
        self.add("p_value", _exact(p_value, a.size), eps, **more)
        return p_value

    def add(self, metric: str, estimate: Estimate, eps: float, **more: str) -> None:
        """eps: 0 without an attack."""
        doubt = self.p.doubt(self.first, eps) or self.p.doubt(self.second, eps) if self.doubt is None else self.doubt
        self.rows.add(
            Kind.COMPARISON,
            metric,
            estimate,
            attack="none" if not eps else WORST if self.doubt is None else finding_words.ATTACK,
            eps=eps,
            status=INCONCLUSIVE if doubt else OK,
            note=doubt,
            model=self.second.audit.run.conditions.model,
            run=self.second.name,
            against=self.first.name,
            when=UNDER if eps else BEFORE,
            **more,
        )


def _by_finding(p: Paired) -> Iterator[tuple[str, str, np.ndarray, list[np.ndarray]]]:
    """goal, finding, which common test images have it (or lack it) and were attacked by all, since all read them
    correctly in it; and for each run in which of these it was not turned at the reference size."""
    classes = p.sides[0].audit.classes
    smallest = [side.by_finding for side in p.sides if side.by_finding is not None]
    if not smallest:
        return
    attacked = ~np.isnan(np.array(smallest)).any(0)
    for k, name in enumerate(classes):
        for goal, value in ((finding_words.HIDE, 1), (finding_words.INVENT, 0)):
            mask = attacked[:, k] & (p.labels[:, k] == value)
            if mask.any():
                yield goal, name, mask, [withstands(sizes[mask, k], p.reference) for sizes in smallest]


def _classes(p: Paired) -> Iterator[tuple[str, np.ndarray]]:
    """Class, and which of the attacked images are of it, where an image has one class."""
    labels, classes = p.labels[p.attacked], p.sides[0].audit.classes
    for k, name in enumerate(classes if labels.ndim == 1 and len(classes) <= MANY else ()):
        if (labels == k).any():
            yield name, labels == k


def _by_class(p: Paired, side: PairedAudit) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """metric, class or finding, which common test images it is about, and which of all were read correctly in it."""
    classes = side.audit.classes
    for k, name in enumerate(classes if len(classes) <= MANY else ()):
        if p.labels.ndim == 2:
            labels, hits = p.labels[:, k], side.prediction[:, k] == p.labels[:, k]
            metrics = (("sensitivity", labels == 1, hits), ("specificity", labels == 0, hits))
        else:
            present, predicted = p.labels == k, side.prediction == k
            metrics = (("sensitivity", present, predicted), ("specificity", ~present, ~predicted))
        yield from ((metric, name, mask, hits) for metric, mask, hits in metrics if mask.any())
