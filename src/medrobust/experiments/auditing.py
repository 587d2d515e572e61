"""The main job: take images and a classifier, attack, judge, check, and leave a run folder with a report.

An audit is a list of experiments with its own settings.

DIR/spec.json     the config
DIR/model/        the classifier, where it was trained here
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medrobust import json_files, private_names
from medrobust.attacks import Auto, BlackBox, DecisionBased
from medrobust.attacks.auto import BY_DECISIONS
from medrobust.certified import Smoothing
from medrobust.classifier import Classifier
from medrobust.criteria import Criteria
from medrobust.data import Dataset
from medrobust.errors import InputError
from medrobust.experiments import requirements, suite
from medrobust.experiments.blackbox import BlackBoxExperiment
from medrobust.experiments.certified import BoundsExperiment, SmoothingExperiment
from medrobust.experiments.changes import ChangesExperiment
from medrobust.experiments.conditions import prevalences
from medrobust.experiments.config import AuditSpec, attack_named
from medrobust.experiments.context import Context, Experiment, NotCovered
from medrobust.experiments.corruptions import CorruptionsExperiment
from medrobust.experiments.detection import DetectionConfig, DetectionExperiment
from medrobust.experiments.detector_data import DetectorData
from medrobust.experiments.evasion import EvasionExperiment
from medrobust.experiments.evasion_config import EvasionConfig
from medrobust.experiments.explanation import in_audit
from medrobust.experiments.finding_sets import as_sets
from medrobust.experiments.findings import FindingsExperiment
from medrobust.experiments.headline import HeadlineExperiment
from medrobust.experiments.robustness import RobustnessExperiment
from medrobust.experiments.sanity import SanityExperiment
from medrobust.experiments.stored import StoredExperiment
from medrobust.experiments.suite import Execute, Suite, Written
from medrobust.experiments.system import assemble, averaged, live
from medrobust.experiments.universal import UniversalExperiment, quick
from medrobust.progress import NoProgress, Progress
from medrobust.run_folder import RunFolder
from medrobust.store import Store
from medrobust.versions import versions

SPEC = "spec.json"
DETECTION = DetectionConfig(
    detectors=("mahalanobis", "kd", "dfeat"),
    attacks=("pgd",),
    limit=60,
    further=200,
    fprs=(0.05,),
    protocols=("clean",),
    least=20,
    widest=4096,
    required=False,
)
"""Small enough for an audit. widest: with so many features a covariance is still estimated and inverted in seconds."""
RANDOM = "the network is random"
LATER = {
    "universal perturbations": "universal",
    "detectors": "detect",
    "explanations": "explain",
    "changes that a file can hold": "stored",
}
"""Experiments that can be left out, and the fields of the config that ask for them."""
EVASION = EvasionConfig(("selective:steps=20",), attacked=24, goal=0.05, whole_folds=True, pressed=False)


def experiments(context: Context, options: Mapping[str, Any]) -> list[Experiment]:
    """Of an audit; the config says which of the later ones. options: none."""
    del options
    config, robustness = context.config, RobustnessExperiment(context)
    if config.ordinal and context.classifier.head.multilabel:
        raise InputError("--ordinal is for classes that are grades; several findings an image have no order")
    several = context.classifier.head.multilabel
    if not several and config.risk is not None:
        raise InputError("--risk weighs findings; this classifier gives one class an image")
    findings: list[Experiment] = [FindingsExperiment(context, robustness)] if several else []
    if several and context.classifier.draws is not None:  # it would be judged on the draws that it followed
        findings = [NotCovered(context, ["attacks on each finding"], RANDOM)]
    probe = BlackBoxExperiment(context, robustness)
    natural: list[Experiment] = [CorruptionsExperiment(context, robustness.clean)] if config.corruptions else []
    if config.changes:
        natural.append(ChangesExperiment(context))
    if config.smoothing is not None:
        natural.append(SmoothingExperiment(context, Smoothing(config.smoothing)))
    if context.classifier.black_box:
        return [robustness, probe, HeadlineExperiment(context, robustness, None), *findings, *natural]
    sanity = SanityExperiment(context, robustness)
    headline = HeadlineExperiment(context, robustness, sanity)
    chosen: list[Experiment] = [robustness, sanity, probe, headline, *findings, *natural]
    later = [name for name, wanted in LATER.items() if getattr(config, wanted)]
    if config.certify:
        try:
            chosen.append(BoundsExperiment(context, robustness, config.certify))
        except InputError as error:
            chosen.append(NotCovered(context, ["certified bounds"], str(error)))
    if context.classifier.draws is not None:
        return [*chosen, NotCovered(context, later, RANDOM)]
    if sizes := len(context.test.shapes) - 1:
        why = f"the images have {sizes + 1} sizes, and these need one: give --size instead of --preprocessing"
        return [*chosen, NotCovered(context, later, why)]
    if config.stored:
        if context.test.common_levels is None or context.test.surround:
            why = "the images do not share one scale of stored levels without a window"
            chosen.append(NotCovered(context, ["changes that a file can hold"], why))
        else:
            chosen.append(StoredExperiment(context, robustness))
    explain = config.explain and not context.test.surround
    if config.explain and not explain:
        why = "the images hold values beside their window; medrobust explain explains what is shown of them"
        chosen.append(NotCovered(context, ["explanations"], why))
    if config.universal:
        chosen.append(UniversalExperiment(context, robustness.clean, quick(config.norm)))
    if several and (config.detect or explain):
        try:
            context = context.of(as_sets(context.system))
        except InputError as error:
            left = [n for n in later if LATER[n] == "detect" or (LATER[n] == "explain" and explain)]
            return [*chosen, NotCovered(context, left, str(error))]
    if config.detect:
        chosen += detection(context, robustness)
    if explain:
        chosen.append(in_audit(context, robustness, headline))
    return chosen


def without_gradients(config: AuditSpec, classifier: Classifier, progress: Progress) -> AuditSpec:
    """``config`` for this classifier: of a black box, attacks that query it and nothing that needs its layers."""
    if not classifier.black_box:
        return config
    needed = DecisionBased if classifier.labels_only else BlackBox
    named = {name: attack_named(name) for name in config.attacks}
    able = tuple(name for name, attack in named.items() if isinstance(attack, (needed, Auto)))
    parts = [part for part in (*LATER.values(), "certify") if getattr(config, part)]
    left_out = [*(name for name in named if name not in able), *parts]
    attacks = able or (BY_DECISIONS[config.norm],)
    answers = "labels" if classifier.labels_only else "scores"
    progress.note(
        f"The classifier answers with {answers}, without gradients: attacked with {', '.join(attacks)}"
        + (f"; left out, because they need gradients, layers or scores: {', '.join(left_out)}" if left_out else "")
    )
    off: dict[str, object] = {"auto": "", "certify": "", **dict.fromkeys(LATER.values(), False)}
    return config.model_copy(update={"attacks": attacks, **off})


def detection(context: Context, robustness: RobustnessExperiment) -> list[Experiment]:
    """Can the attack that explanations show be detected, and evaded? On few images."""
    config = replace(DETECTION, attacks=(robustness.shown_name,))
    data = DetectorData(context, config, lambda: robustness.shown_attack[2], (f"sweep {robustness.main}",))
    return [DetectionExperiment(context, config, [data]), EvasionExperiment(context, EVASION, data, config.fprs)]


def audit(
    config: AuditSpec,
    folder: Path,
    *,
    progress: Progress | None = None,
    device: str | None = None,
    command: str = "",
    operator: str = "",
    keep_names: bool = False,
    pictures: bool = True,
    execute: Execute | None = None,
    written: Written | None = None,
    criteria: Criteria | None = None,
    in_memory: tuple[Classifier, Dataset] | None = None,
) -> Mapping[str, object]:
    """Audit with ``config`` in ``folder`` and return the content of results.json. Killed, the same call resumes.

    device: "cpu" or "cuda"; the GPU where there is one. command: as it was typed, for the report. operator: who runs
    it, where that is to be written. keep_names: write names of images, patients and files as they are, instead of codes
    (see ``medrobust.private_names``). pictures: show example images in the report. execute: does the steps in workers;
    in this process if not given. written: see ``suite``. criteria: what is required of the numbers; from the
    beginning they stand in spec.json. in_memory: a classifier and images, in the place of those that ``config`` names.
    InputError for bad input and unwritable folders.
    """
    begun, progress, criteria = time.monotonic(), progress or NoProgress(), criteria or Criteria()
    plain = config.model_dump(mode="json")
    written_config = plain if keep_names else private_names.config(plain)
    with RunFolder(folder, "audit") as run:
        _check_same(run, plain)
        requirements.check_named(criteria, config)
        first = requirements.first(run, SPEC, criteria, progress)
        opening = {"format": 1, "config": written_config, "versions": versions(), **first}
        run.opening[SPEC] = json.dumps(opening, indent=1).encode()
        if in_memory is not None:
            system = live(config, *in_memory, progress)
        else:
            system = assemble(config, run, progress, device, stored=True)
        system = averaged(system, progress)
        prevalences(config, system)
        config = without_gradients(config, system.classifier, progress)
        judge = requirements.judge(criteria, first, system, config)
        run.begin()
        if keep_names and system.trained_here:
            system.classifier.save(run.entry("model"), keep_names=True)
        experiments_ = Suite("audit", config, {}, system, Store(run.path), progress, device)
        return suite.run(
            experiments_,
            run,
            command=command,
            operator=operator,
            keep_names=keep_names,
            pictures=pictures,
            execute=execute,
            written=written,
            judge=judge,
            begun=begun,
        )


def _check_same(run: RunFolder, config: Mapping[str, Any]) -> None:
    """InputError where the folder holds an audit with another config, whose numbers would be mixed with these."""
    path = run.made(SPEC)
    if path is None:
        return
    before = json_files.read_object(path).get("config")
    if not isinstance(before, dict):
        raise InputError(f"{path} holds no config; choose another --out")
    hidden = private_names.config(config)
    # an option that an older version did not have is not a change; codes of a salt that is lost say nothing
    changed = [
        k
        for k in config
        if before.get(k, config[k]) not in (config[k], hidden[k])
        and (private_names.lasting() or k not in private_names.PATH_FIELDS)
    ]
    if changed:
        k = changed[0]
        raise InputError(
            f"{run.path} holds another audit ({k} was {before.get(k)!r}, now {config[k]!r}); choose another --out"
        )
