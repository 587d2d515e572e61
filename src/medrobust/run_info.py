"""Which run made a result, when, by whom, by which command, with what software and on which machine.

All of it stands under one key of a results file, RUN: everything else there is the same to the bit when a run is made
again, resumed, or made on a machine that computes alike.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medrobust import code_digest, json_files, private_names
from medrobust.errors import InputError
from medrobust.json_files import RUN
from medrobust.run_folder import RunFolder, read_mark
from medrobust.versions import versions

GIT_SECONDS = 10.0
"""A repository that takes longer to answer is left out."""


def with_run(
    folder: Path, name: str, results: Mapping[str, object], command: str, device: str = "", operator: str = ""
) -> dict[str, Any]:
    """``results`` with RUN, to be written as the file ``name`` of the run folder, which must have been begun.

    Where that file holds the same results already, its RUN is kept: a command that is given again and computes nothing
    changes nothing, unless it names another operator. command: as it was typed, without private paths. device: what the
    network ran on, if any. operator: who ran it, where that is to be written.
    """
    content: dict[str, Any] = json.loads(json.dumps({k: v for k, v in results.items() if k != RUN}))
    digest = json_files.digest(content)
    earlier = _earlier(folder / name)
    if (
        earlier is not None
        and earlier[RUN].get("digest") == digest == json_files.digest(earlier)
        and operator in ("", earlier[RUN].get("operator"))
    ):
        return content | {RUN: earlier[RUN]}
    mark = read_mark(folder)
    return content | {
        RUN: {
            "id": mark.id,
            "begun": mark.created,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "digest": digest,
            **({"operator": operator} if operator else {}),
            "command": command,
            **git_commit(os.getcwd()),
            "code": code_digest.of_package(),
            "machine": machine(device),
            "versions": versions(),
        }
    }


def write(
    run: RunFolder,
    name: str,
    results: Mapping[str, Any],
    command: str,
    device: str = "",
    *,
    keep_names: bool = False,
    private: Iterable[str] = (),
) -> None:
    """Write ``results`` with RUN as the JSON file ``name``. private: names of data that become codes, beside those in
    ``results``, unless ``keep_names``."""
    written = results if keep_names else private_names.found(results, *private)
    run.write_text(name, json.dumps(with_run(run.path, name, written, command, device), indent=1))


def machine(device: str = "") -> dict[str, object]:
    """What may change numbers or times: processor, cores, threads, graphics cards, operating system. No host name."""
    import torch

    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": ", ".join(cards) or "none",
        "device": device,
        "system": platform.platform(),
    }


@functools.cache
def git_commit(folder: str) -> Mapping[str, object]:
    """``commit`` of git in that folder and whether files that it tracks are ``modified``; empty where there is none.

    Read once in a process, when it writes its first results.
    """
    git = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", folder]
    try:
        commit = _output([*git, "rev-parse", "--verify", "HEAD"])
        changes = _output([*git, "status", "--porcelain", "--untracked-files=no"])
    except (OSError, subprocess.SubprocessError):  # no git, no repository, no commit in it, or no answer in time
        return {}
    return {"commit": commit.strip(), "modified": bool(changes.strip())}


def _output(words: list[str]) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True, timeout=GIT_SECONDS).stdout


def _processor() -> str:
    """ "Intel(R) Xeon(R) …" where the system tells, else the architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # no Linux: the platform's own name serves
    return platform.processor() or platform.machine()


def _earlier(path: Path) -> dict[str, Any] | None:
    if not path.is_file() or path.is_symlink():
        return None
    try:
        results = json_files.read_object(path)
    except InputError:  # half a file, or another format: it is written anew
        return None
    return results if isinstance(results.get(RUN), dict) else None
