"""The acceptance criteria of an audit: checked before it computes, kept in spec.json, judged when it is finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from medrobust import json_files
from medrobust.criteria import Criteria, PlannedRows
from medrobust.criteria.baseline import FinishedAudit
from medrobust.criteria.beforehand import BY_CLASS
from medrobust.criteria.language import Size
from medrobust.evasion import EVASIONS
from medrobust.experiments import identity
from medrobust.experiments.config import AuditSpec
from medrobust.experiments.context import attacks_of
from medrobust.experiments.suite import Judge
from medrobust.experiments.system import System
from medrobust.grey_scale import EIGHT_BIT, grey_scale
from medrobust.progress import Progress
from medrobust.results import Kind, ResultsFile
from medrobust.run_folder import RunFolder
from medrobust.universal import UNIVERSAL

NAMES = (
    *("auto", "square", "simba-dct", "rays", "hopskipjump", "pgd", "none", "worst", "noise", "findings", "sparsest"),
    *("one shot", "random signs", "random uniform", "random blocks", *UNIVERSAL, *EVASIONS),
)
"""What may stand as the attack in a row, beside the attacks that are named in the config."""
KEY = "criteria"
"""Of spec.json and results.json."""
PARTS = {
    "universal": (Kind.UNIVERSAL,),
    "detect": (Kind.DETECTOR, Kind.EVASION),
    "explain": (Kind.EXPLANATION,),
    "stored": (Kind.STORED, Kind.SURVIVAL),
}
"""By field of the config, the kinds of rows that it asks for."""


def first(run: RunFolder, name: str, criteria: Criteria, progress: Progress) -> Mapping[str, object]:
    """The entry of spec.json, the file ``name``: the criteria that stood when the run began; nothing where there were
    none. Says where those given now are others."""
    path = run.made(name)
    if path is None:
        return {KEY: criteria.opening()} if criteria.entries else {}
    before = json_files.read_object(path).get(KEY)
    kept = before if isinstance(before, dict) else {}
    if kept.get("sha256", "") != criteria.sha256:
        began = f"with others (SHA-256 {str(kept['sha256'])[:12]})" if kept else "without any"
        progress.note(
            f"The acceptance criteria are not those of the start: this run began {began}. Its numbers are kept and "
            "only judged anew, and the report says that the criteria were changed after the run began; for criteria "
            "that stand before the run, choose another --out"
        )
    return {KEY: kept} if kept else {}


def check_named(criteria: Criteria, config: AuditSpec) -> None:
    """What needs no image and no network: InputError for a metric, a kind or a size that no audit of ``config`` has."""
    classes = {c.by_column["class_name"] for c in criteria.entries if "class_name" in c.by_column}
    early = [
        c
        for c in criteria.entries
        if (c.size is None or c.size.unit == config.eps_unit)
        and (c.metric not in BY_CLASS or "class_name" in c.by_column)
    ]
    planned = _planned(config, tuple(classes), config.eps, several=False)
    planned.check(Criteria(tuple(early)), lambda size: size.value, partial(EIGHT_BIT.size_text, norm=config.norm_name))


def judge(criteria: Criteria, first: Mapping[str, object], system: System, config: AuditSpec) -> Judge | None:
    """What judges the results, where there are criteria or the run began with some.

    InputError where the run cannot answer a criterion, and where the baseline has other images.
    """
    began = first.get(KEY)
    begun_with = str(began.get("sha256", "")) if isinstance(began, Mapping) else ""
    if not criteria.entries and not begun_with:
        return None
    words = partial(grey_scale(system.sample.common_levels, system.sample.span).size_text, norm=config.norm_name)

    def eps(size: Size) -> float:
        return system.with_sizes(config.model_copy(update={"eps": (size.value,), "eps_unit": size.unit})).eps[0]

    if criteria.baseline is not None:
        images = {**identity.images(system.test, system.sample), "test_labels": system.test.labels}
        criteria.baseline.check(images, config.norm_name, system.classifier.classes)
    classes, several = system.classifier.classes, system.classifier.head.multilabel
    _planned(config, classes, system.with_sizes(config).eps, several=several).check(criteria, eps, words)

    def judged(results: ResultsFile, arrays: Mapping[str, np.ndarray]) -> Mapping[str, object]:
        unfinished = bool(results["conditions"]["pending"])
        measured = None if unfinished else FinishedAudit.read(results, arrays, "results.json")
        return criteria.stated(measured, begun_with, eps, words)

    return judged


def _planned(config: AuditSpec, classes: Sequence[str], eps: Sequence[float], *, several: bool) -> PlannedRows:
    off = {kind: f"--no-{part}" for part, kinds in PARTS.items() if not getattr(config, part) for kind in kinds}
    if not config.corruptions:
        off[Kind.CORRUPTION] = "--corruptions none"
    if not config.changes:
        off[Kind.CHANGE] = "--changes none"
    if not config.certify and config.smoothing is None:
        off[Kind.CERTIFIED] = "without --certify and --smoothing"
    attacks = list(attacks_of(config))
    return PlannedRows(classes, attacks, eps, several, config.ordinal, (*NAMES, *config.changes), off)
