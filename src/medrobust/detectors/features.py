"""Features of a network: one vector an image and layer, and the logits, in one pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from medrobust.classifier import Classifier, pad
from medrobust.errors import InputError
from medrobust.images import Images, Lazy, Logits, check_images, chunks
from medrobust.layer_probe import hint, layout, map_layout, probed_layouts, readable
from medrobust.layout import tensor_of

LayerFeatures: TypeAlias = Mapping[str, Tensor]
"""Layer -> float32 (n, d); "logits" is always among them."""

PENULTIMATE, LOGITS = "penultimate", "logits"


class Features:
    """The layers of a classifier that a detector reads.

    layers: names of modules (as in ``net.named_modules()``), "penultimate" for what goes into the last linear
        layer, or "logits". A module's output is averaged over the positions of the image to (n, c), whichever axes
        those are and however it is folded (``layer_probe.probe``); of a module that runs more than once, the last run
        counts.
    maps: give a module's output (n, c, h, w), not averaged: too much to hold for many images, so ``stream``.

    features(images) is float32 (n, d) for each layer and for "logits", on the CPU; an image's row is the same to
    the bit in any batch. Raises InputError for a name the network does not have, for a layer that holds nothing of
    an image (attention weights), and, but for maps, for a multi-label head: detectors judge one decision an image.
    """

    def __init__(self, classifier: Classifier, layers: Sequence[str] = (PENULTIMATE,), *, maps: bool = False) -> None:
        if isinstance(layers, str):
            raise InputError(f"layers must be several names, got the text {layers!r}; write ({layers!r},)")
        if classifier.head.multilabel and not maps:
            raise InputError("detectors judge one decision an image; a multi-label head makes many: give another head")
        self.classifier, self.maps = classifier, maps
        self.layers = tuple(dict.fromkeys(layers))
        modules = readable(classifier)
        for name in self.layers:
            if name not in (PENULTIMATE, LOGITS) and (not name or name not in modules):
                raise InputError(f"the network has no layer {name!r}; it has {_listed(modules)}{hint(classifier)}")

    def __call__(self, images: Images | Lazy) -> dict[str, Tensor]:
        """All rows at once: (n, d) numbers an image and layer are small; ``stream`` where even they are too many."""
        parts = list(self.stream(images))
        if not parts:
            raise InputError("no images to take features of; give at least one")
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def stream(self, images: Images | Lazy) -> Iterator[dict[str, Tensor]]:
        """The same, one padded batch after another; only one is in memory."""
        first = images[:1] if isinstance(images, Tensor) else images.images(range(min(1, len(images))))
        for chunk in chunks(images, self.classifier.batch_size(check_images(first).shape)):
            with torch.no_grad():
                _, table = self.differentiable(check_images(chunk))
            # an image's own memory: a slice of a padded batch would keep all of it alive
            yield {name: values.cpu().clone() for name, values in table.items()}

    def differentiable(self, images: Images) -> tuple[Logits, dict[str, Tensor]]:
        """(logits (n, k), layer -> (n, d)) with their graph, on the classifier's device; rows as in ``__call__``."""
        clf = self.classifier
        clf.ready(images)  # before anything listens: a network is examined on other images, in several passes
        read = self._readers(images.shape) if len(images) else {}
        logits, tables = [], []
        with clf.borrowed():
            for chunk in images.split(clf.batch_size(images.shape)):
                n = chunk.shape[0]
                caught: dict[str, Tensor] = {}
                with self._listening(caught, read):
                    out = clf(pad(chunk.to(clf.device), clf.fit(n, images.shape)))
                caught[LOGITS] = out
                self._check_caught(caught)
                tables.append({name: caught[name][:n] for name in (*self.layers, LOGITS)})
                logits.append(out[:n])
        if not tables:
            raise InputError("no images to take features of; give at least one")
        if len(tables) == 1:
            return logits[0], tables[0]
        return torch.cat(logits), {name: torch.cat([t[name] for t in tables]) for name in tables[0]}

    def _readers(self, shape: Sequence[int]) -> dict[str, Callable[[Tensor], Tensor]]:
        """How each layer's output is read for images (n, c, h, w)."""
        modules = tuple(name for name in self.layers if name not in (PENULTIMATE, LOGITS))
        probed_layouts(self.classifier, shape, modules)  # all in one probe
        if self.maps:
            return {name: map_layout(self.classifier, shape, name).maps for name in modules}
        return {name: layout(self.classifier, shape, name).pooled for name in modules}

    @contextlib.contextmanager
    def _listening(self, caught: dict[str, Tensor], read: Mapping[str, Callable[[Tensor], Tensor]]) -> Iterator[None]:
        """Hooks on the network that leave the pooled layers in ``caught``; gone afterwards, whatever happens."""
        handles = []
        wanted = set(self.layers)

        def before(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            values = tensor_of(inputs[0], PENULTIMATE).float().clone()
            # a linear layer reads the last axis, whatever the others are
            caught[PENULTIMATE] = values if values.ndim == 2 else values.flatten(1, -2).mean(1)

        def after(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def keep(_: nn.Module, __: Any, output: Any) -> None:
                # a copy, because the next layer may work in place
                caught[name] = read[name](tensor_of(output, name).float().clone())

            return keep

        try:
            for name, module in readable(self.classifier).items():
                if PENULTIMATE in wanted and isinstance(module, nn.Linear):
                    handles.append(module.register_forward_pre_hook(before))
                if name in wanted:
                    handles.append(module.register_forward_hook(after(name)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _check_caught(self, caught: Mapping[str, Tensor]) -> None:
        missing = [name for name in self.layers if name not in caught]
        if missing == [PENULTIMATE]:
            modules = readable(self.classifier)
            raise InputError(
                f"'penultimate' is what goes into the last nn.Linear, and this network runs none; "
                f"name a layer instead: {_listed(modules, (LOGITS,))}{hint(self.classifier)}"
            )
        if missing:
            raise InputError(f"layer {missing[0]!r} is not run when the network classifies an image; name another")

    def __repr__(self) -> str:
        return f"Features({', '.join(self.layers)})"


def predicted_class(table: LayerFeatures) -> Tensor:
    """int64 (n,): the class that the classifier decides on."""
    return table[LOGITS].argmax(1)


def rows(table: LayerFeatures, index: Tensor | slice) -> dict[str, Tensor]:
    """Those rows of every layer; index: positions, a mask or a slice."""
    return {name: values[index] for name, values in table.items()}


def joined(*tables: LayerFeatures) -> dict[str, Tensor]:
    """The rows of all, layer by layer."""
    return {name: torch.cat([table[name] for table in tables]) for name in tables[0]}


def gathered(stream: Iterator[dict[str, Tensor]], least: int) -> Iterator[dict[str, Tensor]]:
    """Batches put together until they hold ``least`` rows: a detector's blocks are larger than a network's batch."""
    held: list[dict[str, Tensor]] = []
    for table in stream:
        held.append(table)
        if sum(len(t[LOGITS]) for t in held) >= least:
            yield joined(*held)
            held = []
    if held:
        yield joined(*held)


def _listed(modules: Mapping[str, nn.Module], always: Sequence[str] = (PENULTIMATE, LOGITS)) -> str:
    named = [name for name in modules if name]
    near = [name for name in named if name.count(".") < 2]
    deeper = len(named) - len(near)
    return ", ".join([*always, *near]) + (f" and {deeper} inside these" if deeper else "")
