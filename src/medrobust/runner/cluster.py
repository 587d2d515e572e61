"""Cells on the workers of a dask.distributed scheduler: one that runs somewhere, or one that this process started.

Everyone must see the run folder and the data under the same paths, as on a shared disk.
What a dask port trusts, and why only TLS leaves this machine: ``medrobust.runner.encryption``.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medrobust.atomic import disk_errors
from medrobust.errors import InputError
from medrobust.experiments.tickets import Ticket
from medrobust.runner import encryption
from medrobust.runner.executors import CellOutcome, attempt

PATIENCE = 30.0
"""Seconds to wait for a scheduler to answer, and for a first worker before saying that there is none."""
RECOUNT = 1.0
"""Seconds after which workers are counted again."""


@dataclass(frozen=True)
class OwnScheduler:
    """A scheduler in this process, with its workers. log: folder of what they print.

    undo: closed after the workers: settings and files that were made for them. fixed: the number of workers is fixed.
    """

    cluster: Any
    log: Path
    undo: contextlib.ExitStack
    fixed: bool = False

    @property
    def address(self) -> str:
        """``tls://HOST:PORT``, or ``tcp://127.0.0.1:PORT``."""
        return str(self.cluster.scheduler_address)

    @property
    def script(self) -> str:
        """What each SLURM job runs."""
        return str(self.cluster.job_script())

    def close(self) -> None:
        """End the workers and the scheduler."""
        with self.undo:
            self.cluster.close()


class Cluster:
    """An executor on the workers of one scheduler. A worker that dies loses its cell only: it is tried again.

    scheduler: ``tcp://127.0.0.1:PORT``, ``tls://HOST:PORT`` with the certificates in the folder ``tls``, or one that is
    closed with the executor. Each worker process computes one cell at a time, so that it has its GPU for itself.
    InputError where the connection would leave this machine unencrypted.
    """

    def __init__(self, scheduler: str | OwnScheduler, run: Path, tls: Path | None = None) -> None:
        import distributed

        self.own = scheduler if isinstance(scheduler, OwnScheduler) else None
        self.address = scheduler.address if isinstance(scheduler, OwnScheduler) else scheduler
        security = None if self.own is not None else encryption.for_address(self.address, tls)
        self.outcomes: queue.SimpleQueue[CellOutcome] = queue.SimpleQueue()
        self.futures: dict[str, distributed.Future[CellOutcome | None]] = {}
        self._workers, self._counted = 1, -RECOUNT
        try:
            self.client = distributed.Client(
                self.address if self.own is None else self.own.cluster,
                timeout=PATIENCE,
                set_as_default=False,
                security=security,
            )
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(
                f"no scheduler answers at {self.address} ({type(error).__name__}); start: dask scheduler"
            ) from None
        try:
            self._check(run)
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Worker processes at the moment, at least 1."""
        if self.own is not None:
            return max(1, len(self.own.cluster.scheduler.workers))
        if time.monotonic() - self._counted >= RECOUNT:  # each count asks the scheduler
            try:
                self._workers = max(1, len(self.client.scheduler_info(n_workers=-1)["workers"]))
            except Exception as error:  # dask has many words for a scheduler that is gone
                raise InputError(self._lost()) from error
            self._counted = time.monotonic()
        return self._workers

    @property
    def free(self) -> int:
        # on a network one more for each worker waits there, so that none is idle while an answer travels; on this
        # machine none, so that a worker that dies takes only the cell that it computes
        at_once = 1 if self.own is not None and self.own.fixed else 2
        return at_once * self.size - len(self.futures)

    def submit(self, ticket: Ticket) -> None:
        name = str(ticket["key"])
        try:
            # in bytes: dask would look through a dict for tasks
            packed = pickle.dumps(dict(ticket))
            future = self.client.submit(_compute, packed, key=f"{name}-{uuid.uuid4().hex[:8]}", pure=False)
        except Exception as error:
            raise InputError(self._lost()) from error
        self.futures[name] = future
        future.add_done_callback(lambda f: self.outcomes.put(self._outcome(name, f)))

    def wait(self) -> list[CellOutcome]:
        try:
            outcome = self.outcomes.get(timeout=RECOUNT)
        except queue.Empty:
            if self.client.status != "running":
                raise InputError(self._lost()) from None
            return []  # workers may have come meanwhile
        if outcome.kind == "lost":
            raise InputError(self._lost())
        self.futures.pop(outcome.key, None)
        return [outcome]

    def close(self) -> None:
        with contextlib.suppress(Exception):  # whatever is gone already need not be closed
            self.client.cancel(list(self.futures.values()), force=True)
        with contextlib.suppress(Exception):
            self.client.close(timeout=2)
        if self.own is not None:
            self.own.close()

    def _lost(self) -> str:
        return f"the scheduler at {self.address} is gone; what is finished is kept, the same command goes on from there"

    def _outcome(self, name: str, future: Any) -> CellOutcome:
        from distributed import KilledWorker

        if future.status == "finished":
            # which type an answer has is known with its end; an answer itself would have to be fetched from the worker
            outcome: CellOutcome | None = None if future.type is type(None) else future.result()
            return outcome or CellOutcome(name, "done")
        if future.status in ("cancelled", "lost"):
            return CellOutcome(name, "lost")
        error = future.exception()
        if isinstance(error, KilledWorker):
            where = "" if self.own is None else f"; see {self.own.log}"
            return CellOutcome(name, "died", f"the worker process that computed it died{where}")
        return CellOutcome(name, "died", f"{type(error).__name__}: {error}".splitlines()[0])

    def _check(self, run: Path) -> None:
        """InputError where a worker does not see the run folder: before hours of work, not after."""
        with contextlib.suppress(Exception):
            self.client.wait_for_workers(1, timeout=PATIENCE if self.own is None else 3600)
        if not self.client.scheduler_info(n_workers=-1)["workers"]:
            raise InputError(
                f"the scheduler at {self.address} has no worker; start some: dask worker {self.address} "
                f"--nthreads 1 {' '.join(encryption.NO_DASHBOARD)}"
            )
        token = run.resolve() / f".seen-{uuid.uuid4().hex}"
        with disk_errors(run):
            token.parent.mkdir(parents=True, exist_ok=True)
            token.write_text("")
        try:
            lost = [worker for worker, sees in self.client.run(_sees, str(token)).items() if not sees]
        finally:
            token.unlink(missing_ok=True)
        if lost:
            raise InputError(f"worker {lost[0]} does not see {run.resolve()}; --out must lie on a disk that all share")


def _compute(packed: bytes) -> CellOutcome | None:
    """What became of the cell of a pickled ticket; None where it is done."""
    outcome = attempt(pickle.loads(packed))
    return None if outcome.kind == "done" else outcome


def _sees(path: str) -> bool:
    return Path(path).exists()
