"""ONNX files: run by onnxruntime, converted by onnx2pytorch for gradients.

The copy in torch is compared with onnxruntime on real images before it is used (``models.converted``), and what an
attack achieves on it counts only where onnxruntime decides alike. Without such a copy the file is a black box.
"""

from __future__ import annotations

import itertools
import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from medrobust.errors import InputError, one_line
from medrobust.models.black_box import BlackBoxModel
from medrobust.models.converted import AGREES, Converted
from medrobust.models.delivered.network import Delivered, NetworkRequest, needed
from medrobust.models.form import LOGITS
from medrobust.models.rows import in_rows

SUFFIX = ".onnx"
EXTRA = "onnx"
MODULES = ("onnx", "onnxruntime", "onnx2pytorch")
FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
TYPES = {np.float32: torch.float32, np.float16: torch.float16, np.float64: torch.float64}
TRIED = 64
"""Pixels a side of the trial image where the file leaves the size open, after which 224 is tried."""


class Session:
    """An ONNX file in onnxruntime on the CPU: float32 images (n, c, h, w) to one of its outputs, float32 (n, k)."""

    def __init__(self, file: Path, request: NetworkRequest) -> None:
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads, settings.log_severity_level = torch.get_num_threads(), 4
        try:
            self.session: Any = onnxruntime.InferenceSession(str(file), settings, ["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own kinds share no base but this
            raise InputError(f"{file} is no ONNX file that onnxruntime can run: {one_line(error)}") from error
        inputs = self.session.get_inputs()
        if len(inputs) != 1 or inputs[0].type not in FLOATS or len(inputs[0].shape) != 4:
            found = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
            raise InputError(f"{file} must take one batch of images (n, c, h, w) of floats, it takes {found}")
        self.input, self.type = inputs[0].name, FLOATS[inputs[0].type]
        sizes = [d if isinstance(d, int) else None for d in inputs[0].shape]
        self.channels_last = sizes[1] not in (1, 3) and sizes[3] in (1, 3)
        self.batch = sizes[0]
        """Rows that it takes at once; None for any number."""
        self.channels, *side = (sizes[3], *sizes[1:3]) if self.channels_last else sizes[1:]
        self.size = side[0] if side[0] == side[1] else None
        outputs = self.session.get_outputs()
        self.position = _position(file, [o.name for o in outputs], [o.shape for o in outputs], request)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Rows in the number that the file takes."""
        parts = [self._run(part) for part in in_rows(torch.from_numpy(images), self.batch)]
        return np.concatenate(parts)[: len(images)]

    def _run(self, images: Tensor) -> np.ndarray:
        given = images.movedim(1, -1) if self.channels_last else images
        outputs = self.session.run(None, {self.input: given.contiguous().numpy().astype(self.type)})
        return np.asarray(outputs[self.position], np.float32).reshape(len(images), -1)


class _Torch(nn.Module):
    """onnx2pytorch's network, called as the session is."""

    def __init__(self, net: nn.Module, session: Session, batch: int | None) -> None:
        super().__init__()
        self.net, self.batch, self.position = net, batch, session.position
        self.channels_last, self.float_type = session.channels_last, TYPES[session.type]

    def forward(self, images: Tensor) -> Tensor:
        parts = []
        for part in in_rows(images, self.batch):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of numpy, about how onnx2pytorch slices
                out = self.net((part.movedim(1, -1) if self.channels_last else part).to(self.float_type))
            out = out[self.position] if isinstance(out, list | tuple) else out
            parts.append(out.reshape(len(part), -1).float())
        return torch.cat(parts)[: len(images)]


def load(request: NetworkRequest) -> Delivered:
    """InputError where onnxruntime cannot run the file, or it takes something else than images."""
    needed(EXTRA, f"{request.source}", *MODULES)
    file = Path(request.source)
    session = Session(file, request)
    notes = []
    if session.batch is not None:
        notes.append(f"{file.name} takes {session.batch} image(s) at once: images are computed in such batches.")
    answer = BlackBoxModel(session, request.outputs or 0)
    net, reason = _converted(file, session)
    if net is None:
        notes.append(
            f"{file.name} cannot be converted to torch ({reason}): it is attacked as a black box through onnxruntime."
        )
    return Delivered(
        answer if net is None else Converted(net, answer, "onnxruntime"),
        channels=session.channels,
        size=session.size,
        chosen=True,
        notes=tuple(notes),
    )


def _position(file: Path, names: list[str], shapes: list[list[object]], request: NetworkRequest) -> int:
    """Which output is used."""
    listed = ", ".join(map(repr, names))
    if request.output is not None:
        if request.output in names:
            return names.index(str(request.output))
        if str(request.output).isdecimal() and int(request.output) < len(names):
            return int(request.output)
        raise InputError(f"{file} has no output {request.output!r}; --output takes one of {listed}")
    fitting = [i for i, shape in enumerate(shapes) if request.outputs is None or shape[-1:] == [request.outputs]]
    if LOGITS in names or len(names) == 1 or len(fitting) == 1:
        return names.index(LOGITS) if LOGITS in names else fitting[0] if len(names) > 1 else 0
    raise InputError(f"{file} has the outputs {listed}: say which is to be used, --output NAME")


def _converted(file: Path, session: Session) -> tuple[nn.Module | None, str]:
    """The same in torch, and why not. The simplified graph first: constants of the exporter's are folded there."""
    reason = ""
    # the copy may take any number of rows where the file does not
    for graph, batch in itertools.product((_simplified, _as_is), dict.fromkeys((None, session.batch))):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what was guessed is compared
                net = _Torch(_in_torch(graph(file)), session, batch).eval()
                largest = _difference(net, session)
            if largest <= AGREES:
                return net, ""
            reason = f"outputs differ by {largest:.2g}, relative"
        except Exception as error:  # whatever an operator that it does not know leads to
            reason = one_line(error)
    return None, reason


def _in_torch(model: Any) -> nn.Module:
    from onnx2pytorch import ConvertModel

    for node in model.graph.node:  # the default, which is written out by some exporters and not known there
        kept = [a for a in node.attribute if (a.name, a.i) != ("training_mode", 0)]
        del node.attribute[:]
        node.attribute.extend(kept)
    net: nn.Module = ConvertModel(model)
    return net


def _as_is(file: Path) -> Any:
    import onnx

    return onnx.load(str(file))


def _simplified(file: Path) -> Any:
    """With constants folded and identities removed, by onnxruntime; operators of the standard only."""
    import onnx
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    handle, name = tempfile.mkstemp(suffix=SUFFIX)
    os.close(handle)
    try:
        settings.optimized_model_filepath = name
        content = _as_is(file).SerializeToString()  # with weights that lie in a file beside it
        onnxruntime.InferenceSession(content, settings, ["CPUExecutionProvider"])
        return onnx.load(name)
    finally:
        os.unlink(name)


def _difference(net: nn.Module, session: Session) -> float:
    """Largest difference of outputs on two images of noise, relative to the largest output."""
    sizes = (session.size,) if session.size else (TRIED, 224)
    for size in sizes:
        images = torch.rand(2, session.channels or 3, size, size, generator=torch.Generator().manual_seed(0))
        try:
            wanted = torch.from_numpy(session(images.numpy()))
        except Exception:  # a size that the file does not take
            if size == sizes[-1]:
                raise
            continue
        with torch.no_grad():
            return float((net(images) - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))
    raise AssertionError


logging.getLogger("onnx2pytorch").setLevel(logging.ERROR)
