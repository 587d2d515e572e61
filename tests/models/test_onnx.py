"""ONNX files: converted, compared with onnxruntime, confirmed by it, or a black box."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import medrobust as mr
from medrobust.models import BlackBoxModel, Converted, NetworkRequest, load_delivered
from medrobust.models.delivered import onnx_file
from medrobust.models.delivered.network import needed
from medrobust.threat import Linf, Untargeted

onnx = pytest.importorskip("onnx")

NAMES = ("normal", "pneumonia")


def network(outputs: int = 2) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, outputs),
        ).eval()


class Two(nn.Module):
    """Logits and features."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.net(x), self.net[:5](x)


def export(
    net: nn.Module, file: Path, size: int = 16, batch: int | None = None, names=("y",), channels: int = 1
) -> str:
    """An ONNX file, of any number of rows or of ``batch``."""
    axes = None if batch else {name: {0: "n"} for name in ("x", *names)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter is deprecated, and needs no seconds of compiling
        images = torch.rand(batch or 2, channels, size, size)
        torch.onnx.export(
            net, (images,), str(file), dynamo=False, input_names=["x"], output_names=list(names), dynamic_axes=axes
        )
    return str(file)


def images(n: int = 5, size: int = 16, channels: int = 1) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("batch", [None, 3])
def test_logits_and_gradients_are_those_of_the_network(tmp_path, batch):
    clf = mr.Classifier.delivered(export(network(), tmp_path / "net.onnx", batch=batch), NAMES)
    x = images().requires_grad_()
    (wanted,) = torch.autograd.grad(network()(x)[:, 1].sum(), x)
    (gradient,) = torch.autograd.grad(clf(x)[:, 1].sum(), x)
    assert torch.allclose(clf.logits(images()), network()(images()), atol=1e-5)
    assert torch.allclose(gradient, wanted, atol=1e-6)
    assert isinstance(clf.net, Converted)
    assert "decisions are equal" in clf.inspection.notes[-1]
    assert [n for n in clf.provenance["notes"] if "3 image(s) at once" in n] == clf.provenance["notes"]
    assert bool(clf.provenance["notes"]) == (batch is not None)


def test_weights_in_a_file_beside_it_are_simplified_too_and_missed_in_one_line(tmp_path):
    file = Path(export(network(), tmp_path / "net.onnx"))
    onnx.save_model(onnx.load(file), file, save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    model = onnx_file._simplified(file)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert isinstance(mr.Classifier.delivered(str(file), NAMES).net, Converted)
    (tmp_path / "net.onnx.data").unlink()
    with pytest.raises(mr.InputError, match="no ONNX file that onnxruntime can run"):
        mr.Classifier.delivered(str(file), NAMES)


def test_a_digest_does_not_depend_on_where_the_file_lies_and_nothing_is_saved_again(tmp_path, monkeypatch):
    file = export(network(), tmp_path / "net.onnx")
    clf = mr.Classifier.delivered(file, NAMES)
    monkeypatch.chdir(tmp_path)
    assert mr.Classifier.delivered("net.onnx", NAMES).digest() == clf.digest()
    with pytest.raises(mr.InputError, match="not saved again"):
        clf.save(tmp_path / "saved")


def test_which_output_is_used_can_be_said(tmp_path):
    file = export(Two(), tmp_path / "net.onnx", names=("first", "second"))
    features = mr.Classifier.delivered(file, ("a", "b", "c", "d"))  # the only one of four numbers
    assert torch.allclose(features.logits(images()), Two()(images())[1], atol=1e-5)
    for output in ("first", "0"):
        assert mr.Classifier.delivered(file, NAMES, output=output).logits(images()).shape == (5, 2)
    with pytest.raises(mr.InputError, match="'first', 'second'"):
        mr.Classifier.delivered(file, NAMES, output="third")
    with pytest.raises(mr.InputError, match="--output NAME"):
        mr.Classifier.delivered(file, ("a", "b", "c"))


def test_a_copy_that_differs_is_not_used(tmp_path):
    clf = mr.Classifier.delivered(export(network(), tmp_path / "net.onnx"), NAMES)
    with torch.no_grad():
        next(clf.net.parameters()).add_(0.1)
    with pytest.warns(UserWarning, match="Only answers"):
        logits = clf.logits(images())
    assert torch.allclose(logits, network()(images()), atol=1e-5)
    assert clf.black_box
    assert "differs from onnxruntime on 5 images" in clf.inspection.notes[0]


def test_what_cannot_be_converted_is_a_black_box(tmp_path, monkeypatch):
    def fail(_):
        raise NotImplementedError("Op")

    monkeypatch.setattr(onnx_file, "_in_torch", fail)
    got = load_delivered(NetworkRequest(export(network(), tmp_path / "net.onnx"), NAMES))
    assert isinstance(got.net, BlackBoxModel)
    assert got.notes == (
        "net.onnx cannot be converted to torch (NotImplementedError: Op): it is attacked as a black box through "
        "onnxruntime.",
    )


def test_a_success_counts_only_if_the_original_decides_alike(tmp_path):
    clf = mr.Classifier.delivered(export(network(), tmp_path / "net.onnx"), NAMES)
    clean, attacked = images(), images().flip(0)
    labels = clf.predict(clean)
    clf.net.net = nn.Sequential(clf.net.net, Flipped(attacked[2:]))  # the copy alone decides otherwise, on three images
    outcome = mr.judge(clf, clean, attacked, Untargeted(labels), Linf(1.0))
    original = clf.original.predict(attacked) != labels
    assert (outcome.after != labels).tolist() == (clf.predict(attacked) != labels).tolist()
    assert outcome.reached.tolist() == ((outcome.after != labels) & original).tolist()
    assert bool(((outcome.after != labels) & ~original).any())


class Flipped(nn.Module):
    """Turns the decisions on the rows that ``of`` gives."""

    def __init__(self, of: Tensor) -> None:
        super().__init__()
        self.rows = network()(of).detach()

    def forward(self, logits: Tensor) -> Tensor:
        same = torch.isclose(logits[:, None], self.rows[None], atol=1e-5).all(2).any(1)
        return torch.where(same[:, None], logits.flip(1), logits)


def test_files_that_cannot_be_used_are_one_line(tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"onnx")
    cases = {
        str(tmp_path / "broken.onnx"): "no ONNX file that onnxruntime can run",
        str(tmp_path / "none.onnx"): "no file",
        export(nn.Flatten(), tmp_path / "any.onnx"): "does not state its classes",
    }
    for source, reason in cases.items():
        with pytest.raises(mr.InputError, match=reason) as caught:
            mr.Classifier.delivered(source)
        assert "\n" not in str(caught.value)
    with pytest.raises(mr.InputError, match="leave --weights out"):
        mr.Classifier.delivered(str(tmp_path / "any.onnx"), NAMES, weights="x.pth")
    with pytest.raises(mr.InputError, match=r"x\.onnx needs not_there: pip install 'medrobust\[onnx\]'"):
        needed("onnx", "x.onnx", "not_there.sub")


ARCHITECTURES = {
    "resnet18": 32,
    "mobilenetv2_100": 32,
    "densenet121": 32,
    "efficientnet_b0": 32,
    "vit_tiny_patch16_224": 224,
}


@pytest.mark.slow  # five networks are exported
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_convert_to_within_1e_4_of_onnxruntime(tmp_path, name):
    import timm

    torch.manual_seed(0)
    net, size = timm.create_model(name, num_classes=2).eval(), ARCHITECTURES[name]
    clf = mr.Classifier.delivered(export(net, tmp_path / "net.onnx", size, channels=3), NAMES, outputs="logits")
    x = images(4, size, 3)
    wanted = net(x).detach()
    assert float((clf.logits(x) - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())
    assert clf.net.agreement(x, lambda raw: raw.argmax(1)).holds
    assert clf.inspection.differentiable
