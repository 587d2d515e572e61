"""Defences at the input, each judged by an attacker who does not know it and by one who does.

What the former leaves is what a test without an adaptive attack would report (Athalye et al. 2018, arXiv:1802.00420;
Tramer et al. 2020, arXiv:2002.08347).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from medrobust import code_digest, options, stats
from medrobust.attacks import APGD, Attack, Auto
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.defences import INPUT_DEFENCES, InputDefence, defended
from medrobust.errors import InputError
from medrobust.experiments import robustness_cells
from medrobust.experiments.checks import TOLERATED
from medrobust.experiments.clean import CleanExperiment
from medrobust.experiments.context import Advance, Context, Experiment, ExperimentResult, Step
from medrobust.images import Images, Labels
from medrobust.results import INCONCLUSIVE, OK, Kind, withstands
from medrobust.store import Cell, Result
from medrobust.threat import Untargeted, margin

NAME = "auto"
"""Of the attack, in rows."""
STEPS = 40
"""Of the attack on a random defence."""
FOLLOWED, JUDGED = range(8), range(1000, 1032)
"""Seeds of the draws of a random defence that attacks follow, and of those on which they are counted."""
NONE = "none"
"""Name of the classifier without a defence."""
UNAWARE, AWARE = "the classifier", "the classifier and the defence"
"""Values of the column ``knows``."""


@dataclass(frozen=True)
class InputDefencesConfig:
    """defences: names of INPUT_DEFENCES, with options after colons."""

    defences: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.defences:
            raise InputError(f"name at least one defence: {', '.join(INPUT_DEFENCES)}")
        if len(set(self.defences)) < len(self.defences):
            raise InputError(f"a defence is named twice: {', '.join(self.defences)}")
        for name in self.defences:
            self.made(name)

    @staticmethod
    def made(text: str) -> InputDefence:
        name, values = options.parse(text, INPUT_DEFENCES, "defence")
        return INPUT_DEFENCES[name](**values)


def experiments(context: Context, options: Mapping[str, Any]) -> list[Experiment]:
    """Of ``medrobust input-defences``; options: fields of an InputDefencesConfig."""
    config = InputDefencesConfig(tuple(options["defences"]))
    return [CleanExperiment(context), InputDefencesExperiment(context, config)]


class InputDefencesExperiment(Experiment):
    """Every defence before the classifier, and the classifier alone."""

    name = "input_defences"

    def __init__(self, context: Context, config: InputDefencesConfig) -> None:
        self.context, self.seed = context, context.config.seed
        self.eps = tuple(e for e in context.config.eps if e > 0)
        self.defences = {name: config.made(name) for name in config.defences}
        images, labels = context.sample.most_frequent_shape().tensors(2, 0)
        for defence in self.defences.values():  # one that these images do not fit is told now
            right(context.classifier, defence, images, labels)

    def steps(self) -> Sequence[Step]:
        check = ("gradient check",)
        crafted = Step("attack without the defence", self.crafted, check)
        unaware = [Step(f"unaware of {name}", partial(self.unaware, name), (crafted.name,)) for name in self.defences]
        aware = [Step(f"attack on {name}", partial(self.aware, name), check) for name in (NONE, *self.defences)]
        return [crafted, *unaware, *aware]

    def aware(self, name: str) -> Cell:
        """right (n, sizes): the share of right answers under an attack that knows the defence, or has none to know."""
        context, defence = self.context, self.defences.get(name)
        attack: Attack = APGD(STEPS, loss=margin) if defence is not None and defence.random else Auto()

        def compute(shard: Dataset, advance: Advance) -> Result:
            if defence is not None and defence.random:
                return self._random(shard, defence, attack, advance)
            judged, through = context.classifier, context.attacked
            if defence is not None:
                judged, through = defended(judged, defence), defended(through, defence, known=True)
            _, arrays = robustness_cells.swept(
                attack, through, shard, context.ball, self.eps, None, self.seed, advance, judged
            )
            right = np.stack([withstands(arrays["min_eps"], e) for e in self.eps], 1)
            return {}, {"right": right.astype(np.float32), "no_gradient": arrays["no_gradient"]}

        key = {"kind": "input defence", **self._key(name), "attack": code_digest.described(attack), "eps": self.eps}
        title = "Attack on the classifier alone"
        if defence is not None:
            title = f"Attack that knows the defence: {defence.title}"
        return context.sharded(context.sample, title, key, compute)

    def _random(self, shard: Dataset, defence: InputDefence, attack: Attack, advance: Advance) -> Result:
        """Through the mean over some draws; counted on others."""
        images, labels = shard.tensors()
        through = defended(self.context.attacked, defence, known=True, draws=FOLLOWED)
        shares = []
        for e in self.eps:
            ball, goal = self.context.ball(e), Untargeted(labels)
            changed = attack(through, images, goal, ball, seed=self.seed, ids=shard.ids, full=True)
            shares.append(right(self.context.classifier, defence, changed, labels))
        advance(len(shard))
        none = np.zeros(len(shard), dtype=bool)
        return {}, {"right": torch.stack(shares, 1).numpy(), "no_gradient": none}

    def crafted(self) -> Cell:
        """Images as an attack on the classifier alone changes them at each size, with all its steps."""
        context, attack = self.context, Auto()

        def compute(shard: Dataset, advance: Advance) -> Result:
            images, labels = shard.tensors()
            goal = Untargeted(labels)
            made = [
                attack(context.attacked, images, goal, context.ball(e), seed=self.seed, ids=shard.ids, full=True)
                for e in self.eps
            ]
            advance(len(shard))
            before = right(context.classifier, None, images, labels)
            return {}, {"images": torch.stack(made, 1).numpy(), "before": before.numpy()}

        key = {"kind": "crafted", "attack": code_digest.described(attack), "eps": self.eps}
        return context.sharded(context.sample, "Attack on the classifier alone, at full strength", key, compute)

    def unaware(self, name: str) -> Cell:
        """right (n, 1 + sizes): the share of right answers behind the defence, untouched and under that attack."""
        context, defence = self.context, self.defences[name]
        place = {image_id: i for i, image_id in enumerate(context.sample.ids)}

        def compute(shard: Dataset, advance: Advance) -> Result:
            images, labels = shard.tensors()
            crafted = torch.from_numpy(self.crafted().arrays["images"][[place[i] for i in shard.ids]])
            each = [images, *(crafted[:, i] for i in range(len(self.eps)))]
            shares = [right(context.classifier, defence, changed, labels) for changed in each]
            advance(len(shard))
            return {}, {"right": torch.stack(shares, 1).numpy()}

        key = {"kind": "unaware", **self._key(name), "attack": code_digest.described(Auto()), "eps": self.eps}
        title = f"Attack that does not know the defence: {self.defences[name].title}"
        return context.sharded(context.sample, title, key, compute)

    def _key(self, name: str) -> dict[str, object]:
        if name == NONE:
            return {"defence": NONE}
        defence = self.defences[name]
        return {"defence": name, "settings": defence.settings, "defence code": code_digest.of_class(type(defence))}

    def outcome(self) -> ExperimentResult:
        outcome = ExperimentResult(self.context.rows())
        for name in (NONE, *self.defences):
            cell = self.aware(name)
            self._add(outcome, name, AWARE, "accuracy", 0.0, self._clean(name))
            for i, e in enumerate(self.eps):
                share = cell.arrays["right"][:, i]
                if name != NONE:
                    plain = self.unaware(name).arrays["right"][:, i + 1]
                    self._add(outcome, name, UNAWARE, "accuracy_attacked", e, plain)
                    share = np.minimum(share, plain)  # who knows the defence can send the other images too
                self._add(outcome, name, AWARE, "accuracy_attacked", e, share, cell.arrays["no_gradient"])
        outcome.conditions["input_defences"] = {
            "eps": self.eps,
            "defences": {
                name: {"title": d.title, "source": d.source, "settings": d.settings, "random": d.random}
                for name, d in self.defences.items()
            },
        }
        return outcome

    def _clean(self, name: str) -> np.ndarray:
        if name == NONE:
            return self.crafted().arrays["before"]
        return self.unaware(name).arrays["right"][:, 0]

    def _add(
        self,
        outcome: ExperimentResult,
        name: str,
        knows: str,
        metric: str,
        eps: float,
        held_: np.ndarray,
        no_gradient: np.ndarray | None = None,
    ) -> None:
        lost = 0 if no_gradient is None else int(((held_ > 0) & no_gradient).sum())
        note = f"{lost} of {len(held_)} images had no usable gradient" if lost >= max(1, TOLERATED * len(held_)) else ""
        columns: dict[str, Any] = {"defence": name, "knows": knows, "note": note}
        columns |= {"attack": NAME if eps else "none", "eps": eps, "status": INCONCLUSIVE if note else OK}
        outcome.rows.add(Kind.DEFENCE, metric, stats.proportion(held_, self.context.patients), **columns)


def right(classifier: Classifier, defence: InputDefence | None, images: Images, labels: Labels) -> torch.Tensor:
    """float32 (n,): whether answers behind the defence are right; of a random one the share of fresh draws."""

    def answers(judged: Classifier) -> torch.Tensor:
        goal = Untargeted(labels).prepare(judged.head, len(judged.classes), len(images), images.device)
        return (~goal.reached(judged.head, judged.logits(images))).float()

    if defence is None:
        return answers(classifier)
    if not defence.random:
        return answers(defended(classifier, defence))
    return torch.stack([answers(defended(classifier, defence, draws=(seed,))) for seed in JUDGED]).mean(0)
