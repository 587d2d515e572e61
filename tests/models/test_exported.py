"""TorchScript and torch.export files."""

from __future__ import annotations

import io
import json
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


def test_code_in_an_archive_is_refused(program, tmp_path):
    exported.check_archive(Path(program).read_bytes(), "net.pt2")
    pickled = io.BytesIO()
    torch.save(Small(), pickled)  # a whole object

    def described(change) -> dict[str, bytes]:
        with zipfile.ZipFile(program) as archive:
            (name,) = [n for n in archive.namelist() if "/models/" in n and n.endswith(".json")]
            text = json.loads(archive.read(name))
        change(text)
        return {name: json.dumps(text).encode()}

    def operator(text) -> None:
        text["graph_module"]["graph"]["nodes"][0]["target"] = "torch.os.system"

    def expression(text) -> None:
        text["graph_module"]["expr_str"] = "__import__('os')"

    changes = (
        (described(operator), "torch.os.system"),
        (described(expression), "no operator on tensors"),
        ({"net/data/sample_inputs/model.pt": pickled.getvalue()}, "more than tensors"),
        ({"net/data/aotinductor/model/a.so": b""}, "compiled code"),
    )
    for content, reason in changes:
        with zipfile.ZipFile(program) as archive, zipfile.ZipFile(tmp_path / "bad.pt2", "w") as bad:
            for name in archive.namelist():
                if name.rpartition("/")[2] not in {n.rpartition("/")[2] for n in content}:
                    bad.writestr(name, archive.read(name))
            for name, value in content.items():
                bad.writestr(name, value)
        with pytest.raises(mr.InputError, match=reason):
            load_delivered(NetworkRequest(str(tmp_path / "bad.pt2"), CLASSES))
    (tmp_path / "bad.pt2").write_bytes(b"torch")
    with pytest.raises(mr.InputError, match=r"no archive of torch\.export"):
        load_delivered(NetworkRequest(str(tmp_path / "bad.pt2"), CLASSES))
