"""Natural corruptions at five severities."""

from __future__ import annotations

from medrobust import guessing
from medrobust.data.corruptions import corruption_set, medmnist_c_name
from medrobust.experiments.corruptions import balanced_error_rows, corruption_rows, untouched_rows
from medrobust.experiments.corruptions import corrupted as decisions_on
from medrobust.experiments.system import groups
from medrobust.experiments.tasks.curves import fresh, judged_images, quiet
from medrobust.experiments.work import Work
from medrobust.results import Kind, doubted
from medrobust.store import Result


def corrupted(work: Work) -> Result:
    """Every corruption of a set. args: corruption_set, limit, seed. needs: model."""
    classifier, args = work.model(), work.args
    part, rows = judged_images(work, classifier), fresh("", args["seed"])
    images, _ = part.tensors()
    before, table = classifier.predict(images).numpy(), corruption_set(args["corruption_set"], part.channels)
    untouched_rows(rows, before, part.labels, groups(part))
    for name in table:
        _, arrays = decisions_on(classifier, part, name, table, args["seed"], quiet)
        corruption_rows(rows, name, arrays["decision"], before, part.labels, classifier.classes, groups(part))
    if (dataset := medmnist_c_name(args["corruption_set"])) is not None:
        balanced_error_rows(rows, dataset, {side for shape in part.shapes for side in shape})
    chance = guessing.of(before == part.labels, part.labels, groups(part))
    rows.rows = doubted(rows.rows, chance.text, kinds=(Kind.CORRUPTION,))
    return {"rows": rows.plain()}, {}
