"""The process that workers of this machine are forked from: it imports once what every worker needs.

It begins before the main process has read images and network, so that both import at the same time.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing import forkserver

METHOD = "forkserver"
"""Of starting a process, as multiprocessing calls it."""
OWN = ("distributed",)
"""Imported where all tasks are the user's own."""
PACKAGE = (*OWN, "medrobust.runner.preloaded")
"""Imported where some task is of the package."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def begin(workers: int, threads: int | None = None, imported: Sequence[str] = PACKAGE) -> None:
    """Start it for so many workers, where it does not run yet; it goes on importing after the return.

    threads: of torch in each worker; by default the cores shared out. imported: names of modules.
    """
    # elsewhere than on Linux torch is not safe to fork once it is imported
    safe = imported if sys.platform == "linux" else OWN
    multiprocessing.get_context(METHOD).set_forkserver_preload(list(safe))
    # numpy and torch read their number of threads when they are loaded
    with _environment(environment(workers, threads)):
        forkserver.ensure_running()


def environment(workers: int, threads: int | None = None) -> dict[str, str]:
    """Environment variables of every worker."""
    each = str(threads or max(1, (os.cpu_count() or 1) // workers))
    # unbuffered: what a worker printed is in its log also when it is killed. One arena: cells are computed in a thread,
    # whose own arena glibc returns to the system after every large tensor, which costs 5 % of a cell in page faults
    return dict.fromkeys(THREADS, each) | {"PYTHONUNBUFFERED": "1", "MALLOC_ARENA_MAX": "1"}


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """These environment variables while a process is started."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
