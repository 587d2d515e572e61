"""A real scheduler and real workers over TCP: the same cells, the same bytes, and one line where something is gone."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import distributed
import pytest
from typer.testing import CliRunner

from medrobust import InputError
from medrobust.cli import app
from medrobust.runner import encryption, local_cluster, slurm
from medrobust.runner.cluster import Cluster
from tests.processes import Process, Server
from tests.results_files import numbers
from tests.runner.test_execute import a_study, cell, diamond, go, values

pytestmark = pytest.mark.loopback


@contextmanager
def scheduler(processes: Server, folder: Path, workers: int = 1) -> Iterator[tuple[str, list[Process]]]:
    """The address of a scheduler on a free port, and the processes: itself first. All are gone at the end."""
    info = folder / "scheduler.json"
    options = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(info))
    begun = [processes.module("distributed.cli.dask_scheduler", *options)]
    try:
        end = time.monotonic() + 60
        # the file is there before its content is
        while not (info.exists() and info.read_text().endswith("}")) and time.monotonic() < end:
            time.sleep(0.05)
        address = json.loads(info.read_text())["address"]
        options = ("--nthreads", "1", "--no-dashboard", "--no-nanny", "--local-directory", str(folder))
        begun += [processes.module("distributed.cli.dask_worker", address, *options) for _ in range(workers)]
        yield address, begun
    finally:
        for process in reversed(begun):
            process.kill()


def job(processes: Server, script: str, folder: Path) -> Process:
    """The worker that a job of this script starts."""
    python, option, module, *arguments = shlex.split(script.splitlines()[-1])
    assert (python, option) == (sys.executable, "-m")
    return processes.module(module, *arguments, "--no-nanny", "--local-directory", str(folder))


def test_a_cluster_gives_the_same_bytes_and_survives_a_worker(tmp_path, processes):
    go(diamond(), tmp_path / "here")
    with scheduler(processes, tmp_path, workers=2) as (address, begun):
        go(diamond(), tmp_path / "there", Cluster(address, tmp_path / "there"))
        assert numbers(tmp_path / "here/results.json") == numbers(tmp_path / "there/results.json")
        study = a_study(*(cell("number", v, sleep=0.3) for v in range(6)), cell("flaky", 7, fails=9))
        executor = Cluster(address, tmp_path / "hurt")
        begun[1].kill()
        told = go(study, tmp_path / "hurt", executor)
        assert told["cells"] == {"all": 7, "done": 6, "failed": 1, "left": 0}
        assert told["failed"][0]["error"] == "RuntimeError: no luck with 7"
        executor = Cluster(address, tmp_path / "lost")
        begun[0].kill()
        with pytest.raises(InputError, match=r"the scheduler at tcp://.* is gone; what is finished is kept"):
            go(study, tmp_path / "lost", executor)


# -- cells and networks of one's own, beside the study file --------------------------------------------------------

BESIDE = """
import torch

def row(metric, value):
    return {"attack": "none", "norm": "", "eps": 0.0, "metric": metric, "value": value, "low": None, "high": None,
            "n": 1, "status": "ok", "note": ""}

def number(work):
    return {"rows": [row("own", work.args["value"] + 1)]}, {}

def fails(work):
    raise ValueError("not today")

def network(classes, size):
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(16, classes))
"""
STUDY = """
from medrobust.experiments import catalogue
from medrobust.grid import Data, Model, Node, Part, Study, StudyTable

def here(work):
    import own_beside
    return own_beside.number(work)

def study(size):
    rows = ({"metric": "own"},)
    names = ["own_study_on_dask:here", "own_beside:number", *(["own_beside:fails"] if size == "small" else [])]
    cells = [Node(n, {"value": i}, labels={"model": n}, rows=rows) for i, n in enumerate(names)]
    if size == "smoke":
        net = Model("net", Data("chest", "phantom:chest@32:n=36"), "own_beside:network", {"epochs": 1})
        cells.append(catalogue.clean(net, limit=4))
    shown = [StudyTable("Own", {"metric": "own"}, ("model",), "metric")]
    return Study("Own", "here", [Part("own", "Own", cells, shown)])
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory, processes) -> Iterator[str]:
    """Of a scheduler with one worker, which started before any study file was there."""
    with scheduler(processes, tmp_path_factory.mktemp("dask")) as (found, _):
        yield found


@pytest.fixture
def beside(tmp_path) -> Path:
    (tmp_path / "own_beside.py").write_text(BESIDE)
    (tmp_path / "own_study_on_dask.py").write_text(STUDY)
    return tmp_path


def run_on(address: str, folder: Path, size: str) -> tuple[int, str, dict]:
    """Exit code, output and results of ``study run`` with the workers at that address."""
    asked = [
        "study",
        "run",
        str(folder / "own_study_on_dask.py"),
        "--size",
        size,
        "--out",
        str(folder / size),
        "--scheduler",
        address,
    ]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    return done.exit_code, done.output, json.loads((folder / size / "results.json").read_text())


def test_workers_find_cells_and_networks_beside_the_study_file_and_see_their_edits(address, beside):
    def own(told: dict) -> list[float]:
        return [r["value"] for r in told["rows"] if r["metric"] == "own"]

    code, said, told = run_on(address, beside, "smoke")
    assert (code, own(told)) == (0, [1, 2]), said
    assert any(r["metric"] == "accuracy" and r["model"] == "net" for r in told["rows"])
    assert "\n0 cells in" in "\n" + run_on(address, beside, "smoke")[1]
    # of the same length: the worker, which has imported the module, computes with what is on disk now
    (beside / "own_beside.py").write_text(BESIDE.replace('["value"] + 1', '["value"] + 5'))
    code, said, told = run_on(address, beside, "smoke")
    assert (code, own(told)) == (0, [5, 6]), said


def test_failed_cells_on_a_cluster_end_with_exit_code_1(address, beside):
    code, said, told = run_on(address, beside, "small")
    assert code == 1
    assert told["cells"] == {"all": 3, "done": 2, "failed": 1, "left": 0}
    assert "1 x ValueError: not today" in said
    code, said, _ = run_on(address, beside, "small")  # nothing is tried again, and nothing is forgotten
    assert code == 1
    assert "\n0 cells in" in "\n" + said


def test_nobody_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("medrobust.runner.cluster.PATIENCE", 1.0)
    with pytest.raises(InputError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9 "):
        Cluster("tcp://127.0.0.1:9", tmp_path)


def listening(pid: int) -> set[str]:
    """Addresses on which a process accepts connections, without their ports."""
    psutil = pytest.importorskip("psutil")
    connections = psutil.Process(pid).net_connections("inet")
    return {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize("secure", [True, False])
def test_the_ports_of_workers_are_on_the_loopback_address(tmp_path, secure, monkeypatch):
    """And ask for a certificate of this run, where one can be made."""
    psutil = pytest.importorskip("psutil")
    if not secure:
        monkeypatch.setattr(local_cluster.importlib.util, "find_spec", lambda _: None)
    this = psutil.Process()
    before, others = listening(this.pid), set(this.children(recursive=True))
    own = local_cluster.start(1, tmp_path)
    try:
        workers = [p for p in this.children(recursive=True) if p not in others and listening(p.pid)]
        assert len(workers) == 1
        assert listening(workers[0].pid) == {"127.0.0.1"}
        assert listening(this.pid) - before == {"127.0.0.1"}
        http = own.cluster.scheduler.http_server
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://{http.address}:{http.port}/health", timeout=10)
        assert own.address.startswith("tls://" if secure else "tcp://")
        if secure:
            with pytest.raises((OSError, TimeoutError)):
                distributed.Client(own.address.replace("tls://", "tcp://"), timeout=2, set_as_default=False)
    finally:
        own.close()


def test_on_one_machine_ports_are_on_the_loopback_address_and_no_page_is_served(tmp_path, processes):
    """Whoever reaches a dask port runs code as its owner: the scheduler of --slurm, a worker as its job starts it."""
    pytest.importorskip("dask_jobqueue")
    before = listening(os.getpid())
    jobs = slurm.start(slurm.options("interface=lo"), tmp_path)
    worker = None
    try:
        assert listening(os.getpid()) - before == {"127.0.0.1"}
        http = jobs.cluster.scheduler.http_server
        for page in ("status", "health", "metrics", "info/main/workers.html", "json/counts.json"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"http://{http.address}:{http.port}/{page}", timeout=10)
        worker = job(processes, jobs.script, tmp_path)
        end = time.monotonic() + 60
        while not jobs.cluster.scheduler_info["workers"] and time.monotonic() < end:
            time.sleep(0.05)
        assert jobs.cluster.scheduler_info["workers"]
        assert listening(worker.pid) == {"127.0.0.1"}
    finally:
        if worker is not None:
            worker.kill()
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


def test_jobs_on_other_machines_get_certificates(tmp_path, processes):
    pytest.importorskip("dask_jobqueue")
    pytest.importorskip("cryptography")
    jobs, worker = slurm.start(slurm.options(""), tmp_path), None
    try:
        assert jobs.address.startswith("tls://")
        options = shlex.split(jobs.script.splitlines()[-1])
        for name in ("--tls-ca-file", "--tls-cert", "--tls-key"):
            file = Path(options[options.index(name) + 1])
            assert file.parent.parent == tmp_path.resolve()
            assert file.parent.stat().st_mode & 0o077 == 0
        with pytest.raises((OSError, TimeoutError)):  # without a certificate
            distributed.Client(jobs.address.replace("tls://", "tcp://"), timeout=2, set_as_default=False)
        worker = job(processes, jobs.script, tmp_path)
        assert values(go(diamond(), tmp_path / "run", Cluster(jobs, tmp_path / "run")))["m1000"] == 1112
    finally:
        if worker is not None:
            worker.kill()
        jobs.close()
    assert not list(tmp_path.glob("tls-*"))  # the key ends with the run


def test_slurm_jobs_have_one_worker_and_its_gpus(tmp_path):
    pytest.importorskip("dask_jobqueue")
    options = slurm.options("partition=gpu,gpus=1,cpus=4,memory=16GB,time=02:00:00,jobs=3,interface=lo")
    jobs = slurm.start(options, tmp_path)
    try:
        script = jobs.script
    finally:
        jobs.close()
    for line in (
        "#SBATCH -p gpu",
        "#SBATCH --gpus=1",
        "#SBATCH --cpus-per-task=4",
        "#SBATCH -t 02:00:00",
        "export OMP_NUM_THREADS=4",
    ):
        assert line in script
    assert script.count("--nthreads 1") == 1
    assert "--no-dashboard --dashboard-address 127.0.0.1:0" in script
    with pytest.raises(InputError, match=r"--slurm takes partition=…, time=…, .* got 'queue=x'"):
        slurm.options("queue=x")
    with pytest.raises(InputError, match="jobs must be a whole number, got '0'"):
        slurm.options("jobs=0")
