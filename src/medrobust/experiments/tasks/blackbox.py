"""What an attacker reaches who sees only answers: success against queries at one size."""

from __future__ import annotations

from typing import Any

import numpy as np

from medrobust import stats
from medrobust.experiments import blackbox
from medrobust.experiments.checks import TOLERATED
from medrobust.experiments.config import attack_named
from medrobust.experiments.system import groups
from medrobust.experiments.tasks.curves import fresh, judged_images, quiet
from medrobust.experiments.work import Work
from medrobust.results import INCONCLUSIVE, OK, Kind
from medrobust.store import Result
from medrobust.threat import BALLS


def queried(work: Work) -> Result:
    """One attack without gradients. args: attack ("noise": random changes, one a query), norm, eps, queries (counts at
    which the success is measured), limit, seed. needs: model.

    Of the images that are read rightly: the share fooled within each count, and the median queries.
    """
    classifier, args = work.model(), work.args
    part, ball, seed = judged_images(work, classifier), BALLS[args["norm"]](args["eps"]), args["seed"]
    if args["attack"] == "noise":
        kind, tries = Kind.CONTROL, max(args["queries"])
        _, arrays = blackbox.by_chance(classifier, part, ball, seed, quiet, tries)
    else:
        kind = Kind.ATTACK
        _, arrays = blackbox.probed(attack_named(args["attack"]), classifier, part, ball, seed, quiet)
    queries, rows = arrays["queries_used"], fresh(args["norm"], seed)
    lost = int(arrays["no_gradient"].sum()) if "no_gradient" in arrays else 0
    note = f"on {lost} of {queries.size} images no answer ever differed" if lost else ""
    status = INCONCLUSIVE if lost >= max(1, TOLERATED * queries.size) else OK
    columns: dict[str, Any] = {"attack": args["attack"], "eps": args["eps"], "status": status, "note": note}
    owners, right = groups(part), queries > 0
    whose = None if owners is None else owners[right]
    rows.add(kind, "accuracy", stats.proportion(~np.isfinite(queries), owners), **columns)
    for count in args["queries"]:
        rows.add(kind, "success_at", stats.proportion(queries[right] <= count, whose), **columns, queries=count)
    middle = stats.median(queries[right], whose)
    if not np.isfinite(middle.value):
        middle = stats.NOTHING._replace(n=middle.n)
        columns |= {"note": "; ".join(filter(None, (note, f"more than {max(args['queries'])}")))}
    rows.add(kind, "queries_median", middle, **columns)
    return {"rows": rows.plain()}, arrays
