"""A step of an audit in a worker: the cells that it makes are in the run folder afterwards."""

from __future__ import annotations

from medrobust.experiments.suite import of_ticket
from medrobust.experiments.work import Work
from medrobust.store import Result


def step(work: Work) -> Result:
    """args: step. The ticket's ``system`` says which audit."""
    of_ticket(work.ticket["system"], work.store).do(work.args["step"])
    return {"rows": []}, {}
