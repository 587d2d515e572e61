"""Cells on a dask.distributed cluster: a scheduler that runs somewhere, or one whose workers are SLURM jobs.

Everyone must see the run folder and the data under the same paths, as on a shared disk. Needs the extra ``cluster``.
"""

from __future__ import annotations

import contextlib
import queue
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medrobust.atomic import disk_errors
from medrobust.errors import InputError
from medrobust.studies.pools import Event, Ticket, attempt

MISSING = "needs dask.distributed and dask-jobqueue: pip install 'medrobust[cluster]'"
SLURM = {"partition": "queue", "time": "walltime", "memory": "memory", "cpus": "cores", "account": "account"}
"""What --slurm calls it, and what dask-jobqueue does."""
ALLOWED = (*SLURM, "gpus", "jobs")
PATIENCE = 30.0
"""Seconds to wait for a scheduler to answer, and for a first worker before saying that there is none."""


class Cluster:
    """A pool of the workers of one scheduler. A worker that dies loses its cell only: dask hands it to another.

    address: ``tcp://…``. Each worker process computes one cell at a time, so that it has its GPU for itself.
    """

    def __init__(self, address: str, run: Path, cluster: Any = None) -> None:
        distributed = _dask()
        self.address, self.cluster = address, cluster
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.futures: dict[str, Any] = {}
        try:
            self.client = distributed.Client(cluster or address, timeout=PATIENCE, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(
                f"no scheduler answers at {address} ({type(error).__name__}); start: dask scheduler"
            ) from None
        try:
            self._check(run)
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Worker processes at the moment."""
        try:
            return max(1, len(self.client.scheduler_info(n_workers=-1)["workers"]))
        except Exception as error:  # dask has many words for a scheduler that is gone
            raise InputError(self._lost()) from error

    @property
    def free(self) -> int:
        # one more for each worker waits there, so that none is idle while an answer travels
        return 2 * self.size - len(self.futures)

    def submit(self, ticket: Ticket) -> None:
        name = str(ticket["key"])
        try:
            future = self.client.submit(attempt, dict(ticket), key=f"{name}-{uuid.uuid4().hex[:8]}", pure=False)
        except Exception as error:
            raise InputError(self._lost()) from error
        self.futures[name] = future
        future.add_done_callback(lambda f: self.events.put(self._told(name, f)))

    def wait(self) -> list[Event]:
        while True:
            try:
                event = self.events.get(timeout=1.0)
            except queue.Empty:
                if self.client.status != "running":
                    raise InputError(self._lost()) from None
                continue
            if event.kind == "lost":
                raise InputError(self._lost())
            self.futures.pop(event.key, None)
            return [event]

    def close(self) -> None:
        with contextlib.suppress(Exception):  # whatever is gone already need not be closed
            self.client.cancel(list(self.futures.values()), force=True)
        with contextlib.suppress(Exception):
            self.client.close(timeout=2)
        if self.cluster is not None:
            self.cluster.close()

    def _lost(self) -> str:
        return f"the scheduler at {self.address} is gone; what is finished is kept, the same command goes on from there"

    def _told(self, name: str, future: Any) -> Event:
        if future.status == "finished":
            found: Event = future.result()
            return found
        if future.status in ("cancelled", "lost"):
            return Event(name, "lost")
        error = future.exception()
        return Event(name, "died", f"{type(error).__name__}: {error}".splitlines()[0])

    def _check(self, run: Path) -> None:
        """Every worker must see the run folder: told before hours of work, not after."""
        with contextlib.suppress(Exception):
            self.client.wait_for_workers(1, timeout=PATIENCE if self.cluster is None else 3600)
        if not self.client.scheduler_info(n_workers=-1)["workers"]:
            raise InputError(f"the scheduler at {self.address} has no worker; start some: dask worker {self.address} "
                             "--nthreads 1")  # fmt: skip
        token = run.resolve() / f".seen-{uuid.uuid4().hex}"
        with disk_errors(run):
            token.parent.mkdir(parents=True, exist_ok=True)
            token.write_text("")
        try:
            blind = [worker for worker, sees in self.client.run(_sees, str(token)).items() if not sees]
        finally:
            token.unlink(missing_ok=True)
        if blind:
            raise InputError(f"worker {blind[0]} does not see {run.resolve()}; --out must lie on a disk that all share")


def _sees(path: str) -> bool:
    return Path(path).exists()


def _dask() -> Any:
    try:
        import distributed
    except ImportError:
        raise InputError(f"--scheduler {MISSING}") from None
    return distributed


def slurm_options(text: str) -> dict[str, Any]:
    """``partition=gpu,time=04:00:00,gpus=1,cpus=4,memory=16GB,jobs=8`` checked; jobs are one worker each."""
    told: dict[str, Any] = {"cpus": "2", "memory": "8GB", "time": "04:00:00", "gpus": "0", "jobs": "1"}
    for pair in [p for p in text.split(",") if p.strip()]:
        name, equals, value = pair.strip().partition("=")
        if not equals or name not in ALLOWED or not value:
            raise InputError(f"--slurm takes {', '.join(f'{n}=…' for n in ALLOWED)}, got {pair!r}")
        told[name] = value
    for name in ("cpus", "gpus", "jobs"):
        if not str(told[name]).isdecimal() or (name != "gpus" and int(told[name]) < 1):
            raise InputError(f"--slurm {name} must be a whole number, got {told[name]!r}")
        told[name] = int(told[name])
    return told


def slurm(options: Mapping[str, Any], log: Path) -> Any:
    """A cluster whose workers are jobs of these options: one process of one cell each, with its GPUs for itself."""
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise InputError(f"--slurm {MISSING}") from None
    extra = [f"--gpus={options['gpus']}"] if options["gpus"] else []
    threads = [f"export {name}={options['cpus']}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
    given = {theirs: options[ours] for ours, theirs in SLURM.items() if ours in options}
    return SLURMCluster(
        **given, processes=1, job_extra_directives=extra, job_script_prologue=threads, log_directory=str(log),
        worker_extra_args=["--nthreads", "1"], job_cpu=options["cpus"], scheduler_options={"dashboard_address": None},
    )  # fmt: skip
