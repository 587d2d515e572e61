"""Features of clean images and of their copies, a shard at a time, kept in a store: what detectors read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from medrobust import code_digest
from medrobust.attacks import Attack
from medrobust.data import Dataset
from medrobust.detectors import Features
from medrobust.detectors.crossfit import ImageFeatures
from medrobust.errors import InputError
from medrobust.experiments.adversarial_pairs import SHARD, AdversarialPairs, Shard
from medrobust.experiments.system import groups
from medrobust.results import group
from medrobust.store import Result, key
from medrobust.threat import Ball

FURTHER = 400
"""Further clean images: for thresholds, several above that of a false-positive rate of 1 %."""


class FeaturesCache:
    """Features of these layers (and the logits) of these images and of any of their copies.

    Memory holds the images of one shard and the features of all. advance: called with the number of images read.
    seconds: by cell, what it took.
    """

    def __init__(
        self, pairs: AdversarialPairs, layers: Sequence[str], advance: Callable[[int], None] | None = None
    ) -> None:
        self.pairs, self.layers = pairs, tuple(layers)
        self.features = Features(pairs.classifier, self.layers)
        self.advance = advance or (lambda _: None)
        self.seconds: dict[str, float] = {}

    def clean(self) -> ImageFeatures:
        """The images themselves."""
        return self._gather({"of": "clean"}, self.pairs.clean)

    def attacked(self, name: str, attack: Attack, ball: Ball, *, failed: bool = False) -> ImageFeatures:
        """The copies that ``attack`` succeeded to make; failed: and those that it did not."""
        key_ = {
            "of": "attacked",
            "attack": name,
            "settings": code_digest.described(attack),
            "ball": [ball.name, float(ball.eps)],
        }
        return self._gather(
            key_, lambda part: self.pairs.attacked(part, name, attack, ball), (True, False) if failed else (True,)
        )

    def noisy(self, ball: Ball) -> ImageFeatures:
        """The copies with noise of the ball's full size that are still classified right."""
        key_ = {"of": "noise", "ball": [ball.name, float(ball.eps)]}
        return self._gather(key_, lambda part: self.pairs.noisy(part, ball))

    def corrupted(self, name: str, severity: int, limit: int | None = None) -> ImageFeatures:
        """The corrupted copies of the first ``limit`` images that are still classified right."""
        key_ = {"of": "corrupted", "corruption": name, "severity": severity}
        return self._gather(key_, lambda part: self.pairs.corrupted(part, name, severity), limit=limit)

    def further(self, part: Dataset, limit: int = FURTHER, least: int = 40) -> ImageFeatures:
        """Other clean images that are classified right, at most ``limit``; none of the copies' patients.

        Their ``pair_of`` is -1: they have none. InputError where fewer than ``least`` are left.
        """
        used = set(self.pairs.groups.tolist())
        free = [i for i, patient in enumerate(whose_images(part).tolist()) if patient not in used]
        part = part.select(free).sample(limit, self.pairs.seed) if free else part.select(free)
        pieces, key_ = [], {"of": "clean", "data": part.digest() if free else ""}
        for start in range(0, len(part), SHARD):
            shard = part.select(range(start, min(start + SHARD, len(part))))
            pieces.append(self._rows(shard, key_, self.pairs.clean))
        decision = np.concatenate([self._decided(p) for p in pieces]) if pieces else np.zeros(0, np.int64)
        right = np.flatnonzero(decision == part.labels)
        if len(right) < least:
            raise InputError(
                f"{f'only {len(right)}' if len(right) else 'no'} further clean images are classified right and of "
                f"other patients, {least} are needed: attack fewer images, or give more"
            )
        return self._assembled(pieces, decision, right, whose_images(part), np.full(len(part), -1))

    def _gather(
        self,
        key_: Mapping[str, object],
        make: Callable[[Dataset], Shard],
        kept: Sequence[bool] = (False,),
        limit: int | None = None,
    ) -> ImageFeatures:
        """Rows of all shards. kept: whether the wrong decision was reached (True), was not (False), or either."""
        pieces = [self._rows(part, key_, make) for part in self.pairs.shards(limit)]
        n = sum(len(p["reached"]) for p in pieces)
        wanted = np.concatenate([np.isin(p["reached"], kept) for p in pieces])
        decision = np.concatenate([p["decision"] for p in pieces])
        return self._assembled(pieces, decision, np.flatnonzero(wanted), self.pairs.groups[:n], np.arange(n))

    def _rows(
        self, part: Dataset, key_: Mapping[str, object], make: Callable[[Dataset], Shard]
    ) -> Mapping[str, np.ndarray]:
        def compute() -> Result:
            shard = make(part)
            arrays = {f"layer.{name}": value.cpu().numpy() for name, value in self.features(shard.images).items()}
            return {}, {**arrays, "decision": shard.decision, "reached": shard.reached}

        spec = self.pairs.key(part, kind="features", layers=list(self.layers), **key_)
        cell = self.pairs.store.once(spec, compute)
        self.seconds[key(spec)] = cell.seconds
        self.advance(len(part))
        return cell.arrays

    def _decided(self, piece: Mapping[str, np.ndarray]) -> np.ndarray:
        head = self.pairs.classifier.head
        return head.decide(torch.from_numpy(piece["layer.logits"])).numpy()

    def _assembled(
        self,
        pieces: Sequence[Mapping[str, np.ndarray]],
        decision: np.ndarray,
        rows: np.ndarray,
        patients: np.ndarray,
        pair_of: np.ndarray,
    ) -> ImageFeatures:
        layers = [group(piece, "layer") for piece in pieces]
        whole = {name: np.concatenate([layer[name] for layer in layers])[rows] for name in layers[0]}
        features = {name: torch.from_numpy(value) for name, value in whole.items()}
        return ImageFeatures(features, torch.from_numpy(decision[rows]), patients[rows], pair_of[rows])


def whose_images(part: Dataset) -> np.ndarray:
    """str (n,): the patient of each image; an image without one stands for itself."""
    patients = groups(part)
    return np.array(part.ids, dtype=np.str_) if patients is None else patients
