"""Acceptance criteria: written before a run, judged on the bounds of its 95 % intervals."""

from medrobust.criteria.baseline import BaselineRun
from medrobust.criteria.beforehand import PlannedRows
from medrobust.criteria.criteria import Criteria
from medrobust.criteria.judging import CriterionVerdict, Judged, exit_code, summary
from medrobust.criteria.language import Criterion

__all__ = ["BaselineRun", "Criteria", "Criterion", "CriterionVerdict", "Judged", "PlannedRows", "exit_code", "summary"]
