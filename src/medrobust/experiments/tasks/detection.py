"""Can attacks be detected? ``medrobust.experiments.detection``, one detector a cell; features are shared."""

from __future__ import annotations

from functools import partial
from typing import Any

from medrobust.experiments.config import ask
from medrobust.experiments.context import Context
from medrobust.experiments.detection import DetectionConfig, DetectionExperiment
from medrobust.experiments.detector_data import DetectorConfig, DetectorData
from medrobust.experiments.system import given
from medrobust.experiments.tasks.curves import anonymous
from medrobust.experiments.tasks.gradient import gradient_doubt
from medrobust.experiments.work import Result, Work
from medrobust.results import Kind, doubted


def features(work: Work) -> Result:
    """Adversarial pairs and their features, kept in the run folder under names of their own. args: of ("clean" or an
    attack), norm, eps, limit, layers, seed. needs: model."""
    attack = work.args["of"]
    config = DetectorConfig(attacks=("pgd" if attack == "clean" else attack,), **_images(work))
    data = _data(_context(work), config, work)
    if attack == "clean":
        samples = data.clean
        data.load_clean()
    else:
        samples = data.tried(attack)
    return {"rows": [], "n": len(samples)}, {}


def detector(work: Work) -> Result:
    """One detector fitted on each attack and tested on all. args: detector, attacks, norm, eps, limit, layers, seed,
    protocols. needs: model and the features that it reads."""
    args, context = work.args, _context(work)
    config = DetectionConfig(
        detectors=(args["detector"],),
        attacks=tuple(args["attacks"]),
        protocols=tuple(args["protocols"]),
        **_images(work),
    )
    data = _data(context, config, work)
    outcome = DetectionExperiment(context, config, [data]).outcome()
    follow = any(attack.uses_gradient for attack in data.attacks.values())
    why = "; ".join(filter(None, (gradient_doubt(work) if follow else "", data.pairs.guessing.text)))
    rows = anonymous(doubted(outcome.rows.rows, why, kinds=(Kind.DETECTOR,)), args["norm"])
    rows = [row | {"same": row["attack"] == row.get("fitted_on")} for row in rows]
    return {"rows": rows, "conditions": outcome.conditions}, {}


def _context(work: Work) -> Context:
    args = work.args
    spec = ask(data=work.data.name, norm=args["norm"], eps=(args["eps"],), seed=args["seed"])
    return Context(given(work.data, work.model()), spec, work.store, study="")


def _images(work: Work) -> dict[str, Any]:
    return {"layers": tuple(work.args["layers"]), "limit": work.args["limit"]}


def _data(context: Context, config: DetectorConfig, work: Work) -> DetectorData:
    return DetectorData(context, config, partial(context.ball, work.args["eps"]))
