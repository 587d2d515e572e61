"""TorchScript and torch.export files."""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import medrobust as mr
from medrobust.models import NetworkRequest, is_delivered, load_delivered
from medrobust.models.delivered import exported
from tests.vendor_nets import CLASSES, SIDE, Small


class Reshaping(nn.Module):
    """Its number of rows is written into it when it is exported."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Small()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"first": self.inner(x).reshape(int(x.shape[0]), 3), "second": x.mean((2, 3))}


def save(net: nn.Module, file: Path, rows: int = 2, dynamic: bool = False) -> str:
    shapes = {"x": {0: torch.export.Dim("rows")}} if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(net.eval(), (torch.rand(rows, 1, SIDE, SIDE),), dynamic_shapes=shapes)
        torch.export.save(program, str(file))
    return str(file)


def images() -> Tensor:
    return torch.rand(5, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def agrees(clf: mr.Classifier) -> None:
    """Its logits and gradients are those of ``Small``."""
    net, x = Small().eval(), images().requires_grad_()
    assert torch.allclose(clf.logits(images()), net(x), atol=1e-4)
    (wanted,) = torch.autograd.grad(net(x)[:, 0].sum(), x)
    (gradient,) = torch.autograd.grad(clf(x)[:, 0].sum(), x)
    assert torch.allclose(gradient, wanted, atol=1e-4)


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> str:
    """Of two rows."""
    return save(Small(), tmp_path_factory.mktemp("pt2") / "net.pt2")


def test_an_exported_program_takes_any_number_of_rows_where_it_can(program):
    clf = mr.Classifier.delivered(program, CLASSES)
    agrees(clf)
    assert (clf.size, clf.provenance["notes"]) == (SIDE, [])


def test_an_exported_program_of_any_number_of_rows(tmp_path):
    clf = mr.Classifier.delivered(save(Small(), tmp_path / "net.pt2", dynamic=True), CLASSES)
    agrees(clf)
    assert clf.provenance["notes"] == []


def test_rows_that_are_written_into_it_are_kept_and_said(tmp_path):
    clf = mr.Classifier.delivered(save(Reshaping(), tmp_path / "net.pt2", rows=3), CLASSES, output="first")
    agrees(clf)
    assert clf.provenance["notes"] == ["net.pt2 takes 3 image(s) at once: images are computed in such batches."]


def test_a_torchscript_file_is_a_model(tmp_path):
    file = str(tmp_path / "net.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(Small().eval(), images()), file)
    agrees(mr.Classifier.delivered(file, CLASSES))
    torch.save(Small().state_dict(), tmp_path / "weights.pt")
    assert not is_delivered(str(tmp_path / "weights.pt"))


def described(program: str, change) -> dict[str, bytes]:
    """The record of the description with a text of it replaced."""
    with zipfile.ZipFile(program) as archive:
        (name,) = [n for n in archive.namelist() if "/models/" in n]
        return {name: change(archive.read(name).decode()).encode()}


def test_code_in_an_archive_is_refused(program, tmp_path):
    pickled, call = io.BytesIO(), "x=__import__('os').getpid()"
    torch.save({"images": Small()}, pickled)  # a whole object

    def enumeration(text: str) -> str:
        value = json.loads(text)
        signature = value["graph_module"]["module_call_graph"][0]["signature"]
        signature["in_spec"] = json.dumps([1, {"context": json.dumps([{"\u005f_enum__": True, "fqn": "this:A"}])}])
        return json.dumps(value)

    changes = (
        (described(program, lambda text: re.sub(r"torch\.ops\.aten\.\w+", "torch.os", text)), "torch.os"),
        (described(program, lambda text: text.replace("aten.relu", "aten.from_file")), "from_file"),
        (described(program, lambda text: text.replace('"name": "x"', f'"name": "{call}"')), "is no operator"),
        (described(program, lambda text: text.replace('"x": {', f'"{call}": {{')), "is no name"),
        (described(program, enumeration), "is no operator"),
        ({"net/data/sample_inputs/model.pt": pickled.getvalue()}, "no tensors"),
        ({"net/data/sample_inputs/model.PT": pickled.getvalue()}, "model.PT"),
        ({"net/models/model.other": b"{}"}, "model.other"),
        ({"net/data/aotinductor/model/a.so": b""}, r"a\.so"),
    )
    for content, reason in changes:
        with zipfile.ZipFile(program) as archive, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as bad:
            for name in archive.namelist():
                if name.rpartition("/")[2] not in {n.rpartition("/")[2] for n in content}:
                    bad.writestr(name, archive.read(name))
            for name, value in content.items():
                assert archive.NameToInfo.get(name) is None or archive.read(name) != value
                bad.writestr(name, value)
        with pytest.raises(mr.InputError, match=reason):
            load_delivered(NetworkRequest(str(tmp_path / "bad.pt2"), CLASSES))
    (tmp_path / "bad.pt2").write_bytes(b"torch")
    with pytest.raises(mr.InputError, match=r"cannot be loaded by torch\.export"):
        load_delivered(NetworkRequest(str(tmp_path / "bad.pt2"), CLASSES))


SYMBOL = "Symbol('s31', positive=True, integer=True)"


def test_expressions_of_sizes_call_nothing_else():
    for text in (
        "s0",
        "2*s0 + 1",
        "Max(1, s0)",
        "(s0 - 1)//2",
        "Ne(s0, 1)",
        "Mod(s0, 2)**2",
        SYMBOL,
        f"Add({SYMBOL}, 1)",
    ):
        assert exported._is_expression(text)
    for text in (
        "test()",
        "Max('1')",
        "(test)()",
        "s0.name",
        "[s0]",
        "__import__",
        "s0 if s0 else 1",
        "Max(f=test)",
        "Max(Symbol('a b'))",
    ):
        assert not exported._is_expression(text)


class Writing(nn.Module):
    """Writes its images to a file while it computes."""

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, "written")
        return x.mean((2, 3))


def test_a_torchscript_program_that_writes_files_is_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Writing()), tmp_path / "net.pt")
    with pytest.raises(mr.InputError, match="an operator that writes to files"):
        load_delivered(NetworkRequest(str(tmp_path / "net.pt"), CLASSES))
