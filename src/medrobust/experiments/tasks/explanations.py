"""Why does it break? ``medrobust.experiments.explanation``, one classifier a cell, and claims over several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from medrobust import explain, private_names, stats
from medrobust.attacks import PGD
from medrobust.data import Dataset
from medrobust.experiments.adversarial_pairs import AdversarialPairs
from medrobust.experiments.catalogue import EXPENSIVE
from medrobust.experiments.claims import CLAIMS, MIN_EPS, measured_min_eps, more_often, verdict
from medrobust.experiments.config import ask
from medrobust.experiments.context import Context
from medrobust.experiments.explanation import LEAST_MEDIAN, Explanation
from medrobust.experiments.explanation_config import ExplanationConfig
from medrobust.experiments.system import given
from medrobust.experiments.tasks.curves import anonymous, fresh
from medrobust.experiments.tasks.gradient import DOUBT, doubt_all, gradient_doubt
from medrobust.experiments.work import Work
from medrobust.results import INCONCLUSIVE, OK, Kind, Rows
from medrobust.store import Result, Store

ALL = "all of them"
SHIFT, NOISE_SHIFT = "cam-shift.change", "cam-shift.noise"
DIRECTIONS = ("gradient", "random", "second")
"""Along which the rise of the loss is measured; the first axis of every plane is the gradient's."""


def explained(work: Work) -> Result:
    """Saliency, Grad-CAM, representation, loss landscape and embedding of images that are read rightly, one a patient.

    args: attack, norm, eps, limit, surfaces (images with a landscape), measures and expensive (of
    ``explain.MEASURES``), steps (of PGD, for eps*), seed. needs: model; second, an independently trained one, for the
    published plane. The pictures (t-SNE) and what a kill need not lose lie in RUN/explained/KEY.
    """
    args, measures = work.args, tuple(work.args["measures"])
    spec = ask(data=work.data.name, norm=args["norm"], eps=(args["eps"],), seed=args["seed"])
    config = ExplanationConfig(
        measures=measures, attack=args["attack"], limit=args["limit"], surfaces=args["surfaces"], ranked=measures
    )

    def smallest(pairs: AdversarialPairs) -> np.ndarray:
        return measured_min_eps(pairs, PGD(steps=args["steps"]), spec.ball)

    second = (lambda: work.model("second")) if "second" in work.ticket["needs"] else None
    context = Context(given(work.data, work.model()), spec, Store(work.run / "explained" / work.key), study="")
    made = Explanation(context, config, second=second, min_eps=smallest)
    outcome = made.outcome()
    min_eps, expensive = smallest(made.pairs), _expensive(made, tuple(args["expensive"]))
    numbers = made.numbers | expensive | {MIN_EPS: min_eps}
    surfaces = {k.removeprefix("landscape."): v for k, v in made.arrays.items() if k.startswith("landscape.")}
    rows, doubt = outcome.rows, gradient_doubt(work)
    for name, values in expensive.items():
        known = np.isfinite(values)
        _add(rows, name, stats.median(values[known]), when="clean")
        _add(rows, "rank_correlation", stats.spearman(values[known], min_eps[known]), when="clean", measure=name)
    _further_rows(rows, numbers, args)
    _rises(rows, surfaces)
    doubt_all(rows, doubt)
    facts = {
        "conditions": private_names.found(outcome.conditions),
        "titles": _titles((*measures, *expensive)),
        DOUBT: doubt,
    }
    arrays = numbers | {"landscape.random": surfaces["random"]}
    return {"rows": anonymous(rows.rows, args["norm"]), **facts}, arrays


def _expensive(made: Explanation, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Measures of the first EXPENSIVE images; NaN for the others."""
    pairs, rest = made.pairs, np.full(max(0, len(made.pairs) - EXPENSIVE), np.nan)

    def measured(part: Dataset) -> Result:
        labels = torch.from_numpy(part.labels.copy())
        values = explain.measure(made.classifier, part, labels, names, ids=part.ids, seed=pairs.seed)
        return {}, {name: v.numpy() for name, v in values.items()}

    if not names:
        return {}
    parts = list(pairs.shards(EXPENSIVE))
    cells = [pairs.store.once(pairs.key(p, kind="expensive", names=names), partial(measured, p)) for p in parts]
    return {name: np.concatenate([*(cell.arrays[name] for cell in cells), rest]) for name in names}


def _titles(measures: Iterable[str]) -> dict[str, str]:
    """What tables call a measure."""
    about = {name: explain.MEASURES[name] for name in measures}
    return {name: f"{measure.title}, {measure.unit}" for name, measure in about.items()}


def _further_rows(rows: Rows, numbers: Mapping[str, np.ndarray], args: Mapping[str, Any]) -> None:
    """The smallest eps that fools, and in how many pairs the attack moves Grad-CAM further than noise of its size."""
    min_eps = numbers[MIN_EPS]
    whose = np.arange(len(min_eps))
    rows.add(Kind.ATTACK, "min_eps_median", stats.median(min_eps), attack="pgd")
    further = more_often(numbers[SHIFT], numbers[NOISE_SHIFT], whose, whose)
    about = {"attack": args["attack"], "eps": args["eps"], "measure": "cam-shift", "when": "change"}
    _add(rows, "larger_than_noise", further, **about)


def _rises(rows: Rows, surfaces: Mapping[str, np.ndarray]) -> None:
    """Rise of the loss above that of the image, along each direction, at every point of the grid."""
    for name in DIRECTIONS:
        surface = surfaces.get("random" if name == "gradient" else name)
        if surface is None:
            continue
        loss = (surface[:, :, 0] if name == "gradient" else surface[:, 0, :]).astype(float)
        for distance, values in zip(explain.GRID[1:], (loss[:, 1:] - loss[:, :1]).T, strict=True):
            _add(rows, "rise", stats.median(values), when="clean", direction=name, at=distance)


def claimed(work: Work) -> Result:
    """``CLAIMS``, each set against the natural one and all of them together. args: sets, natural, seed (names).

    needs: natural, set0, set1, …: cells of ``explained``. The verdict stands in each row's note; a row of the set "all
    of them" has a verdict and no number.
    """
    against, cells = work.input("natural"), dict(zip(work.args["sets"], work.inputs("set"), strict=True))
    natural, sides = against.arrays, {name: cell.arrays for name, cell in cells.items()}
    doubts = {name: cell.facts[DOUBT] or against.facts[DOUBT] for name, cell in cells.items()}
    doubts[ALL] = next((why for why in doubts.values() if why), "")
    rows = fresh("", work.args["seed"])
    for claim in CLAIMS:
        if not all(claim.name in a for a in (natural, *sides.values())):
            continue
        estimates = []
        for name, medical in sides.items():
            x, y = medical[claim.name], natural[claim.name]
            estimates.append(more_often(x, y, np.arange(len(x)), np.arange(len(y))))
            _claim_row(rows, claim, name, estimates[-1], verdict(estimates[-1:], claim.more), doubts[name], work)
        nothing = stats.NOTHING._replace(n=sum(e.n for e in estimates))
        _claim_row(rows, claim, ALL, nothing, verdict(estimates, claim.more), doubts[ALL], work)
    return {"rows": rows.plain()}, {}


def _claim_row(rows: Rows, claim: Any, name: str, e: stats.Estimate, said: str, doubt: str, work: Work) -> None:
    """The note is the verdict. doubt: why the attacks behind it are not believed."""
    rows.add(
        Kind.EXPLANATION,
        "larger",
        e,
        status=INCONCLUSIVE if doubt else OK,
        note="; ".join(filter(None, (said, doubt))),
        data=name,
        claim=claim.text,
        by=claim.by,
        claimed=claim.words,
        than=work.args["natural"],
    )


def _add(rows: Rows, metric: str, e: stats.Estimate, **columns: Any) -> None:
    too_few = "" if e.n >= LEAST_MEDIAN else f"{e.n} images are too few for an interval"
    note = too_few or ("" if np.isfinite(e.value) else "nothing to measure")
    rows.add(Kind.EXPLANATION, metric, e, status=INCONCLUSIVE if note else OK, note=note, **columns)
