"""Studies: what was asked, as cells that are computed once, kept, and put together.

``grid`` is what a study file declares with; importing it loads nothing heavy, so that planning does not wait for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_NAMES = {
    "AuditSpec": "spec", "Cell": "store", "Store": "store", "ask": "spec", "attack_named": "spec", "audit": "auditing",
    "parse_eps": "spec",
}  # fmt: skip

if TYPE_CHECKING:
    from medrobust.studies.auditing import audit
    from medrobust.studies.spec import AuditSpec, ask, attack_named, parse_eps
    from medrobust.studies.store import Cell, Store

__all__ = ["AuditSpec", "Cell", "Store", "ask", "attack_named", "audit", "parse_eps"]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"medrobust.studies has no {name!r}")
    value = getattr(importlib.import_module(f"medrobust.studies.{_NAMES[name]}"), name)
    globals()[name] = value
    return value
