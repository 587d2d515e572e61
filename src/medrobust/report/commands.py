"""Commands of medrobust on the classifier and the images of a run, as a page proposes them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from medrobust.report.findings import Findings

FOLDER = "RUN"
"""Stands for the folder of the run."""
NOTE = f"{FOLDER} is the folder of this page. Files of your own may stand here by a code: give their names instead."
IMAGES = {
    "data": "--data",
    "label": "--label",
    "findings": "--findings",
    "separator": "--separator",
    "patient": "--patient",
    "fit": "--fit",
    "window": "--window",
    "frames": "--frames",
    "size": "--size",
    "channels": "--channels",
    "class_map": "--map",
    "leave_out": "--leave-out",
}
"""Options of every command that say which images, by their field in the config of a run."""
NETWORK = {
    "weights": "--weights",
    "classes": "--classes",
    "threshold": "--threshold",
    "threshold_rule": "--threshold-rule",
    "mean": "--mean",
    "std": "--std",
    "head": "--head",
    "outputs": "--outputs",
    "preprocessing": "--preprocessing",
    "output": "--output",
    "send": "--send",
}
"""Options that say how a network is called: a classifier that was trained here is saved with them."""
AUDIT = {"healthy": "--healthy", "attacks": "--attacks", "norm": "--norm", "seed": "--seed"}
"""Options of an audit that are kept when it is made again."""
DEFAULTS: Mapping[str, object] = {
    "label": "label",
    "window": "auto",
    "frames": "one",
    "send": "npy",
    "attacks": ["fgsm", "bim", "pgd", "cw"],
    "norm": "linf",
    "seed": 0,
}


def command(f: Findings, name: str, *options: str, without: tuple[str, ...] = (), model: str = "") -> str:
    """ "medrobust defend --model RUN/model --data phantom:chest …". options: after these; without: fields of the config
    that they replace. model: instead of that of the run."""
    config = f.run.spec.get("config")
    config = dict(config) if isinstance(config, Mapping) else {}
    c = f.run.conditions
    trained = c.trained_here or bool(model)
    model = model or (f"{FOLDER}/model" if trained else str(config.get("model") or c.model or "MODEL"))
    words = ["medrobust", name, "--model", model]
    config.setdefault("data", c.data or "DATA")
    tables = [IMAGES, *([] if trained else [NETWORK]), *([AUDIT] if name == "audit" else [])]
    for field, option in {k: v for table in tables for k, v in table.items() if k not in without}.items():
        value = config.get(field)
        if value is not None and value != DEFAULTS.get(field):
            words += [option, _text(value)]
    return shlex.join([*words, *options])


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{k}={v}" for k, v in value.items())
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
