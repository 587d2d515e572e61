"""Folders of Hugging Face: network, image processor and names of the classes."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

import medrobust as mr
from medrobust.models import NetworkRequest, is_delivered, load_delivered
from medrobust.models.delivered import hf

NAMES = ("normal", "pneumonia", "other")
PROCESSOR = {
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.2, 0.25, 0.3],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small ViT, as ``save_pretrained`` writes it."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
        id2label=dict(enumerate(NAMES)),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = transformers.ViTForImageClassification(config)
    place = tmp_path_factory.mktemp("hf") / "vit"
    net.save_pretrained(place)
    (place / "preprocessor_config.json").write_text(
        json.dumps({**PROCESSOR, "image_processor_type": "ViTImageProcessor"})
    )
    return place


def test_logits_are_those_of_its_own_processor_and_network(folder):
    transformers = pytest.importorskip("transformers")
    files = np.random.default_rng(0).integers(0, 256, (5, 40, 48, 3)).astype(np.uint8)
    processor = transformers.ViTImageProcessorPil.from_pretrained(folder, local_files_only=True)
    own = transformers.ViTForImageClassification.from_pretrained(folder, local_files_only=True).eval()
    with torch.no_grad():
        wanted = own(**processor([Image.fromarray(f) for f in files], return_tensors="pt")).logits
    clf = mr.Classifier.delivered(str(folder))
    images = torch.from_numpy(files).permute(0, 3, 1, 2).float() / 255
    assert clf.classes == NAMES
    assert torch.allclose(clf.logits(images), wanted, atol=1e-4)
    assert clf.preprocessing.text == hf.preprocessing(str(folder)) == "resize=32x32:bicubic"
    x = images.requires_grad_()
    assert float(torch.autograd.grad(clf(x).sum(), x)[0].abs().max()) > 0
    with pytest.raises(mr.InputError, match="states its classes"):
        mr.Classifier.delivered(str(folder), ("a", "b", "c"))


PROCESSORS = (
    ({}, None, None),
    ({"do_resize": False, "image_mean": [0.5], "image_std": [0.5]}, None, ((0.5,), (0.5,))),
    ({"size": 224, "do_normalize": False}, "resize=224x224:bilinear", ((0.0,), (1.0,))),
    (
        {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224}, "do_normalize": False},
        "resize=256:bilinear,crop=224",
        ((0.0,), (1.0,)),
    ),
    (
        {"size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3, "do_rescale": False, "do_normalize": False},
        "resize=256:bicubic,crop=224",
        ((0.0,), (1 / 255,)),
    ),
)


@pytest.mark.parametrize(("settings", "steps", "normalised"), PROCESSORS)
def test_processors_become_steps_and_a_normalisation(tmp_path, settings, steps, normalised):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    assert hf.preprocessing(str(tmp_path)) == steps
    assert hf._normalisation(tmp_path) == (normalised or (None, None))


def test_what_would_run_code_or_is_not_whole_is_refused(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "net.Net"}}))
    assert is_delivered(str(tmp_path))
    with pytest.raises(mr.InputError, match="code of its own"):
        load_delivered(NetworkRequest(str(tmp_path), ()))
    for name, value in (
        ("attn_implementation", "someone/kernel"),
        ("architecture", "hf-hub:someone/net"),
        ("quantization_config", {"quant_method": "other"}),
        ("vision_config", {"attn_implementation": {"": "someone/kernel"}}),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, name: value}))
        with pytest.raises(mr.InputError, match="fetched from elsewhere"):
            load_delivered(NetworkRequest(str(tmp_path), ()))
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(mr.InputError, match=r"no model\.safetensors"):
        load_delivered(NetworkRequest(str(tmp_path), ()))
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in state.items() if "classifier" not in k}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(mr.InputError, match="lacks weights of its classifier"):
        load_delivered(NetworkRequest(str(tmp_path), ()))


def test_several_findings_are_known_by_the_problem_type(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "problem_type": "multi_label_classification"}))
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    assert mr.Classifier.delivered(str(tmp_path)).head.name == "multilabel"
