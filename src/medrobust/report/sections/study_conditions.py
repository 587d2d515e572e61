"""The exact conditions of a study: run, files, images, classifiers, checks, versions, attacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medrobust.report import run_line
from medrobust.report.section import Content
from medrobust.report.study_page import StudyFindings
from medrobust.report.study_tables import attack_words

ANCHOR, TITLE, ORDER, COMMANDS = "conditions", "Exact conditions", 120, ("study",)


def build(f: StudyFindings) -> Content:
    attacks = dict.fromkeys(attack_words(row) for row in f.results["rows"] if row.get("settings"))
    braces = any("{data}" in d["spec"] for d in f.results["data"])
    models = [{**m, "options": _options(m)} for m in f.results["models"]]
    made_by = run_line.line(f.results)
    return Content({"made_by": made_by, "attacks": list(attacks), "braces": braces, "models": models, "runs": f.runs})


def _options(model: Mapping[str, Any]) -> str:
    """How a model was trained, as the study file says it; options that it leaves out have their defaults."""
    weights = {"weights": model["weights"]} if model["weights"] else {}
    return ", ".join(f"{k} {v}" for k, v in {**model["options"], **weights}.items())
