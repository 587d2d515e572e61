"""Classifiers made once and shared: every cell that needs one reads it from the run folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medrobust import atomic, devices, training
from medrobust.classifier import Classifier
from medrobust.experiments.config import ask
from medrobust.experiments.declared import file_in
from medrobust.experiments.hardening import HardeningConfig
from medrobust.experiments.system import assemble
from medrobust.experiments.tickets import Spec
from medrobust.experiments.work import Work
from medrobust.progress import NoProgress
from medrobust.store import Result, key
from medrobust.threat import Linf

HARDENING = "hardening"
"""Option of a model that is trained against Linf: the fields of a HardeningConfig but for minutes."""


def train(work: Work) -> Result:
    """A classifier trained on the cell's data, or read from a file of weights; saved under the cell's name.

    args: architecture, seed, options (of ``medrobust.training.fit`` and perhaps hardening, or weights, mean and std).
    A killed training goes on where it was, for its state is kept under the same name.
    """
    options: dict[str, Any] = dict(work.args["options"])
    hardening = options.pop(HARDENING, None)
    architecture, seed = str(work.args["architecture"]), int(work.args["seed"])
    for name in ("pretrained", "weights"):
        if options.get(name) not in (None, "hub"):
            options[name] = str(file_in(options[name], work.root))
    state = work.run / "training" / work.key
    if "weights" in options:
        classifier = _as_it_is(work, architecture, options)
    else:
        # a hardened classifier starts from the one of the cell that is the same but for hardening, where it is there
        plain = None if hardening is None else work.run / "models" / _without_hardening(work.ticket["spec"])
        classifier = training.fit(
            work.data, architecture, seed=seed, device=str(devices.find()), resume=state, keep=plain, **options
        )
        if hardening is not None:
            classifier = _hardened(classifier, work, HardeningConfig(**hardening), seed, state)
    keep(classifier, work.run / "models" / work.key)
    shutil.rmtree(state, ignore_errors=True)
    return {"rows": [], "digest": classifier.digest(), "validation": classifier.provenance.get("validation")}, {}


def _without_hardening(spec: Spec) -> str:
    """The name of the cell that trains the same classifier without hardening it."""
    options = spec["args"]["options"]
    assert isinstance(options, Mapping)
    plain = {k: v for k, v in options.items() if k != HARDENING}
    return key({**spec, "args": {**spec["args"], "options": plain}})


def _hardened(classifier: Classifier, work: Work, config: HardeningConfig, seed: int, state: Path) -> Classifier:
    """As ``medrobust harden`` trains it."""
    method = config.trainer(Linf)
    method.check(classifier.net)
    return training.further(
        classifier,
        work.data,
        seed=seed,
        epochs=config.epochs,
        lr=config.lr,
        patience=config.patience,
        method=method,
        resume=state / HARDENING,
    )


def _as_it_is(work: Work, architecture: str, options: Mapping[str, Any]) -> Classifier:
    declared = work.ticket["data"]
    assert declared is not None
    spec = ask(
        data=declared["spec"].replace("{data}", str(work.root)),
        size=declared["size"],
        channels=declared["channels"],
        label=declared["label"],
        findings=declared["findings"],
        separator=declared["separator"],
        patient=declared["patient"],
        fit=declared["fit"],
        seed=declared["seed"],
        model=architecture,
        **options,
    )
    return assemble(spec, None, NoProgress()).classifier


def keep(classifier: Classifier, folder: Path) -> None:
    """Save whole, or not at all."""
    with atomic.disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=atomic.PARTIAL, dir=folder.parent))
        try:
            classifier.save(temporary)
            temporary.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)  # it was there, and its cell was not: whoever wrote it was killed
            os.replace(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
