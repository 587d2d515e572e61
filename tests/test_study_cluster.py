"""A real scheduler and real workers over TCP: the same cells, the same bytes, and one line where something is gone."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from medrobust import InputError
from medrobust.studies import encryption
from medrobust.studies.cluster import Cluster, slurm, slurm_options
from tests.results_files import numbers

from .test_study_runner import a_study, cell, diamond, go, values

distributed = pytest.importorskip("distributed")
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


def listening(pid: int) -> set[str]:
    """Addresses on which a process accepts connections, without their ports."""
    psutil = pytest.importorskip("psutil")
    connections = psutil.Process(pid).net_connections("inet")
    return {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}


def test_on_one_machine_ports_are_on_the_loopback_address_and_no_page_is_served(tmp_path):
    """Whoever reaches a dask port runs code as its owner: the scheduler of --slurm, a worker as its job starts it."""
    pytest.importorskip("dask_jobqueue")
    before = listening(os.getpid())
    jobs = slurm(slurm_options("interface=lo"), tmp_path)
    worker = None
    try:
        assert listening(os.getpid()) - before == {"127.0.0.1"}
        http = jobs.cluster.scheduler.http_server
        for page in ("status", "health", "metrics", "info/main/workers.html", "json/counts.json"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"http://{http.address}:{http.port}/{page}", timeout=10)
        command = shlex.split(jobs.script.splitlines()[-1])
        with open(tmp_path / "worker.txt", "wb") as said:
            worker = subprocess.Popen([*command, "--no-nanny", "--local-directory", str(tmp_path)], stdout=said,
                                      stderr=said, env=os.environ | QUIET)  # fmt: skip
        end = time.monotonic() + 60
        while not jobs.cluster.scheduler_info["workers"] and time.monotonic() < end:
            time.sleep(0.05)
        assert jobs.cluster.scheduler_info["workers"]
        assert listening(worker.pid) == {"127.0.0.1"}
    finally:
        if worker is not None:
            worker.kill()
            worker.wait()
        jobs.close()


def test_what_leaves_this_machine_is_encrypted_or_refused(tmp_path, monkeypatch):
    for address in ("tcp://10.0.0.5:8786", "tcp://0.0.0.0:8786", "tcp://scheduler.example.org:8786"):
        with pytest.raises(InputError, match=r"is not encrypted, .* runs code as its owner; start .* tls://HOST:PORT"):
            Cluster(address, tmp_path)
    with pytest.raises(InputError, match=r"must read tcp://127\.0\.0\.1:PORT or tls://HOST:PORT, got 'ucx://h:1'"):
        Cluster("ucx://h:1", tmp_path)
    with pytest.raises(InputError, match=r"tls://h:1 needs certificates: give --tls FOLDER \(ca\.pem, cert\.pem"):
        Cluster("tls://h:1", tmp_path)
    with pytest.raises(InputError, match=r"holds no ca\.pem"):
        Cluster("tls://h:1", tmp_path, tls=tmp_path)
    assert encryption.for_address("tcp://[::1]:8786", None) is None
    monkeypatch.setattr(encryption.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"--slurm needs TLS, .* pip install cryptography, give --tls FOLDER"):
        encryption.certificates_for_jobs(None, None, tmp_path)
    with pytest.raises(InputError, match="--slurm needs TLS"):
        encryption.certificates_for_jobs("ib0", None, tmp_path)


def test_jobs_on_other_machines_get_certificates(tmp_path):
    pytest.importorskip("dask_jobqueue")
    pytest.importorskip("cryptography")
    jobs, worker = slurm(slurm_options(""), tmp_path), None
    try:
        assert jobs.address.startswith("tls://")
        options = shlex.split(jobs.script.splitlines()[-1])
        for name in ("--tls-ca-file", "--tls-cert", "--tls-key"):
            file = Path(options[options.index(name) + 1])
            assert file.parent.parent == tmp_path.resolve()
            assert file.parent.stat().st_mode & 0o077 == 0
        with pytest.raises((OSError, TimeoutError)):  # without a certificate
            distributed.Client(jobs.address.replace("tls://", "tcp://"), timeout=2, set_as_default=False)
        with open(tmp_path / "worker.txt", "wb") as said:
            worker = subprocess.Popen([*options, "--no-nanny", "--local-directory", str(tmp_path)], stdout=said,
                                      stderr=said, env=os.environ | QUIET)  # fmt: skip
        assert values(go(diamond(), tmp_path / "run", Cluster(jobs, tmp_path / "run")))["m1000"] == 1112
    finally:
        if worker is not None:
            worker.kill()
            worker.wait()
        jobs.close()
    assert not list(tmp_path.glob("tls-*"))  # the key ends with the run


def test_slurm_jobs_have_one_worker_and_its_gpus(tmp_path):
    pytest.importorskip("dask_jobqueue")
    options = slurm_options("partition=gpu,gpus=1,cpus=4,memory=16GB,time=02:00:00,jobs=3,interface=lo")
    jobs = slurm(options, tmp_path)
    try:
        script = jobs.script
    finally:
        jobs.close()
    for line in ("#SBATCH -p gpu", "#SBATCH --gpus=1", "#SBATCH --cpus-per-task=4", "#SBATCH -t 02:00:00",
                 "export OMP_NUM_THREADS=4"):  # fmt: skip
        assert line in script
    assert script.count("--nthreads 1") == 1
    assert "--no-dashboard --dashboard-address 127.0.0.1:0" in script
    with pytest.raises(InputError, match=r"--slurm takes partition=…, time=…, .* got 'queue=x'"):
        slurm_options("queue=x")
    with pytest.raises(InputError, match="jobs must be a whole number, got '0'"):
        slurm_options("jobs=0")
