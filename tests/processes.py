"""Processes that tests start, watch and kill: forks of pytest, which has paid for the imports.

A Python that imports torch takes seconds to begin; a fork of one takes milliseconds. All are forked by one server,
which is itself a fork of pytest from before the first test: they hold no state, thread or open file of a test.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import pkgutil
import runpy
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Sequence
from multiprocessing import forkserver, resource_tracker, util
from pathlib import Path
from typing import Any

from .network import WATCH

LATE = (
    "torch._dynamo",  # what an optimiser imports when it is made
    "timm",
    "captum.attr",
    "distributed.cli.dask_scheduler",
    "distributed.cli.dask_worker",
    "jinja2",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "rich.progress",
    "safetensors.torch",
    "sklearn.covariance",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.manifold",
    "sklearn.model_selection",
    "sklearn.pipeline",
    "sklearn.svm",
)
"""What medrobust imports inside functions."""
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAPABILITY_VERSION = 24, 1, 2, 0x20080522


class Process:
    """A forked process. out, err: files with what it printed."""

    def __init__(self, server: Server, pid: int, out: Path, err: Path) -> None:
        self.server, self.pid, self.out, self.err = server, pid, out, err
        self.code: int | None = None

    def poll(self) -> int | None:
        """Its exit code (negative: the signal that ended it), or None while it runs."""
        if self.code is None and (said := self.server.ask(pid=self.pid, wait=False)):
            self.code = int(said)
        return self.code

    def wait(self) -> int:
        if self.code is None:
            self.code = int(self.server.ask(pid=self.pid, wait=True))
        return self.code

    def kill(self, signal: int = 9) -> int:
        """Send the signal, unless it has ended already; its exit code."""
        if self.poll() is None:
            os.kill(self.pid, signal)
        return self.wait()

    def kill_when(self, ready: Callable[[], Any], signal: int = 9, every: float = 0.002) -> int:
        """Send the signal as soon as ``ready()``; its exit code, also where it ended before."""
        while not ready():
            if self.poll() is not None:
                return self.wait()
            time.sleep(every)
        return self.kill(signal)

    def lines(self) -> list[str]:
        """What it printed to stderr, without progress and notes on the data."""
        told = self.err.read_text("utf-8").splitlines()
        return [line for line in told if line and not line.startswith("note: ") and not line.endswith(")")]


class Server:
    """Forks processes. One for each process of pytest."""

    def __init__(self) -> None:
        self.temporary = tempfile.TemporaryDirectory()
        self.folder, self.begun = Path(self.temporary.name), 0
        load_everything()
        start_fork_server()
        (requests, write), (read, answers) = os.pipe(), os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            serve(requests, answers)
        os.close(requests)
        os.close(answers)
        self.requests, self.answers = os.fdopen(write, "w"), os.fdopen(read)

    def ask(self, **asked: Any) -> str:
        self.requests.write(json.dumps(asked) + "\n")
        self.requests.flush()
        return self.answers.readline().strip()

    def start(self, function: str, *arguments: Any, folder: Path | None = None) -> Process:
        """Call ``module:function`` with these arguments (plain JSON) in ``folder``."""
        self.begun += 1
        out, err = (self.folder / f"{self.begun}.{name}" for name in ("out", "err"))
        pid = self.ask(
            function=function, arguments=arguments, folder=str(folder or self.folder), out=str(out), err=str(err)
        )
        return Process(self, int(pid), out, err)

    def medrobust(self, *arguments: str | Path, folder: Path | None = None, **limits: Any) -> Process:
        """The command line. limits: see ``command_line``."""
        return self.start("tests.processes:command_line", [str(a) for a in arguments], limits, folder=folder)

    def module(self, name: str, *arguments: str) -> Process:
        """``python -m name arguments``."""
        return self.start("tests.processes:run_module", name, list(arguments))

    def close(self) -> None:
        self.requests.close()
        self.answers.close()
        os.waitpid(self.pid, 0)
        self.temporary.cleanup()


def load_everything() -> None:
    """Import all of medrobust and of what it imports late: once, for all that are forked from here."""
    for name in LATE:
        importlib.import_module(name)
    import medrobust

    for module in pkgutil.walk_packages(medrobust.__path__, "medrobust."):
        if not module.name.endswith("__main__"):
            package, _, name = module.name.rpartition(".")
            getattr(importlib.import_module(package), name, None)  # a function that its package offers stays a function
            importlib.import_module(module.name)


def start_fork_server() -> None:
    """The process from which multiprocessing forks workers: a fork of this one, not a new Python that imports all."""
    resource_tracker.ensure_running()
    new, util.spawnv_passfds = util.spawnv_passfds, _fork_instead
    try:
        forkserver.set_forkserver_preload([])
        forkserver.ensure_running()
    finally:
        util.spawnv_passfds = new


def _fork_instead(_path: str, arguments: Sequence[Any], files: Sequence[int]) -> int:
    """As ``multiprocessing.util.spawnv_passfds`` of ``python … -c CODE``. Returns the process id."""
    if pid := os.fork():
        return pid
    try:
        as_new(files)
        forkserver._forkserver.__init__()  # its lock is held
        exec(arguments[-1], {})
    finally:
        os._exit(0)


def as_new(files: Collection[int]) -> None:
    """Undo what pytest has changed: its files and pipes but for these, its handling of signals, warnings as errors."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in {int(name) for name in os.listdir("/dev/fd")} - {0, 1, 2, *files, nowhere}:
        # closed, another file would get the number, and what is still buffered for the old one would go there
        os.dup2(nowhere, number)
    WATCH.loopback = True
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)


def serve(requests: int, answers: int) -> None:
    """Fork a process for each request, until pytest closes its end; never returns."""
    try:
        as_new((requests, answers))
        with os.fdopen(requests) as lines, os.fdopen(answers, "w") as out:
            for line in lines:
                asked = json.loads(line)
                if "pid" in asked:
                    done, status = os.waitpid(asked["pid"], 0 if asked["wait"] else os.WNOHANG)
                    print(os.waitstatus_to_exitcode(status) if done else "", file=out, flush=True)
                elif pid := os.fork():
                    print(pid, file=out, flush=True)
                else:
                    call(**asked)
    finally:
        os._exit(0)


def call(function: str, arguments: Sequence[Any], folder: str, out: str, err: str) -> None:
    """Call ``module:function`` in this process, whose output goes to these files, and end it."""
    code = 1
    try:
        os.chdir(folder)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, out), (2, err)):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.stdin = sys.__stdin__ = os.fdopen(0)
        sys.stdout = sys.__stdout__ = os.fdopen(1, "w")
        sys.stderr = sys.__stderr__ = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
        module, _, name = function.partition(":")
        getattr(importlib.import_module(module), name)(*arguments)
        code = 0
    except SystemExit as left:
        code = int(left.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_module(name: str, arguments: Sequence[str]) -> None:
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def command_line(arguments: Sequence[str], limits: dict[str, Any]) -> None:
    """medrobust ARGUMENTS. limits: ``largest``, bytes of a file; ``obey``, whether permissions hold the superuser."""
    import resource

    from medrobust import cli

    if limits:  # a process of its own forks its workers, so that they have the limits too
        forkserver._forkserver.__init__()
    else:
        forkserver._forkserver.ensure_running = forkserver.ensure_running = lambda: None
    if limits.get("largest"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits["largest"],) * 2)
    if limits.get("obey"):
        obey()
    sys.argv = ["medrobust", *arguments]
    cli.main()


def obey() -> None:
    """Give up the superuser's right to write where permissions say no: here, and in processes started from here."""
    if os.geteuid() != 0:
        return
    library = ctypes.CDLL(None)
    for right in CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH:
        library.prctl(PR_CAPBSET_DROP, right, 0, 0, 0)  # prctl(2): from the next exec on
    header, held = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    library.capget(header, held)  # capget(2): effective, permitted, inheritable of the first 32, then of the others
    for kind in range(3):
        held[kind] &= ~(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)
    library.capset(header, held)
