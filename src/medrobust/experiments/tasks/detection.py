"""Can attacks be seen? The study of ``medrobust.experiments.detection``, one detector a cell; features are shared."""

from __future__ import annotations

from typing import Any

from medrobust.experiments.adversarial_pairs import Twins
from medrobust.experiments.config import attack_named
from medrobust.experiments.detection import Ask, Detection, other_images
from medrobust.experiments.features_cache import Bench
from medrobust.experiments.system import unseen
from medrobust.experiments.tasks.gradient import gradient_doubt
from medrobust.experiments.work import Result, Work
from medrobust.results import Kind
from medrobust.threat import BALLS


def features(work: Work) -> Result:
    """Twins and their features, kept in the run folder under names of their own. args: of ("clean" or an attack),
    norm, eps, limit, layers, seed. needs: model."""
    args, classifier = work.args, work.model()
    test, _ = unseen(work.data, classifier, trained=False)
    twins = Twins(work.store, classifier, test, limit=args["limit"], seed=args["seed"])
    bench, ball = Bench(twins, args["layers"]), BALLS[args["norm"]](args["eps"])
    if args["of"] == "clean":
        seen = bench.clean()
        for part in other_images(work.data_for(classifier), test, twins):
            bench.further(part)
        bench.noisy(ball)
    else:
        seen = bench.attacked(args["of"], attack_named(args["of"]), ball, failed=True)
    return {"rows": [], "n": len(seen)}, {}


def detector(work: Work) -> Result:
    """One detector fitted on each attack and tested on all. args: detector, attacks, norm, eps, limit, layers, seed,
    protocols. needs: model and the features that it reads."""
    args, classifier = work.args, work.model()
    test, _ = unseen(work.data, classifier, trained=False)
    asked = Ask(
        detectors=(args["detector"],),
        attacks=tuple(args["attacks"]),
        ball=BALLS[args["norm"]](args["eps"]),
        protocols=tuple(args["protocols"]),
        layers=tuple(args["layers"]),
        limit=args["limit"],
        seed=args["seed"],
    )
    told = Detection(asked, work.run, classifier, work.data, test).run()
    guesses = told["facts"]["guesses"]
    follow = any(attack_named(name).uses_gradient for name in asked.attacks)
    why = "; ".join(filter(None, (gradient_doubt(work) if follow else "", guesses)))
    return {"rows": [_row(r, why) for r in told["rows"]], "facts": told["facts"]}, {}


def _row(row: dict[str, Any], why: str) -> dict[str, Any]:
    """As every row of a study: the attack is the one it is tested on. why: its attacks or classifier are in doubt."""
    status = "ok" if row["value"] is not None and not why else "inconclusive"
    told = {k: v for k, v in row.items() if k != "tested_on"} | {"note": row["note"] or why}
    return {
        "kind": Kind.DETECTOR,
        **told,
        "attack": row["tested_on"],
        "same": row["tested_on"] == row["fitted_on"],
        "status": status,
    }
