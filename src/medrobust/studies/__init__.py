"""Studies: what was asked, as cells that are computed once, kept, and put together."""

from __future__ import annotations

from medrobust.studies.audit import audit
from medrobust.studies.spec import AuditSpec, ask, attack_named, parse_eps
from medrobust.studies.store import Cell, Store

__all__ = ["AuditSpec", "Cell", "Store", "ask", "attack_named", "audit", "parse_eps"]
