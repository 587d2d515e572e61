"""What is measured: one file a subject, functions from a system under test and a config to results.

``catalogue`` offers the same functions as cells of a grid; importing it loads nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_NAMES = {
    "AuditSpec": "config",
    "ask": "config",
    "attack_named": "config",
    "audit": "auditing",
    "parse_eps": "config",
    "eps_fields": "config",
}

if TYPE_CHECKING:
    from medrobust.experiments.auditing import audit
    from medrobust.experiments.config import AuditSpec, ask, attack_named, eps_fields, parse_eps

__all__ = ["AuditSpec", "ask", "attack_named", "audit", "eps_fields", "parse_eps"]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"medrobust.experiments has no {name!r}")
    value = getattr(importlib.import_module(f"medrobust.experiments.{_NAMES[name]}"), name)
    globals()[name] = value
    return value
