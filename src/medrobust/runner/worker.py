"""A worker process: tickets in on stdin, events out on stdout, a line of JSON each. Started by ``pools.Workers``."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from dataclasses import asdict
from typing import IO, Any


def main() -> None:
    """Compute cells until the input ends; then leave at once, even from the middle of a cell.

    Whoever sent the tickets is gone then, and a new one may have started the same cell.
    """
    # what a library prints must not come between the events
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    # Ctrl-C goes to the whole group; the main process decides, and closes our input
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tickets: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin, tickets), daemon=True).start()

    from medrobust.runner.executors import (
        attempt,  # torch, once a cell needs it, takes its threads from OMP_NUM_THREADS
    )

    _say(events, {"kind": "ready"})
    while True:
        _say(events, asdict(attempt(tickets.get())))


def _say(events: IO[str], told: dict[str, Any]) -> None:
    events.write(json.dumps(told) + "\n")
    events.flush()


def _listen(lines: IO[str], tickets: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in lines:
        tickets.put(json.loads(line))
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
