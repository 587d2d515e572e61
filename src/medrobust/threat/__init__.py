"""The threat model: allowed changes (balls) and goals."""

from medrobust.threat.balls import L0, L1, L2, Ball, Linf
from medrobust.threat.finding_goals import FindingGoal, GoalKind, OneOf, parse_goal
from medrobust.threat.goals import Goal, Targeted, Untargeted, ceiling, cross_entropy, margin

BALLS: dict[str, type[Ball]] = {"linf": Linf, "l2": L2}
"""Those that an audit measures."""
SPARSE: dict[str, type[Ball]] = {"l1": L1, "l0": L0}
"""Few values change, by as much as they like: `medrobust attack` takes them too."""

__all__ = [
    "BALLS",
    "L0",
    "L1",
    "L2",
    "SPARSE",
    "Ball",
    "FindingGoal",
    "Goal",
    "GoalKind",
    "Linf",
    "OneOf",
    "Targeted",
    "Untargeted",
    "ceiling",
    "cross_entropy",
    "margin",
    "parse_goal",
]
