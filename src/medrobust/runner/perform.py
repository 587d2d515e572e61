"""One cell computed and kept: the same function runs in this process, in a worker and on a cluster.

A process computes one cell at a time.
"""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from medrobust import own_code
from medrobust.errors import InputError
from medrobust.experiments.tasks import function, is_own
from medrobust.experiments.tickets import Ticket
from medrobust.experiments.work import Work, loaded
from medrobust.naming import public
from medrobust.store import Result

_ONE_AT_A_TIME = threading.Lock()


def perform(ticket: Ticket) -> float:
    """Compute the cell of this ticket, if it is not there, and keep it. Returns the seconds it took."""
    folder = None if ticket["folder"] is None else Path(ticket["folder"])
    with _ONE_AT_A_TIME, own_code.importable(folder):
        work = Work(ticket)

        def compute() -> Result:
            task = function(ticket["task"], folder)
            if is_own(ticket["task"]) and own_code.digest(folder, ticket["task"]) != ticket["spec"]["code"]:
                raise InputError(f"the code of {ticket['task']} has changed since the study was planned; run it again")
            facts, arrays = task(work)
            remarks = {"doubts": work.doubts, "checks": work.checks}
            return {**facts, **{name: value for name, value in remarks.items() if value}}, arrays

        return work.store.once(ticket["spec"], compute).seconds


def image_names(ticket: Ticket) -> list[str]:
    """Names of the images and patients that a message of this cell may hold; none where they cannot be read."""
    names: set[str] = set()
    for declared in (ticket.get("data"), *ticket.get("also", {}).values()):
        with contextlib.suppress(InputError):
            data = None if declared is None else loaded(tuple(sorted(declared.items())), str(ticket["root"]))
            if data is not None and not public(data):
                names |= set(data.ids)
                names |= set() if data.patients is None else {str(p) for p in data.patients}
    return list(names)
