"""What no attack can break: accuracy that is proved at each size, beside what attacks leave on the same images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from medrobust import stats
from medrobust.certified import METHODS, Method, Smoothing, graph_of, proved, smooth
from medrobust.data import Dataset
from medrobust.errors import InputError
from medrobust.experiments import checks
from medrobust.experiments.clean import CleanExperiment
from medrobust.experiments.context import Advance, Context, Experiment, ExperimentResult, Step
from medrobust.experiments.robustness import RobustnessExperiment
from medrobust.experiments.rows import MANY
from medrobust.results import Kind, Rows
from medrobust.stats import Groups
from medrobust.store import Cell, Result

SHARD = 16
"""Images a cell: one may take a minute."""
SMOOTHED = "smoothing"
"""The bound of rows about a smoothed classifier."""
TITLES = {"ibp": "IBP", "crown-ibp": "CROWN-IBP", "crown": "CROWN"}
SOURCES = {
    "ibp": "Gowal et al. 2018, arXiv:1810.12715",
    "crown-ibp": "Zhang et al. 2020, arXiv:1906.06316",
    "crown": "Zhang et al. 2018, arXiv:1811.00866",
}


def certified_rows(
    rows: Rows,
    bound: str,
    eps: Sequence[float],
    certificate: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    patients: Groups,
) -> None:
    """At each size the accuracy that is proved, and of one class an image each class's.

    certificate: (n,), the largest size at which an image is proved, negative where it is read wrongly. labels: (n,), or
    (n, k) of several findings.
    """
    for e in eps:
        held = certificate >= e * (1 - 1e-9)
        rows.add(Kind.CERTIFIED, "accuracy", stats.proportion(held, patients), eps=e, bound=bound)
        for k, name in enumerate(classes if labels.ndim == 1 and len(classes) <= MANY else ()):
            share = stats.proportion(held[labels == k], stats.members(patients, labels == k))
            rows.add(Kind.CERTIFIED, "sensitivity", share, eps=e, bound=bound, class_name=name)


class BoundsExperiment(Experiment):
    """Bounds of the logits over whole balls, on the images that are attacked.

    InputError, which names the layer, where the network is not covered.
    """

    name = "certified"

    def __init__(self, context: Context, robustness: RobustnessExperiment, method: Method) -> None:
        self.context, self.robustness, self.method = context, robustness, method
        part = context.sample.most_frequent_shape()
        graph_of(context.classifier, part.select(range(min(2, len(part)))).tensors()[0])

    def steps(self) -> Sequence[Step]:
        return [Step("certified", self._cell)]

    def _cell(self) -> Cell:
        context, eps, norm = self.context, self.context.config.eps, self.context.config.norm

        def compute(shard: Dataset, advance: Advance) -> Result:
            found = proved(context.classifier, *shard.tensors(), norm, eps, self.method, advance=advance)
            return {}, {"eps": found.numpy()}

        key = {"kind": "certified", "method": self.method, "eps": eps}
        title = f"{TITLES[self.method]}: what no change can turn"
        return context.sharded(context.sample, title, key, compute, shard=SHARD)

    def outcome(self) -> ExperimentResult:
        context, outcome, bound = self.context, ExperimentResult(self.context.rows()), self.method
        certificate, smallest = self._cell().arrays["eps"], self.robustness.smallest
        classes, patients = context.classifier.classes, context.patients
        certified_rows(outcome.rows, bound, context.config.eps, certificate, context.labels, classes, patients)
        for e in context.config.eps:
            open_ = (certificate < e * (1 - 1e-9)) & (smallest > np.float32(e))
            outcome.rows.add(Kind.CERTIFIED, "undecided", stats.proportion(open_, patients), eps=e, bound=bound)
        outcome.checks.append(checks.proofs_hold(certificate, smallest))
        outcome.arrays[f"certified.{bound}"] = certificate.astype(np.float32)
        outcome.conditions["certified"] = {"method": bound, "title": TITLES[bound], "source": SOURCES[bound]}
        return outcome


class SmoothingExperiment(Experiment):
    """The smoothed classifier by itself, and what is proved of it; Linf from L2, by the number of pixels."""

    name = "smoothed"

    def __init__(self, context: Context, smoothing: Smoothing) -> None:
        self.context, self.smoothing = context, smoothing

    def steps(self) -> Sequence[Step]:
        return [Step("smoothed", self._cell)]

    def _cell(self) -> Cell:
        context, smoothing = self.context, self.smoothing

        def compute(shard: Dataset, advance: Advance) -> Result:
            images, labels = shard.tensors()
            seed = context.config.seed
            found = smooth(context.classifier, images, smoothing, seed=seed, ids=shard.ids, advance=advance)
            numbers = torch.full((len(images),), images[0].numel())
            arrays = {"l2": found.certificate(labels), "abstains": found.abstains, "numbers": numbers}
            return {}, {name: value.numpy() for name, value in arrays.items()}

        key = {"kind": "smoothed", **dataclasses.asdict(smoothing)}
        return context.sharded(context.sample, "Randomized smoothing", key, compute, shard=SHARD)

    def outcome(self) -> ExperimentResult:
        context, outcome, arrays = self.context, ExperimentResult(self.context.rows()), self._cell().arrays
        certificate, patients = arrays["l2"], context.patients
        if context.config.norm == "linf":  # a ball of Linf lies in one of L2 that is as many pixels' root larger
            certificate = np.where(certificate > 0, certificate / np.sqrt(arrays["numbers"]), certificate)
        certified_rows(
            outcome.rows,
            SMOOTHED,
            [0.0, *(e for e in context.config.eps if e > 0)],
            certificate,
            context.labels,
            context.classifier.classes,
            patients,
        )
        outcome.rows.add(Kind.CERTIFIED, "abstained", stats.proportion(arrays["abstains"], patients), bound=SMOOTHED)
        outcome.arrays[f"certified.{SMOOTHED}"] = certificate.astype(np.float32)
        outcome.conditions["smoothed"] = dataclasses.asdict(self.smoothing)
        return outcome


@dataclasses.dataclass(frozen=True)
class CertifyConfig:
    """What `medrobust certify` takes beside the config. method: empty for no bounds. sigma: None for no smoothing."""

    method: str = "crown"
    sigma: float | None = None
    draws: int = 1000

    def __post_init__(self) -> None:
        if self.method not in ("", *METHODS):
            raise InputError(f"bounds {self.method!r} are not known; choose one of {', '.join(METHODS)}, or none")
        if not self.method and self.sigma is None:
            raise InputError("there is nothing to prove without bounds and without smoothing: give --smoothing 0.1")
        _ = self.smoothing

    @property
    def smoothing(self) -> Smoothing | None:
        return None if self.sigma is None else Smoothing(self.sigma, self.draws)


def experiments(context: Context, options: Mapping[str, Any]) -> list[Experiment]:
    """Of `medrobust certify`: bounds beside attacks, and smoothing. InputError where bounds do not cover the model."""
    config = CertifyConfig(**options)
    smoothed = [] if config.smoothing is None else [SmoothingExperiment(context, config.smoothing)]
    if context.classifier.black_box:
        if config.method:
            raise InputError(f"{context.config.model} only answers: give --bounds none and --smoothing 0.1")
        return [CleanExperiment(context, gradient=False), *smoothed]
    robustness = RobustnessExperiment(context)
    bounds = [BoundsExperiment(context, robustness, config.method)] if config.method else []  # type: ignore[arg-type]
    return [robustness, *bounds, *smoothed]
