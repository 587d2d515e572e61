"""Processes that tests start, watch and kill, forked from one that has paid for the imports.

A Python that imports torch takes seconds to begin; a fork of one takes milliseconds.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SERVER = """
import importlib, json, os, signal, sys, traceback
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
import torch
torch.set_num_threads(1)
import torch._dynamo  # what an optimiser imports when it is made: once, for all that are forked from here
from medrobust import cli, experiments, report, runner, training, universal

for line in sys.stdin:
    asked = json.loads(line)
    if "pid" in asked:
        done, status = os.waitpid(asked["pid"], 0 if asked["wait"] else os.WNOHANG)
        print(os.waitstatus_to_exitcode(status) if done else "", flush=True)
        continue
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        continue
    code = 1
    try:
        os.chdir(asked["folder"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, asked["out"]), (2, asked["err"])):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        module, _, name = asked["function"].partition(":")
        getattr(importlib.import_module(module), name)(*asked["arguments"])
        code = 0
    except SystemExit as left:
        code = int(left.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
"""
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

    def __init__(self, folder: Path) -> None:
        self.folder, self.begun = folder, 0
        paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        )

    def ask(self, **asked: Any) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

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

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


def command_line(arguments: Sequence[str], limits: dict[str, Any]) -> None:
    """medrobust ARGUMENTS. limits: ``largest``, bytes of a file; ``obey``, whether permissions hold the superuser."""
    import resource

    from medrobust import cli

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
