"""One training under way: epochs, the weights that are kept, and the state after every epoch."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import medrobust.training.losses as losses
from medrobust import seeds
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.progress import Progress
from medrobust.training.adversary import Adversary
from medrobust.training.augment import warp
from medrobust.training.evaluate import evaluate, score
from medrobust.training.pixels import Pixels
from medrobust.training.recipe import Recipe
from medrobust.training.sampling import epoch_order
from medrobust.training.state import FILE, TrainingState, snapshot


class Trainer:
    """One training under way. adversary: attacks while it goes on. last: the last epoch is kept, not the best."""

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
        last: bool = False,
    ) -> None:
        self.clf, self.recipe, self.seed = clf, recipe, seed
        self.adversary, self.last = adversary, last
        self.train, self.validation, self.progress = train, validation, progress
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
        loss = self._pass(state.epoch)
        if not math.isfinite(loss):
            raise _DivergedError(f"training diverged in epoch {state.epoch + 1} (loss {loss}): {self._lower()}")
        scores = score(*evaluate(self.clf, self.validation))
        if not math.isfinite(scores.loss):
            raise _DivergedError(f"validation diverged in epoch {state.epoch + 1}: {self._lower()}")
        state.epoch += 1
        state.history.append({"epoch": state.epoch, "train_loss": loss, **scores._asdict()})
        best = state.history[state.best_epoch - 1] if state.best_epoch else None
        if best is None or self.last or self.recipe.rank(state.history[-1]) > self.recipe.rank(best):
            state.best_epoch, state.best = state.epoch, snapshot(self.clf.net)
        if self.adversary is not None:
            state.adversary = self.adversary.tensors()
        stale = state.epoch - state.best_epoch
        patience = self.recipe.patience
        state.done = (
            state.epoch >= self.recipe.epochs
            or (patience is not None and stale >= patience)
            or self.recipe.enough(state.history[-1])
        )
        postfix = {"epoch": f"{state.epoch}/{self.recipe.epochs}", "validation": f"{scores.balanced_accuracy:.1%}"}
        self.progress.advance(0, **postfix)

    def _pass(self, epoch: int) -> float:
        """One epoch over the training images; the mean loss."""
        net, recipe, device = self.clf.net, self.recipe, self.clf.device
        torch.manual_seed(draw(self.seed, "dropout", epoch))
        order = epoch_order(self.train.labels, recipe.balance, self.seed, epoch)
        if self.adversary is not None:
            self.adversary.begin(epoch, order.size)
        maps = recipe.augment.maps(order.size, self.seed, epoch) if recipe.augment else None
        net.train()
        for layer in self.frozen:
            layer.eval()
        total = torch.zeros((), device=device)  # read once an epoch: a look at every step would stall a GPU
        for step, rows in enumerate(np.array_split(np.arange(order.size), self.steps)):
            images = self.train.images(order[rows]).to(device)
            labels = torch.from_numpy(self.train.labels[order[rows]]).to(device)
            if maps is not None:
                images = warp(images, maps[torch.from_numpy(rows)])
            rate = recipe.rate(epoch * self.steps + step, recipe.epochs * self.steps)
            if self.adversary is None:
                total += self._step(images, labels, rate) * rows.size
            else:
                attacked = self.adversary.before(images, rows)
                total += self._step(attacked, labels, rate) * rows.size
                self.adversary.after(self.clf, images, labels)
            self.progress.advance(1)
        return float(total) / order.size

    def _step(self, images: Tensor, labels: Tensor, rate: float) -> Tensor:
        if self.clf.channels is not None and images.shape[1] != self.clf.channels:
            images = images.expand(-1, self.clf.channels, -1, -1)  # grey images into a network for colour
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with _mixed_precision(images.device):
            raw = self.clf.net(images)
        logits = self.clf.head.canonical(raw.reshape(raw.shape[0], -1).float())
        loss = losses.loss(logits, labels, self.weights)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
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
