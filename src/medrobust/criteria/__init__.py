"""Acceptance criteria: written before a run, judged on the bounds of its 95 % intervals."""

from medrobust.criteria.baseline import Baseline
from medrobust.criteria.beforehand import Planned
from medrobust.criteria.criteria import Criteria
from medrobust.criteria.judging import Judged, Verdict, exit_code, summary
from medrobust.criteria.language import Criterion

__all__ = ["Baseline", "Criteria", "Criterion", "Judged", "Planned", "Verdict", "exit_code", "summary"]
