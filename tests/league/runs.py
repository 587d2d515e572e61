"""Made-up audits as a league table takes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from medrobust import json_files, manifest, report, run_info, stats
from medrobust.league import IMAGES, rules, sizes
from medrobust.results import GRADIENT, Kind
from medrobust.run_folder import RunFolder
from tests.report_runs import Maker

PX = 28
GRADIENT_CHECK = {
    "name": "the gradient agrees with finite differences",
    "attack": GRADIENT,
    "passed": True,
    "detail": "cosine 1.00",
    "consequence": "if this fails, attacks prove nothing",
    "decisive": True,
}
PROVENANCE = {"architecture": "small_cnn", "seed": 3, "training": {"epochs": 5}, "data": {"name": "scans"}}


def audit(
    folder: Path,
    *,
    eps: tuple[float, ...] = sizes(PX),
    attack: str = rules.ATTACK,
    n: int = IMAGES,
    seed: int = 0,
    model: str = "51ab",
    median: float = 3.0,
    checks: list[dict[str, Any]] | None = None,
    settings: str = "steps 100, queries 1000",
    command: str = "medrobust audit --attacks auto",
    **conditions: Any,
) -> Path:
    """A finished audit: every number follows from one min_eps an image."""
    m = Maker("scans", ["normal", "disease"], n=n, median=median, clean=0.9)
    m.clean_rows()
    m.rows.seed = seed
    right = m.labels == m.predicted
    grid = np.array([*eps, np.inf])
    smallest = np.where(right, grid[np.searchsorted(eps, m.star0)], 0.0)
    m.arrays[f"min_eps.{attack}"] = smallest.astype(np.float32)
    for size in eps:
        m.row(Kind.ATTACK, attack, size, "accuracy", stats.proportion(smallest > size * (1 + 1e-6)))
    stated = {"title": attack.title(), "settings": settings, "source": ""}
    conditions = {"size": PX, "eps": list(eps), "provenance": PROVENANCE, **conditions}
    m.write(folder, checks=[GRADIENT_CHECK] if checks is None else checks, attacks=[], **conditions)
    with RunFolder(folder, "audit") as run:
        results = json.loads((folder / "results.json").read_bytes())
        results["kind"] = "audit"
        results["conditions"] |= {"attacks": {attack: stated}, "model_digest": model * 16}
        results = run_info.with_run(folder, "results.json", results, command)
        run.write_text("results.json", json.dumps(results))
        report.write(folder, locked=True)
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Edit results.json with a digest that fits and a manifest for it: as another version would have written them."""
    results = json.loads((folder / "results.json").read_bytes())
    change(results)
    results["run"]["digest"] = json_files.digest(results)
    (folder / "results.json").write_text(json.dumps(results))
    report.write(folder)
    earlier = manifest.read(folder / manifest.FILE)
    entries = {name.partition("/")[0] for name in earlier.files}
    forged = manifest.made(folder, earlier.run, earlier.kind, entries, {})
    (folder / manifest.FILE).write_bytes(forged.content())
