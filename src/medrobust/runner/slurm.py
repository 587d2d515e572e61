"""Workers as SLURM jobs (--slurm): a scheduler in this process, and one worker process of one cell at a time a job.

Needs the extra ``cluster``. Jobs must see the run folder and the data under the same paths, as on a shared disk.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medrobust.errors import InputError
from medrobust.runner import encryption
from medrobust.runner.cluster import OwnScheduler

NAMES = {"partition": "queue", "time": "walltime", "memory": "memory", "cpus": "cores", "account": "account"}
"""Names of options in --slurm, and in dask-jobqueue."""
ALLOWED = (*NAMES, "gpus", "jobs", "interface")


def options(text: str) -> dict[str, Any]:
    """``partition=gpu,time=04:00:00,gpus=1,cpus=4,memory=16GB,jobs=8`` checked; jobs are one worker each."""
    values: dict[str, Any] = {"cpus": "2", "memory": "8GB", "time": "04:00:00", "gpus": "0", "jobs": "1"}
    for pair in [p for p in text.split(",") if p.strip()]:
        name, equals, value = pair.strip().partition("=")
        if not equals or name not in ALLOWED or not value:
            raise InputError(f"--slurm takes {', '.join(f'{n}=…' for n in ALLOWED)}, got {pair!r}")
        values[name] = value
    for name in ("cpus", "gpus", "jobs"):
        number = str(values[name])
        if not number.isdecimal() or len(number) > 9 or (name != "gpus" and int(values[name]) < 1):
            raise InputError(f"--slurm {name} must be a whole number, got {values[name]!r}")
        values[name] = int(values[name])
    return values


def start(options: Mapping[str, Any], log: Path, tls: Path | None = None, keys: Path | None = None) -> OwnScheduler:
    """A scheduler whose workers are jobs of these options, each with GPUs for itself; ``cluster.scale`` starts them.

    interface: the network interface that scheduler and workers listen on ("lo": this machine only); by default all,
    with TLS. tls: a folder of certificates, see ``encryption.FILES``; by default temporary ones below ``keys`` (by
    default ``log``), which the jobs must see. No dashboard.
    """
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError:
        raise InputError("--slurm needs dask-jobqueue: pip install 'medrobust[cluster]'") from None
    interface = options.get("interface")
    certificates, temporary = encryption.certificates_for_jobs(interface, tls, keys or log)
    with encryption.no_web_pages():
        cluster = SLURMCluster(
            **{name: options[option] for option, name in NAMES.items() if option in options},
            processes=1,
            job_extra_directives=[f"--gpus={options['gpus']}"] if options["gpus"] else [],
            job_script_prologue=[f"export {n}={options['cpus']}" for n in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")],
            log_directory=str(log),
            worker_extra_args=["--nthreads", "1", *encryption.NO_DASHBOARD],
            job_cpu=options["cpus"],
            interface=interface,
            security=None if certificates is None else encryption.from_files(certificates),
            scheduler_options={"dashboard": False, "dashboard_address": f"{encryption.LOOPBACK}:0"},
        )
    undo = contextlib.ExitStack()
    if temporary and certificates is not None:
        undo.callback(shutil.rmtree, certificates, ignore_errors=True)
    return OwnScheduler(cluster, log, undo)
