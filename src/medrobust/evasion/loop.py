"""The loop that drives every evasion: keeps a batch of fixed shape full, asks the real detector at every step.

Of the iterates that fool the classifier the one with the lowest real score is kept. The search runs on the network
with folded BatchNorm; what it found is then seen by the classifier itself, and sought again there where that disagrees.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from medrobust.attacks import Batch
from medrobust.attacks.active_batch import ActiveBatch, goal_on
from medrobust.classifier import Classifier
from medrobust.detectors import Detector, Features
from medrobust.detectors.features import LOGITS, LayerFeatures, predicted_class
from medrobust.errors import InputError
from medrobust.evasion.evasion import Evasion
from medrobust.evasion.joint import JointModel, quick
from medrobust.images import Images, Lazy, PerImage, check_images
from medrobust.seeds import Id
from medrobust.threat import Ball, Goal


@dataclass(frozen=True)
class Evaded:
    """The result of an evasion for n images. They are graded by ``evasion.judge``."""

    images: Images
    fooled: Tensor
    """bool: the goal is reached, as the classifier itself sees it."""
    score: PerImage
    """float64: the real detector's."""
    steps: Tensor
    """int64: steps made."""
    no_gradient: Tensor
    """bool: not past the threshold, and a gradient was zero everywhere: this proves nothing."""


def run(
    evasion: Evasion,
    classifier: Classifier,
    detector: Detector,
    images: Images,
    goal: Goal,
    ball: Ball,
    threshold: float,
    *,
    seed: int = 0,
    ids: Sequence[Id] | None = None,
    reference: Images | Lazy | Mapping[str, Tensor] | None = None,
    full: bool = False,
    fast: bool = True,
    advance: Callable[[int], None] | None = None,
) -> Evaded:
    """See ``Evasion.__call__``. fast: search with ``Classifier.fast``. advance: told how many images are finished.

    InputError where the detector is not fitted, shapes do not fit, or reference images are needed and missing.
    """
    images = check_images(images)
    n = len(images)
    if not n:
        raise InputError("no images to attack; give at least one")
    if not detector.layers_:
        raise InputError(f"{detector.title} is not fitted yet; call fit(classifier, clean, adversarial) first")
    if ids is not None and len(ids) != n:
        raise InputError(f"{n} images have {len(ids)} ids; give one an image")
    goal = goal.prepare(classifier.head, len(classifier.classes), n, images.device)
    with classifier.borrowed():
        _teach(evasion, classifier, detector, reference, threshold)
        names = list(range(n)) if ids is None else list(ids)
        searched = quick(classifier, detector, tuple(images.shape)) if fast else classifier
        searched.try_narrow(images.shape)
        evaded = _Run(evasion, searched, detector, images, goal, ball, threshold, names, seed, full, advance).finish()
        verified = _verified(evaded, classifier, detector, goal)
        if searched is classifier:
            return verified
        past = evaded.fooled & (evaded.score <= threshold)
        lost = (past & ~(verified.fooled & (verified.score <= threshold))) | (evaded.fooled & ~verified.fooled)
        again = lost.nonzero()[:, 0]
        if not len(again):
            return verified
        some = [names[i] for i in again.tolist()]
        repeated = _Run(
            evasion, classifier, detector, images[again], goal.take(again), ball, threshold, some, seed, full, None
        ).finish()
        repeated = _verified(repeated, classifier, detector, goal.take(again))
    merged = {f.name: getattr(verified, f.name).index_copy(0, again, getattr(repeated, f.name)) for f in fields(Evaded)}
    return replace(Evaded(**merged), steps=verified.steps.index_add(0, again, repeated.steps))


def _teach(
    evasion: Evasion,
    classifier: Classifier,
    detector: Detector,
    reference: Images | Lazy | Mapping[str, Tensor] | None,
    threshold: float,
) -> None:
    table: LayerFeatures = {}
    if reference is not None and evasion.needs_reference:
        table = reference if isinstance(reference, Mapping) else Features(classifier, detector.layers_)(reference)
        table = {name: value.cpu() for name, value in table.items() if name in (*detector.layers_, LOGITS)}
    if evasion.needs_reference and not len(table.get(LOGITS, ())):
        raise InputError(f"{evasion.title} learns from clean images of every class: give reference=")
    evasion.learn(detector, table, predicted_class(table) if table else torch.zeros(0, dtype=torch.long), threshold)


def _verified(evaded: Evaded, classifier: Classifier, detector: Detector, goal: Goal) -> Evaded:
    """``evaded`` evaluated by the classifier and the detector themselves."""
    table = Features(classifier, detector.layers_)(evaded.images)
    logits = table[LOGITS].to(evaded.images.device)
    fooled = goal.reached(classifier.head, logits) & torch.isfinite(logits).all(1)
    score = detector.score_features(table).nan_to_num(torch.inf, torch.inf, -torch.inf)
    return replace(evaded, fooled=fooled.cpu(), score=score)


class _Run:
    def __init__(
        self,
        evasion: Evasion,
        classifier: Classifier,
        detector: Detector,
        images: Images,
        goal: Goal,
        ball: Ball,
        threshold: float,
        ids: Sequence[Id],
        seed: int,
        full: bool,
        advance: Callable[[int], None] | None,
    ) -> None:
        self.evasion, self.joint, self.ball = evasion, JointModel(classifier, detector), ball
        self.origin, self.goal, self.ids, self.seed = images, goal, list(ids), seed
        self.threshold = -torch.inf if full else threshold
        self.target = threshold
        self.device, self.batch_size = classifier.device, classifier.batch_size(images.shape)
        self.waiting = deque(range(len(images)))
        self.advance = advance or (lambda _: None)
        n = len(images)
        self.result = images.clone()
        self.fooled, self.no_gradient = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
        self.score = torch.full((n,), torch.inf, dtype=torch.float64)
        self.steps = torch.zeros(n, dtype=torch.long)

    def finish(self) -> Evaded:
        active: ActiveBatch | None = None
        while active is not None or self.waiting:
            active = self._refill(active)
            assert active is not None
            active = self._advance(active)
        return Evaded(self.result, self.fooled, self.score, self.steps, self.no_gradient)

    def _refill(self, active: ActiveBatch | None) -> ActiveBatch | None:
        free = self.batch_size - (0 if active is None else len(active))
        if not free or not self.waiting:
            return active
        image = torch.tensor([self.waiting.popleft() for _ in range(min(free, len(self.waiting)))])
        k = len(image)
        eps = self.ball.eps[image] if isinstance(self.ball.eps, Tensor) else torch.full((k,), float(self.ball.eps))
        batch = Batch(
            self.origin[image].to(self.device),
            self.ball.at(eps.to(self.device)),
            goal_on(self.goal.take(image.to(self.origin.device)), self.device),
            torch.zeros(k, dtype=torch.long, device=self.device),
            torch.zeros(k, dtype=torch.long),
            [self.ids[i] for i in image.tolist()],
            self.seed,
        )
        state = {}
        if self.evasion.evaluates_clean:
            state = self.evasion.begin(self.joint.evaluate(batch.origin, batch.goal), batch)
        now = self.joint.classifier.confined(batch.origin, self.evasion.start(batch))
        score = torch.full((k,), torch.inf, dtype=torch.float64, device=self.device)
        fresh = ActiveBatch(image, torch.zeros(k, dtype=torch.long), batch, now, state, now.clone(), score)
        return fresh if active is None else active.join(fresh)

    def _advance(self, active: ActiveBatch) -> ActiveBatch | None:
        assert active.best is not None
        assert active.score is not None
        output = self.joint.evaluate(active.now, active.batch.goal)
        better = output.fooled & (output.score < active.score)
        active.score = torch.where(better, output.score, active.score)
        active.best = torch.where(better.view(-1, 1, 1, 1), active.now, active.best)
        past = torch.isfinite(active.score) & (active.score <= self.threshold)
        finished = past | (active.batch.index >= self.evasion.steps)
        if not finished.all():
            direction = self.evasion.direction(output, active.batch, active.state)
            dark = (direction == 0).flatten(1).all(1)
            self.no_gradient[active.image] |= (dark & ~finished).cpu()
            stepped = self.evasion.step(active.now, direction, active.batch)
            stepped = self.joint.classifier.confined(active.batch.origin, stepped)
            active.now = torch.where(finished.view(-1, 1, 1, 1), active.now, stepped)
            active.batch = replace(active.batch, index=active.batch.index + (~finished).long())
        if finished.any():
            self._settle(active.keep(finished))
        return None if finished.all() else active.keep(~finished)

    def _settle(self, done: ActiveBatch) -> None:
        assert done.best is not None
        assert done.score is not None
        image, score = done.image, done.score.cpu()
        fooled = torch.isfinite(score)
        pixels = torch.where(fooled.to(self.device).view(-1, 1, 1, 1), done.best, done.now)
        self.result[image] = pixels.to(self.result.device)
        self.fooled[image], self.score[image], self.steps[image] = fooled, score, done.batch.index.cpu()
        self.no_gradient[image] &= ~(fooled & (score <= self.target))
        self.advance(len(image))
