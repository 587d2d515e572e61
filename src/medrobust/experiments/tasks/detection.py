"""Can attacks be detected, and detectors be evaded? One detector a cell; features are shared."""

from __future__ import annotations

from functools import partial
from math import nan
from typing import Any

import numpy as np

from medrobust import stats
from medrobust.data.corruptions import SEVERITIES
from medrobust.detectors.crossfit import FPRS
from medrobust.experiments.catalogue import NO_DETECTOR
from medrobust.experiments.config import ask
from medrobust.experiments.context import Context
from medrobust.experiments.detection import DetectionConfig, DetectionExperiment
from medrobust.experiments.detector_data import DetectorConfig, DetectorData
from medrobust.experiments.evasion import EvasionExperiment
from medrobust.experiments.evasion_config import EvasionConfig
from medrobust.experiments.system import given
from medrobust.experiments.tasks.curves import anonymous, fresh
from medrobust.experiments.tasks.gradient import doubt_all, gradient_doubt
from medrobust.experiments.work import Work
from medrobust.results import Kind, Row, doubted
from medrobust.stats import Estimate
from medrobust.store import Result

CLEAN, CORRUPTED = "clean", "corrupted"
"""Of features: of the images themselves, and of corrupted copies."""


def features(work: Work) -> Result:
    """Adversarial pairs and their features, kept in the run folder under names of their own.

    args: of ("clean", an attack, or "corrupted"), norm, eps, limit, layers, seed; for "corrupted" also corruptions and
    corrupted. needs: model. Rows: how many images there are for each purpose, and how many the attack changed.
    """
    of = work.args["of"]
    config = DetectorConfig(attacks=(of if of not in (CLEAN, CORRUPTED) else "pgd",), **_images(work))
    context = _context(work)
    data, rows = _data(context, config, work), fresh(work.args["norm"], work.args["seed"])
    if of == CORRUPTED:
        data.corrupted  # noqa: B018 - read, and kept
    elif of == CLEAN:
        data.load_clean()
        counts = {"attacked": len(data.clean), "patients": len(set(data.clean.groups.tolist()))}
        others = {"compared with": data.reference, "thresholds": data.held_out}
        counts |= {name: 0 if images is None else len(images) for name, images in others.items()}
        for name, n in counts.items():
            rows.add(Kind.OTHER, "images", Estimate(float(n), nan, nan, n), eps=work.args["eps"], images=name)
    else:
        changed = np.isin(np.arange(len(data.pairs)), data.attacked(of).pair_of)
        share = stats.proportion(changed, data.pairs.groups)
        rows.add(Kind.ATTACK, "success", share, attack=of, eps=work.args["eps"])
        if data.attacks[of].uses_gradient:
            doubt_all(rows, gradient_doubt(work))
    return {"rows": rows.plain()}, {}


def detector(work: Work) -> Result:
    """One detector fitted on each attack and tested on all. args: detector, attacks, norm, eps, limit, layers, seed,
    protocols, corruptions, corrupted. needs: model and the features that it reads."""
    args, context = work.args, _context(work)
    config = DetectionConfig(
        detectors=(args["detector"],),
        attacks=tuple(args["attacks"]),
        protocols=tuple(args["protocols"]),
        **_images(work),
    )
    data = _data(context, config, work)
    outcome = DetectionExperiment(context, config, [data]).outcome()
    rows = _doubted(work, data, outcome.rows.rows, Kind.DETECTOR)
    rows = [row | {"same": row["attack"] == row.get("fitted_on")} for row in rows]
    return {"rows": rows, "conditions": outcome.conditions}, {}


def evaded(work: Work) -> Result:
    """Attacks that know one detector, or the same search without one. args: detector, attack (fitted on), norm, eps,
    sizes, limit, layers, attacked, evasions, pressed, seed. needs: model and the features that it reads."""
    args, context = work.args, _context(work)
    config = EvasionConfig(
        evasions=tuple(args["evasions"]), attacked=args["attacked"], eps=tuple(args["sizes"]), pressed=args["pressed"]
    )
    one = DetectorConfig.detectors[:1] if args["detector"] == NO_DETECTOR else (args["detector"],)
    detectors = DetectorConfig(detectors=one, attacks=(args["attack"],), fprs=(*FPRS, config.goal), **_images(work))
    data = _data(context, detectors, work)
    outcome = EvasionExperiment(context, config, data, FPRS, names=(args["detector"],)).outcome()
    rows = _doubted(work, data, outcome.rows.rows, Kind.EVASION)
    work.checks.setdefault("model", []).extend(check.plain() for check in outcome.checks)
    return {"rows": rows, "conditions": outcome.conditions}, {}


def _doubted(work: Work, data: DetectorData, rows: list[Row], kind: Kind) -> list[dict[str, Any]]:
    """The rows, with the norm of the cell; inconclusive where the gradient is wrong or the classifier guesses."""
    follow = any(attack.uses_gradient for attack in data.attacks.values()) or kind is Kind.EVASION
    why = "; ".join(filter(None, (gradient_doubt(work) if follow else "", data.pairs.guessing.text)))
    return anonymous(doubted(rows, why, kinds=(kind,)), work.args["norm"])


def _context(work: Work) -> Context:
    args = work.args
    spec = ask(data=work.data.name, norm=args["norm"], eps=(args["eps"],), seed=args["seed"])
    return Context(given(work.data, work.model()), spec, work.store, study="")


def _images(work: Work) -> dict[str, Any]:
    args = work.args
    names = [(name, severity) for name in args.get("corruptions", ()) for severity in SEVERITIES]
    corrupted = {"corruptions": tuple(names), "corrupted": args["corrupted"]} if names else {}
    return {"layers": tuple(args["layers"]), "limit": args["limit"], **corrupted}


def _data(context: Context, config: DetectorConfig, work: Work) -> DetectorData:
    return DetectorData(context, config, partial(context.ball, work.args["eps"]))
