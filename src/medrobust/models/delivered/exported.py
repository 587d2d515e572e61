"""Programs of torch: TorchScript (``torch.jit.save``) and ``torch.export`` (``.pt2``).

Both are examined before torch reads them, by torch's own reader of archives, so that what is examined is what is
loaded. Of a ``.pt2``, torch unpickles parts and writes the names in it into Python code that it runs: records, names,
operators and expressions of the known forms are accepted, nothing else. A TorchScript program can write files.
"""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
    r"torch\.ops\.(aten|prims|torchvision|quantized)\.(?!from_file\b)\w+(\.[A-Za-z]\w*)?"
    r"|torch\.ops\.higher_order\.(cond|map_impl|scan|while_loop|wrap|wrap_with_autocast|wrap_with_set_grad_enabled)"
    r"|torch\.sym_\w+"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.\w+"
)
RECORDS = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/\w+|models/model\.json|data/sample_inputs/model\.pt"
    r"|data/(weights|constants)/(model_(weights|constants)_config\.json|model\.pt|\w+)|extra/.*"
)
"""Of an archive of torch.export. torch looks names up without regard to case, hence each is held to its spelling."""
NAME = re.compile(r"[\w.@:-]*")
"""Of values, weights and modules: without a bracket, a quote or a line break it is no call in generated code."""
TEXTS = re.compile(
    r"stack_trace|nn_module_stack|source_fn_stack|torch_fn|custom|from_node|guards_code|torch_version|as_strings?"
)
"""Keys whose values stay text: notes on origins, guards (never compiled, see ``check_guards``), arguments."""
FUNCTIONS = re.compile(
    r"Symbol|Integer|Rational|Add|Mul|Pow|Max|Min|Mod|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Abs|floor|ceiling|FloorDiv|PythonMod"
    r"|ModularIndexing|Where|CleanDiv|CeilDiv|CeilToInt|FloorToInt|LShift|RShift|PowByNatural|FloatPow|FloatTrueDiv"
    r"|IntTrueDiv|TruncToFloat|TruncToInt|RoundToInt|RoundDecimal|ToFloat|Identity|IsNonOverlappingAndDenseIndicator"
)
"""That expressions of sizes call; sympy would evaluate any other."""
WRITES = frozenset(("save", "from_file"))
"""Operators of TorchScript that write to files."""
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
    """A TorchScript program: it runs in torch's own interpreter, which knows operators on tensors and few others."""
    try:
        check_script(request.source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is no longer developed
            net: nn.Module = torch.jit.load(request.source, map_location="cpu")
    except InputError:
        raise
    except Exception as error:  # a broken archive raises whatever its reader met
        raise InputError(f"{request.source} is no readable TorchScript file: {one_line(error)}") from error
    return Delivered(net)


def load_exported(request: NetworkRequest) -> Delivered:
    """The module of a program that ``torch.export.save`` wrote; a batch of one fixed size is tried at others."""
    from torch.export.pt2_archive._package import load_pt2

    content = Path(request.source).read_bytes()
    try:
        with warnings.catch_warnings(), _tensors_only():
            warnings.simplefilter("ignore")  # about guards on shapes
            check_archive(content, request.source)
            # torch.export.load would fall back to an older layout, which is read in another way
            program = load_pt2(io.BytesIO(content)).exported_programs["model"]
            shape = _input_shape(program)
            net: nn.Module = program.module(check_guards=False)
        for key, hook in list(net._forward_pre_hooks.items()):  # which insists on the batch of the export
            if getattr(hook, "__name__", "") == "_check_input_constraints_pre_hook":
                del net._forward_pre_hooks[key]
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise _refused(request.source, "pickled objects that are no tensors") from error
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


@contextmanager
def _tensors_only() -> Iterator[None]:
    """torch.load restores tensors and nothing else, whatever torch.export asks of it."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})


def check_script(file: str) -> None:
    """InputError where the code of a TorchScript program names an operator that writes to files."""
    archive = torch._C.PyTorchFileReader(file)
    for name in archive.get_all_records():
        if name.lower().startswith("code/") and not name.endswith(".debug_pkl"):
            for node in ast.walk(ast.parse(archive.get_record(name))):
                names = {getattr(node, field, None) for field in ("attr", "id", "value")}
                if found := [n for n in names if isinstance(n, str) and n in WRITES]:
                    raise _refused(file, f"an operator that writes to files ({found[0]})", "run")


def check_archive(content: bytes, file: str) -> None:
    """InputError where an archive of torch.export holds anything but tensors and operators on them."""
    archive = torch._C.PyTorchFileReader(io.BytesIO(content))
    for name in archive.get_all_records():
        if not RECORDS.fullmatch(name):
            raise _refused(file, f"what is no part of a network ({name[:80]!r})")
        if name.endswith("_config.json"):
            _check_payloads(json.loads(archive.get_record(name)), file)
        elif name.startswith("models/"):
            _check_program(json.loads(archive.get_record(name)), file)


def _check_payloads(listed: Mapping[str, Any], file: str) -> None:
    """Of weights or constants."""
    for key, payload in listed["config"].items():
        path = str(payload["path_name"])
        if path.startswith(("custom_obj", "opaque_obj")) or "/" in path or not NAME.fullmatch(key):
            raise _refused(file, f"an object that is no tensor ({key[:80]!r})")


def _check_program(program: object, file: str, key: str = "") -> None:
    """Every text in the description of a program, by the key that it stands under."""
    if isinstance(program, dict):
        for name, value in program.items():
            if not NAME.fullmatch(name):
                raise _refused(file, f"what is no name ({name[:80]!r})")
            _check_program(value, file, name)
    elif isinstance(program, list):
        for value in program:
            _check_program(value, file, key)
    elif isinstance(program, str) and not TEXTS.fullmatch(key) and not FORMS.get(key, NAME.fullmatch)(program):
        raise _refused(file, f"what is no operator on tensors ({program[:80]!r})")


def _is_expression(text: str) -> bool:
    """Of sizes, as sympy writes them: numbers, names, arithmetic, ``FUNCTIONS`` and Symbol('s0', integer=True)."""
    try:
        nodes = list(ast.walk(ast.parse(text.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError):
        return False
    symbols = {a for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) == "Symbol" for a in n.args}
    return all(_is_plain(node, node in symbols) for node in nodes)


def _is_plain(node: ast.AST, name: bool) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and bool(FUNCTIONS.fullmatch(node.func.id))
    if isinstance(node, ast.keyword):
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, bool)
    if isinstance(node, ast.Constant):
        return name and bool(re.fullmatch(r"\w+", node.value)) if isinstance(node.value, str) else node.value is not ...
    if isinstance(node, ast.Name):
        return "__" not in node.id
    arithmetic = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.operator, ast.unaryop, ast.cmpop)
    return isinstance(node, (*arithmetic, ast.expr_context))


FORMS: Mapping[str, Callable[[str], object]] = {
    **dict.fromkeys(("target", "as_operator"), OPERATORS.fullmatch),
    "expr_str": _is_expression,
    # containers of inputs and outputs, whose enumerations torch would import
    **dict.fromkeys(("in_spec", "out_spec"), lambda text: not re.search(r"__enum__|\\u00[0-7]", text)),
}


def _refused(file: str, what: str, when: str = "loaded") -> InputError:
    return InputError(
        f"{file} holds {what}, which could do harm when it is {when}: refused; export the network as ONNX"
    )
