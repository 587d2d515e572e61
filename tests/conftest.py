"""The nets here are tiny: one thread each is faster than two that wait for each other."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from medrobust.experiments import audit

from .processes import Server

torch.set_num_threads(1)
# no test writes into the home folder, and codes are the same in every process
os.environ.setdefault("MEDROBUST_SALT", "salt of the tests")


@pytest.fixture(scope="session")
def processes(tmp_path_factory) -> Iterator[Server]:
    """Starts processes in milliseconds: forks of one that has imported everything."""
    pytest.importorskip("resource")
    server = Server(tmp_path_factory.mktemp("processes"))
    yield server
    server.close()


@pytest.fixture(scope="module")
def whole(request, tmp_path_factory) -> Path:
    """The finished audit of a test file's own ``spec()``."""
    folder = tmp_path_factory.mktemp("audits") / "whole"
    audit(request.module.spec(), folder, device="cpu")
    return folder


@pytest.fixture(scope="module")
def told(whole) -> dict[str, Any]:
    """Its results."""
    return json.loads((whole / "results.json").read_text())
