"""One training under way: epochs, the weights that are kept, and the state after every epoch."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import medrobust.training.losses as losses
from medrobust import seeds
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.images import Images, Labels, Logits
from medrobust.models.folding import Following
from medrobust.progress import Progress
from medrobust.training.adversarial.classes import Choices
from medrobust.training.adversarial.method import AdversarialTraining, Minibatch
from medrobust.training.adversarial.validation import robust_scores, validation_rows
from medrobust.training.adversary import Adversary
from medrobust.training.augment import warp
from medrobust.training.evaluate import Scores, evaluate, score
from medrobust.training.pixels import Pixels
from medrobust.training.recipe import Recipe
from medrobust.training.sampling import epoch_order
from medrobust.training.state import FILE, TrainingState, snapshot


class Trainer:
    """One training under way.

    adversary: changes images before each weight step. method: of adversarial training; then the epoch that is best
    under attack is kept, or the last one where ``last``. minutes: no epoch begins that would not end within them.
    """

    def __init__(
        self,
        clf: Classifier,
        recipe: Recipe,
        seed: int,
        train: Pixels,
        validation: Pixels,
        progress: Progress,
        *,
        adversary: Adversary | None = None,
        method: AdversarialTraining | None = None,
        last: bool = False,
        minutes: float | None = None,
    ) -> None:
        self.clf, self.recipe, self.seed = clf, recipe, seed
        self.adversary, self.method, self.last, self.minutes = adversary, method, last, minutes
        self.attacked = None if method is None else validation_rows(validation.labels, seed)
        self.train, self.validation, self.progress = train, validation, progress
        self.folded: Following | None = None
        self.frozen = recipe.frozen(clf.net)
        kept = {id(p) for layer in self.frozen for p in layer.parameters(recurse=False)}
        self.optimiser = recipe.optimise([p for p in clf.net.parameters() if id(p) not in kept])
        self.steps = max(1, math.ceil(len(train) / recipe.batch))
        weights = losses.presence_weights(train.labels, recipe.balance)
        self.weights = None if weights is None else weights.to(clf.device)
        shape = (1, -1, 1, 1)
        self.mean = torch.tensor(clf.mean, device=clf.device).view(shape)
        self.std = torch.tensor(clf.std, device=clf.device).view(shape)

    def run(self, folder: Path | None, key: str) -> TrainingState:
        """Train from where the state in ``folder`` stands to the end, and leave the best weights in the network."""
        net = self.clf.net
        state = TrainingState() if folder is None else TrainingState.read(folder, key, net, self.optimiser)
        if self.adversary is not None:
            self.adversary.restore(state.adversary)
        self.progress.start(f"training {self.recipe.epochs} epochs", self.recipe.epochs * self.steps)
        try:
            self.progress.advance(state.epoch * self.steps)
            while not state.done:
                try:
                    self._epoch(state)
                except _DivergedError as error:
                    if folder is not None:  # a lower rate is another training, it must not trip over this one
                        (folder / FILE).unlink(missing_ok=True)
                    raise InputError(str(error)) from None
                if folder is not None:
                    state.write(folder, key, net, self.optimiser)
        finally:
            self.progress.stop()
            net.zero_grad(set_to_none=True)
        net.load_state_dict(state.best)
        net.eval()
        return state

    def _epoch(self, state: TrainingState) -> None:
        began = time.monotonic()
        loss, held = self.train_epoch(state.epoch)
        if not math.isfinite(loss):
            raise _DivergedError(f"training diverged in epoch {state.epoch + 1} (loss {loss}): {self._lower()}")
        scores = score(*evaluate(self.clf, self.validation))
        if not math.isfinite(scores.loss):
            raise _DivergedError(f"validation diverged in epoch {state.epoch + 1}: {self._lower()}")
        state.epoch += 1
        state.history.append({"epoch": state.epoch, "train_loss": loss, **scores._asdict()})
        shown = {"validation": f"{scores.balanced_accuracy:.1%}"}
        if self.method is not None and self.attacked is not None:
            robust = robust_scores(self.clf, self.validation, self.attacked, self.method.ball, self.seed)
            under = {f"attacked_{name}": value for name, value in robust._asdict().items()}
            state.history[-1] |= {**under, "train_held": held}
            shown["under attack"] = f"{robust.balanced_accuracy:.1%}"
        best = state.history[state.best_epoch - 1] if state.best_epoch else None
        if best is None or self.last or self._rank(state.history[-1]) > self._rank(best):
            state.best_epoch, state.best = state.epoch, snapshot(self.clf.net)
        if self.adversary is not None:
            state.adversary = self.adversary.tensors()
        if self.minutes is not None:
            state.history[-1]["seconds"] = time.monotonic() - began
        stale = state.epoch - state.best_epoch
        patience = self.recipe.patience
        state.done = (
            state.epoch >= self.recipe.epochs
            or (patience is not None and stale >= patience)
            or self.recipe.enough(state.history[-1])
            or self._late(state)
        )
        self.progress.advance(0, epoch=f"{state.epoch}/{self.recipe.epochs}", **shown)

    def _rank(self, scores: Mapping[str, float]) -> tuple[float, float]:
        if self.method is None:
            return self.recipe.rank(scores)
        return self.recipe.rank({name: scores[f"attacked_{name}"] for name in Scores._fields})

    def _late(self, state: TrainingState) -> bool:
        """Whether another epoch would end after the minutes that there are."""
        if self.minutes is None:
            return False
        seconds = [epoch["seconds"] for epoch in state.history]
        return sum(seconds) + max(seconds) > 60 * self.minutes

    def train_epoch(self, epoch: int, most: int | None = None) -> tuple[float, float]:
        """One epoch over the training images; the mean loss, and the share decided rightly under attack (NaN without).

        most: stop after so many steps.
        """
        net, recipe, device = self.clf.net, self.recipe, self.clf.device
        torch.manual_seed(draw(self.seed, "dropout", epoch))
        order = epoch_order(self.train.labels, recipe.balance, self.seed, epoch)
        if self.adversary is not None:
            self.adversary.begin(epoch, order.size)
        maps = recipe.augment.maps(order.size, self.seed, epoch) if recipe.augment else None
        self._train_mode()
        total = torch.zeros(2, device=device)  # read once an epoch: a look at every step would stall a GPU
        for step, rows in enumerate(np.array_split(np.arange(order.size), self.steps)[:most]):
            images = self.train.images(order[rows]).to(device)
            labels = torch.from_numpy(self.train.labels[order[rows]]).to(device)
            if maps is not None:
                images = warp(images, maps[torch.from_numpy(rows)])
            for group in self.optimiser.param_groups:
                group["lr"] = recipe.rate(epoch * self.steps + step, recipe.epochs * self.steps)
            if self.method is not None:
                if step == 0 and self.method.folds:
                    self._fold(images)
                choices = Choices.of(labels, self.weights)
                result = self.method.step(self, Minibatch(images, choices, rows.tolist(), self.seed, epoch))
                total += torch.stack([*result]) * rows.size
            elif self.adversary is None:
                total[0] += self._step(images, labels) * rows.size
            else:
                attacked = self.adversary.before(images, rows)
                total[0] += self._step(attacked, labels) * rows.size
                self.adversary.after(self.clf, images, labels)
            self.progress.advance(1)
        net.zero_grad(set_to_none=True)
        loss, held = (total / order.size).tolist()
        return loss, math.nan if self.method is None else held

    def logits(self, images: Images, net: nn.Module | None = None) -> Logits:
        """Canonical logits of images (n, c, h, w) in [0, 1], in the mode that the network is in.

        net: a copy of the network that is asked instead.
        """
        if self.clf.channels is not None and images.shape[1] != self.clf.channels:
            images = images.expand(-1, self.clf.channels, -1, -1)  # grey images into a network for colour
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with _mixed_precision(images.device):
            raw = (self.clf.net if net is None else net)(images)
        return self.clf.head.canonical(raw.reshape(raw.shape[0], -1).float())

    def backward(self, loss: Tensor) -> None:
        """The gradient of ``loss`` alone, at the weights."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[Callable[[Images], Logits]]:
        """The network in evaluation mode, as an attacker meets it; yields what gives its logits, of a folded copy."""
        self.clf.net.eval()
        try:
            if self.folded is None:
                yield self.logits
            else:
                self.folded.refresh()
                yield functools.partial(self.logits, net=self.folded.net)
        finally:
            self._train_mode()

    def _fold(self, images: Images) -> None:
        """Find a folded copy for the attacks of an epoch, of images like these."""
        self.clf.net.eval()
        self.folded = Following.of(self.clf.net, (self.clf.channels or images.shape[1], *images.shape[2:]))
        self._train_mode()

    def _train_mode(self) -> None:
        self.clf.net.train()
        for layer in self.frozen:
            layer.eval()

    def _step(self, images: Images, labels: Labels) -> Tensor:
        loss = losses.loss(self.logits(images), labels, self.weights)
        self.backward(loss)
        self.optimiser.step()
        return loss.detach()

    def _lower(self) -> str:
        return f"try a lower rate, lr={self.recipe.lr / 10:g}"


class _DivergedError(Exception):
    pass


def draw(seed: int, purpose: str, *ids: int) -> int:
    """A seed for torch's generator."""
    return int(seeds.generator(seed, purpose, *ids).integers(2**63))


def _mixed_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """bfloat16 where the GPU computes it; it has float32's range, so no loss scaling has to be kept for a resume."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", torch.bfloat16)
    return contextlib.nullcontext()


@contextlib.contextmanager
def own_randomness(device: torch.device) -> Iterator[None]:
    """Seed what we like and leave the caller's generators as they were; a GPU picks repeatable kernels."""
    cuda = device.type == "cuda"
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[device] if cuda else []))
        if cuda:
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True))
        yield
