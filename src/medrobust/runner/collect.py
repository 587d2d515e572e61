"""results.json of a study: what its finished cells say, beside what was published. The same cells, the same bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medrobust import atomic
from medrobust.experiments.columns import FIRST, LAST, SEEDS
from medrobust.grid import KINDS, Chart, Model, Part, everything, matches
from medrobust.run_info import with_run
from medrobust.runner.plan import GIVEN, TRAIN, Plan
from medrobust.versions import versions


def results(plan: Plan, opening: str, size: str, files: Mapping[str, str]) -> dict[str, Any]:
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
            "about": study.about,
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
        "failed": [{k: v for k, v in plan.failed[n].items() if k != "trace"} for n in plan.cells if n in plan.failed],
        "cells": {"all": len(plan.cells), "done": len(plan.done), "failed": len(plan.failed), "left": len(plan.left)},
        "versions": versions(),
        "rows": rows,
    }


def write(
    plan: Plan, opening: str, size: str, files: Mapping[str, str] | None = None, command: str = ""
) -> dict[str, Any]:
    """results.json in the run folder, a row a line; returns what it holds. command: as it was typed."""
    told = with_run(plan.place.out, "results.json", results(plan, opening, size, files or {}), command)
    rows = ",\n ".join(json.dumps(r, allow_nan=False) for r in told["rows"])
    head = json.dumps({k: v for k, v in told.items() if k != "rows"}, indent=1, allow_nan=False)
    text = head.rstrip().removesuffix("}").rstrip() + ',\n "rows": [\n ' + rows + "\n]}\n"
    atomic.write_text(plan.place.out / "results.json", text)
    return told


def _rows(plan: Plan) -> list[dict[str, Any]]:
    """Of the finished cells that each part lists; what the plan knows of a cell goes into its rows."""
    found = []
    for part, cells in plan.listed.items():
        for cell in {c.key: c for c in cells}.values():
            for row in plan.done.get(cell.key, {}).get("rows", ()):
                told = {**row, **{k: v for k, v in cell.labels.items() if k not in row or k in FIRST}}
                told |= {"study": plan.study.title, "part": part, **cell.seeds}
                attack = str(row.get("attack"))
                told["settings"] = cell.settings.get(f"{attack} {row['metric']}", cell.settings.get(attack, ""))
                keys = [*FIRST, *SEEDS, "settings", *(k for k in told if k not in FIRST and k not in LAST), *LAST]
                found.append({k: told.get(k) for k in dict.fromkeys(keys)})
    return found


def _part(plan: Plan, part: Part) -> dict[str, Any]:
    mine = [c.key for c in plan.cells.values() if c.part == part.name]
    shown = [{"kind": "chart" if isinstance(v, Chart) else "table", **asdict(v)} for v in part.show]
    counts = {
        "all": len(mine),
        "done": sum(k in plan.done for k in mine),
        "failed": sum(k in plan.failed for k in mine),
    }
    return {"name": part.name, "title": part.title, "about": part.about, "show": shown, "cells": counts}


def _published(part: Part, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Figures from elsewhere with those of our rows that come nearest."""
    mine = [r for r in rows if r["part"] == part.name]
    found = []
    for p in part.published:
        near = [r for r in mine if p.where and matches(r, p.where)]
        found.append({**asdict(p), "part": part.name, "known": KINDS[p.kind], "rows": near})
    return found


def _data(plan: Plan) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for cell in plan.cells.values():
        for told, digest in _images(cell.ticket):
            found.setdefault(told["name"], {**told, "digest": digest})
    return list(found.values())


def _images(ticket: Mapping[str, Any]) -> list[tuple[dict[str, Any], str]]:
    pairs = [(ticket.get("data"), ticket["spec"].get("data"))]
    pairs += [(told, ticket["spec"]["also"][name]) for name, told in ticket.get("also", {}).items()]
    return [(told, digest) for told, digest in pairs if told is not None]


def _models(plan: Plan) -> list[dict[str, Any]]:
    nodes = {n.name: n for _, n in everything(plan.study.parts) if isinstance(n, Model)}
    found = []
    for cell in plan.cells.values():
        if cell.task in (TRAIN, GIVEN):
            name, spec = str(cell.labels["model"]), cell.ticket["spec"]
            digest = spec["digest"] if cell.task == GIVEN else plan.done.get(cell.key, {}).get("digest")
            told = {"name": name, "data": cell.labels["data"], "architecture": nodes[name].architecture}
            told |= {"options": dict(nodes[name].options), "weights": nodes[name].weights}
            found.append({**told, "given": cell.task == GIVEN, "seed": cell.labels["model_seed"], "digest": digest})
    return found


def _doubts(plan: Plan) -> list[dict[str, Any]]:
    """What limits every number of a network, once for each network."""
    found: list[dict[str, Any]] = []
    for cell in plan.cells.values():
        for name, sentences in plan.done.get(cell.key, {}).get("doubts", {}).items():
            needed = plan.cells.get(cell.ticket["needs"].get(name, ""))
            model = name if needed is None else str(needed.labels.get("model", name))
            found += [d for text in sentences if (d := {"model": model, "text": text}) not in found]
    return found


def _checks(plan: Plan) -> list[dict[str, Any]]:
    """The check of every attacked network's gradient, once for each network and its images."""
    found: list[dict[str, Any]] = []
    for cell in plan.cells.values():
        for name, check in plan.done.get(cell.key, {}).get("checks", {}).items():
            needed = plan.cells.get(cell.ticket["needs"].get(name, ""))
            told = {"model": name if needed is None else str(needed.labels.get("model", name))}
            told |= {"data": (cell.ticket["data"] or {}).get("name", ""), **check}
            found += [told] if told not in found else []
    return found


def folder_for(path: Path, size: str) -> Path:
    """Where a study runs if nobody says: runs/NAME-SIZE."""
    return Path("runs") / f"{path.stem}-{size}"
