"""Images that a classifier gets right and their copies: attacked, noisy, corrupted. Made once, kept in a store.

What a detector is fitted on and tested on (Ma et al. 2020, arXiv:1907.10456): images that are classified wrongly
without an attack are left out, and an attack that fails makes no copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from medrobust import code_digest, guessing, seeds
from medrobust.attacks import Attack, run
from medrobust.classifier import Classifier
from medrobust.data import Dataset, splits
from medrobust.data.corruptions import corrupt
from medrobust.errors import InputError
from medrobust.experiments.config import digest
from medrobust.experiments.system import groups
from medrobust.images import Images
from medrobust.judging import judge
from medrobust.store import Store
from medrobust.threat import Ball, Untargeted

PAIRS = "adversarial pairs"
"""The step of a run that attacks images at full strength; what detectors and explanations share."""
SHARD = 50
"""Images a cell: what a kill can cost, and what memory must hold."""


@dataclass(frozen=True)
class Shard:
    """Some images and what the classifier says of them."""

    images: Images
    decision: np.ndarray
    reached: np.ndarray
    """bool: the decision is wrong and the change legal (adversarial copies), or the decision is wrong (all others)."""


class AdversarialPairs:
    """The first ``limit`` images of ``part`` that the classifier gets right, in an order keyed by the seed.

    A larger limit keeps the shards of a smaller one. InputError where fewer than ``least`` are right.
    attacked: gives the classifier as attacks see it (``Context.attacked``), where that is another.
    """

    def __init__(
        self,
        store: Store,
        classifier: Classifier,
        part: Dataset,
        *,
        limit: int | None = 300,
        seed: int = 0,
        least: int = 20,
        attacked: Callable[[], Classifier] | None = None,
    ) -> None:
        self._seen_by_attacks = attacked or (lambda: classifier)
        self.store, self.classifier, self.seed = store, classifier, seed
        part = part.for_network(classifier)
        self.model_digest, self.data_digest = classifier.digest(), part.digest()

        def decide() -> tuple[dict[str, object], dict[str, np.ndarray]]:
            decision = self._decide(part)
            if not (decision == part.labels).any():  # said before anything is written
                raise InputError(
                    f"none of {len(part)} test images is classified right, and only those are used; "
                    "are its classes those of the data?"
                )
            return {}, {"decision": decision}

        decided = store.once(self.key(part, kind="decisions"), decide)
        hits = decided.arrays["decision"] == part.labels
        self.guessing = guessing.of(hits, part.labels, groups(part))
        right = np.flatnonzero(hits)
        self.n_test = len(part)
        self.accuracy = float(len(right) / max(len(part), 1))
        order = sorted(right.tolist(), key=lambda i: splits.key(seed, "twins", part.ids[i]))
        if len(order) < least:
            raise InputError(
                f"only {len(order)} of {len(part)} test images are classified right, and only those are used; at least "
                f"{least} are needed: give more images or a better classifier"
            )
        self.part = part.select(order[:limit])

    def __len__(self) -> int:
        return len(self.part)

    @property
    def groups(self) -> np.ndarray:
        """str (n,): whose image it is; an image without a patient stands for itself."""
        patients = groups(self.part)
        return np.array(self.part.ids) if patients is None else patients

    def shards(self, limit: int | None = None) -> Iterator[Dataset]:
        """The images, or the first ``limit`` of them, a shard at a time."""
        end = len(self.part) if limit is None else min(limit, len(self.part))
        for start in range(0, end, SHARD):
            yield self.part.select(range(start, min(start + SHARD, end)))

    def clean(self, part: Dataset) -> Shard:
        """The images as they are."""
        images, labels = part.tensors()
        return Shard(images, labels.numpy(), np.zeros(len(part), bool))

    def attacked(self, part: Dataset, name: str, attack: Attack, ball: Ball) -> Shard:
        """Copies under ``attack`` at full strength, kept; ``name`` is how the attack was asked for."""
        classifier = self._seen_by_attacks()
        spec = self.key(
            part,
            kind="attacked",
            attack=name,
            settings=code_digest.described(attack),
            ball=[ball.name, float(ball.eps)],
            gradient=repr(classifier.substitute),
        )

        def compute() -> tuple[dict[str, object], dict[str, np.ndarray]]:
            images, labels = part.tensors()
            goal = Untargeted(labels)
            done = run(attack, classifier, images, goal, ball, seed=self.seed, ids=part.ids, full=True)
            outcome = judge(self.classifier, images, done.images, goal, ball)
            arrays = {
                "images": done.images.numpy(),
                "decision": outcome.after.numpy(),
                "reached": outcome.reached.numpy(),
            }
            return {"no_gradient": int(done.no_gradient.sum())}, arrays

        arrays = self.store.once(spec, compute).arrays
        return Shard(torch.from_numpy(arrays["images"]), arrays["decision"], arrays["reached"])

    def pixels(self, rows: np.ndarray, name: str, attack: Attack, ball: Ball) -> Images:
        """(n, c, h, w): the adversarial copies of the images at those positions, as they lie in their shards."""
        by_position: dict[int, Images] = {}
        for start in range(0, int(rows.max()) + 1, SHARD):
            wanted = rows[(rows >= start) & (rows < start + SHARD)]
            if len(wanted):
                shard = self.part.select(range(start, min(start + SHARD, len(self.part))))
                attacked = self.attacked(shard, name, attack, ball).images
                by_position |= {int(i): attacked[int(i) - start] for i in wanted}
        return torch.stack([by_position[int(i)] for i in rows])

    def noisy(self, part: Dataset, ball: Ball) -> Shard:
        """Twins with noise of the ball's full size: +-eps at every pixel, or a random direction."""
        images, labels = part.tensors()
        draw = seeds.signs if ball.name == "linf" else seeds.normal
        drawn = draw(self.seed, "twins/noise", part.ids, images.shape[1:])
        direction = type(ball)(1.0).at_edge(drawn * self.classifier.attackable.movable(images))
        return self._shard(self.classifier.confined(images, (images + ball.eps * direction).clamp(0, 1)), labels)

    def corrupted(self, part: Dataset, name: str, severity: int) -> Shard:
        """Twins after a natural corruption of ``medrobust.data.corruptions``."""
        images, labels = part.tensors()
        return self._shard(corrupt(images, name, severity, self.seed, part.ids), labels)

    def key(self, part: Dataset, **more: object) -> dict[str, object]:
        """What a cell on these images depends on."""
        images = digest([self.data_digest, *part.ids])
        return {"model": self.model_digest, "images": images, "seed": self.seed, **more}

    def _shard(self, images: Images, labels: torch.Tensor) -> Shard:
        decision = self.classifier.predict(images)
        return Shard(images, decision.numpy(), (decision != labels).numpy())

    def _decide(self, part: Dataset) -> np.ndarray:
        batch_size = self.classifier.batch_size((1, *part.shape))
        return torch.cat([self.classifier.predict(images) for images, _, _ in part.batches(batch_size)]).numpy()


def one_a_patient(part: Dataset, seed: int) -> Dataset:
    """One image of each patient, which one keyed by the seed: images of one patient are no independent witnesses."""
    patients = groups(part)
    if patients is None:
        return part
    order = sorted(range(len(part)), key=lambda i: splits.key(seed, "one a patient", part.ids[i]))
    first: dict[str, int] = {}
    for i in order:
        first.setdefault(str(patients[i]), i)
    return part.select(sorted(first.values()))
