"""Attacks: hyper-parameters at birth, data at the call, one engine for all."""

from __future__ import annotations

from collections.abc import Callable

from medrobust.attacks.apgd import APGD
from medrobust.attacks.attack import Attack, Rows, Seen, State
from medrobust.attacks.engine import Attacked, run
from medrobust.attacks.iterated import BIM, FGSM, MIFGSM, PGD, CWLinf
from medrobust.attacks.minimal import CWL2, FMN, DeepFool
from medrobust.attacks.square import Square
from medrobust.attacks.sweep import Curve, sweep
from medrobust.threat import margin


def _apgd_margin() -> Attack:
    return APGD(loss=margin)


# Read by the command line and by saved specs only; in Python, use the class.
ATTACKS: dict[str, Callable[[], Attack]] = {
    "fgsm": FGSM,
    "bim": BIM,
    "mifgsm": MIFGSM,
    "pgd": PGD,
    "cw": CWLinf,
    "cw-l2": CWL2,
    "apgd": APGD,
    "apgd-margin": _apgd_margin,
    "deepfool": DeepFool,
    "fmn": FMN,
    "square": Square,
}

__all__ = [
    "APGD", "ATTACKS", "BIM", "CWL2", "FGSM", "FMN", "MIFGSM", "PGD", "Attack", "Attacked", "CWLinf", "Curve",
    "DeepFool", "Rows", "Seen", "Square", "State", "run", "sweep",
]  # fmt: skip
