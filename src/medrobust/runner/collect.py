"""results.json of a study: what its finished cells say, beside what was published. The same cells, the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medrobust import atomic
from medrobust.experiments.columns import FIRST, LAST, SEEDS
from medrobust.experiments.tickets import DataFields, Ticket
from medrobust.grid import KINDS, Chart, Model, Node, Part, matches
from medrobust.run_info import with_run
from medrobust.runner.plan import Plan
from medrobust.runner.planned import GIVEN, Planned
from medrobust.versions import versions


def results(plan: Plan, opening: str, size: str, files: Mapping[str, str]) -> Mapping[str, object]:
    """Everything that tables and reports are made of. opening: the text that the study file begins with.

    files: sha256 by name of the study file and of the modules beside it that it imports.
    """
    study = plan.study
    rows = _rows(plan)
    return {
        "format": 1,
        "kind": "study",
        "study": {
            "title": study.title,
            "source": study.source,
            "note": study.note,
            "size": size,
            "opening": opening,
            "files": dict(files),
        },
        "parts": [_part(plan, part) for part in study.parts],
        "published": [p for part in study.parts for p in _published(part, rows)],
        "data": _data(plan),
        "models": _models(plan),
        "doubts": _doubts(plan),
        "checks": _checks(plan),
        "failed": [
            {k: v for k, v in asdict(plan.failed[n]).items() if k != "trace"} for n in plan.cells if n in plan.failed
        ],
        "cells": {"all": len(plan.cells), "done": len(plan.done), "failed": len(plan.failed), "left": len(plan.left)},
        "versions": versions(),
        "titles": dict(sorted(t for cell in plan.done.values() for t in cell.titles.items())),
        "rows": rows,
    }


def write(
    plan: Plan, opening: str, size: str, files: Mapping[str, str] | None = None, command: str = "", operator: str = ""
) -> dict[str, Any]:
    """results.json in the run folder, a row a line; returns what it holds. command, operator: see ``with_run``."""
    made = results(plan, opening, size, files or {})
    content = with_run(plan.place.out, "results.json", made, command, operator=operator)
    rows = ",\n ".join(json.dumps(r, allow_nan=False) for r in content["rows"])
    head = json.dumps({k: v for k, v in content.items() if k != "rows"}, indent=1, allow_nan=False)
    text = head.rstrip().removesuffix("}").rstrip() + ',\n "rows": [\n ' + rows + "\n]}\n"
    atomic.write_text(plan.place.out / "results.json", text)
    return content


def _rows(plan: Plan) -> Sequence[Mapping[str, object]]:
    """Of the finished cells that each part lists; what the plan knows of a cell goes into its rows."""
    rows = []
    for part, cells in plan.listed.items():
        for cell in {c.key: c for c in cells}.values():
            for row in plan.done[cell.key].rows if cell.key in plan.done else ():
                full = {**row, **{k: v for k, v in cell.labels.items() if k not in row or k in FIRST}}
                full |= {"study": plan.study.title, "part": part, **cell.seeds}
                attack = str(row.get("attack"))
                full["settings"] = cell.settings.get(f"{attack} {row['metric']}", cell.settings.get(attack, ""))
                keys = [*FIRST, *SEEDS, "settings", *(k for k in full if k not in FIRST and k not in LAST), *LAST]
                rows.append({k: full.get(k) for k in dict.fromkeys(keys)})
    return rows


def _failed(plan: Plan) -> list[dict[str, object]]:
    failures = [plan.failed[name] for name in plan.cells if name in plan.failed]
    return [{k: v for k, v in asdict(failure).items() if k != "trace"} for failure in failures]


def _part(plan: Plan, part: Part) -> Mapping[str, object]:
    keys = [c.key for c in plan.cells.values() if c.part == part.name]
    views = [{"kind": "chart" if isinstance(v, Chart) else "table", **asdict(v)} for v in part.show]
    counts = {
        "all": len(keys),
        "done": sum(k in plan.done for k in keys),
        "failed": sum(k in plan.failed for k in keys),
    }
    return {"name": part.name, "title": part.title, "note": part.note, "show": views, "cells": counts}


def _published(part: Part, rows: Sequence[Mapping[str, object]]) -> Sequence[Mapping[str, object]]:
    """Figures from elsewhere with those of our rows that come nearest."""
    own = [r for r in rows if r["part"] == part.name]
    figures = []
    for p in part.published:
        near = [r for r in own if p.where and matches(r, p.where)]
        figures.append({**asdict(p), "part": part.name, "known": KINDS[p.kind], "rows": near})
    return figures


def _data(plan: Plan) -> Sequence[Mapping[str, object]]:
    data: dict[str, Mapping[str, object]] = {}
    used: set[int] = set()
    for cell in plan.cells.values():
        own = [cell.node.data, *(cell.node.also.values() if isinstance(cell.node, Node) else ())]
        if any(id(d) not in used for d in own):  # a ticket takes time, and a million cells may share their data
            used.update(map(id, own))
            for declared, digest in _images(cell.ticket):
                data.setdefault(declared["name"], {**declared, "digest": digest})
    return list(data.values())


def _images(ticket: Ticket) -> list[tuple[DataFields, str | None]]:
    pairs = [(ticket["data"], ticket["spec"].get("data"))]
    pairs += [(declared, ticket["spec"]["also"][name]) for name, declared in ticket.get("also", {}).items()]
    return [(declared, digest) for declared, digest in pairs if declared is not None]


def _models(plan: Plan) -> Sequence[Mapping[str, object]]:
    models: list[Mapping[str, object]] = []
    for cell in plan.cells.values():
        if isinstance(cell.node, Model):
            given = cell.task == GIVEN
            done = plan.done.get(cell.key)
            digest = cell.ticket["spec"]["digest"] if given else None if done is None else done.digest
            entry = {"name": cell.node.name, "data": cell.labels["data"], "architecture": cell.node.architecture}
            entry |= {"options": dict(cell.node.options), "weights": cell.node.weights}
            models.append({**entry, "given": given, "seed": cell.labels["model_seed"], "digest": digest})
    return models


def _doubts(plan: Plan) -> list[Mapping[str, str]]:
    """What limits every number of a network, once for each network."""
    doubts: list[Mapping[str, str]] = []
    for cell in plan.cells.values():
        for name, sentences in plan.done[cell.key].doubts.items() if cell.key in plan.done else ():
            model = _model_name(plan, cell, name)
            doubts += [d for text in sentences if (d := {"model": model, "text": text}) not in doubts]
    return doubts


def _checks(plan: Plan) -> Sequence[Mapping[str, object]]:
    """The checks of every attacked network, each once for a network and its images."""
    checks: list[Mapping[str, object]] = []
    for cell in plan.cells.values():
        data = "" if cell.node.data is None else cell.node.data.name
        for name, made in plan.done[cell.key].checks.items() if cell.key in plan.done else ():
            entries = [{"model": _model_name(plan, cell, name), "data": data, **check} for check in made]
            checks += [entry for entry in entries if entry not in checks]
    return checks


def _model_name(plan: Plan, cell: Planned, name: str) -> str:
    """What tables call the model that a cell needs under that name, or made of its model."""
    needed = plan.cells.get(cell.ticket["needs"].get(name, ""))
    if needed is None:
        return ", ".join(filter(None, (cell.labels.get("model"), name)))
    return str(needed.labels.get("model", name))


def folder_for(path: Path, size: str) -> Path:
    """Where a study runs if nobody says: runs/NAME-SIZE."""
    return Path("runs") / f"{path.stem}-{size}"
