"""The headline number of an audit: how many images still hold, at one size, when the ensemble `auto` is added.

The size is one grey level where that does marked harm, else the smallest at which the accuracy has halved, else the
largest. What another attack of the audit broke at that size is broken for the headline too (the worst case).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

import numpy as np
import torch

from medrobust import code_digest, stats
from medrobust.attacks import Attack, Auto, run
from medrobust.attacks.drawn import CHOSEN, held
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.experiments import checks
from medrobust.experiments.config import attack_named
from medrobust.experiments.context import Advance, Context, Experiment, ExperimentResult, Step, base_name
from medrobust.experiments.robustness import NO_GRADIENT, RobustnessExperiment
from medrobust.experiments.rows import attack_rows
from medrobust.experiments.sanity import SanityExperiment
from medrobust.judging import judge
from medrobust.results import INCONCLUSIVE, OK, Kind
from medrobust.store import Cell, Result
from medrobust.threat import Ball, Untargeted

NAME = "auto"
CLEARLY = 0.6
"""Share of right answers of a random network above which an image has not fallen by chance either."""


def examined(
    attack: Attack, classifier: Classifier, part: Dataset, ball: Ball, seed: int, advance: Advance, judged: Classifier
) -> Result:
    """The ensemble at one eps, judged; which member broke an image, and what it all cost.

    judged: see ``robustness_cells.swept``.
    """
    images, labels = part.tensors()
    goal = Untargeted(labels)
    random = judged.draws is not None
    done = run(attack, classifier, images, goal, ball, seed=seed, ids=part.ids, full=random, advance=advance)
    outcome = judge(judged, images, done.images, goal, ball)
    by = torch.full_like(done.level, -1) if done.by is None else done.by
    # what holds on the draws that were followed is no claim on others
    claimed = done.reached & ~outcome.reached & (judged.draws is None)
    return {"unconfirmed": int(claimed.sum())}, {
        "reached": outcome.reached.numpy(),
        "before": outcome.reached_before.numpy(),
        "after": outcome.after.numpy(),
        "size": outcome.size.numpy(),
        "by": torch.where(outcome.reached, by, -1).numpy(),
        "gradients": done.gradients.numpy(),
        "forwards": done.forwards.numpy(),
        "no_gradient": (done.no_gradient | claimed).numpy(),
        **({"right": held(judged, done.images, goal, part.ids).numpy()} if random else {}),
        **({"chosen": held(judged.changed(draws=CHOSEN), done.images, goal, part.ids).numpy()} if random else {}),
    }


class HeadlineExperiment(Experiment):
    """The ensemble on the attacked images, and the worst case: for each image the attack that needed least."""

    name = "headline"

    def __init__(self, context: Context, robustness: RobustnessExperiment, sanity: SanityExperiment | None) -> None:
        self.context, self.config, self.robustness, self.sanity = context, context.config, robustness, sanity
        self.attack = attack_named(self.config.auto) if self.config.auto else None
        self.swept = next((name for name in robustness.attacks if base_name(name) == NAME), None)
        """The ensemble where it was asked for as an attack, and tried at every eps."""

    def steps(self) -> Sequence[Step]:
        needs = tuple(f"sweep {name}" for name in self.robustness.attacks)
        return [Step("ensemble", lambda: self.cell, needs)] if self.attack is not None and self.swept is None else []

    @cached_property
    def cell(self) -> Cell | None:
        """The ensemble at the size of the headline number; None without a positive eps."""
        eps, attack, context = self.robustness.headline_eps, self.attack, self.context
        if eps is None or attack is None or self.swept is not None:
            return None
        key = {"kind": "headline", "attack": code_digest.described(attack), "eps": eps}
        return context.sharded(
            context.sample,
            f"The headline number ({attack.title})",
            key,
            lambda shard, advance: examined(
                attack, context.attacked, shard, context.ball(eps), self.config.seed, advance, context.classifier
            ),
        )

    @cached_property
    def min_eps(self) -> np.ndarray:
        """float32 (n,): the ensemble's eps where it broke an image, 0 where it was wrong before, else infinite."""
        assert self.cell is not None
        fallen = np.where(self.cell.arrays["reached"], self.robustness.headline_eps or 0.0, np.inf)
        return np.where(self.cell.arrays["before"], 0.0, fallen).astype(np.float32)

    @cached_property
    def worst(self) -> np.ndarray:
        """(n,): the smallest eps under any attack."""
        smallest = self.robustness.smallest
        return smallest if self.cell is None else np.minimum(smallest, self.min_eps)

    def _shares(self, swept: Sequence[str], cell: Cell | None) -> np.ndarray | None:
        """Of a random network (n, eps), what the strongest attack leaves of each image's answers: chosen by other draws
        than those that count."""
        if self.context.classifier.draws is None:
            return None
        cells = [self.robustness.sweep(name).arrays for name in swept]
        right, chosen = [c["right"] for c in cells], [c["chosen"] for c in cells]
        if cell is not None and (at := self.robustness.headline_eps) is not None:
            below = np.array(self.config.eps) < at * (1 - 1e-9)  # what was found at a size is legal above it
            right.append(np.where(below, 2.0, cell.arrays["right"][:, None]))
            chosen.append(np.where(below, 2.0, cell.arrays["chosen"][:, None]))
        best = np.stack(chosen).argmin(0)[None]
        return np.asarray(np.take_along_axis(np.stack(right), best, 0)[0], dtype=np.float32)

    def outcome(self) -> ExperimentResult:
        outcome = ExperimentResult(self.context.rows())
        outcome.on_gradients = (NAME,)
        eps, attack = self.robustness.headline_eps, self.attack
        if eps is not None and attack is not None:
            if self.swept is not None:
                outcome.conditions["headline"] = info(self.swept, self.robustness.attacks[self.swept], eps)
            else:
                self._ensemble_part(outcome, attack, eps)
                outcome.conditions["headline"] = info(NAME, attack, eps)
        if len(self.robustness.attacks) + (self.cell is not None) > 1:
            doubts = self.robustness.doubts
            if self.sanity is not None:
                doubts = doubts | self.sanity.outcome().doubts
            self._worst_part(outcome, list(self.robustness.attacks), self.cell, doubts)
        return outcome

    def preliminary(self, finished: Collection[str]) -> ExperimentResult | None:
        """The worst case of the sweeps, before the ensemble and the sanity checks."""
        swept = list(self.robustness.swept(finished))
        if len(swept) < 2 or self.robustness.preliminary(finished) is None:
            return None
        outcome = ExperimentResult(self.context.rows())
        self._worst_part(outcome, swept, None, self.robustness.doubts_of(swept))
        return outcome

    def _ensemble_part(self, outcome: ExperimentResult, attack: Attack, eps: float) -> None:
        assert self.cell is not None
        arrays, n, patients, rows = self.cell.arrays, self.min_eps.size, self.context.patients, outcome.rows
        outcome.arrays[f"min_eps.{NAME}"] = self.min_eps
        lost = int(arrays["no_gradient"].sum())
        note = f"{lost} of {n} images had no usable gradient and held against queries" if lost else ""
        status = INCONCLUSIVE if lost >= max(1, checks.TOLERATED * n) else OK
        right = ~arrays["before"]
        owners = None if patients is None else patients[right]

        def add(metric: str, estimate: stats.Estimate, status: str = OK, note: str = "", **more: str) -> None:
            rows.add(Kind.ATTACK, metric, estimate, attack=NAME, eps=eps, status=status, note=note, **more)

        share = arrays.get("right", ~arrays["reached"])
        add("accuracy", stats.proportion(share, patients), status, note)
        add("success", stats.proportion(1 - share[right].astype(float), owners), status, note)
        for metric in ("gradients", "forwards"):
            add(f"{metric}_per_image", stats.mean(arrays[metric], patients))
        members = attack.members if isinstance(attack, Auto) else ()
        for k, member in enumerate(members):
            add("broken_by", stats.proportion((arrays["by"] == k)[right], owners), member=member)
        broken = right & (self.robustness.smallest <= np.float32(eps))
        missed = int((broken & (arrays["right"] > CLEARLY if "right" in arrays else ~arrays["reached"])).sum())
        alone = int((right & (arrays["by"] == members.index("square"))).sum()) if members else 0
        fallen, unconfirmed = int((right & arrays["reached"]).sum()), self.cell.fact("unconfirmed", int)
        scale = self.context.grey_scale
        outcome.checks += [
            checks.confirmed(NAME, unconfirmed, fallen + unconfirmed),
            checks.finds_what_others_find(NAME, eps, missed, int(broken.sum()), n, scale),
            checks.square_is_not_needed(NAME, eps, alone, fallen - alone, int(right.sum()), scale),
        ]

    def _worst_part(
        self, outcome: ExperimentResult, swept: Sequence[str], cell: Cell | None, doubts: Mapping[str, str]
    ) -> None:
        """Of the sweeps of these attacks and of the ensemble's ``cell``, where that is there."""
        cells = [self.robustness.sweep(name).arrays for name in swept]
        min_eps, after, no_gradient = ([c[k] for c in cells] for k in ("min_eps", "after", "no_gradient"))
        if cell is not None:
            min_eps, after = [*min_eps, self.min_eps], [*after, cell.arrays["after"]]
            no_gradient = [*no_gradient, cell.arrays["no_gradient"]]
            if cell.arrays["no_gradient"].mean() > 0.5:
                doubts = {**doubts, NAME: NO_GRADIENT}
        best, shares = np.stack(min_eps).argmin(0), self._shares(swept, cell)
        worst = np.stack(min_eps).min(0)
        if shares is not None:
            outcome.arrays["right.worst"] = shares
            if cell is not None:  # at its size alone
                outcome.arrays[f"right.{NAME}"] = np.repeat(cell.arrays["right"][:, None], shares.shape[1], 1)
        attack_rows(
            outcome.rows,
            "worst",
            self.config.eps,
            worst,
            self.context.labels,
            np.stack(after)[best, np.arange(best.size)],
            # an image proves something if any attack had a gradient to follow and failed
            np.logical_and.reduce(no_gradient),
            self.context.classifier.classes,
            self.context.patients,
            next(iter(doubts.values())) if len(doubts) == len(min_eps) else "",  # the worst case is one of them
            Kind.WORST,
            self.config.ordinal,
            by_class=True,
            shares=shares,
        )
        outcome.arrays["min_eps.worst"] = worst.astype(np.float32)
        settings = "for each image, the attack that needed the smallest eps"
        outcome.conditions["attacks"] = {"worst": {"title": "Worst case", "settings": settings, "source": ""}}


def info(name: str, attack: Attack, eps: float) -> Mapping[str, str | float]:
    """For the conditions: what made the headline number, and at which size."""
    settings = ", ".join(f"{k} {v}" for k, v in attack.settings.items())
    return {"attack": name, "title": attack.title, "settings": settings, "source": attack.source, "eps": eps}
