"""A real scheduler and real workers over TCP: the same cells, the same bytes, and one line where something is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medrobust import InputError
from medrobust.studies.cluster import Cluster, slurm, slurm_options
from tests.results_files import numbers

from .test_study_runner import a_study, cell, diamond, go

pytest.importorskip("distributed")
QUIET = {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error"}


@contextmanager
def scheduler(folder: Path, workers: int = 1) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """The address of a scheduler on a free port, and the processes: itself first. All are gone at the end."""
    told = folder / "scheduler.json"
    begun: list[subprocess.Popen] = []

    def start(*command: str) -> None:
        with open(folder / "dask.txt", "ab") as said:
            begun.append(subprocess.Popen([sys.executable, "-m", *command], stdout=said, stderr=said,
                                          env=os.environ | QUIET))  # fmt: skip

    try:
        start("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
              "--scheduler-file", str(told))  # fmt: skip
        end = time.monotonic() + 60
        while not told.exists() and time.monotonic() < end:
            time.sleep(0.05)
        address = json.loads(told.read_text())["address"]
        for _ in range(workers):
            start("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny",
                  "--local-directory", str(folder))  # fmt: skip
        yield address, begun
    finally:
        for process in reversed(begun):
            process.kill()
            process.wait()


def test_a_cluster_gives_the_same_bytes_and_survives_a_worker(tmp_path):
    go(diamond(), tmp_path / "here")
    with scheduler(tmp_path, workers=2) as (address, begun):
        go(diamond(), tmp_path / "there", Cluster(address, tmp_path / "there"))
        assert numbers(tmp_path / "here/results.json") == numbers(tmp_path / "there/results.json")
        study = a_study(*(cell("number", v, sleep=0.3) for v in range(6)), cell("flaky", 7, fails=9))
        pool = Cluster(address, tmp_path / "hurt")
        begun[1].kill()
        told = go(study, tmp_path / "hurt", pool)
        assert told["cells"] == {"all": 7, "done": 6, "failed": 1, "left": 0}
        assert told["failed"][0]["error"] == "RuntimeError: no luck with 7"
        pool = Cluster(address, tmp_path / "lost")
        begun[0].kill()
        with pytest.raises(InputError, match=r"the scheduler at tcp://.* is gone; what is finished is kept"):
            go(study, tmp_path / "lost", pool)


def test_nobody_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("medrobust.studies.cluster.PATIENCE", 1.0)
    with pytest.raises(InputError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9 "):
        Cluster("tcp://127.0.0.1:9", tmp_path)


def test_slurm_jobs_have_one_worker_and_its_gpus(tmp_path):
    pytest.importorskip("dask_jobqueue")
    jobs = slurm(slurm_options("partition=gpu,gpus=1,cpus=4,memory=16GB,time=02:00:00,jobs=3"), tmp_path)
    try:
        script = jobs.job_script()
    finally:
        jobs.close()
    for line in ("#SBATCH -p gpu", "#SBATCH --gpus=1", "#SBATCH --cpus-per-task=4", "#SBATCH -t 02:00:00",
                 "export OMP_NUM_THREADS=4"):  # fmt: skip
        assert line in script
    assert script.count("--nthreads 1") == 1
    with pytest.raises(InputError, match=r"--slurm takes partition=…, time=…, .* got 'queue=x'"):
        slurm_options("queue=x")
    with pytest.raises(InputError, match="jobs must be a whole number, got '0'"):
        slurm_options("jobs=0")
