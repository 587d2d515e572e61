"""Images as a file holds them: smallest and sparsest changes of whole levels, and what survives on the way."""

from __future__ import annotations

from medrobust.experiments import stored_cells
from medrobust.experiments.config import attack_named
from medrobust.experiments.system import groups
from medrobust.experiments.tasks.curves import fresh, judged_images, quiet
from medrobust.experiments.tasks.gradient import gradient_doubt
from medrobust.experiments.work import Work
from medrobust.store import Result
from medrobust.threat import BALLS
from medrobust.transformations import TRANSFORMATIONS


def stored(work: Work) -> Result:
    """The smallest eps among images of so many levels (0: not rounded).

    args: attack, norm, eps, levels, limit, seed. needs: model.
    """
    classifier, args = work.model(), work.args
    part, ball, attack = judged_images(work, classifier), BALLS[args["norm"]], attack_named(args["attack"])
    facts, arrays = stored_cells.smallest(
        attack, classifier, part, ball, tuple(args["eps"]), args["levels"], args["seed"], quiet
    )
    rows, doubt = fresh(args["norm"], args["seed"]), gradient_doubt(work) if attack.uses_gradient else ""
    largest = max(args["eps"])
    stored_cells.smallest_row(rows, args["attack"], args["levels"], arrays["min_eps"], groups(part), largest, doubt)
    return {**facts, "rows": rows.plain()}, arrays


def sparsest(work: Work) -> Result:
    """The fewest pixels changed by one level. args: levels, limit, seed. needs: model."""
    classifier, args = work.model(), work.args
    part = judged_images(work, classifier)
    _, arrays = stored_cells.sparse(classifier, part, args["levels"], args["seed"], quiet)
    rows = fresh("linf", args["seed"])
    stored_cells.sparse_rows(rows, args["levels"], arrays, groups(part), gradient_doubt(work))
    return {"rows": rows.plain()}, arrays


def survived(work: Work) -> Result:
    """What transformations (None: all) leave of an attack.

    args: attack, norm, eps, levels, transformations, limit, seed. needs: model.
    """
    classifier, args = work.model(), work.args
    part, ball = judged_images(work, classifier), BALLS[args["norm"]](args["eps"])
    attack, names = attack_named(args["attack"]), args["transformations"] or tuple(TRANSFORMATIONS)
    _, arrays = stored_cells.survived(attack, classifier, part, ball, args["levels"], names, args["seed"], quiet)
    rows = fresh(args["norm"], args["seed"])
    stored_cells.survival_rows(rows, args["attack"], args["eps"], arrays, groups(part), gradient_doubt(work))
    return {"rows": rows.plain()}, arrays
