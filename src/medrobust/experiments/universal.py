"""One perturbation for every image: made from some images, judged on others, beside random ones of the same size.

Every goal is one cell: nontargeted, or towards a class.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from medrobust import code_digest, guessing, private_names
from medrobust.data import Dataset
from medrobust.errors import InputError
from medrobust.experiments.clean import CleanExperiment
from medrobust.experiments.context import Context, Experiment, ExperimentResult, Step
from medrobust.experiments.perturbation import PerturbationConfig, goal_of
from medrobust.experiments.rows import MANY
from medrobust.experiments.system import groups
from medrobust.experiments.universal_images import CraftSplit, craft_split, decoded, other_images, pixels_digest
from medrobust.experiments.universal_rows import believed, fooling_rows, rows_before, target_rows
from medrobust.images import Lazy
from medrobust.naming import image_code
from medrobust.results import Kind, Rows, group
from medrobust.run_folder import RunFolder
from medrobust.store import Cell, Result
from medrobust.threat import Ball
from medrobust.universal import Noise, UniversalOutcome, Varied, controls, judge
from medrobust.universal import Universal as Perturbation

MOST_TARGETS = 4
"""With more classes an audit makes only the nontargeted one."""
NOISE = "noise"


@dataclass(frozen=True, kw_only=True)
class UniversalConfig(PerturbationConfig):
    """every: the nontargeted goal, and each class where there are few; else the one of ``target``.

    source: other images to make it from, NOISE or as ``data.load`` reads them; vary: variants of them. limit, judged:
    images it is made from and judged on, at most; None: all. bits: at which it is saved; None: those of the images.
    """

    every: bool = False
    source: str | None = None
    vary: bool = False
    limit: int | None = 300
    judged: int | None = None
    bits: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vary and self.source in (None, NOISE):
            raise InputError("--vary is for images of another kind: give --source csv:… or folder:… with it")


def quick(norm: str) -> UniversalConfig:
    """For an audit: strong enough for a first answer within seconds, four gradients an image."""
    return UniversalConfig(method="sgd:passes=4", norm=norm, measured=200, every=True, limit=200, judged=200, bits=8)


def experiments(context: Context, options: Mapping[str, Any]) -> list[Experiment]:
    """Of ``medrobust universal``; options: fields of a UniversalConfig."""
    config = UniversalConfig(**options)
    clean = CleanExperiment(context, gradient=config.maker.opens)
    universal = UniversalExperiment(context, clean, config)
    if universal.craft_split is None:
        raise InputError("too few images to make a perturbation from some and judge it on others; give --source")
    return [clean, universal]


class UniversalExperiment(Experiment):
    """One perturbation for all images, for every goal, beside random ones of the same size."""

    name = "universal"

    def __init__(self, context: Context, clean: CleanExperiment, config: UniversalConfig) -> None:
        self.context, self.system, self.reading, self.config = context, context.system, clean, config
        self.seed, self.progress, self.method = context.config.seed, context.progress, config.maker
        self.classes = context.classifier.classes
        self.targets = context.classifier.head.targets(self.classes)
        self.goals: list[int | None] = (
            [None, *self._every] if config.every else [config.target_index(context.classifier)]
        )
        self.by_class = len(self.classes) <= MANY or not config.every
        """With many classes and several goals, numbers for each class would bury the others."""

    @property
    def _every(self) -> Sequence[int]:
        """Every class where there are few; of several findings, to hide the most frequent ones."""
        k = len(self.classes)
        if self.context.classifier.head.multilabel:
            return [k + int(i) for i in np.argsort(-self.system.data.counts, kind="stable")[:MOST_TARGETS]]
        return range(k) if k <= MOST_TARGETS else ()

    def steps(self) -> Sequence[Step]:
        if self.craft_split is None:
            return []
        goals = [Step(f"universal {self._title(k)}", partial(self._cell, k), ("clean",)) for k in self.goals]
        return [*goals, Step("universal random", self._random, ("clean",))]

    def outcome(self) -> ExperimentResult:
        outcome = ExperimentResult(self.context.rows())
        if self.craft_split is None:
            outcome.left_out.append(("universal perturbations", "too few images to make them and to judge them"))
            return outcome
        cells = {k: self._cell(k) for k in self.goals}
        outcomes = {k: self._judged(k, cell.arrays, legal=cell.fact("legal", bool)) for k, cell in cells.items()}
        self._rows(outcome.rows, cells, outcomes)
        examples = self._chosen(outcomes)
        clean = self.test.shown().images([i for _, i in examples]).numpy()
        delta = np.stack([cells[k].arrays["delta"] for k, _ in examples])
        outcome.arrays = {"universal.delta": delta}
        outcome.pictures = {"universal.clean": clean, "universal.attacked": (clean + delta).clip(0, 1)}
        if self.by_class:
            outcome.arrays["universal.confusion"] = np.stack([o.confusion for o in outcomes.values()])
        outcome.conditions["universal"] = self._info(cells) | {"examples": self._examples(examples, outcomes)}
        return outcome

    def save(self, run: RunFolder, *, keep_names: bool) -> None:
        """v.safetensors and v.png, where one goal was asked for."""
        if self.config.every:
            return
        v, names = self.perturbation(self.goals[0]), {self.system.data.name, self._source_name}
        if not keep_names:
            v = dataclasses.replace(v, provenance=private_names.found(v.provenance, *names))
        v.save(run.entry("v.safetensors"))
        v.picture(run.entry("v.png"))

    def perturbation(self, target: int | None) -> Perturbation:
        """The one that was made for this goal; its provenance names the data."""
        cell, method = self._cell(target), self.method
        provenance = {
            "method": method.title,
            "source": method.source,
            "settings": method.settings,
            "images": {"name": str(getattr(self.craft, "name", "images")), "n": len(self.craft)},
            "classifier": self.context.classifier.digest(),
            "seed": self.seed,
            "queries": cell.facts["queries"],
            "gradients": cell.facts["gradients"],
        }
        delta = torch.from_numpy(cell.arrays["delta"])
        return Perturbation(
            delta, self.ball, goal_of(target), provenance, cell.fact("history", list), cell.fact("why", str)
        )

    @property
    def _source_name(self) -> str:
        return str(getattr(self.craft, "name", "")).removeprefix("varied ")

    # -- images, and the size ----------------------------------------------------------------------------

    @cached_property
    def craft_split(self) -> CraftSplit | None:
        """None where there are too few images for both."""
        other = self.config.source is not None
        apart = craft_split(self.system, self.seed)
        if other and (apart is None or apart.judged is not self.system.test):
            return CraftSplit(self.system.test, self.system.test, "")  # none of them is needed to make it
        return apart

    @property
    def apart(self) -> CraftSplit:
        assert self.craft_split is not None
        return self.craft_split

    @cached_property
    def test(self) -> Dataset:
        """The images it is judged on."""
        return self.apart.judged.sample(self.config.judged, self.seed)

    @cached_property
    def owners(self) -> np.ndarray | None:
        return groups(self.test)

    @cached_property
    def craft(self) -> Lazy:
        """The images it is made from."""
        config, data = self.config, self.system.data
        if config.source is None:
            return decoded(self.apart.craft.sample(config.limit, self.seed))
        count = config.limit or len(self.apart.craft)
        if config.source == NOISE:
            return Noise(count, (data.channels, data.size, data.size), self.seed)
        other = other_images(config.source, data, self.seed, self.progress)
        if config.vary:
            return Varied(other, config.limit or len(other), self.seed)
        return decoded(other.sample(config.limit, self.seed))

    @property
    def made_from(self) -> str:
        """In words."""
        source = self.config.source
        if source is None:
            return self.apart.origin
        return source if source == NOISE else f"{'variants of ' if self.config.vary else ''}images of {source}"

    @cached_property
    def craft_digest(self) -> str:
        if self.config.source is None:
            return self.system.images_digest(self.apart.craft.sample(self.config.limit, self.seed))
        return pixels_digest(self.craft)

    @cached_property
    def judged(self) -> Lazy:
        return decoded(self.test)

    @cached_property
    def ball(self) -> Ball:
        config = self.config
        same = config.source is None and config.measured == config.limit and not self.test.surround
        return config.ball(self.apart.craft.sample(config.measured, self.seed), self.craft if same else None)

    @property
    def eps(self) -> float:
        return float(self.ball.eps)

    @property
    def bits(self) -> int:
        return self.config.bits or self.test.bits

    @cached_property
    def clean(self) -> np.ndarray:
        """int64 (n,): decisions on the judged images without a perturbation."""
        place = {name: i for i, name in enumerate(self.system.test.ids)}
        return np.asarray(self.reading.cell.arrays["decision"][[place[name] for name in self.test.ids]])

    def _title(self, target: int | None) -> str:
        return "nontargeted" if target is None else self.targets[target]

    # -- pieces of work ----------------------------------------------------------------------------------

    def _cell(self, target: int | None) -> Cell:
        key = {
            "kind": "universal",
            "method": code_digest.described(self.method),
            "target": target,
            "eps": self.eps,
            "bits": self.bits,
            "made_from": self.craft_digest,
        }
        with self.context.store.unfinished(key) as checkpoint:
            return self.context.cell(self.test, key, lambda: self._make(target, str(checkpoint)))

    def _make(self, target: int | None, checkpoint: str) -> Result:
        progress, classifier = self.progress, self.context.attacked
        title = "One change for every image" + ("" if target is None else f", to {self.targets[target]}")
        progress.start(title, self.method.work(len(self.craft)) + len(self.test))
        try:
            v = self.method(
                classifier,
                self.craft,
                goal_of(target),
                self.ball,
                seed=self.seed,
                advance=progress.advance,
                watch=lambda rate: progress.advance(0, reached=f"{rate:.0%}"),
                checkpoint=checkpoint,
            )
            outcome = judge(classifier, self.judged, v, bits=self.bits, span=self.test.span, clean=self.clean)
            progress.advance(len(self.test))
        finally:
            progress.stop()
        facts = {"why": v.why, "nonzero": v.nonzero, "size": v.size, "legal": bool(outcome.legal), "history": v.history}
        facts |= {k: v.provenance[k] for k in ("gradients", "queries")}
        return facts, {"delta": v.delta.numpy(), "after": outcome.after, "saved": outcome.after_saving}

    def _random(self) -> Cell:
        """Decisions under random perturbations of exactly the same size, as computed and saved, by their kind."""
        key = {"kind": "universal random", "eps": self.eps, "bits": self.bits}
        classifier = self.context.classifier

        def compute() -> Result:
            arrays: dict[str, np.ndarray] = {}
            self.progress.start("Random changes of the same size", 3 * len(self.test))
            try:
                for v in controls(classifier, self.judged, self.ball, self.seed):
                    outcome = judge(classifier, self.judged, v, bits=self.bits, span=self.test.span, clean=self.clean)
                    name = str(v.provenance["method"])
                    arrays |= {f"after.{name}": outcome.after, f"saved.{name}": outcome.after_saving}
                    self.progress.advance(len(self.test))
            finally:
                self.progress.stop()
            return {}, arrays

        return self.context.cell(self.test, key, compute)

    # -- what it amounts to ------------------------------------------------------------------------------

    def _judged(self, target: int | None, arrays: Mapping[str, np.ndarray], *, legal: bool = True) -> UniversalOutcome:
        """arrays: after and saved."""
        return UniversalOutcome(
            clean=self.clean,
            after=arrays["after"],
            after_saving=arrays["saved"],
            classes=self.classes,
            target=target,
            legal=legal,
            bits=self.bits,
            labels=self.test.labels,
            groups=None if self.owners is None else tuple(self.owners),
        )

    def _rows(
        self, rows: Rows, cells: Mapping[int | None, Cell], outcomes: Mapping[int | None, UniversalOutcome]
    ) -> None:
        for k, o in outcomes.items():
            cell = cells[k]
            status, note = believed(o, cell.fact("nonzero", bool), cell.fact("why", str), cell.fact("legal", bool))
            at: Mapping[str, object] = {"attack": self.config.name, "eps": self.eps, "status": status, "note": note}
            if k is not None:
                target_rows(rows, Kind.UNIVERSAL, o, by_class=self.by_class, **at)
            target = None if k is None else self.targets[k]
            fooling_rows(rows, Kind.UNIVERSAL, o, by_class=self.by_class, target=target, **at)
            if k == self.goals[0]:
                rows_before(rows, Kind.UNIVERSAL, o, by_class=self.by_class, **at)
        arrays = self._random().arrays
        for name in _names(arrays):
            at = {"attack": name, "eps": self.eps}
            o = self._judged(None, {side: arrays[f"{side}.{name}"] for side in ("after", "saved")})
            fooling_rows(rows, Kind.CONTROL, o, by_class=self.by_class, **at)
            for k in self.goals:
                if k is not None:
                    towards = dataclasses.replace(o, target=k)
                    target_rows(rows, Kind.CONTROL, towards, by_class=self.by_class, **at)

    def _info(self, cells: Mapping[int | None, Cell]) -> dict[str, object]:
        """How it was made, for results.json."""
        facts = ("nonzero", "why", "legal", "gradients", "queries", "history")
        return {
            "name": self.config.name,
            "title": self.method.title,
            "source": self.method.source,
            "settings": self.method.settings,
            "zeta": self.config.share,
            "eps": self.eps,
            "made_from": self.made_from,
            "n_made": len(self.craft),
            "n_judged": len(self.test),
            "bits": self.bits,
            "controls": _names(self._random().arrays),
            "goals": [
                {
                    "target": k,
                    "largest": float(np.abs(c.arrays["delta"]).max()),
                    **{name: c.facts[name] for name in facts},
                }
                for k, c in cells.items()
            ],
        }

    def _chosen(self, outcomes: dict[int | None, UniversalOutcome]) -> list[tuple[int | None, int]]:
        """(goal, image) for the figure: the nontargeted one, and the target that would hide a disease, or works best.

        An image that was read correctly and is turned, of a disease where there is one.
        """
        sick = self.system.disease_classes
        aims = [k for k in outcomes if k is not None]
        well = [k for k in aims if sick and k not in sick]

        def gain(k: int | None) -> float:
            new = outcomes[k].targeted_success_new
            return new.value if new is not None and new.n else 0.0

        chosen = [*(k for k in outcomes if k is None), *([max(well or aims, key=gain)] if aims else [])]
        labels, examples = self.test.labels, []
        for k in chosen:
            turned = guessing.right(self.clean, labels) & outcomes[k].fooled
            ill = turned & (np.isin(labels, list(sick)) if labels.ndim == 1 else (labels == 1).any(1))
            candidates = next(
                (hits for hits in (ill, turned, outcomes[k].fooled) if hits.any()), np.ones(len(labels), bool)
            )
            examples.append((k, int(np.flatnonzero(candidates)[0])))
        return examples

    def _examples(
        self, chosen: Sequence[tuple[int | None, int]], outcomes: Mapping[int | None, UniversalOutcome]
    ) -> list[dict[str, object]]:
        return [
            {
                "target": k,
                "id": image_code(self.test, i),
                "label": self.test.labels[i].tolist(),
                "before": self.clean[i].tolist(),
                "after": outcomes[k].after[i].tolist(),
            }
            for k, i in chosen
        ]


def _names(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Of the random perturbations in their cell, sorted: a cell that was read has an order of its own."""
    return sorted(group(arrays, "after"))
