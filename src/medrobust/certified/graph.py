"""The operations of a classifier, as it runs on two images: from pixels in [0, 1] to logits at the operating point.

They are recorded below torch's own functions, so that it does not matter how a network is written: modules, functions,
hooks, normalisation, repetition of channels and the head are all seen alike. What does not depend on the images is a
constant. That the record is right is checked, not assumed: ``agrees`` holds it against the network on further images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from medrobust.certified.layers import BoundedLayer, Interval
from medrobust.certified.operations import OPERATIONS, Call, UncoveredOperation
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.images import Images

ROWS = 2
"""Images that are recorded: two, so that a squeeze() in the network leaves the batch alone."""
NEW = ("zeros_like", "ones_like", "empty_like", "full_like", "new_zeros", "new_ones", "new_empty", "new_full")
"""Operations whose result has the shape of a tensor and none of its values."""
ADVICE = (
    "linear bounds cover convolutions, linear layers, BatchNorm, ReLU, pooling and sums; smoothing covers every "
    "classifier"
)


@dataclass(frozen=True)
class Graph:
    """layers: in the order in which they ran. inputs: of each, positions of what it reads; 0 is the image, i + 1 the
    output of layer i. output: the position of the logits. shapes: of a row of each position."""

    layers: tuple[BoundedLayer, ...]
    inputs: tuple[tuple[int, ...], ...]
    shapes: tuple[tuple[int, ...], ...]
    output: int

    def values(self, images: Tensor) -> list[Tensor]:
        """float64 (n, ...) of every position."""
        every = [images.double()]
        for layer, places in zip(self.layers, self.inputs, strict=True):
            every.append(layer.value([every[i] for i in places]))
        return every

    def intervals(self, low: Tensor, high: Tensor) -> list[Interval]:
        """Bounds of every position for images between ``low`` and ``high``: interval bound propagation."""
        every = [Interval(low.double(), high.double())]
        for layer, places in zip(self.layers, self.inputs, strict=True):
            every.append(layer.interval([every[i] for i in places]))
        return every


@dataclass
class _Recorder:
    """What has run so far. positions: by ``id`` of a tensor, which is kept so that no other gets its id; None: it was
    changed in place or is no number of the graph, and must not be read."""

    layers: list[BoundedLayer] = field(default_factory=list)
    inputs: list[tuple[int, ...]] = field(default_factory=list)
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    positions: dict[int, int | None] = field(default_factory=dict)
    kept: list[Tensor] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)

    def keep(self, tensor: Tensor, position: int | None) -> None:
        self.positions[id(tensor)] = position
        self.kept.append(tensor)

    @property
    def module(self) -> str:
        return self.modules[-1] if self.modules else "classifier"

    def depends(self, value: object) -> bool:
        """Whether a tensor in ``value`` was computed from the images."""
        if isinstance(value, (list, tuple)):
            return any(self.depends(v) for v in value)
        return isinstance(value, Tensor) and id(value) in self.positions

    def spoil(self, changed: Tensor) -> None:
        """Tensors that share memory with one that was changed in place no longer hold what was recorded."""
        where = changed.untyped_storage().data_ptr()
        for tensor in self.kept:
            if tensor is not changed and tensor.untyped_storage().data_ptr() == where:
                self.positions[id(tensor)] = None

    def record(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: object) -> None:
        name = str(func.overloadpacket).removeprefix("aten.")
        in_place = func._schema.is_mutable
        call = Call(name.removesuffix("_") if in_place else name, self.module, args, kwargs)
        results = out if isinstance(out, (list, tuple)) else (out,)
        if in_place and not self.depends(args[0]):
            raise call.refused("values are written into a part of a tensor")
        if call.name not in OPERATIONS:
            raise call.refused()
        first, *others = results
        if not isinstance(first, Tensor) or not first.is_floating_point():
            raise call.refused()
        if first.ndim < 2 or first.shape[0] != ROWS:
            raise call.refused("the images of a batch are mixed or reshaped")

        def position(value: object) -> int | None:
            if not self.depends(value):
                return None
            place = self.positions[id(value)]
            if place is None:
                raise call.refused("a tensor is read after it was changed in place, or it holds positions")
            return place

        made = OPERATIONS[call.name](call.reading(position, self.shapes), tuple(first.shape[1:]))
        if isinstance(made, int):
            place = made
        else:
            layer, places = made
            self.layers.append(layer)
            self.inputs.append(tuple(places))
            self.shapes.append(tuple(first.shape[1:]))
            place = len(self.layers)
        if in_place:
            self.spoil(first)
        self.keep(first, place)
        for other in others:
            if isinstance(other, Tensor):
                self.keep(other, None)


class _Recording(TorchDispatchMode):
    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.recorder = recorder

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        laid_out = _laid_out(args[0]) if args and isinstance(args[0], Tensor) else ()
        out = func(*args, **named)
        if func.overloadpacket.__name__ in ("as_strided", "as_strided_") and _laid_out(out) == laid_out:
            args, named = (args[0],), {"same": True}
        new = func.overloadpacket.__name__ in NEW
        if not new and (self.recorder.depends(args) or self.recorder.depends(list(named.values()))):
            self.recorder.record(func, args, named, out)
        return out


def _laid_out(tensor: Tensor) -> tuple[object, ...]:
    """Which number of its memory stands where; an axis of one number may have any stride."""
    strides = [s for s, side in zip(tensor.stride(), tensor.shape, strict=True) if side > 1]
    return tuple(tensor.shape), tensor.storage_offset(), *strides


def graph_of(classifier: Classifier, images: Images) -> Graph:
    """What ``classifier`` computes, for images like these (n, c, h, w), without rounding to stored levels.

    InputError, which names the layer, where an operation is not covered; for a black box.
    """
    if classifier.black_box:
        raise InputError(
            "linear bounds need the layers of the network, and this classifier only answers; use smoothing"
        )
    classifier.ready(images)
    if classifier.stored_levels is not None:
        classifier = classifier.changed(stored_levels=None)
    some = images[[i % len(images) for i in range(ROWS)]].to(classifier.device).clone()
    recorder = _Recorder(shapes=[tuple(some.shape[1:])])
    recorder.keep(some, 0)
    try:
        with torch.no_grad(), _named(classifier.net, recorder), _Recording(recorder):
            logits = classifier(some)
    except UncoveredOperation as error:
        raise InputError(f"{error}; {ADVICE}") from None
    place = recorder.positions.get(id(logits))
    if place is None:
        raise InputError(f"the logits do not depend on the image; {ADVICE}")
    graph = Graph(tuple(recorder.layers), tuple(recorder.inputs), tuple(recorder.shapes), place)
    check(graph, classifier, images)
    return graph


def check(graph: Graph, classifier: Classifier, images: Images) -> None:
    """InputError where the logits of ``classifier`` on any of ``images`` are not those of the graph, up to rounding."""
    logits = classifier.logits(images).double().cpu()
    points = images.double().cpu()
    low, high = graph.intervals(points, points)[graph.output]
    if not bool(((logits >= low) & (logits <= high)).all()):
        off = float(torch.maximum(low - logits, logits - high).max())
        raise InputError(
            f"the network answers otherwise than its recorded operations ({off:.2g} outside of rounding): it is "
            f"random, depends on its images in a hidden way or computes in low precision; {ADVICE}"
        )


@contextlib.contextmanager
def _named(net: nn.Module, recorder: _Recorder) -> Iterator[None]:
    """The recorder knows which module runs."""
    hooks = []
    for name, module in net.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            continue
        title = f"{name or 'network'} ({type(module).__name__})"
        hooks.append(module.register_forward_pre_hook(lambda *_, title=title: recorder.modules.append(title)))
        hooks.append(module.register_forward_hook(lambda *_: recorder.modules.pop() and None))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
