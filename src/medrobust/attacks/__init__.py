"""Attacks: hyper-parameters go to ``__init__``, data to ``__call__``; one engine runs all of them."""

from __future__ import annotations

from collections.abc import Callable

from medrobust.attacks.apgd import APGD
from medrobust.attacks.attack import Attack, Batch, Composed, ModelOutput, State
from medrobust.attacks.attacked import Attacked
from medrobust.attacks.auto import Auto
from medrobust.attacks.blackbox import BlackBox
from medrobust.attacks.cgba import CGBA
from medrobust.attacks.decided import Decided, decided
from medrobust.attacks.decision import DecisionBased
from medrobust.attacks.ead import EAD
from medrobust.attacks.engine import run
from medrobust.attacks.fab import FAB
from medrobust.attacks.hopskipjump import HopSkipJump
from medrobust.attacks.intensity import BiasField, Exposure
from medrobust.attacks.iterated import BIM, FGSM, MIFGSM, PGD, CWLinf
from medrobust.attacks.minimal import CWL2, FMN, DeepFool
from medrobust.attacks.onepixel import OnePixel
from medrobust.attacks.parametric import Changed, ParametricChange, worst_change
from medrobust.attacks.patch import Patch, PatchAnywhere
from medrobust.attacks.queried import Queried, queried
from medrobust.attacks.rays import RayS
from medrobust.attacks.sigmazero import SigmaZero
from medrobust.attacks.simba import SimBA
from medrobust.attacks.sparsest import Sparsest, sparsest
from medrobust.attacks.spatial import Spatial
from medrobust.attacks.square import Square
from medrobust.attacks.subspace import CosineCMAES, CosinePSO, GenAttack
from medrobust.attacks.sweep import Curve, sweep, sweep_all
from medrobust.attacks.transfer import Transfer
from medrobust.attacks.transferable import TransferableFGSM
from medrobust.threat import margin


def _apgd_margin() -> Attack:
    return APGD(loss=margin)


def _simba_cosines(queries: int = 500, frequencies: int = 14) -> Attack:
    return SimBA(queries, frequencies=frequencies)


# Read by the command line and by saved specs only; in Python, use the class.
ATTACKS: dict[str, Callable[..., Attack]] = {
    "auto": Auto,
    "fgsm": FGSM,
    "bim": BIM,
    "mifgsm": MIFGSM,
    "transferable": TransferableFGSM,
    "pgd": PGD,
    "cw": CWLinf,
    "cw-l2": CWL2,
    "apgd": APGD,
    "apgd-margin": _apgd_margin,
    "deepfool": DeepFool,
    "fmn": FMN,
    "fab": FAB,
    "ead": EAD,
    "sigma-zero": SigmaZero,
    "square": Square,
    "simba": SimBA,
    "simba-dct": _simba_cosines,
    "one-pixel": OnePixel,
    "genattack": GenAttack,
    "pso": CosinePSO,
    "cma-es": CosineCMAES,
    "hopskipjump": HopSkipJump,
    "cgba": CGBA,
    "rays": RayS,
}
"""All but ``Transfer``, which needs a second classifier."""
CHANGES: dict[str, Callable[..., ParametricChange]] = {
    "patch": Patch,
    "patch-anywhere": PatchAnywhere,
    "spatial": Spatial,
    "bias-field": BiasField,
    "exposure": Exposure,
}
"""Changes beyond small ones of every pixel, which have no ball: see ``worst_change``."""

__all__ = [
    "APGD",
    "ATTACKS",
    "BIM",
    "CGBA",
    "CHANGES",
    "CWL2",
    "EAD",
    "FAB",
    "FGSM",
    "FMN",
    "MIFGSM",
    "PGD",
    "Attack",
    "Attacked",
    "Auto",
    "Batch",
    "BiasField",
    "BlackBox",
    "CWLinf",
    "Changed",
    "Composed",
    "CosineCMAES",
    "CosinePSO",
    "Curve",
    "Decided",
    "DecisionBased",
    "DeepFool",
    "Exposure",
    "GenAttack",
    "HopSkipJump",
    "ModelOutput",
    "OnePixel",
    "ParametricChange",
    "Patch",
    "PatchAnywhere",
    "Queried",
    "RayS",
    "SigmaZero",
    "SimBA",
    "Sparsest",
    "Spatial",
    "Square",
    "State",
    "Transfer",
    "TransferableFGSM",
    "decided",
    "queried",
    "run",
    "sparsest",
    "sweep",
    "sweep_all",
    "worst_change",
]
