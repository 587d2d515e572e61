"""The headline number of an audit: how many images still hold, at one size, when the ensemble `auto` is added.

The size is one grey level where that does marked harm, else the smallest at which the accuracy has halved, else the
largest. What another attack of the audit broke at that size is broken for the headline too (the worst case).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from medrobust import code_digest, stats
from medrobust.attacks import Attack, Auto, run
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.experiments import checks
from medrobust.judging import judge
from medrobust.results import Check, Kind, Rows
from medrobust.store import Cell
from medrobust.threat import Ball, Untargeted

Advance = Callable[[int], None]
Result = tuple[dict[str, Any], dict[str, np.ndarray]]

NAME = "auto"
GREY = 1 / 255
NOTICED = 0.10
"""Points of accuracy below which an attack is said to have had no marked effect."""


def chosen_eps(norm: str, grid: tuple[float, ...], star: np.ndarray) -> float | None:
    """The size of the headline number, from the smallest eps* of the attacks so far; None without a positive eps."""
    sizes = [e for e in grid if e > 0]
    if not sizes:
        return None
    clean, held = float((star > 0).mean()), {e: float((star > np.float32(e)).mean()) for e in sizes}
    if norm == "linf":
        nearest = min(sizes, key=lambda e: (abs(math.log(e / GREY)), e))
        if clean - held[nearest] >= NOTICED:
            return nearest
    return next((e for e in sizes if held[e] <= clean / 2), sizes[-1])


def examined(attack: Attack, classifier: Classifier, part: Dataset, ball: Ball, seed: int, advance: Advance) -> Result:
    """The ensemble at one eps, judged; which member broke an image, and what it all cost."""
    images, labels = part.tensors()
    goal = Untargeted(labels)
    done = run(attack, classifier, images, goal, ball, seed=seed, ids=part.ids, advance=advance)
    outcome = judge(classifier, images, done.images, goal, ball)
    by = torch.full_like(done.level, -1) if done.by is None else done.by
    claimed = done.reached & ~outcome.reached
    return {"unconfirmed": int(claimed.sum())}, {
        "reached": outcome.reached.numpy(),
        "before": outcome.reached_before.numpy(),
        "after": outcome.after.numpy(),
        "size": outcome.size.numpy(),
        "by": torch.where(outcome.reached, by, -1).numpy(),
        "gradients": done.gradients.numpy(),
        "forwards": done.forwards.numpy(),
        "blind": (done.blind | claimed).numpy(),
    }


class HeadlinePart:
    """Runs the ensemble on the attacked images, and writes its rows and checks.

    sharded(part, name, about, compute) gives a finished cell. star, after, blind: what it adds to the worst case.
    """

    def __init__(
        self,
        attack: Attack,
        eps: float,
        ball: type[Ball],
        classifier: Classifier,
        sample: Dataset,
        seed: int,
        sharded: Callable[..., Cell],
        rows: Rows,
    ) -> None:
        self.attack, self.eps, self.rows, self.sample = attack, eps, rows, sample
        about = {"kind": "headline", "attack": code_digest.described(attack), "eps": eps}
        cell = sharded(
            sample,
            f"The headline number ({attack.title})",
            about,
            lambda shard, advance: examined(attack, classifier, shard, ball(eps), seed, advance),
        )
        self.arrays, self.unconfirmed = cell.arrays, cell.facts["unconfirmed"]
        self.after, self.blind = self.arrays["after"], self.arrays["blind"]
        fallen = np.where(self.arrays["reached"], eps, np.inf)
        self.star = np.where(self.arrays["before"], 0.0, fallen).astype(np.float32)

    def write(self, patients: np.ndarray | None, others: np.ndarray) -> list[Check]:
        """Its rows, and the checks of it. others: the smallest eps* of the other attacks."""
        found, n = self.arrays, self.star.size
        lost = int(self.blind.sum())
        note = f"{lost} of {n} images had no usable gradient and held against queries" if lost else ""
        status = "inconclusive" if lost >= max(1, checks.TOLERATED * n) else "ok"
        right = ~found["before"]
        who = None if patients is None else patients[right]

        def add(metric: str, estimate: stats.Estimate, status: str = "ok", note: str = "", **more: str) -> None:
            self.rows.add(Kind.ATTACK, metric, estimate, attack=NAME, eps=self.eps, status=status, note=note, **more)

        add("accuracy", stats.proportion(~found["reached"], patients), status, note)
        add("success", stats.proportion(found["reached"][right], who), status, note)
        for metric in ("gradients", "forwards"):
            add(f"{metric}_per_image", stats.mean(found[metric], patients))
        members = self.attack.members if isinstance(self.attack, Auto) else ()
        for k, member in enumerate(members):
            add("broken_by", stats.proportion((found["by"] == k)[right], who), member=member)
        broken = right & (others <= np.float32(self.eps))
        missed = int((broken & ~found["reached"]).sum())
        alone = int((right & (found["by"] == members.index("square"))).sum()) if members else 0
        fallen = int((right & found["reached"]).sum())
        return [
            checks.confirmed(NAME, self.unconfirmed, fallen + self.unconfirmed),
            checks.finds_what_others_find(NAME, self.eps, missed, int(broken.sum()), n),
            checks.square_is_not_needed(NAME, self.eps, alone, fallen - alone, int(right.sum())),
        ]


def told(name: str, attack: Attack, eps: float) -> dict[str, Any]:
    """For the conditions: what made the headline number, and at which size."""
    settings = ", ".join(f"{k} {v}" for k, v in attack.settings.items())
    return {"attack": name, "title": attack.title, "settings": settings, "source": attack.source, "eps": eps}
