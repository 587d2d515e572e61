"""Where cells are computed: one after the other in this process, or by the workers of a dask scheduler."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from medrobust import private_names
from medrobust.atomic import DiskError
from medrobust.errors import InputError
from medrobust.experiments.tickets import Ticket
from medrobust.experiments.work import GoneError
from medrobust.runner import fork_server
from medrobust.runner.perform import image_names, perform

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""Errors of a disk that is full or read-only: no cell is at fault."""


@dataclass(frozen=True)
class CellOutcome:
    """What became of a cell.

    kind: "done"; "failed", with the error; "input", the same where trying again is of no use; "gone", a cell that it
    needs cannot be read; "disk", the run folder cannot be written to; "died", its worker process ended.
    text: the error's last line, the key that is gone. trace: the traceback.
    """

    key: str
    kind: str
    text: str = ""
    trace: str = ""


class Executor(Protocol):
    """Takes tickets and returns their outcomes."""

    @property
    def size(self) -> int:
        """Cells that are computed at once."""
        ...

    @property
    def free(self) -> int:
        """How many more tickets it takes now."""
        ...

    def submit(self, ticket: Ticket) -> None: ...

    def wait(self) -> list[CellOutcome]:
        """The next outcomes; none after about a second without any."""
        ...

    def close(self) -> None: ...


def check(workers: int, scheduler: str | None, slurm: str | None, tls: Path | None) -> None:
    """InputError where the options of a command contradict each other."""
    if workers < 0:
        raise InputError(f"--workers must be 0 or more, got {workers}")
    if sum((workers > 0, scheduler is not None, slurm is not None)) > 1:
        raise InputError("give one of --workers, --scheduler and --slurm")
    if tls is not None and scheduler is None and slurm is None:
        raise InputError("--tls is for --scheduler or --slurm")


def prepare(workers: int, threads: int | None, *, own: bool = False) -> None:
    """Let the workers of ``make`` import what they need from now on; returns at once. own: all tasks are the user's."""
    if workers:
        fork_server.begin(workers, threads, fork_server.OWN if own else fork_server.PACKAGE)


def make(
    out: Path,
    workers: int = 0,
    threads: int | None = None,
    scheduler: str | None = None,
    slurm: str | None = None,
    tls: Path | None = None,
) -> Executor:
    """The executor that the options of a command ask for. out: the run folder. InputError as of ``check``."""
    check(workers, scheduler, slurm, tls)
    if not workers and scheduler is None and slurm is None:
        return Serial(threads)
    from medrobust.runner import cluster, local_cluster
    from medrobust.runner import slurm as jobs

    if scheduler is not None:
        return cluster.Cluster(scheduler, out, tls=tls)
    if slurm is None:
        return cluster.Cluster(local_cluster.start(workers, out / "log", threads), out)
    options = jobs.options(slurm)
    own = jobs.start(options, out / "log", tls)
    own.cluster.scale(jobs=options["jobs"])
    return cluster.Cluster(own, out)


def attempt(ticket: Ticket) -> CellOutcome:
    """Compute a cell; whatever goes wrong becomes an outcome."""
    key = str(ticket["key"])
    try:
        perform(ticket)
    except GoneError as error:
        return CellOutcome(key, "gone", error.key)
    except InputError as error:
        if isinstance(error, DiskError) or (isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL):
            return CellOutcome(key, "disk", str(error))
        return CellOutcome(key, "input", _private(ticket, str(error)))
    except Exception as error:
        line = traceback.format_exception_only(error)[-1].strip()
        return CellOutcome(key, "failed", _private(ticket, line), _private(ticket, traceback.format_exc()))
    return CellOutcome(key, "done")


def _private(ticket: Ticket, text: str) -> str:
    """The text of an error with codes for paths and names of images, unless names are kept.

    Paths of code are shortened to what Python imports them by, so that a traceback stays readable.
    """
    if ticket.get("keep_names"):
        return text
    for folder in sorted({*filter(os.path.isabs, sys.path), *filter(None, [ticket.get("folder")])}, key=len)[::-1]:
        text = text.replace(f'File "{folder.rstrip(os.sep)}{os.sep}', 'File "')
    return private_names.text(text, image_names(ticket))


class Serial:
    """In this process, one cell after the other. threads: of torch; None leaves them as they are."""

    size = 1

    def __init__(self, threads: int | None = None) -> None:
        self.queue: deque[Ticket] = deque()
        if threads is not None:
            import torch

            torch.set_num_threads(threads)

    @property
    def free(self) -> int:
        return self.size - len(self.queue)

    def submit(self, ticket: Ticket) -> None:
        self.queue.append(ticket)

    def wait(self) -> list[CellOutcome]:
        return [attempt(self.queue.popleft())]

    def close(self) -> None:
        pass
