"""The commands that train and attack one classifier of a study again, without the study."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medrobust.league import rules
from medrobust.league.table import ImageSet

PLAIN_OPTIONS = {"epochs", "lr", "pretrained", "hardening"}
HARDENING_OPTIONS = {"method", "eps", "epochs", "lr", "patience"}
IMAGES = ("size", "channels", "label", "separator", "patient", "fit")
"""Fields of a study's data that are options of the same name."""
AUDIT_ALONE = "--auto none --no-universal --no-detect --no-explain --no-stored --corruptions none --changes none"
"""What leaves out of an audit whatever the table does not hold."""


def commands(data: Mapping[str, Any], model: Mapping[str, Any], image_set: ImageSet) -> tuple[str, ...]:
    """To be given in this order; empty where the study declares what no command takes. DATA: the folder of the data.

    data, model: as the study's results.json has them.
    """
    options, seed = model["options"], model["seed"]
    hardening = options.get("hardening")
    if data["classes"] or data["each"] is not None or not options.keys() <= PLAIN_OPTIONS:
        return ()
    if not seed == data["seed"] == rules.SEED or (hardening is not None and not hardening.keys() <= HARDENING_OPTIONS):
        return ()
    images = f"--data {str(data['spec']).replace('{data}', 'DATA')}"
    images += "".join(
        f" --{name} {data[name]}"
        for name in IMAGES
        if data[name] is not None and (name, data[name]) != ("label", "label")
    )
    if data["findings"]:
        images += f" --findings {','.join(data['findings'])}"
    name = "-".join(str(text).replace(" ", "-") for text in (data["name"], model["architecture"]))
    chosen = "".join(f" --{k} {str(v).replace('{data}', 'DATA')}" for k, v in options.items() if k != "hardening")
    lines = [f"medrobust train --model {model['architecture']} {images}{chosen} --out {name}"]
    folder = name
    if hardening is not None:
        lines.append(f"medrobust harden --model {name} {images}{_hardening(hardening)} --limit 8 --out {name}-hardened")
        folder = f"{name}-hardened/model"
    eps = ",".join(f"{255 * e:g}/255" for e in rules.sizes(image_set.px))
    limit = f"--attacks {rules.ATTACK} --eps {eps} --limit {rules.IMAGES}"
    lines.append(
        f"medrobust audit --model {folder} {images} {limit} {AUDIT_ALONE} --out {folder.partition('/')[0]}-audit"
    )
    return tuple(lines)


def _hardening(values: Mapping[str, Any]) -> str:
    """Its options; eps as a fraction of 255."""
    return "".join(f" --{k} {f'{255 * v:g}/255' if k == 'eps' else v}" for k, v in values.items())
