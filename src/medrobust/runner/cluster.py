"""Cells on a dask.distributed cluster: a scheduler that runs somewhere, or one whose workers are SLURM jobs.

Everyone must see the run folder and the data under the same paths, as on a shared disk. Needs the extra ``cluster``.
What a dask port trusts, and why only TLS leaves this machine: ``medrobust.runner.encryption``.
"""

from __future__ import annotations

import contextlib
import queue
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medrobust.atomic import disk_errors
from medrobust.errors import InputError
from medrobust.runner import encryption
from medrobust.runner.executors import Event, Ticket, attempt

MISSING = "needs dask.distributed and dask-jobqueue: pip install 'medrobust[cluster]'"
SLURM = {"partition": "queue", "time": "walltime", "memory": "memory", "cpus": "cores", "account": "account"}
"""What --slurm calls it, and what dask-jobqueue does."""
ALLOWED = (*SLURM, "gpus", "jobs", "interface")
PATIENCE = 30.0
"""Seconds to wait for a scheduler to answer, and for a first worker before saying that there is none."""


class Cluster:
    """A pool of the workers of one scheduler. A worker that dies loses its cell only: dask hands it to another.

    address: ``tcp://127.0.0.1:PORT``, ``tls://HOST:PORT`` with the certificates in the folder ``tls``, or jobs that are
    closed with the pool. Each worker process computes one cell at a time, so that it has its GPU for itself. InputError
    where the connection would leave this machine unencrypted.
    """

    def __init__(self, address: str | Jobs, run: Path, tls: Path | None = None) -> None:
        distributed = _dask()
        self.jobs = address if isinstance(address, Jobs) else None
        self.address = address.address if isinstance(address, Jobs) else address
        security = None if self.jobs is not None else encryption.for_address(self.address, tls)
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.futures: dict[str, Any] = {}
        try:
            self.client = distributed.Client(
                self.address if self.jobs is None else self.jobs.cluster,
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
        if self.jobs is not None:
            self.jobs.close()

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
            self.client.wait_for_workers(1, timeout=PATIENCE if self.jobs is None else 3600)
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
        number = str(told[name])
        if not number.isdecimal() or len(number) > 9 or (name != "gpus" and int(told[name]) < 1):
            raise InputError(f"--slurm {name} must be a whole number, got {told[name]!r}")
        told[name] = int(told[name])
    return told


class Jobs:
    """A scheduler in this process whose workers are jobs. certificates: a folder to remove at the end, or None."""

    def __init__(self, cluster: Any, certificates: Path | None) -> None:
        self.cluster, self.certificates = cluster, certificates

    @property
    def address(self) -> str:
        """Of the scheduler: ``tls://HOST:PORT``, or ``tcp://127.0.0.1:PORT`` on the loopback interface."""
        return str(self.cluster.scheduler_address)

    @property
    def script(self) -> str:
        """What each job runs."""
        return str(self.cluster.job_script())

    def close(self) -> None:
        """End the jobs and the scheduler, and remove the certificates that were made for them."""
        try:
            self.cluster.close()
        finally:
            if self.certificates is not None:
                shutil.rmtree(self.certificates, ignore_errors=True)


def slurm(options: Mapping[str, Any], log: Path, tls: Path | None = None, keys: Path | None = None) -> Jobs:
    """A scheduler whose workers are jobs of these options: one process of one cell each, with its GPUs for itself.

    interface: the network interface that scheduler and workers listen on ("lo": this machine only); by default all,
    with TLS. tls: a folder of certificates, see ``encryption.FILES``; by default temporary ones below ``keys`` (by
    default ``log``), which the jobs must see. No dashboard.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise InputError(f"--slurm {MISSING}") from None
    interface = options.get("interface")
    certificates, temporary = encryption.certificates_for_jobs(interface, tls, keys or log)
    security = None if certificates is None else encryption.from_files(certificates)
    extra = [f"--gpus={options['gpus']}"] if options["gpus"] else []
    threads = [f"export {name}={options['cpus']}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
    given = {theirs: options[ours] for ours, theirs in SLURM.items() if ours in options}
    scheduler = {"dashboard": False, "dashboard_address": f"{encryption.LOOPBACK}:0"}
    with encryption.no_web_pages():
        cluster = SLURMCluster(
            **given,
            processes=1,
            job_extra_directives=extra,
            job_script_prologue=threads,
            log_directory=str(log),
            worker_extra_args=["--nthreads", "1", *encryption.NO_DASHBOARD],
            job_cpu=options["cpus"],
            interface=interface,
            security=security,
            scheduler_options=scheduler,
        )
    return Jobs(cluster, certificates if temporary else None)
