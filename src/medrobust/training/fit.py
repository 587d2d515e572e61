"""Train a classifier on a Dataset: balanced sampling, augmentation, the best epoch by validation, resumable.

The test split is never asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medrobust import devices, models, seeds
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.progress import NoProgress, Progress
from medrobust.training.augment import Augment, warp
from medrobust.training.evaluate import Scores, evaluate, score
from medrobust.training.pixels import Pixels
from medrobust.training.recipe import Recipe
from medrobust.training.sampling import balanced
from medrobust.training.state import FILE, State, snapshot

if TYPE_CHECKING:
    from medrobust.data import Dataset

RATES = {("sgd", False): 0.02, ("sgd", True): 0.01, ("adamw", False): 1e-3, ("adamw", True): 3e-4}
"""Default peak learning rate by (optimiser, pretrained); measured, see docs/add-a-model.md."""
DECAY = {"sgd": 5e-4, "adamw": 0.05}


def fit(
    data: Dataset,
    model: str = "resnet18",
    *,
    seed: int = 0,
    pretrained: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    epochs: int = 8,
    lr: float | None = None,
    batch: int = 32,
    optimiser: str = "adamw",
    weight_decay: float | None = None,
    augment: bool | Augment = True,
    patience: int | None = 5,
    freeze: float = 0.0,
    head: str = "softmax",
    device: str | None = None,
    progress: Progress | None = None,
    resume: str | Path | None = None,
) -> Classifier:
    """Train ``model`` on the train split of ``data``, select the epoch on its val split, return the Classifier.

    model, pretrained: as models.build takes them. mean, std: what the pretrained weights expect; by default what
    their file or timm states, and for fresh weights the training images' own.
    size: must be the size that ``data`` was loaded with, if given.
    epochs, lr, batch, optimiser, weight_decay, augment, patience, freeze: see Recipe; None means its default.
    device: "cuda" where there is one, else "cpu".
    resume: a folder for the training's state after every epoch; the same call goes on from there and ends with
    the same weights to the bit. InputError for anything that can not be trained on, and where it diverges.
    """
    file = None if pretrained is None else str(pretrained)
    recipe = Recipe(
        epochs=epochs,
        lr=RATES.get((optimiser, file is not None), 0.0) if lr is None else lr,
        batch=batch,
        optimiser=optimiser,
        weight_decay=DECAY.get(optimiser, 0.0) if weight_decay is None else weight_decay,
        augment=(Augment() if augment else None) if isinstance(augment, bool) else augment,
        patience=patience,
        freeze=freeze,
        head=head,
    )
    progress = progress or NoProgress()
    if size is not None and size != data.size:
        raise InputError(f"the data was loaded at {data.size} px, not {size}: load it with size={size}")
    train, validation = _splits(data)
    where = devices.find(device)
    with _own_randomness(where):
        torch.manual_seed(_draw(seed, "initial weights"))
        net = models.build(
            model, classes=len(data.classes), channels=data.channels, size=data.size, pretrained=file, head=head
        )
        net = models.channels_last(net.to(where))
        pixels = Pixels(train, progress, "training")
        mean, std = _normalisation(model, file, mean, std, pixels, data.channels)
        clf = Classifier(net, data.classes, mean=mean, std=std, head=head, channels=data.channels, size=data.size)
        clf.logits(pixels.images([0, 1]))  # refuses probabilities now rather than after an epoch
        told = {
            "architecture": model,
            "data": {"name": data.name, "digest": data.digest(), "train": len(train), "validation": len(validation)},
            "pretrained": _source(file),
            "mean": list(clf.mean),
            "std": list(clf.std),
            "seed": seed,
            "training": recipe.plain(),
        }
        trainer = _Trainer(clf, recipe, seed, pixels, Pixels(validation, progress, "validation"), progress)
        state = trainer.run(None if resume is None else Path(resume), _key(told))
    best = state.history[state.best_epoch - 1]
    clf.provenance = told | {
        "epochs_run": state.epoch,
        "best_epoch": state.best_epoch,
        "validation": {k: best[k] for k in Scores._fields},
        "history": state.history,
        "versions": _versions(),
    }
    return clf


class _Trainer:
    """One training under way."""

    def __init__(
        self, clf: Classifier, recipe: Recipe, seed: int, train: Pixels, validation: Pixels, progress: Progress
    ) -> None:
        self.clf, self.recipe, self.seed = clf, recipe, seed
        self.train, self.validation, self.progress = train, validation, progress
        self.frozen = recipe.frozen(clf.net)
        kept = {id(p) for layer in self.frozen for p in layer.parameters(recurse=False)}
        self.optimiser = recipe.optimise([p for p in clf.net.parameters() if id(p) not in kept])
        self.steps = max(1, math.ceil(len(train) / recipe.batch))
        shape = (1, -1, 1, 1)
        self.mean = torch.tensor(clf.mean, device=clf.device).view(shape)
        self.std = torch.tensor(clf.std, device=clf.device).view(shape)

    def run(self, folder: Path | None, key: str) -> State:
        """Train from where the state in ``folder`` stands to the end, and leave the best weights in the network."""
        net = self.clf.net
        state = State() if folder is None else State.read(folder, key, net, self.optimiser)
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

    def _epoch(self, state: State) -> None:
        loss = self._pass(state.epoch)
        if not math.isfinite(loss):
            raise _DivergedError(f"training diverged in epoch {state.epoch + 1} (loss {loss}): {self._lower()}")
        scores = score(*evaluate(self.clf, self.validation))
        if not math.isfinite(scores.loss):
            raise _DivergedError(f"validation diverged in epoch {state.epoch + 1}: {self._lower()}")
        state.epoch += 1
        state.history.append({"epoch": state.epoch, "train_loss": loss, **scores._asdict()})
        best = state.history[state.best_epoch - 1] if state.best_epoch else None
        if best is None or _rank(state.history[-1]) > _rank(best):
            state.best_epoch, state.best = state.epoch, snapshot(self.clf.net)
        stale = state.epoch - state.best_epoch
        patience = self.recipe.patience
        state.done = state.epoch >= self.recipe.epochs or (patience is not None and stale >= patience)
        shown = {"epoch": f"{state.epoch}/{self.recipe.epochs}", "validation": f"{scores.balanced_accuracy:.1%}"}
        self.progress.advance(0, **shown)

    def _pass(self, epoch: int) -> float:
        """One epoch over the training images; the mean loss."""
        net, recipe, device = self.clf.net, self.recipe, self.clf.device
        torch.manual_seed(_draw(self.seed, "dropout", epoch))
        order = balanced(self.train.labels, self.seed, epoch)
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
            total += self._step(images, labels, rate) * rows.size
            self.progress.advance(1)
        return float(total) / order.size

    def _step(self, images: Tensor, labels: Tensor, rate: float) -> Tensor:
        images = ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with _mixed_precision(images.device):
            raw = self.clf.net(images)
        head = self.clf.head
        loss = F.cross_entropy(head.canonical(raw.reshape(raw.shape[0], -1).float()), labels)
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


def _rank(row: dict[str, float]) -> tuple[float, float]:
    """Balanced accuracy decides; a small split ties often, and then the loss does."""
    return row["balanced_accuracy"], -row["loss"]


def _splits(data: Dataset) -> tuple[Dataset, Dataset]:
    train, validation = data.split("train"), data.split("val")
    for name, part in (("training", train), ("validation", validation)):
        present = np.unique(part.labels)
        if present.size < 2:
            names = ", ".join(data.classes[int(k)] for k in present) or "no image"
            raise InputError(
                f"the {name} images of {data.name} hold {names} only: a classifier needs two classes or more in each"
                " of the train and val splits"
            )
    return train, validation


def _normalisation(
    model: str,
    file: str | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    pixels: Pixels,
    channels: int,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What was given, else what the pretrained weights expect, else the training images' own."""
    known = models.normalisation(model, file) if mean is None or std is None else None
    if known is not None and channels == 1:
        known = (float(np.mean(known[0])),), (float(np.mean(known[1])),)
    own = known or (pixels.moments() if mean is None or std is None else ((), ()))
    return tuple(own[0] if mean is None else mean), tuple(own[1] if std is None else std)


def _source(file: str | None) -> dict[str, str] | None:
    if file is None or file == "hub":
        return None if file is None else {"file": "hub"}
    return {"file": Path(file).name, "sha256": models.Pretrained(file).sha256}


def _key(told: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _draw(seed: int, purpose: str, *ids: int) -> int:
    return int(seeds.generator(seed, purpose, *ids).integers(2**63))


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "timm")}


def _mixed_precision(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """bfloat16 where the GPU computes it; it has float32's range, so no loss scaling has to be kept for a resume."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.autocast("cuda", torch.bfloat16)
    return contextlib.nullcontext()


@contextlib.contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Seed what we like and leave the caller's generators as they were; a GPU picks repeatable kernels."""
    cuda = device.type == "cuda"
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[device] if cuda else []))
        if cuda:
            stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True))
        yield
