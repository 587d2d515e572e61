"""Worker processes of this machine (--workers): a dask scheduler in this process, and processes of one thread each.

All ports are on the loopback address. With the package cryptography they also ask for a certificate of this run alone;
without it, every user of this machine who finds a port can run code as its owner.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
from pathlib import Path

from medrobust.atomic import disk_errors
from medrobust.errors import InputError
from medrobust.runner import encryption, fork_server
from medrobust.runner.cluster import OwnScheduler
from medrobust.runner.worker_log import LOG

SETTINGS = {
    "distributed.worker.multiprocessing-method": fork_server.METHOD,
    "distributed.nanny.pre-spawn-environ": {},
    "distributed.worker.profile.enabled": False,
}
"""Of dask, while the workers are there."""


def start(n: int, log: Path, threads: int | None = None) -> OwnScheduler:
    """n worker processes; one that dies is replaced. Each sees one GPU where there are any, in turn.

    log: folder for what workers print. threads: of torch in each; by default the cores shared out. InputError where
    they cannot start.
    """
    with disk_errors(log):
        log.mkdir(parents=True, exist_ok=True)
    import dask
    from distributed import Nanny, Scheduler, Security, SpecCluster

    secure = importlib.util.find_spec("cryptography") is not None
    common = {
        "host": encryption.LOOPBACK,
        "dashboard": False,
        "dashboard_address": f"{encryption.LOOPBACK}:0",
        "protocol": "tls" if secure else "tcp",
        "security": Security.temporary() if secure else None,
    }
    worker = common | {
        "nthreads": 1,
        "memory_limit": None,  # the operating system's; dask would stop a worker at its share
        "preload": ["medrobust.runner.worker_log"],
        "silence_logs": logging.CRITICAL,
    }
    devices = gpus()
    fork_server.begin(n, threads)  # unless the command has done it before
    shared, workers = fork_server.environment(n, threads), {}
    for i in range(n):
        own = shared | {LOG: str((log / f"worker-{i}.txt").absolute())}
        own |= {"CUDA_VISIBLE_DEVICES": devices[i % len(devices)]} if devices else {}
        workers[i] = {"cls": Nanny, "options": worker | {"env": own}}
    with contextlib.ExitStack() as undo:
        undo.enter_context(encryption.no_web_pages())
        undo.enter_context(dask.config.set(SETTINGS))
        try:
            cluster = SpecCluster(
                workers=workers,
                # a death counts against the cell itself at once: ``execute`` decides how often it is tried
                scheduler={"cls": Scheduler, "options": common | {"allowed_failures": 0}},
                security=common["security"],
                silence_logs=logging.CRITICAL,
            )
        except (OSError, RuntimeError, TimeoutError) as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise InputError(f"workers cannot start: {reason}; what they printed is in {log}") from error
        kept = undo.pop_all()
    return OwnScheduler(cluster, log, kept, fixed=True)


def gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES has them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [g.strip() for g in given.split(",") if g.strip() and g.strip() != "-1"]
    if not Path("/proc/driver/nvidia").exists() and sys.platform == "linux":
        return []  # torch need not be loaded to know
    import torch

    return [str(i) for i in range(torch.cuda.device_count())]
