"""Defence by training: rounds of training under attack, each judged by fresh attacks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from medrobust import atomic, code_digest, json_files, own_files, seeds, training
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.progress import NoProgress, Progress
from medrobust.threat import Ball, Goal, Targeted
from medrobust.training import Adversary, Pixels
from medrobust.universal.controls import controls
from medrobust.universal.defence.rounds import HeldOutImages, Round
from medrobust.universal.method import UniversalMethod
from medrobust.universal.perturbation import Universal
from medrobust.universal.sgd import SGDUAP

if TYPE_CHECKING:
    from medrobust.data import Dataset

FILE = "defence.json"


@dataclass(frozen=True)
class Hardened:
    """The result of a defence.

    classifier: after the last round. rounds: what each left behind, the first as it came. pool: the perturbations
    made against the classifier at last. stopped: empty, or why there were fewer rounds than asked for.
    """

    classifier: Classifier
    rounds: list[Round]
    pool: list[Universal] = field(default_factory=list)
    stopped: str = ""

    @property
    def protects(self) -> bool:
        """Whether fresh perturbations do no more than random ones at last, as far as can be told."""
        last = self.rounds[-1]
        if len(self.rounds) == 1 or last.fresh.inconclusive:
            return False
        return last.fresh.rate.low <= last.control.rate.high

    @property
    def verdict(self) -> str:
        """Does a fresh perturbation work again? In a sentence, with intervals."""
        first, last = self.rounds[0], self.rounds[-1]
        if len(self.rounds) == 1 or last.fresh.inconclusive:
            return f"Inconclusive: {self.stopped or last.fresh.why}."
        before, after, old = first.fresh.rate, last.fresh.rate, last.old
        assert old is not None
        noise = last.control.rate
        if self.protects:
            finding = "Fresh perturbations do no more than random ones, as far as can be told"
        elif after.high < before.low:
            finding = "Fresh perturbations do less than before, yet more than random ones"
        elif after.low > before.high:
            finding = "Fresh perturbations do more than before"
        else:
            finding = "Fresh perturbations work again; that they do less than before cannot be told"
        what = "Exact match of the findings" if self.classifier.head.multilabel else "Accuracy"
        kept, now = _rate(first.accuracy), _rate(last.accuracy)
        fell = last.accuracy.high < first.accuracy.low
        return (
            f"{finding}: of {after.n} images they fool {_rate(before)} at the start, {_rate(after)} after round "
            f"{last.number}; those of the round before {_rate(old.rate)}, random ones {_rate(noise)}. {what} on "
            f"{last.accuracy.n} untouched images "
            + (f"fell from {kept} to {now}." if fell else f"was {kept}, is {now}.")
        )


class Defence(ABC):
    """A way to train a classifier against universal perturbations.

    rounds: how often; epochs: of training in each. perturbations: made against the classifier after each round, with
    different seeds, each from ``limit`` training images of its own drawing (None: all). lr: peak learning rate of
    each round; by default that of ``training.further``.
    """

    title: ClassVar[str]
    source: ClassVar[str]

    def __init__(self, rounds: int, epochs: int, perturbations: int, limit: int | None, lr: float | None) -> None:
        if min(rounds, epochs, perturbations) < 1:
            raise InputError(f"rounds, epochs, perturbations are at least 1, got {rounds}, {epochs}, {perturbations}")
        if limit is not None and limit < 1:
            raise InputError(f"limit must be at least 1 image, or None for all, got {limit}")
        if lr is not None and not (lr > 0 and math.isfinite(lr)):
            raise InputError(f"lr must be a positive number such as 0.0003, got {lr}")
        self.rounds, self.epochs, self.perturbations, self.limit, self.lr = rounds, epochs, perturbations, limit, lr

    @abstractmethod
    def adversary(
        self, pools: Sequence[Sequence[Universal]], goal: Goal, ball: Ball, seed: int, before: Adversary | None
    ) -> Adversary:
        """Who attacks during the next round. pools: the perturbations made so far, by round; before: of last round."""

    @property
    def settings(self) -> dict[str, object]:
        """Everything that a result depends on."""
        return dict(sorted(vars(self).items()))

    def __call__(
        self,
        classifier: Classifier,
        data: Dataset,
        goal: Goal,
        ball: Ball,
        *,
        method: UniversalMethod | None = None,
        test: Dataset | None = None,
        seed: int = 0,
        folder: str | Path | None = None,
        progress: Progress | None = None,
    ) -> Hardened:
        """Train on the train split of ``data`` and judge on its test split; ``classifier`` itself stays untouched.

        goal, ball: of the perturbations, as in UniversalMethod. method: makes them, SGD-UAP by default.
        test: other images to judge on. folder: keeps what is finished; the same call goes on from there and ends
        with the same bits. InputError where the folder holds another defence.
        """
        method = method or SGDUAP()
        data = data.for_network(classifier)
        training.check_trainable(classifier, data)
        test = None if test is None else test.for_network(classifier)
        config = {
            "defence": self.title,
            "settings": self.settings,
            "seed": seed,
            "classifier": classifier.digest(),
            "data": data.digest(),
            "test": None if test is None else test.digest(),
            "norm": ball.name,
            "eps": float(ball.eps),
            "target": _target(goal),
            "method": {"title": method.title, "settings": method.settings},
            "code": "-".join([code_digest.of_module(__name__), *map(code_digest.of_class, (type(self), type(method)))]),
        }
        with contextlib.ExitStack() as stack:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()) if folder is None else folder)
            log = _Log(place, config)
            train, held_out = data.split("train"), data.split("test") if test is None else test
            work = _Work(self, method, goal, ball, train, held_out, seed, place, progress or NoProgress())
            return self._run(classifier, data, work, log)

    def _run(self, classifier: Classifier, data: Dataset, work: _Work, log: _Log) -> Hardened:
        pools = [work.pool(classifier, 0)]
        rounds = [log.once(0, partial(work.judge, classifier, pools))]
        adversary, stopped = None, ""
        for number in range(1, self.rounds + 1):
            if not any(v.nonzero for v in pools[-1]):
                stopped = f"in round {number - 1} no perturbation moved ({pools[-1][0].why}): nothing to train on"
                break
            drawn = int(seeds.generator(work.seed, "defence", number).integers(2**31))
            adversary = self.adversary(pools, work.goal, work.ball, drawn, adversary)
            classifier = training.further(
                classifier,
                data,
                seed=drawn,
                epochs=self.epochs,
                lr=self.lr,
                adversary=adversary,
                keep="last",
                progress=work.progress,
                resume=work.at(number),
            )
            pools.append(work.pool(classifier, number))
            rounds.append(log.once(number, partial(work.judge, classifier, pools)))
        return Hardened(classifier, rounds, pools[-1], stopped)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.settings.items())})"


class _Work:
    """The settings that all rounds of one defence share."""

    def __init__(
        self,
        defence: Defence,
        method: UniversalMethod,
        goal: Goal,
        ball: Ball,
        train: Dataset,
        test: Dataset,
        seed: int,
        place: Path,
        progress: Progress,
    ) -> None:
        self.defence, self.method, self.goal, self.ball = defence, method, goal, ball
        self.train, self.seed, self.place, self.progress = train, seed, place, progress
        self.test = Pixels(test, progress, "test")
        self.groups = patients(test)

    def at(self, number: int) -> Path:
        """The folder of a round."""
        return self.place / f"round-{number:02d}"

    def pool(self, classifier: Classifier, number: int) -> list[Universal]:
        """The perturbations against this classifier: those finished before are read, the others made."""
        vs, defence = [], self.defence
        n = len(self.train) if defence.limit is None else min(defence.limit, len(self.train))
        self.progress.start(
            f"round {number}: {defence.perturbations} perturbations", defence.perturbations * self.method.work(n)
        )
        try:
            for k in range(defence.perturbations):
                file = self.at(number) / f"perturbation-{k:02d}.safetensors"
                if file.is_file():
                    self.progress.advance(self.method.work(n))
                else:
                    drawn = int(seeds.generator(self.seed, "defence/perturbation", number, k).integers(2**31))
                    images = Pixels(self.train.sample(defence.limit, drawn), NoProgress(), "training")
                    unfinished = file.with_name(f".unfinished-{file.name}")
                    v = self.method(
                        classifier,
                        images,
                        self.goal,
                        self.ball,
                        seed=drawn,
                        advance=self.progress.advance,
                        watch=self._show_rate,
                        checkpoint=unfinished,
                    )
                    v.save(file)
                    unfinished.unlink(missing_ok=True)
                vs.append(Universal.load(file))
        finally:
            self.progress.stop()
        return vs

    def _show_rate(self, rate: float) -> None:
        self.progress.advance(0, rate=f"{rate:.0%}")

    def judge(self, classifier: Classifier, pools: list[list[Universal]]) -> Round:
        """The newest pool, the one before and the first against this classifier, beside random perturbations."""
        held_out = HeldOutImages(classifier, self.test, self.test.labels, self.groups, _target(self.goal))
        random = controls(classifier, self.test, self.ball, self.seed)
        looks = 1 + len(random) + len(pools[-1]) + sum(len(p) for p in pools[:-1][-1:]) + len(pools[0])
        self.progress.start(f"round {len(pools) - 1}: judging", looks)
        try:
            untouched = held_out.judge(random[0])
            accuracy = untouched.accuracy_before
            assert accuracy is not None
            self.progress.advance(1, accuracy=f"{accuracy.value:.1%}")
            judged = []
            for pool in (random, pools[-1], *pools[:-1][-1:]):
                judged.append(held_out.pool(pool))
                self.progress.advance(len(pool), rate=f"{judged[-1].rate.value:.1%}")
            old = judged[2] if len(judged) > 2 else None
            first = old if len(pools) == 2 else held_out.pool(pools[0]) if len(pools) > 2 else None
        finally:
            self.progress.stop()
        return Round(len(pools) - 1, accuracy, untouched.recall_before, judged[1], old, first, judged[0])


class _Log:
    """The rounds finished so far, in one JSON file that is replaced whole."""

    def __init__(self, folder: Path, config: Mapping[str, object]) -> None:
        self.file, self.config, self.rounds = folder / FILE, config, list[dict[str, object]]()
        if self.file.is_file():
            log = json_files.read_object(self.file)
            before, rounds = log.get("config"), log.get("rounds")
            if not isinstance(before, dict) or not isinstance(rounds, list):
                raise InputError(f"{self.file} is damaged (no config and rounds in it); give another folder")
            self.rounds = rounds
            if before != json.loads(json.dumps(config)):
                changed = ", ".join(k for k in config if before.get(k) != json.loads(json.dumps(config[k])))
                raise InputError(f"{self.file} holds a defence with another {changed}; give another folder")
        else:
            self._write()  # before hours of work: a folder that takes no file is told now, and other settings later

    def once(self, number: int, compute: Callable[[], Round]) -> Round:
        """Round ``number``: read if it is there, else computed and written."""
        if number == len(self.rounds):
            self.rounds.append(compute().plain())
            self._write()
        return Round.of(json.loads(json.dumps(self.rounds[number])))

    def _write(self) -> None:
        text = json.dumps({"config": self.config, "rounds": self.rounds}, indent=1)
        own_files.check_json(self.file, lambda content: {"config", "rounds"} <= content.keys(), "log of a defence")
        atomic.write_text(self.file, text)


def digest(delta: Tensor) -> str:
    """sha256 of the numbers of perturbations."""
    return hashlib.sha256(delta.contiguous().numpy().tobytes()).hexdigest()


def patients(part: Dataset) -> list[str] | None:
    """Whose images they are, for intervals; an image without a patient stands for itself."""
    if part.patients is None:
        return None
    return [p or f"image {i}" for p, i in zip(part.patients.tolist(), part.ids, strict=True)]


def _target(goal: Goal) -> int | None:
    return int(goal.labels) if isinstance(goal, Targeted) else None


def _rate(estimate: Any) -> str:
    value, low, high = (f"{100 * share:.1f}" for share in (estimate.value, estimate.low, estimate.high))
    return f"{value} % ({low}–{high})"
