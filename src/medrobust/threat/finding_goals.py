"""Goals of an attack on a classifier of several findings at once (Ghamizi et al. 2022, arXiv:2212.08130).

A finding is hidden where the classifier reported it and no longer does, and invented where it did not and now does.
All are stated as sets of findings, (n, k) of 0 and 1 with -1 where a finding does not matter. A finding whose label is
unknown takes part in none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from medrobust.errors import InputError
from medrobust.heads import Head
from medrobust.images import UNKNOWN, Labels, Logits, PerImage, renumbered
from medrobust.threat.goals import Goal, Targeted, Untargeted

CANDIDATES = 8
"""Sets that an attack toward a set that occurs may choose from, for each image."""


class GoalKind(StrEnum):
    """What is to happen to the findings of an image."""

    ANY = "any"
    """Any change of the set."""
    HIDE = "hide"
    """One finding disappears, whatever else changes."""
    INVENT = "invent"
    """One finding appears, whatever else changes."""
    ONLY = "only"
    """One finding disappears or appears, and all others stay as they are."""
    HIDE_ALL = "hide-all"
    """No finding is left."""
    OCCURRING = "occurring"
    """The set becomes another one that occurs in the training labels."""


OF_ONE = (GoalKind.HIDE, GoalKind.INVENT, GoalKind.ONLY)
"""Goals that name a finding."""


@dataclass(frozen=True)
class FindingGoal:
    """A goal before the images are known. finding: index, for the goals that name one."""

    kind: GoalKind
    finding: int | None = None

    def concerns(self, decisions: Labels, labels: Labels) -> Tensor:
        """bool (n,): images on which the goal means something.

        decisions, labels: (n, k). A finding is hidden where the image has it and it was reported, and invented where
        neither is so; a goal for the whole set concerns every image with a known label.
        """
        known = labels != UNKNOWN
        if self.finding is not None:
            truth, decision = labels[:, self.finding], decisions[:, self.finding]
            wanted = {GoalKind.HIDE: truth == 1, GoalKind.INVENT: truth == 0}.get(self.kind, truth != UNKNOWN)
            return wanted & (truth == decision)
        if self.kind is GoalKind.HIDE_ALL:
            return ((decisions == 1) & known).any(1)
        return known.any(1)

    def on(self, logits: Logits, head: Head, labels: Labels | None = None, sets: Labels | None = None) -> Goal:
        """The goal for these images. logits: (n, k), of the clean images. labels: (n, k), to know which are unknown.

        sets: int64 (m, k), those that occur; for the goal that needs them.
        """
        decisions = head.decide(logits)
        known = torch.ones_like(decisions, dtype=torch.bool) if labels is None else labels != UNKNOWN
        if self.kind is GoalKind.ANY:
            return Untargeted(torch.where(known, decisions, UNKNOWN))
        if self.kind is GoalKind.HIDE_ALL:
            return Targeted(torch.where(known, 0, UNKNOWN))
        if self.kind is GoalKind.OCCURRING:
            if sets is None:
                raise InputError("this goal needs the sets of findings that occur in the training labels")
            return OneOf(nearest_sets(logits, torch.where(known, decisions, UNKNOWN), sets))
        assert self.finding is not None
        if self.kind is GoalKind.ONLY:
            wanted = torch.where(known, decisions, UNKNOWN)
            wanted[:, self.finding] = 1 - decisions[:, self.finding]
            return Targeted(wanted)
        return Targeted(one_finding(self.finding, self.kind, decisions.shape[1]).expand(len(decisions), -1))

    def named(self, findings: Sequence[str]) -> str:
        """ "hide:effusion"."""
        return self.kind.value if self.finding is None else f"{self.kind.value}:{findings[self.finding]}"


def one_finding(finding: int, kind: GoalKind, findings: int) -> Labels:
    """int64 (1, findings): the set in which one finding is absent (HIDE) or present (INVENT), and no other matters."""
    wanted = torch.full((1, findings), UNKNOWN)
    wanted[:, finding] = 0 if kind is GoalKind.HIDE else 1
    return wanted


def parse_goal(text: str, findings: Sequence[str]) -> FindingGoal:
    """ "any", "hide-all", "occurring", "hide:NAME", "invent:NAME" or "only:NAME" to a goal.

    InputError, with the goals or the names of the findings, for anything else.
    """
    kind, colon, name = text.partition(":")
    if kind not in list(GoalKind) or bool(colon) != (kind in OF_ONE):
        raise InputError(
            f"goal {text!r} is not known; choose any, hide-all, occurring, hide:FINDING, invent:FINDING or only:FINDING"
        )
    if colon and name not in findings:
        raise InputError(f"goal {text!r}: there is no finding {name!r}; there are {', '.join(findings)}")
    return FindingGoal(GoalKind(kind), list(findings).index(name) if colon else None)


class OneOf(Goal):
    """Any of some sets of findings. labels: int64 (n, m, k) of 0, 1 and -1 (does not matter), m sets an image."""

    labels: Tensor

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    def prepare(self, head: Head, classes: int, n: int, device: torch.device) -> OneOf:
        if head.name != "multilabel":
            raise InputError(f"a set of findings is the goal for a multi-label head only, this one is {head.name!r}")
        if self.labels.ndim != 3 or self.labels.shape[0] != n or self.labels.shape[2] != classes:
            raise InputError(f"sets must be (n, m, k) = ({n}, m, {classes}), got {tuple(self.labels.shape)}")
        return OneOf(self.labels.to(device))

    def in_order_of(self, classes: Sequence[str], wanted: Sequence[str]) -> OneOf:
        sets = self.labels.flatten(0, 1)
        return OneOf(renumbered(sets, classes, wanted).view(*self.labels.shape[:2], -1))

    def take(self, index: Tensor) -> OneOf:
        return OneOf(self.labels[index])

    def _each(self, logits: Logits) -> tuple[Logits, Labels]:
        """Logits and sets, (n m, k)."""
        m = self.labels.shape[1]
        return logits.repeat_interleave(m, 0), self.labels.flatten(0, 1)

    def reached(self, head: Head, logits: Logits) -> Tensor:
        return ~head.wrong(*self._each(logits)).view(self.labels.shape[:2]).all(1)

    def margin(self, head: Head, logits: Logits) -> PerImage:
        return head.gap(*self._each(logits)).view(self.labels.shape[:2]).amax(1)

    def cross_entropy(self, head: Head, logits: Logits) -> PerImage:
        """Minus the logarithm of the cross-entropies' harmonic mean: the set that is nearest counts most."""
        each = head.log_cross_entropy(*self._each(logits)).view(self.labels.shape[:2])
        return (-each).logsumexp(1)


def nearest_sets(logits: Logits, decisions: Labels, sets: Labels, most: int = CANDIDATES) -> Labels:
    """int64 (n, m, k): of ``sets`` (s, k) those other than ``decisions`` (n, k) that have the largest margin.

    Findings that are -1 in ``decisions`` do not matter. InputError where an image has no other set.
    """
    free = decisions == UNKNOWN
    other = ((sets[None] != decisions[:, None]) & ~free[:, None]).any(2)
    if not other.any(1).all():
        raise InputError("all labels hold the same set of findings: there is no other one to change to")
    margins = ((2 * sets[None] - 1) * logits[:, None]).masked_fill(free[:, None], torch.inf).amin(2)
    order = margins.masked_fill(~other, -torch.inf).argsort(dim=1, descending=True, stable=True)[:, :most]
    chosen = sets[order]
    # where an image has fewer other sets than asked for, its nearest one stands in the places that are left
    chosen = torch.where(other.gather(1, order)[:, :, None], chosen, chosen[:, :1])
    return torch.where(free[:, None], UNKNOWN, chosen)
