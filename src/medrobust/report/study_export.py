"""The rows of a study for other tools: CSV, parquet, MLflow."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medrobust.errors import InputError
from medrobust.report import sheet, study_tables

REAL = ("eps", "zeta", "value", "low", "high")
"""Columns of one type in every study, so that files of several can be read as one table."""

PARQUET_SIGN = b"medrobust study"
"""In the metadata of a parquet file: an export may replace it."""

BATCH, LONGEST = 1000, 240
"""Of what MLflow takes at once, and of a name (its limit is 250)."""


def csv(results: Mapping[str, Any]) -> str:
    """Every row, one a line."""
    return sheet.text([dict(r) for r in results["rows"]])


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Every table as it is shown, as CSV, by the name of its part and its place there: "curves-1"."""
    written = {}
    for part in results["parts"]:
        for i, table in enumerate(study_tables.sheets(results, part["name"]), start=1):
            rows = [
                dict(zip((*table.labels, *table.columns), (*labels, *map(str, figures)), strict=True))
                for labels, figures in table.lines
            ]
            written[f"{part['name']}-{i}"] = sheet.lines(rows)
    return written


def parquet(results: Mapping[str, Any]) -> bytes:
    """Every row, as the bytes of a parquet file; InputError where pyarrow is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError("parquet needs pyarrow: pip install 'medrobust[parquet]', or export --csv") from None
    names = list(dict.fromkeys(k for r in results["rows"] for k in r))
    columns = {n: _column([r.get(n) for r in results["rows"]], n in REAL) for n in names}
    written = pyarrow.BufferOutputStream()
    made = pyarrow.table(columns).replace_schema_metadata({"writer": PARQUET_SIGN.decode()})
    pyarrow.parquet.write_table(made, written)
    return bytes(written.getvalue())


def mlflow(results: Mapping[str, Any], folder: Path) -> str:
    """One MLflow run with a metric a row and results.json beside it; its id. InputError where mlflow is missing.

    Where to, MLflow is told as always (MLFLOW_TRACKING_URI).
    """
    try:
        import mlflow as room
        from mlflow.entities import Metric
    except ImportError:
        raise InputError("--mlflow needs mlflow: pip install 'medrobust[mlflow]'") from None
    study, now = results["study"], int(time.time() * 1000)
    valued = [r for r in results["rows"] if r["value"] is not None]
    metrics = [Metric(n, float(r["value"]), now, 0) for n, r in zip(metric_names(valued), valued, strict=True)]
    room.set_experiment(str(study["title"]))
    with room.start_run() as run:
        models = {_allowed(f"{m['name']} digest"): m["digest"] for m in results["models"]}
        cells = {f"cells {k}": results["cells"][k] for k in ("all", "done", "failed")}
        room.log_params({"source": study["source"], "size": study["size"], **cells, **models})
        for start in range(0, len(metrics), BATCH):
            room.MlflowClient().log_batch(run.info.run_id, metrics=metrics[start : start + BATCH])
        room.log_artifact(str(folder / "results.json"))
        return str(run.info.run_id)


def metric_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each row's number is of, in the characters that MLflow takes; no name twice."""
    skip = ("study", "value", "low", "high", "n", "status", "note")
    seen: Counter[str] = Counter()
    names = []
    for row in rows:
        values = [v for k, v in row.items() if k not in skip and v not in (None, "")]
        words = [f"{v:.6g}" if isinstance(v, float) else str(v).replace("/", "_") for v in values]
        name = _allowed("/".join(words))
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return names


def _allowed(text: str) -> str:
    return "".join(c if (c.isascii() and c.isalnum()) or c in "_-. /" else "_" for c in text)[:LONGEST]


def _column(values: list[Any], real: bool = False) -> list[Any]:
    """One type a column, as parquet has it: numbers as they are (real: with a fraction, always), else text."""
    kinds = {type(v) for v in values if v is not None}
    if kinds <= {int, float} and kinds:
        return [None if v is None else float(v) for v in values] if float in kinds or real else values
    return values if kinds <= {bool} else [None if v is None else str(v) for v in values]
