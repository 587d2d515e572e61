"""Tasks of the tests' own, as a user may bring them: found by name in every process."""

from __future__ import annotations

import json
import os
import signal
import time

import numpy as np


def row(metric: str, value: float, n: int = 10) -> dict:
    return {
        "attack": "none",
        "norm": "",
        "eps": 0.0,
        "metric": metric,
        "value": value,
        "low": value - 0.1,
        "high": value + 0.1,
        "n": n,
        "status": "ok",
        "note": "",
    }


def number(work):
    """``args[value]``, plus what it stands on; takes args[sleep] seconds."""
    time.sleep(work.args.get("sleep", 0.0))
    total = work.args["value"] + sum(float(c.arrays["x"][0]) for c in work.inputs("on"))
    return {"rows": [row("number", total)]}, {"x": np.array([total])}


def _begun(work) -> int:
    """How often this cell was begun, this time included."""
    path = work.run / f"begun-{work.key}"
    with open(path, "ab") as file:
        file.write(b".")
    return path.stat().st_size


def flaky(work):
    """Fails args[fails] times, then works."""
    if _begun(work) <= work.args["fails"]:
        raise RuntimeError(f"no luck with {work.args['value']}")
    return number(work)


def deadly(work):
    """Kills its own process args[kills] times, then works."""
    if _begun(work) <= work.args["kills"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return number(work)


def told(work):
    """What a worker sees of its machine."""
    seen = {"pid": os.getpid(), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "omp": os.environ.get("OMP_NUM_THREADS")}
    (work.run / f"seen-{work.key}.json").write_text(json.dumps(seen))
    print("a library that prints")  # noqa: T201 - belongs in the log of the worker
    return number(work)
