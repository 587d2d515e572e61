"""Defences at the input and output, and hardened classifiers: each judged by three attackers, and what each costs.

One attacker does not know the defence, one has another classifier only, one knows all. What the first two leave is
what a test without an adaptive attack would report (Athalye et al. 2018, arXiv:1802.00420; Tramer et al. 2020,
arXiv:2002.08347). An image withstands where it is answered rightly untouched, and under attack rightly or by a person
(Tramer 2022, arXiv:2107.11630).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medrobust import code_digest, guessing, options, stats
from medrobust.attacks import Auto, Transfer
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.defences import INPUT_DEFENCES, InputDefence
from medrobust.detectors import detector_named
from medrobust.errors import InputError
from medrobust.experiments import defence_costs
from medrobust.experiments.another_classifier import EPOCHS, Surrogate, loaded
from medrobust.experiments.checks import TOLERATED, doubt
from medrobust.experiments.clean import CleanExperiment
from medrobust.experiments.context import Advance, Context, Experiment, ExperimentResult, Step
from medrobust.experiments.gradient_check import checked
from medrobust.experiments.system import groups
from medrobust.experiments.tried_defences import Answering, Answers, Filtered, Guarded, Tried, right
from medrobust.results import INCONCLUSIVE, OK, Kind
from medrobust.store import Cell, Result
from medrobust.threat import Untargeted

NAME = "auto"
"""Of the attack, in rows."""
NONE = "none"
"""Name of the classifier without a defence."""
KEPT = 32
"""Images a cell of an attack through a defence, which may take seconds an image: what a kill can cost."""
UNAWARE, ANOTHER, AWARE = "the classifier", "another classifier", "the classifier and the defence"
"""Values of the column ``knows``."""


@dataclass(frozen=True)
class InputDefencesConfig:
    """defences: names of INPUT_DEFENCES, with options after colons. detectors: names of DETECTORS, each a guard.

    referrals: share of the validation images that a guard refers. hardened, surrogate: folders of saved classifiers of
    the same classes; surrogate None: one is trained.
    """

    defences: tuple[str, ...]
    detectors: tuple[str, ...] = ()
    referrals: float = 0.05
    hardened: tuple[str, ...] = ()
    surrogate: str | None = None

    def __post_init__(self) -> None:
        if not (self.defences or self.detectors or self.hardened):
            raise InputError(f"name at least one defence: {', '.join(INPUT_DEFENCES)}; or a detector as guard")
        if not 0 < self.referrals < 1:
            raise InputError(f"--referrals must be a share between 0 and 1 such as 0.05, got {self.referrals:g}")
        for names, what in ((self.defences, "defence"), (self.detectors, "detector"), (self.hardened, "classifier")):
            if len(set(names)) < len(names):
                raise InputError(f"a {what} is named twice: {', '.join(names)}")
        for name in self.defences:
            self.made(name)
        for name in self.detectors:
            detector_named(name)

    @staticmethod
    def made(text: str) -> InputDefence:
        name, values = options.parse(text, INPUT_DEFENCES, "defence")
        return INPUT_DEFENCES[name](**values)

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> InputDefencesConfig:
        """From JSON, where tuples are lists."""
        return cls(**{**plain, **{name: tuple(plain[name]) for name in ("defences", "detectors", "hardened")}})


def experiments(context: Context, options: Mapping[str, Any]) -> list[Experiment]:
    """Of ``medrobust input-defences``; options: fields of an InputDefencesConfig."""
    return [CleanExperiment(context), InputDefencesExperiment(context, InputDefencesConfig.read(options))]


class InputDefencesExperiment(Experiment):
    """Every defence, and the classifier alone."""

    name = "input_defences"

    def __init__(self, context: Context, config: InputDefencesConfig) -> None:
        self.context, self.config, self.seed = context, config, context.config.seed
        self.eps = tuple(e for e in context.config.eps if e > 0)
        self.filters = {name: config.made(name) for name in config.defences}
        self.left_out: list[tuple[str, str]] = []
        images, labels = context.sample.most_frequent_shape().tensors(2, 0)
        for defence in self.filters.values():  # one that these images do not fit is told now
            right(context.classifier, defence, images, labels)
        self.hardened = {f"hardened:{i}": loaded(context, folder) for i, folder in enumerate(config.hardened, start=1)}
        self.guards: dict[str, Guarded] = {}
        for name in config.detectors:
            try:
                self.guards[f"guard:{name}"] = Guarded(context, name, config.referrals, max(self.eps))
            except InputError as error:
                self.left_out.append((f"guard {name}", str(error)))
        self._given = None if config.surrogate is None else loaded(context, config.surrogate)
        self._no_surrogate = ""

    # -- what is tried -----------------------------------------------------------------------------------

    @cached_property
    def tried(self) -> Mapping[str, Tried]:
        """By name, the classifier alone first."""
        context = self.context
        return {
            NONE: Answering(context, NONE, context.classifier, context.attacked, "No defence"),
            **{name: Filtered(context, name, defence) for name, defence in self.filters.items()},
            **self.guards,
            **{
                name: _hardened(context, classifier, folder)
                for (name, classifier), folder in zip(self.hardened.items(), self.config.hardened, strict=True)
            },
        }

    @cached_property
    def surrogate(self) -> Classifier | None:
        """Given, or trained now where the run has not done so before; None where that cannot be done."""
        if self._given is not None:
            return self._given
        try:
            return Surrogate(self.context, self.context.store.run).trained()
        except InputError as error:
            self._no_surrogate = str(error)
            return None

    # -- cells -------------------------------------------------------------------------------------------

    def steps(self) -> Sequence[Step]:
        check = ("gradient check",)
        names = (NONE, *self.filters, *self.guards, *self.hardened)
        crafted = Step("attack without the defence", self.crafted, check)
        trained = Step("another classifier", lambda: self.surrogate)
        transferred = Step("attack on another classifier", self.transferred, (trained.name,))
        made = (crafted.name, transferred.name)
        replayed = [Step(f"replayed on {name}", partial(self._replayed, name), made) for name in names]
        aware = [Step(f"attack on {name}", partial(self.aware, name), check) for name in names]
        costs = [Step(f"costs of {name}", partial(self._costs, name)) for name in names]
        return [crafted, trained, transferred, *replayed, *aware, *costs]

    def aware(self, name: str) -> Cell:
        """right, referred (n, sizes): under an attack that knows the defence, or has none to know."""
        tried = self.tried[name]
        title = "Attack on the classifier alone" if name == NONE else f"Attack that knows the defence: {tried.title}"
        key = {"kind": "input defence", **tried.key, "eps": self.eps}

        def compute(shard: Dataset, advance: Advance) -> Result:
            return tried.attacked(shard, self.eps, self.seed, advance)

        return self.context.sharded(self.context.sample, title, key, compute, shard=KEPT)

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
            return {}, {"images": torch.stack(made, 1).numpy()}

        key = {"kind": "crafted", "attack": code_digest.described(attack), "eps": self.eps}
        return context.sharded(context.sample, "Attack on the classifier alone, at full strength", key, compute)

    def transferred(self) -> Cell | None:
        """The same, made on the surrogate: nothing is asked of the classifier."""
        context, surrogate = self.context, self.surrogate
        if surrogate is None:
            return None
        attack = Transfer(surrogate)

        def compute(shard: Dataset, advance: Advance) -> Result:
            images, labels = shard.tensors()
            made = [
                attack.examples(images, Untargeted(labels), context.ball(e), seed=self.seed, ids=shard.ids)
                for e in self.eps
            ]
            advance(len(shard))
            same = (surrogate.predict(images) == context.classifier.predict(images)).reshape(len(shard), -1).all(1)
            return {}, {"images": torch.stack(made, 1).numpy(), "same": same.numpy()}

        key = {"kind": "transferred", "attack": code_digest.described(attack), "eps": self.eps}
        key["surrogate"] = surrogate.digest()
        return context.sharded(context.sample, "Attack on another classifier", key, compute)

    def untouched(self, name: str) -> Cell:
        """right, referred (n,): without an attack."""
        return self._judged(name, "untouched", "Untouched", None)

    def unaware(self, name: str) -> Cell:
        """right, referred (n, sizes): of the images that were made against the classifier alone."""
        return self._judged(name, "unaware", "Attack that does not know the defence", self.crafted())

    def by_transfer(self, name: str) -> Cell | None:
        """The same of those that were made against another classifier."""
        made = self.transferred()
        return None if made is None else self._judged(name, "by transfer", "Attack from another classifier", made)

    def _judged(self, name: str, kind: str, title: str, made: Cell | None) -> Cell:
        context, tried = self.context, self.tried[name]
        place = {image_id: i for i, image_id in enumerate(context.sample.ids)}

        def compute(shard: Dataset, advance: Advance) -> Result:
            images, labels = shard.tensors()
            if made is None:
                only = tried.judge(images, labels)
                return {}, {k: getattr(only, k).numpy() for k in Answers._fields}
            crafted = torch.from_numpy(made.arrays["images"][[place[i] for i in shard.ids]])
            each = [tried.judge(crafted[:, i], labels) for i in range(len(self.eps))]
            advance(len(shard))
            return {}, {k: torch.stack([getattr(a, k) for a in each], 1).numpy() for k in Answers._fields}

        key: dict[str, object] = {"kind": kind, **tried.key, "eps": self.eps, "made by": code_digest.described(Auto())}
        if kind == "by transfer" and self.surrogate is not None:
            key["surrogate"] = self.surrogate.digest()
        return context.sharded(context.sample, f"{title}: {tried.title}", key, compute)

    def _replayed(self, name: str) -> None:
        self.untouched(name)
        self.unaware(name)
        self.by_transfer(name)

    def _costs(self, name: str) -> tuple[Cell, Cell]:
        """Answers to all test images, and the time that they take."""
        context, tried = self.context, self.tried[name]
        answers = context.sharded(
            context.test,
            f"Costs: {tried.title}",
            {"kind": "defence costs", **tried.key},
            lambda shard, advance: defence_costs.answered(tried, context.classifier, shard, advance),
        )
        part = context.sample.most_frequent_shape()
        part = part.select(range(min(defence_costs.TIMED, len(part))))
        spec = {"kind": "defence seconds", **tried.key, "device": context.system.device}
        return answers, context.cell(
            part, spec, lambda: defence_costs.timed(tried, context.classifier, part.tensors()[0])
        )

    # -- what they amount to -----------------------------------------------------------------------------

    def outcome(self) -> ExperimentResult:
        context, outcome = self.context, ExperimentResult(self.context.rows(), left_out=list(self.left_out))
        test, alone = context.test, self._costs(NONE)[0].arrays
        doubts: dict[str, str] = {}
        for name, classifier in self.hardened.items():
            check = checked(classifier, context.sample, self.seed)
            doubts[name] = doubt([check])
        for name, tried in self.tried.items():
            answers, seconds = self._costs(name)
            kept = ~answers.arrays["referred"]
            hits = (answers.arrays["decision"] == test.labels)[kept]
            chance = guessing.of(hits, test.labels[kept], stats.members(groups(test), kept)).text
            # who always answers the same is not fooled either
            guesses = f"with it the classifier is {chance}" if chance and name != NONE else ""
            self._attacked(outcome, name, "; ".join(filter(None, (doubts.get(name, ""), guesses))))
            guards = tried.kind == "guard"
            given = (answers.arrays, alone, test.labels, groups(test), seconds.arrays)
            defence_costs.add_rows(outcome.rows, name, guards, *given)
        if (transferred := self.transferred()) is None:
            outcome.left_out.append(("attacks from another classifier", self._no_surrogate))
        else:
            same = stats.proportion(transferred.arrays["same"], context.patients)
            outcome.rows.add(Kind.DEFENCE, "surrogate_agreement", same)
        outcome.conditions["input_defences"] = {
            "eps": self.eps,
            "surrogate": self._surrogate_text,
            "referrals": self.config.referrals,
            "defences": {
                name: {"title": t.title, "source": t.source, "settings": t.settings, "random": t.random, "kind": t.kind}
                for name, t in self.tried.items()
                if name != NONE
            },
        }
        return outcome

    @property
    def _surrogate_text(self) -> str:
        if self.surrogate is None:
            return ""
        if self.config.surrogate is not None:
            return "another classifier that was given"
        record = self.surrogate.provenance
        return (
            f"a {record['architecture']} that was trained in {record.get('epochs_run', EPOCHS)} epochs on the "
            f"classifier's answers to {record['data']['train']} training images"
        )

    def _attacked(self, outcome: ExperimentResult, name: str, why: str) -> None:
        """Rows of one defence under each attacker."""
        clean = self.untouched(name).arrays
        aware, unaware, other = self.aware(name).arrays, self.unaware(name).arrays, self.by_transfer(name)
        replayed = {UNAWARE: unaware} | ({} if other is None else {ANOTHER: other.arrays})
        for i, e in enumerate(self.eps):
            for knows, arrays in replayed.items():
                if name == NONE and knows == UNAWARE:
                    continue  # there is nothing more to know
                self._add(outcome, name, knows, e, clean, arrays["right"][:, i], arrays["referred"][:, i], why)
            # who knows the defence can send the other images too
            each = [aware, *replayed.values()] if name != NONE else [aware]
            wrong = np.stack([1 - a["right"][:, i] - a["referred"][:, i] for a in each])
            pick, at = wrong.argmax(0), np.arange(wrong.shape[1])
            right, referred = (np.stack([a[k][:, i] for a in each])[pick, at] for k in ("right", "referred"))
            lost = int(((wrong.max(0) == 0) & (right + referred > 0) & aware["no_gradient"]).sum())
            few = f"{lost} of {len(at)} images had no usable gradient" if lost >= max(1, TOLERATED * len(at)) else ""
            self._add(outcome, name, AWARE, e, clean, right, referred, why or few)

    def _add(
        self,
        outcome: ExperimentResult,
        name: str,
        knows: str,
        eps: float,
        clean: Mapping[str, np.ndarray],
        right: np.ndarray,
        referred: np.ndarray,
        note: str,
    ) -> None:
        patients = self.context.patients
        columns: dict[str, Any] = {"defence": name, "knows": knows, "note": note, "attack": NAME, "eps": eps}
        columns["status"] = INCONCLUSIVE if note else OK
        # whoever attacks may also leave an image as it is
        held = np.minimum(clean["right"], right + referred)
        outcome.rows.add(Kind.DEFENCE, "accuracy_attacked", stats.proportion(held, patients), **columns)
        if self.tried[name].kind == "guard":
            kept = referred == 0
            wrong = stats.proportion(1 - right[kept], stats.members(patients, kept))
            outcome.rows.add(Kind.DEFENCE, "referred", stats.proportion(referred, patients), **columns)
            outcome.rows.add(Kind.DEFENCE, "wrong_answered", wrong, **columns)


def _hardened(context: Context, classifier: Classifier, folder: str) -> Answering:
    """A saved classifier, named by the adversarial training that it went through, where it states one."""
    history = classifier.provenance.get("further", [])
    method = history[-1].get("method") if history else None
    title = f"Classifier {Path(folder).name}" if not method else str(method["title"])
    settings = {} if not method else {k: v for k, v in method.items() if k in ("norm", "eps", "steps", "beta")}
    return Answering(context, "classifier", classifier, classifier, title, "", settings)
