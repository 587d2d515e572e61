"""Programs of torch: TorchScript (``torch.jit.save``) and ``torch.export`` (``.pt2``).

A ``.pt2`` archive is examined before torch reads it, since torch unpickles parts of it and evaluates the names and
expressions in it: tensors and operators on them are accepted, nothing else.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medrobust.errors import InputError, one_line
from medrobust.models.delivered.network import Delivered, NetworkRequest
from medrobust.models.pretrained import is_torchscript
from medrobust.models.rows import in_rows

SUFFIX = ".pt2"
SCRIPTED = (".pt", ".pth", ".ts", ".torchscript")
OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|torchvision|quantized)\.\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.\w+|torch\.sym_\w+"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.\w+"
)
EXPRESSION = re.compile(r"[\w\s+\-*/%(),<>=&|~]*")
"""Of sizes, as sympy reads them: without a dot or a quote it reaches no code but sympy's own functions."""
AGREES = 1e-4


class InRows(nn.Module):
    """``net`` called with batches of exactly ``rows`` images."""

    def __init__(self, net: nn.Module, rows: int) -> None:
        super().__init__()
        self.net, self.rows = net, rows

    def forward(self, images: Tensor) -> object:
        outputs = [self.net(part) for part in in_rows(images, self.rows)]
        return _joined(outputs, len(images))


def _joined(outputs: list[Any], n: int) -> object:
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.cat(outputs)[:n]
    if isinstance(first, dict):
        return {key: _joined([out[key] for out in outputs], n) for key in first}
    if isinstance(first, tuple | list):
        return tuple(_joined([out[i] for out in outputs], n) for i in range(len(first)))
    return first


def is_script(source: str) -> bool:
    """Whether it is a file that holds a TorchScript program."""
    return source.endswith(SCRIPTED) and is_torchscript(Path(source))


def load_script(request: NetworkRequest) -> Delivered:
    """A TorchScript program: it runs in torch's own interpreter, which knows operators on tensors only."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is no longer developed
            net: nn.Module = torch.jit.load(request.source, map_location="cpu")
    except Exception as error:  # a broken archive raises whatever its reader met
        raise InputError(f"{request.source} is no readable TorchScript file: {one_line(error)}") from error
    return Delivered(net)


def load_exported(request: NetworkRequest) -> Delivered:
    """The module of a program that ``torch.export.save`` wrote; a batch of one fixed size is tried at others."""
    content = Path(request.source).read_bytes()
    check_archive(content, request.source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that an archive is read, and about guards on shapes
            program = torch.export.load(io.BytesIO(content))
            shape = _input_shape(program)
            net: nn.Module = program.module(check_guards=False)
        for key, hook in list(net._forward_pre_hooks.items()):  # which insists on the batch of the export
            if getattr(hook, "__name__", "") == "_check_input_constraints_pre_hook":
                del net._forward_pre_hooks[key]
    except InputError:
        raise
    except Exception as error:  # of another version of torch, or broken
        raise InputError(f"{request.source} cannot be loaded by torch.export: {one_line(error)}") from error
    batch, channels, *side = (d if isinstance(d, int) else None for d in shape)
    notes: tuple[str, ...] = ()
    if batch is not None and not _takes_any(net, [batch, *(d if isinstance(d, int) else 32 for d in shape[1:])]):
        net = InRows(net, batch)
        notes = (f"{Path(request.source).name} takes {batch} image(s) at once: images are computed in such batches.",)
    known = channels if channels in (1, 3) else None
    return Delivered(net, channels=known, size=side[0] if side[0] == side[1] else None, notes=notes)


def _input_shape(program: Any) -> tuple[Any, ...]:
    names = program.graph_signature.user_inputs
    nodes = [n for n in program.graph_module.graph.nodes if n.op == "placeholder" and n.name in names]
    shapes = [tuple(n.meta["val"].shape) for n in nodes if isinstance(n.meta.get("val"), Tensor)]
    if len(names) != 1 or len(shapes) != 1 or len(shapes[0]) != 4:
        raise InputError(f"an exported program must take one batch of images (n, c, h, w), this one takes {shapes}")
    return shapes[0]


def _takes_any(net: nn.Module, shape: list[int]) -> bool:
    """Whether other numbers of rows than the fixed one give the same rows."""
    rows = 2 * shape[0] + 1
    images = torch.rand(rows, *shape[1:], generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            wanted, got = InRows(net, shape[0])(images), _joined([net(images)], rows)
    except Exception:  # sizes that were written into the program
        return False
    pairs = list(zip(_leaves(wanted), _leaves(got), strict=False))
    return bool(pairs) and all(
        a.shape == b.shape and float((a - b).abs().max()) <= AGREES * float(a.abs().max()) for a, b in pairs
    )


def _leaves(out: object) -> Iterator[Tensor]:
    if isinstance(out, Tensor):
        yield out
    elif isinstance(out, dict | tuple):
        for part in out.values() if isinstance(out, dict) else out:
            yield from _leaves(part)


def check_archive(content: bytes, file: str) -> None:
    """InputError where an archive of torch.export holds anything but tensors and operators on them."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        names = archive.namelist()
        for name in names:
            if "/aotinductor/" in f"/{name}" or name.endswith((".so", ".dll", ".dylib")):
                raise _refused(file, f"compiled code ({name})")
            if name.endswith("_config.json"):
                _check_payloads(archive, name, file)
            elif name.endswith(".json"):
                _check_program(json.loads(archive.read(name)), file)
            elif name.endswith(".pt"):
                _check_pickle(archive.read(name), f"{file}: {name}")
    except (zipfile.BadZipFile, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{file} is no archive of torch.export: {one_line(error)}") from error


def _check_payloads(archive: zipfile.ZipFile, name: str, file: str) -> None:
    """Of the weights or constants that lie beside the list ``name`` of them."""
    for key, payload in json.loads(archive.read(name))["config"].items():
        path = str(payload["path_name"])
        if path.startswith(("custom_obj", "opaque_obj")) or "/" in path:
            raise _refused(file, f"an object that is no tensor ({key})")
        if payload.get("use_pickle"):
            _check_pickle(archive.read(f"{name.rpartition('/')[0]}/{path}"), f"{file}: {key}")


def _check_pickle(content: bytes, where: str) -> None:
    if not content:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever else is pickled there
        raise _refused(where, "more than tensors") from error


def _check_program(program: object, file: str) -> None:
    """Targets and expressions anywhere in the description of a program."""
    checks: dict[str, Callable[[str], object]] = {
        "target": OPERATORS.fullmatch,
        "expr_str": lambda text: EXPRESSION.fullmatch(text) and "__" not in text,
    }
    if isinstance(program, dict):
        for key, value in program.items():
            if key in checks and isinstance(value, str) and not checks[key](value):
                raise _refused(file, f"what is no operator on tensors ({value[:80]!r})")
            _check_program(value, file)
    elif isinstance(program, list):
        for value in program:
            _check_program(value, file)


def _refused(file: str, what: str) -> InputError:
    return InputError(f"{file} holds {what}, which would run when it is loaded: refused; export the network as ONNX")
