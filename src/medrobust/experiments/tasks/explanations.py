"""Why does it break? ``medrobust.experiments.explanation``, one classifier a cell, and claims over several."""

from __future__ import annotations

from typing import Any

import numpy as np

from medrobust import explain, private_names, stats
from medrobust.attacks import PGD
from medrobust.experiments.claims import CLAIMS, EPS_STAR, eps_star, foretells, more_often, verdict
from medrobust.experiments.config import ask
from medrobust.experiments.context import Context
from medrobust.experiments.explanation import Explanation
from medrobust.experiments.explanation_config import ExplanationConfig
from medrobust.experiments.system import given
from medrobust.experiments.tasks.curves import fresh
from medrobust.experiments.tasks.gradient import DOUBT, doubt_all, gradient_doubt
from medrobust.experiments.work import Result, Work
from medrobust.results import INCONCLUSIVE, OK, Kind, Row, Rows
from medrobust.store import Store

FEW = 6
"""Images below which the order statistics hold no 95 % interval of a median."""
ALL = "all of them"
SHIFT, NOISE_SHIFT = "cam-shift.change", "cam-shift.noise"
DIRECTIONS = ("gradient", "random", "second")
"""Along which the loss is told; the first axis of every plane is the gradient's."""


def explained(work: Work) -> Result:
    """Saliency, Grad-CAM, representation, loss landscape and embedding of images that are read rightly, one a patient.

    args: attack, norm, eps, limit, surfaces (images with a landscape), measures (of ``explain.MEASURES``), steps (of
    PGD, for eps*), seed. needs: model; second, an independently trained one, for the published plane. The pictures
    (t-SNE) and what a kill need not lose lie in RUN/explained/KEY.
    """
    args, classifier = work.args, work.model()
    system = given(work.data, classifier)
    spec = ask(data=work.data.name, norm=args["norm"], eps=(args["eps"],), seed=args["seed"])
    config = ExplanationConfig(
        measures=tuple(args["measures"]), attack=args["attack"], limit=args["limit"], surfaces=args["surfaces"]
    )
    second = (lambda: work.model("second")) if "second" in work.ticket["needs"] else None
    store = Store(work.run / "explained" / work.key)
    made = Explanation(Context(system, spec, store, study=""), config, second=second)
    outcome = made.outcome()
    numbers = dict(made.numbers)
    numbers[EPS_STAR] = eps_star(made.twins, PGD(steps=args["steps"]), spec.ball)
    rows = fresh(args["norm"], args["seed"])
    _image_rows(rows, numbers, args)
    surfaces = {k.removeprefix("landscape."): v for k, v in made.arrays.items() if k.startswith("landscape.")}
    _landscape_rows(rows, surfaces)
    _explained_rows(rows, outcome.rows.rows, args)
    doubt = gradient_doubt(work)
    doubt_all(rows, doubt)
    facts = private_names.found(outcome.conditions["explained"]["0"])
    return {"rows": rows.plain(), "facts": facts, DOUBT: doubt}, numbers | {"landscape.random": surfaces["random"]}


def _image_rows(rows: Rows, numbers: dict[str, np.ndarray], args: dict[str, Any]) -> None:
    """Medians over images, what foretells eps*, and what the attack and noise of its size do to Grad-CAM."""
    star = numbers[EPS_STAR]
    rows.add(Kind.ATTACK, "min_eps_median", stats.median(star), attack="pgd")
    measures = {name: numbers[name] for name in args["measures"]}
    ranks = foretells(measures, star, np.arange(len(star)))
    for name, values in measures.items():
        about = explain.MEASURES[name]
        _add(rows, "none", 0.0, "measure", stats.median(_known(values)), measure=f"{about.title}, {about.unit}")
        _add(rows, "none", 0.0, "spearman", ranks[name], measure=about.title)
    for attack, name in ((args["attack"], SHIFT), ("noise", NOISE_SHIFT)):
        _add(rows, attack, args["eps"], "cam_shift", stats.median(_known(numbers[name])))
    whose = np.arange(len(star))
    further = more_often(numbers[SHIFT], numbers[NOISE_SHIFT], whose, whose)
    _add(rows, args["attack"], args["eps"], "further", further)


def _landscape_rows(rows: Rows, surfaces: dict[str, np.ndarray]) -> None:
    """Rise of the loss above that of the image, along each direction, at every point of the grid."""
    for name in DIRECTIONS:
        surface = surfaces.get("random" if name == "gradient" else name)
        if surface is None:
            continue
        loss = (surface[:, :, 0] if name == "gradient" else surface[:, 0, :]).astype(float)
        for eps, values in zip(explain.GRID[1:], (loss[:, 1:] - loss[:, :1]).T, strict=True):
            _add(rows, "none", eps, "rise", stats.median(values), direction=name)


def _explained_rows(rows: Rows, found: list[Row], args: dict[str, Any]) -> None:
    """How simple each layer's view is, and whether attacked images lie apart in the last features."""
    for row in found:
        if row.metric == "relative-rank" and row.get("layer") and row.get("when") != "change":
            _add(rows, row.attack, row.eps, "rank_share", row.estimate, layer=row.get("layer"))
        if row.metric in ("probe", "silhouette") and row.get("of") == "attacked":
            _add(rows, args["attack"], args["eps"], row.metric, row.estimate, note=row.note)


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
        found = []
        for name, mine in sides.items():
            x, y = mine[claim.name], natural[claim.name]
            found.append(more_often(x, y, np.arange(len(x)), np.arange(len(y))))
            _claim_row(rows, claim, name, found[-1], verdict(found[-1:], claim.more), doubts[name], work)
        nothing = stats.NOTHING._replace(n=sum(e.n for e in found))
        _claim_row(rows, claim, ALL, nothing, verdict(found, claim.more), doubts[ALL], work)
    return {"rows": rows.plain()}, {}


def _claim_row(rows: Rows, claim: Any, name: str, e: stats.Estimate, said: str, doubt: str, work: Work) -> None:
    """The note is the verdict. doubt: why the attacks behind it are not believed."""
    rows.add(
        Kind.EXPLANATION,
        "pairs",
        e,
        status=INCONCLUSIVE if doubt else OK,
        note="; ".join(filter(None, (said, doubt))),
        data=name,
        claim=claim.text,
        by=claim.by,
        claimed=claim.words,
        against=work.args["natural"],
    )


def _add(rows: Rows, attack: str, eps: float, metric: str, e: stats.Estimate, note: str = "", **more: str) -> None:
    few = "" if e.n >= FEW else f"{e.n} images are too few for an interval"
    note = note or few or ("" if np.isfinite(e.value) else "nothing to measure")
    status = INCONCLUSIVE if note else OK
    rows.add(Kind.EXPLANATION, metric, e, attack=attack, eps=eps, status=status, note=note, **more)


def _known(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]
