"""The rows of a study for other tools: CSV, LaTeX, parquet, MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medrobust.errors import InputError
from medrobust.report import sheet
from medrobust.report.latex import escape
from medrobust.report.study_tables import Figure, Sheet, sheets


def csv(results: Mapping[str, Any]) -> str:
    """Every row, one a line."""
    return sheet.text([dict(r) for r in results["rows"]])


def latex(results: Mapping[str, Any]) -> str:
    """Every table of the study as a booktabs table."""
    made = [_table(s) for part in results["parts"] for s in sheets(results, part["name"])]
    return "% needs \\usepackage{booktabs}\n" + "\n".join(made)


def parquet(results: Mapping[str, Any], path: Path) -> None:
    """Every row in a parquet file; InputError where pyarrow is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError("parquet needs pyarrow: pip install 'medrobust[parquet]', or export --csv") from None
    names = list(dict.fromkeys(k for r in results["rows"] for k in r))
    columns = {n: _column([r.get(n) for r in results["rows"]]) for n in names}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def mlflow(results: Mapping[str, Any], folder: Path) -> str:
    """One MLflow run with a metric a row and results.json beside it; its id. InputError where mlflow is missing."""
    try:
        import mlflow as room
    except ImportError:
        raise InputError("--mlflow needs mlflow: pip install 'medrobust[mlflow]'") from None
    study = results["study"]
    room.set_experiment(str(study["title"]))
    with room.start_run() as run:
        room.log_params({"size": study["size"], **{f"{m['name']} digest": m["digest"] for m in results["models"]}})
        for row in results["rows"]:
            if row["value"] is not None:
                room.log_metric(metric_name(row), row["value"])
        room.log_artifact(str(folder / "results.json"))
        return str(run.info.run_id)


def metric_name(row: Mapping[str, Any]) -> str:
    """What a row's number is of, in the characters that MLflow takes."""
    skip = ("study", "value", "low", "high", "n", "status", "note")
    words = [f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in row.items() if k not in skip and v is not None]
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in "/".join(words))[:250]


def _column(values: list[Any]) -> list[Any]:
    """One type a column, as parquet has it: numbers as they are, else text."""
    kinds = {type(v) for v in values if v is not None}
    if kinds <= {int, float} and kinds:
        return [None if v is None else float(v) for v in values] if float in kinds else values
    return values if kinds <= {bool} else [None if v is None else str(v) for v in values]


def _table(s: Sheet) -> str:
    head = " & ".join(map(escape, (*s.labels, *s.columns)))
    lines = [" & ".join([*map(escape, labels), *map(_cell, figures)]) + r" \\" for labels, figures in s.lines]
    caption = escape(f"{s.title}, 95 % interval" + (f", {s.counts}" if s.counts else ""))
    return "\n".join(
        [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}",
         rf"\begin{{tabular}}{{{'l' * len(s.labels)}{'r' * len(s.columns)}}}", r"\toprule", head + r" \\", r"\midrule",
         *lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""]
    )  # fmt: skip


def _cell(figure: Figure) -> str:
    return escape(str(figure))
