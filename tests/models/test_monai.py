"""MONAI's networks by name and its bundles, of which no code is run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import medrobust as mr
from medrobust.models import NetworkRequest, load_delivered
from medrobust.models.delivered import monai_nets

NAMES = ("normal", "pneumonia")
SMALL = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "block_config": [1, 1], "init_features": 8}


@pytest.fixture(scope="module")
def net():
    nets = pytest.importorskip("monai.networks.nets")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nets.DenseNet(**SMALL).eval()


def images() -> torch.Tensor:
    return torch.rand(5, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def bundle(folder: Path, net, definition: object, **more: object) -> str:
    for part in ("configs", "models"):
        (folder / part).mkdir(exist_ok=True)
    (folder / "configs" / "inference.json").write_text(json.dumps({"network_def": definition, **more}))
    torch.save(net.state_dict(), folder / "models" / "model.pt")
    return str(folder)


def test_a_network_by_name_and_its_weights(net, tmp_path):
    file = str(tmp_path / "weights.pt")
    torch.save({"model": {f"module.{k}": v.half() for k, v in net.state_dict().items()}}, file)
    source = "monai:DenseNet:init_features=8:block_config=[1,1]"
    clf = mr.Classifier.delivered(source, NAMES, weights=file)
    assert torch.allclose(clf.logits(images()), net.half().float()(images()), atol=1e-2)
    cases = {
        "monai:DenseNet": "give --weights FILE",
        "monai:SimpleTest": "has no network 'SimpleTest'",
        "monai:DenseNet:block_config=[1,1,1]": "another architecture",
        "monai:DenseNet121:pretrained=true": "would load or download",
    }
    for wrong, reason in cases.items():
        with pytest.raises(mr.InputError, match=reason):
            load_delivered(NetworkRequest(wrong, NAMES, file if wrong != "monai:DenseNet" else None))


def test_what_a_network_downloads_by_default_is_not_fetched(net, monkeypatch):
    from monai.networks.nets import efficientnet

    fetched: list[object] = []
    monkeypatch.setattr(efficientnet, "_load_state_dict", lambda *arguments: fetched.append(arguments))
    monai_nets._made(efficientnet.EfficientNetBN, {"model_name": "efficientnet-b0", "num_classes": 2}, "EfficientNetBN")
    assert fetched == []


def test_a_bundle_states_its_network_size_and_classes(net, tmp_path):
    definition = {"_target_": "DenseNet", **SMALL, "in_channels": "@channels", "act": ["relu", {"inplace": True}]}
    source = bundle(tmp_path, net, definition, channels=1)
    data = {
        "inputs": {"image": {"spatial_shape": [32, 32]}},
        "outputs": {"pred": {"channel_def": dict(enumerate(NAMES))}},
    }
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps({"network_data_format": data}))
    clf = mr.Classifier.delivered(source)
    assert (clf.classes, clf.size) == (NAMES, 32)
    assert torch.allclose(clf.logits(images()), net(images()), atol=1e-5)


def test_only_networks_and_layers_are_made(net, tmp_path):
    wrong = (
        ({"_target_": "os.system", "command": "id"}, "is not run"),
        ({"_target_": "monai.networks.nets.resnet.get_pretrained_resnet_medicalnet", "resnet_depth": 10}, "is not run"),
        ({"_target_": "monai.networks.utils.torch.load"}, "is not run"),
        ({"_target_": "torch.nn.modules.module.torch.hub.load"}, "is not run"),
        ({"_target_": "DenseNet", "act": {"_target_": "torch.nn.init.warnings.warn"}}, "is not run"),
        ({"_target_": "DenseNet", "in_channels": "$__import__('os').getpid()"}, "is code and is not run"),
        ({"_target_": "DenseNet", "in_channels": "@network_def"}, "go round"),
        ("$torch.load('x')", "defines no network"),
    )
    for definition, reason in wrong:
        with pytest.raises(mr.InputError, match=reason):
            load_delivered(NetworkRequest(bundle(tmp_path, net, definition), NAMES))
