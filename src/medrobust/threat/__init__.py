"""The threat model: allowed changes (balls) and goals."""

from medrobust.threat.balls import L2, Ball, Linf
from medrobust.threat.finding_goals import FindingGoal, GoalKind, OneOf, parse_goal
from medrobust.threat.goals import Goal, Targeted, Untargeted, cross_entropy, margin

BALLS: dict[str, type[Ball]] = {"linf": Linf, "l2": L2}

__all__ = [
    "BALLS",
    "L2",
    "Ball",
    "FindingGoal",
    "Goal",
    "GoalKind",
    "Linf",
    "OneOf",
    "Targeted",
    "Untargeted",
    "cross_entropy",
    "margin",
    "parse_goal",
]
