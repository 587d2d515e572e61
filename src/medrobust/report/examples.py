"""Example images of a run, before and after the attack."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medrobust.report import pictures
from medrobust.report.findings import Findings, Verdict
from medrobust.report.schema import Example
from medrobust.report.sizes import short_size
from medrobust.report.words import percent


@dataclass(frozen=True)
class Picture:
    """One row of examples: three images and what the model said of them."""

    name: str
    clean: str
    change: str
    attacked: str
    factor: str
    true: str
    before: str
    after: str
    confidence_before: str
    confidence_after: str
    attack: str
    eps: str
    width: int
    kind: str
    """What ``true`` is: "class" or "findings"."""
    within: bool = True
    """Whether the change is no larger than the size at which the page gives its numbers."""


def examples(f: Findings) -> list[Picture]:
    clean, attacked = f.run.arrays.get("examples.clean"), f.run.arrays.get("examples.attacked")
    if clean is None or attacked is None or clean.shape != attacked.shape or clean.ndim != 4:
        return []
    factor = pictures.magnification(attacked - clean)
    return [_picture(f, e, clean[i], attacked[i], factor) for i, e in enumerate(f.run.examples[: clean.shape[0]])]


def lead(f: Findings, pictures: list[Picture]) -> Picture | None:
    """The example of the first page: turned within the size of the page if there is one; rather a disease turned
    normal."""
    if f.verdict in (Verdict.INCONCLUSIVE, Verdict.CHANCE, Verdict.NOTHING):
        return None
    turned = [p for p in pictures if p.true == p.before != p.after]
    return min(turned, key=lambda p: (not p.within, not _missed(f, p)), default=None)


def _missed(f: Findings, p: Picture) -> bool:
    return f.directed and p.true in f.disease and p.after in f.normal


def _picture(f: Findings, e: Example, clean: np.ndarray, attacked: np.ndarray, factor: float) -> Picture:
    return Picture(
        name=e.id + (f" (patient {e.patient})" if e.patient else ""),
        clean=pictures.data_uri(clean),
        attacked=pictures.data_uri(attacked),
        change=pictures.data_uri(pictures.magnified(attacked - clean, factor)),
        factor=f"{factor:g}",
        true=f.run.answer(e.label),
        before=f.run.answer(e.before),
        after=f.run.answer(e.after),
        confidence_before=percent(e.confidence_before, 0),
        confidence_after=percent(e.confidence_after, 0),
        attack=f.run.title(e.attack) if e.attack else "attack",
        eps=short_size(f, e.eps) if e.eps is not None else "",
        width=int(clean.shape[-1]),
        kind="findings" if f.several else "class",
        within=e.eps is None or f.reference is None or e.eps <= f.reference * (1 + 1e-5),
    )
