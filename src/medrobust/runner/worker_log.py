"""Loaded by the worker processes of ``local_cluster`` before their first cell: their output goes to a log file."""

from __future__ import annotations

import os
import signal
import sys

LOG = "MEDROBUST_WORKER_LOG"
"""The environment variable that names the log file."""


def dask_setup(_worker: object) -> None:
    """Called by dask. Ctrl-C goes to all processes of a terminal; the main process alone decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # O_NOFOLLOW: a link that lies in wait is not followed
    log = os.open(os.environ[LOG], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    if "torch" in sys.modules:  # imported before this process was forked, with the threads of the first workers
        import torch

        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
