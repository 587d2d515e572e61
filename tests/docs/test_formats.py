"""The formats of the guide to models: each command that it shows is run on files of that format."""

from __future__ import annotations

import json
import shlex
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import medrobust as mr
from medrobust.models.delivered import xrv as xrv_loader
from tests.cli.test_data_options import run
from tests.data_files import write_table
from tests.docs.test_docs import blocks
from tests.door_nets import Bright

PAGE = "docs/add-a-model.md"
SIDE, NAMES = 32, ("normal", "pneumonia")


def shown() -> list[str]:
    """Commands of the block that shows all formats."""
    text = (Path(__file__).parents[2] / PAGE).read_text()
    return text.partition("## 5. ")[2].partition("```sh\n")[2].partition("```")[0].splitlines()


class Named(Bright):
    """Its logits beside other numbers of that shape."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        logits = super().forward(x)
        return {"logits_of_another": -logits, "logits": logits}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Images of two classes, and a file of every format."""
    place = tmp_path_factory.mktemp("formats")
    rows = []
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 90, (SIDE, SIDE)).astype(np.uint8) + np.uint8(150 * (i % 2))
        Image.fromarray(pixels).save(place / f"{i}.png")
        rows.append({"file": f"{i}.png", "label": NAMES[i % 2]})
    write_table(place, rows)
    images = torch.rand(2, 1, SIDE, SIDE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exporters are deprecated, or about their own parts
        axes = {"x": {0: "n"}, "y": {0: "n"}}
        names = {"input_names": ["x"], "output_names": ["y"], "dynamic_axes": axes}
        torch.onnx.export(Bright(), (images,), str(place / "net.onnx"), dynamo=False, **names)
        torch.export.save(torch.export.export(Named().eval(), (images,)), place / "net.pt2")
        torch.jit.trace(Bright(), images).save(str(place / "scripted.pt"))
    return place


def vit(place: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.ViTConfig(**sizes, image_size=SIDE, patch_size=8, id2label=dict(enumerate(NAMES)))
    transformers.ViTForImageClassification(config).save_pretrained(place)
    processor = {"size": SIDE, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (place / "preprocessor_config.json").write_text(json.dumps(processor))


def monai(place: Path, patched: pytest.MonkeyPatch) -> None:
    nets = pytest.importorskip("monai.networks.nets")

    class Few(nets.DenseNet):
        """DenseNet121 with few layers."""

        def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
            super().__init__(spatial_dims, in_channels, out_channels, init_features=8, block_config=(1, 1))

    Few.__module__ = nets.DenseNet.__module__
    patched.setattr(nets, "DenseNet121", Few)
    net = Few(2, 1, 2)
    nn.init.constant_(net.class_layers.out.bias, -1.0)  # outputs that are no probabilities
    torch.save(net.state_dict(), place / "densenet.pt")
    for part in ("configs", "models"):
        (place / "bundle" / part).mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), place / "bundle/models/model.pt")
    network = {"_target_": "DenseNet121", "spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    (place / "bundle/configs/inference.json").write_text(json.dumps({"network_def": network}))


def checkpoint(place: Path) -> None:
    state = mr.models.build("small_cnn", classes=2, channels=1).state_dict()
    averaged = {f"module.{k}": v.half() for k, v in state.items()}
    torch.save({"state_dict": {}, "state_dict_ema": averaged}, place / "run.ckpt")


@pytest.mark.parametrize("command", shown())
def test_a_shown_command_attacks_a_file_of_its_format(folder, monkeypatch, command):
    monkeypatch.chdir(folder)
    if "--model vit" in command:
        vit(folder / "vit")
    if "bundle" in command or "monai:" in command:
        monai(folder, monkeypatch)
    if "run.ckpt" in command:
        checkpoint(folder)
        command = command.replace("resnet18", "small_cnn")
    options = shlex.split(command)[2:]
    printed = run("attack", *options, "--limit", "4", "--attacks", "fgsm", "--eps", "0.5/255")
    assert "Accuracy under attack, n = 4" in printed


def test_the_python_of_the_guide_loads_onnx_and_torchxrayvision(folder, monkeypatch):
    with warnings.catch_warnings():
        package = pytest.importorskip("torchxrayvision")
    small = {"growth_rate": 4, "block_config": (1, 1, 1, 1), "num_init_features": 8}
    monkeypatch.setattr(xrv_loader, "_densenet", lambda p, n: p.models.DenseNet(num_classes=n, **small))
    monkeypatch.chdir(folder)
    torch.save(package.models.DenseNet(num_classes=18, **small), "xrv.pt")
    (code,) = [block for block in blocks(PAGE) if "xrv:" in block]
    scope = {"mr": mr}
    exec(code, scope)
    assert scope["clf"].predict(torch.rand(2, 1, SIDE, SIDE)).shape == (2,)
    assert len(scope["xrv"].classes) == 18
    assert scope["xrv"].head.name == "multilabel"
