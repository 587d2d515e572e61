"""Where cells are computed: in this process, or in worker processes of this machine. One face, ``Pool``."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from medrobust import private_names
from medrobust.atomic import DiskError, disk_errors
from medrobust.errors import InputError
from medrobust.experiments.work import GoneError
from medrobust.runner.perform import image_names, perform

Ticket = Mapping[str, Any]

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
"""A disk that takes no more, whoever was writing: no cell is at fault."""


@dataclass(frozen=True)
class Event:
    """What became of a cell.

    kind: "done"; "failed", with the error; "input", the same where trying again is of no use; "gone", a cell that it
    needs cannot be read; "disk", the run folder takes no more; "died", its worker went away. text: the error's last
    line, the key that is gone. trace: the traceback.
    """

    key: str
    kind: str
    text: str = ""
    trace: str = ""


class Pool(Protocol):
    """Takes tickets and tells what became of them. ``free``: how many more it takes now; ``size``: at once at most."""

    size: int

    @property
    def free(self) -> int: ...

    def submit(self, ticket: Ticket) -> None: ...

    def wait(self) -> list[Event]:
        """At least one event, as soon as there is one."""
        ...

    def close(self) -> None: ...


def attempt(ticket: Ticket) -> Event:
    """Compute a cell; whatever goes wrong becomes an event."""
    key = str(ticket["key"])
    try:
        perform(ticket)
    except GoneError as error:
        return Event(key, "gone", error.key)
    except InputError as error:
        if isinstance(error, DiskError) or (isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL):
            return Event(key, "disk", str(error))
        return Event(key, "input", _written(ticket, str(error)))
    except Exception as error:
        said = traceback.format_exception_only(error)[-1].strip()
        return Event(key, "failed", _written(ticket, said), _written(ticket, traceback.format_exc()))
    return Event(key, "done")


def _written(ticket: Ticket, text: str) -> str:
    """What an error says, as it is kept: with codes for paths and names of images, unless names are kept.

    Paths of code are shortened to what Python imports them by, so that a traceback stays readable.
    """
    if ticket.get("keep_names"):
        return text
    for folder in sorted({*filter(os.path.isabs, sys.path), *filter(None, [ticket.get("folder")])}, key=len)[::-1]:
        text = text.replace(f'File "{folder.rstrip(os.sep)}{os.sep}', 'File "')
    return private_names.text(text, image_names(ticket))


class Here:
    """In this process, one cell after the other. threads: of torch; None leaves them as they are."""

    size = 1

    def __init__(self, threads: int | None = None) -> None:
        self.queue: deque[Ticket] = deque()
        if threads is not None:
            _set_threads(threads)

    @property
    def free(self) -> int:
        return self.size - len(self.queue)

    def submit(self, ticket: Ticket) -> None:
        self.queue.append(ticket)

    def wait(self) -> list[Event]:
        return [attempt(self.queue.popleft())]

    def close(self) -> None:
        pass


def _set_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


class Workers:
    """Processes of this machine. A worker that dies is replaced; its cell comes back as an event.

    n: how many. threads: of torch in each; by default the cores shared out. log: folder for what they say.
    Each sees one GPU where there are any, in turn.
    """

    def __init__(self, n: int, log: Path, threads: int | None = None) -> None:
        if n < 1:
            raise InputError(f"--workers must be at least 1, got {n}")
        self.size, self.log = n, Path(log)
        self.threads = threads or max(1, (os.cpu_count() or 1) // n)
        with disk_errors(self.log):
            self.log.mkdir(parents=True, exist_ok=True)
        self.gpus = gpus()
        self.selector = selectors.DefaultSelector()
        self.workers = [self._start(i) for i in range(n)]

    @property
    def free(self) -> int:
        return sum(w.key is None for w in self.workers)

    @property
    def pids(self) -> list[int]:
        """Of the worker processes."""
        return [w.process.pid for w in self.workers]

    def submit(self, ticket: Ticket) -> None:
        next(w for w in self.workers if w.key is None).take(ticket)

    def wait(self) -> list[Event]:
        events: list[Event] = []
        while not events:
            for ready, _ in self.selector.select():
                number = ready.data
                events += self.workers[number].read()
                if self.workers[number].ended:
                    events += self._replace(number)
        return events

    def close(self) -> None:
        for worker in self.workers:
            worker.stop()
        self.selector.close()

    def _start(self, number: int) -> _Worker:
        # unbuffered: what a worker said is in its log also when it is killed
        environment = os.environ | {name: str(self.threads) for name in THREADS} | {"PYTHONUNBUFFERED": "1"}
        if self.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus[number % len(self.gpus)]
        worker = _Worker(environment, self.log / f"worker-{number}.txt")
        self.selector.register(worker.stdout, selectors.EVENT_READ, number)
        return worker

    def _replace(self, number: int) -> list[Event]:
        old = self.workers[number]
        self.selector.unregister(old.stdout)
        how = old.stop()
        if not old.started:
            raise InputError(f"a worker could not start ({how}); what it said is in {old.log}")
        self.workers[number] = self._start(number)
        return [] if old.key is None else [Event(old.key, "died", f"the worker died ({how}); see {old.log}")]


THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class _Worker:
    """One process, and the cell it computes."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.log, self.started, self.ended = log, False, False
        self.key: str | None = None
        # O_NOFOLLOW: a link that lies in wait is not followed
        appended = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        with disk_errors(log.parent), os.fdopen(os.open(log, appended, 0o644), "ab") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "medrobust.runner.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=environment,
                bufsize=0,
            )
        self.rest = b""

    @property
    def stdout(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def take(self, ticket: Ticket) -> None:
        self.key = ticket["key"]
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died; reading from it will say so
            self.process.stdin.write(json.dumps(dict(ticket)).encode() + b"\n")

    def read(self) -> list[Event]:
        """What it has said since."""
        piece = self.stdout.read(65536)
        self.ended = not piece
        *lines, self.rest = (self.rest + (piece or b"")).split(b"\n")
        events = []
        for line in lines:
            told = json.loads(line)
            self.started = True
            if told["kind"] != "ready":
                self.key = None
                events.append(Event(**told))
        return events

    def stop(self) -> str:
        """End it; returns how it ended."""
        assert self.process.stdin is not None
        self.process.stdin.close()  # at the end of its input it leaves, whatever it is doing
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.stdout.close()
        return f"signal {-code}" if code < 0 else f"exit code {code}"


def gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [g.strip() for g in given.split(",") if g.strip() and g.strip() != "-1"]
    if not Path("/proc/driver/nvidia").exists() and sys.platform == "linux":
        return []  # torch need not be loaded to know
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]
