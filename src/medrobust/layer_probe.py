"""Layout of the output of each layer of a network, found by a probe: images, positions, channels.

Convolutions give (n, c, h, w), Swin (n, h, w, c), ViT tokens (n, t, c) behind a class token, windowed attention
(n windows, t, c), attention weights (n, heads, t, t): the shape alone does not tell them apart. The axis that counts
images grows with the batch. The axes of positions follow the image: bands of rows, then bands of columns, are replaced
in a random image, and the entries along an axis of rows answer to one band of rows after the other. Where a layer mixes
the whole image, nothing follows it; then only the axis that convolutions, linear layers and LayerNorm work on is known,
which is kept through modules that pass a tensor on or leave its shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.layout import Layout

BANDS = 6
FOLLOWS = 0.05
"""Least share of the image that the centre of what an entry answers to must move over from one end of an axis to the
other: 1 where a position sees its place alone, 0.1 to 0.3 in deep attention; up to 0.04 was seen by chance."""
CLEAR = 6.0
"""Least number of its standard errors for tokens: the channels of attention that mixes everything follow by chance."""
PREFIX = 16
"""Most tokens before the first position (class token, registers)."""


def readable(classifier: Classifier) -> dict[str, nn.Module]:
    """The modules whose output can be read, by name, the network itself by "": none of a TorchScript program."""
    named = classifier.net.named_modules()
    return {name: module for name, module in named if not isinstance(module, torch.jit.ScriptModule)}


def hint(classifier: Classifier) -> str:
    """Why the network may lack a layer, as the end of a sentence; empty where all its modules can be read."""
    if not any(isinstance(module, torch.jit.ScriptModule) for module in classifier.net.modules()):
        return ""
    return ". A TorchScript program's layers cannot be read: give the network as a plain torch module"


def layout(classifier: Classifier, shape: Sequence[int], name: str) -> Layout:
    """Layout of one layer, for images (n, c, h, w). InputError where it holds nothing of an image or is not run."""
    layouts = probed_layouts(classifier, shape, (name,))
    if name not in layouts:
        raise InputError(
            f"layer {name!r} is not run when the network classifies an image; name another{hint(classifier)}"
        )
    if layouts[name].fault:
        raise InputError(f"layer {name!r} {layouts[name].fault}; name another layer")
    return layouts[name]


def probed_layouts(classifier: Classifier, shape: Sequence[int], names: Sequence[str]) -> dict[str, Layout]:
    """Layouts of those of ``names`` that run, in the order in which they finish; probed once a classifier and size."""
    layouts = classifier.layouts.setdefault(tuple(shape[1:]), {})
    if not layouts.keys() >= set(names):
        layouts.update(probe(classifier, shape, names))
    return layouts


def map_layout(classifier: Classifier, shape: Sequence[int], name: str) -> Layout:
    """The same, of a layer that must have a map."""
    layout_ = layout(classifier, shape, name)
    if layout_.grid is None:
        raise InputError(
            f"layer {name!r} gives no map (c, h, w) of an image: no axes of its output follow the image's rows and "
            "columns; name another layer"
        )
    return layout_


def probe(classifier: Classifier, shape: Sequence[int], names: Iterable[str]) -> dict[str, Layout]:
    """Layouts of all layers of ``names`` that run and give a tensor, in the order in which they finish.

    Random images, drawn from a generator of their own: 2, 3 and 13 of them.
    """
    wanted = set(names)
    draw = torch.Generator().manual_seed(0)
    base, other = torch.rand(2, *shape[1:], generator=draw)
    height, width = shape[-2:]
    banded = [base]
    for axis, side in ((1, height), (2, width)):
        for k in range(BANDS):
            start, stop = k * side // BANDS, max((k + 1) * side // BANDS, k * side // BANDS + 1)
            image = base.clone()
            image.narrow(axis, start, min(stop, side) - start).copy_(other.narrow(axis, start, min(stop, side) - start))
            banded.append(image)
    shapes: dict[str, tuple[int, ...]] = {}
    channels: dict[str, int] = {}
    passed: dict[int, tuple[Tensor, int]] = {}  # tensors of the first run and their axis of channels
    parts: dict[str, Layout] = {}
    layouts: dict[str, Layout] = {}

    def measure(name: str, module: nn.Module, given: object, out: Tensor) -> None:
        shapes[name] = tuple(out.shape)
        axis = _works_on(module)
        for tensor in (out, given):
            if axis is None and isinstance(tensor, Tensor) and tensor.shape == out.shape and id(tensor) in passed:
                axis = passed[id(tensor)][1]
        channels.pop(name, None)
        if axis is not None:
            channels[name], passed[id(out)] = axis, (out, axis)

    def separate(name: str, _: nn.Module, __: object, out: Tensor) -> None:
        if name in shapes:
            parts[name] = _images(shapes[name], out)

    def follow(name: str, _: nn.Module, __: object, out: Tensor) -> None:
        if name in parts:
            layouts.pop(name, None)
            layouts[name] = _placed(parts[name], out.float(), (height, width), channels.get(name))

    with torch.no_grad():
        classifier(base[None].to(classifier.device))  # a network seen for the first time is asked twice
        for images, note in (
            (torch.stack([base, other]), measure),
            (torch.stack([base, other, base]), separate),
            (torch.stack(banded), follow),
        ):
            _listen(classifier, images, wanted, note)
    return layouts


Note = Callable[[str, nn.Module, object, Tensor], None]


def _listen(classifier: Classifier, images: Tensor, names: set[str], note: Note) -> None:
    """note(name, module, first input, output) after each of the modules has run. Of a network that is given one image
    at a time the outputs are put together along their first axis, without inputs."""
    alone: list[list[tuple[str, nn.Module, Tensor]]] = []
    single = classifier.form.single

    def after(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, given: Any, output: Any) -> None:
            if isinstance(output, tuple | list) and output:
                output = output[0]
            if not (isinstance(output, Tensor) and output.ndim >= 2):
                return
            if single:
                alone[-1].append((name, module, output.clone()))
            else:
                note(name, module, given[0] if given else None, output)

        return keep

    hooks = [m.register_forward_hook(after(n)) for n, m in readable(classifier).items() if n in names]
    try:
        for part in images.split(1) if single else (images,):
            alone.append([])
            classifier(part.to(classifier.device))
    finally:
        for hook in hooks:
            hook.remove()
    for runs in zip(*alone, strict=False):
        name, module, _ = runs[0]
        note(name, module, None, torch.cat([output for _, _, output in runs]))


def _works_on(module: nn.Module) -> int | None:
    """The axis of channels that a module is defined on; None where that is not known."""
    if isinstance(module, nn.Linear | nn.LayerNorm):
        return -1
    convolutions = (nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d)
    return 1 if isinstance(module, convolutions) else None


def _images(two: tuple[int, ...], out: Tensor) -> Layout:
    """The axis of images, from the shape for 2 images and the output for 3, of which the first and last are equal."""
    axes = [a for a, (x, y) in enumerate(zip(two, out.shape, strict=False)) if x != y]
    if len(two) != out.ndim or len(axes) != 1 or 2 * out.shape[axes[0]] != 3 * two[axes[0]]:
        return Layout(fault="holds nothing of one image: no axis of its output grows with the number of images")
    values = out.movedim(axes[0], 0)
    per_image = len(values) // 3
    blocks = values.unflatten(0, (3, per_image))
    if _is_apart(blocks):
        return Layout(axes[0], per_image)
    if _is_apart(values.unflatten(0, (per_image, 3)).movedim(1, 0)):
        return Layout(axes[0], per_image, interleaved=True)
    if per_image == 1 and torch.equal(blocks[0], blocks[1]):
        return Layout(axes[0])  # nothing reached it in these images
    return Layout(fault="mixes the images of a batch")


def _is_apart(blocks: Tensor) -> bool:
    """Of three images, the first and last equal: do the blocks agree with that?"""
    differ = float((blocks[1] - blocks[0]).abs().max())
    return differ > 0 and float((blocks[2] - blocks[0]).abs().max()) <= 1e-3 * differ


def _placed(part: Layout, out: Tensor, image: tuple[int, int], channel: int | None) -> Layout:
    """The axes of positions, from the output for one image and its copies with other bands. channel: the axis of
    channels where it is known."""
    if part.fault:
        return part
    values = part.images_first(out)
    if values.ndim == 2:
        return part
    axes = range(1, values.ndim)
    if values.ndim > 3 and values.shape[-1] == values.shape[-2] > 1 and _sums_to_one(values):
        return Layout(fault=ATTENTION)
    answer = (values[1:] - values[:1]).square()
    energy = {}
    for axis in axes:
        profile = answer.movedim(axis, 1).flatten(2).sum(2).double().cpu()
        energy[axis] = profile[:BANDS], profile[BANDS:]
    if part.per_image > 1:
        return _windows(part, values, energy)
    if channel is not None:
        energy.pop(channel % values.ndim, None)
    tokens = {a: _as_tokens(*energy[a], image) for a in energy}
    best: tuple[float, Layout] = (0.0, part)
    for a, (score, prefix, grid) in tokens.items():
        if score > best[0]:
            # queries, keys and values split into heads are no features of a position: pooled, without a map
            best = score, replace(part, positions=(a,), prefix=prefix, grid=grid if values.ndim == 3 else None)
    for a, b in ((2, 3), (1, 2)) if values.ndim == 4 else ():
        if not {a, b} <= energy.keys():
            continue
        score = min(_span(energy[a][0]), _span(energy[b][1]))
        if score > best[0]:
            best = score, replace(part, positions=(a, b), prefix=0, grid=(values.shape[a], values.shape[b]))
    if best[0] >= FOLLOWS:
        if len(best[1].positions) == 1 and sum(t[0] >= FOLLOWS for t in tokens.values()) > 1:
            return Layout(fault=ATTENTION)
        return best[1]
    # no positions seen: read as usual, (n, c, h, w) or (n, t, c), without a map but of a convolution
    usual = {3: (1,), 4: (2, 3)}.get(values.ndim, ())
    if channel is not None:
        usual = tuple(sorted(energy))
    convolved = channel == 1 and values.ndim == 4 and part.batch == 0
    return replace(part, positions=usual, grid=(values.shape[2], values.shape[3]) if convolved else None)


ATTENTION = "holds attention from positions to positions, and no features of an image"


def _windows(part: Layout, values: Tensor, energy: Mapping[int, tuple[Tensor, Tensor]]) -> Layout:
    """Windows folded into the batch: (n, windows, tokens, c). They are pooled; a map would need their order."""
    last = values.ndim - 1
    follow = [a for a in energy if max(abs(_span(energy[a][0])), abs(_span(energy[a][1]))) >= FOLLOWS]
    positions = tuple(a for a in range(1, last) if a == 1 or a in follow or values.ndim == 4)
    return replace(part, positions=positions)


def _sums_to_one(values: Tensor) -> bool:
    return bool((values >= 0).all()) and bool(((values.sum(-1) - 1).abs() < 1e-3).all())


def _as_tokens(rows: Tensor, columns: Tensor, image: tuple[int, int]) -> tuple[float, int, tuple[int, int] | None]:
    """(score, prefix, grid) of the best way to lay the entries of an axis out as positions of the image."""
    count = rows.shape[1]
    best: tuple[float, int, tuple[int, int] | None] = (0.0, 0, None)
    for prefix in range(min(PREFIX, count // 2) + 1):
        height = round(math.sqrt((count - prefix) * image[0] / image[1]))
        if height < 2 or (count - prefix) % height or (count - prefix) // height < 2:
            continue
        grid = (height, (count - prefix) // height)
        row, column = torch.meshgrid(*(torch.arange(g, device=rows.device) for g in grid), indexing="ij")
        down, across = (
            _follow(energy[:, prefix:], place.flatten()) for energy, place in ((rows, row), (columns, column))
        )
        score = min(down[0], across[0])
        if score > best[0] and min(down[1], across[1]) >= CLEAR:
            best = score, prefix, grid
    return best


def _span(energy: Tensor) -> float:
    """How far the centre of the bands (BANDS, m) that entries answer to moves from the first entry to the last, as a
    share of the image; by least squares."""
    return _follow(energy, torch.arange(energy.shape[1], device=energy.device))[0]


def _follow(energy: Tensor, place: Tensor) -> tuple[float, float]:
    """The same for entries at ``place`` (m,), and how many standard errors that is; (0, 0) where it is not defined."""
    total = energy.sum(0)
    alive = total > 0
    bands = torch.linspace(0, 1, BANDS, dtype=energy.dtype, device=energy.device)
    centre = (bands[:, None] * energy).sum(0)[alive] / total[alive]
    at = place[alive].to(energy) / max(1, int(place.max()))
    at, centre = at - at.mean(), centre - centre.mean()
    spread = float(at.square().sum())
    if spread == 0:
        return 0.0, 0.0
    slope = float((at * centre).sum()) / spread
    rest = float((centre - slope * at).square().sum()) / max(1, len(at) - 2)
    return slope, slope / max(math.sqrt(rest / spread), 1e-12)
