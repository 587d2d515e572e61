"""Weights and saved models from elsewhere: names that training added, code that must not run, sizes that must not be
built."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import medrobust as mr
from medrobust import InputError, models
from medrobust.models import checkpoint, state_dicts
from tests.vendor_nets import traced

CARD = {"architecture": "small_cnn", "classes": ("normal", "pneumonia"), "channels": 1, "size": 28, "head": "softmax"}


def small(seed: int = 3) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return models.build("small_cnn", classes=2, channels=1)


def error(call, *args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- names of weights --------------------------------------------------------------------------------------

OTHERS = {
    "Lightning with a loss": lambda s: {
        "epoch": 3,
        "state_dict": {
            **{f"model.{k}": v for k, v in s.items()},
            "criterion.weight": torch.ones(2),
            "train_loss.pos_weight": torch.ones(1),
        },
    },
    "compiled inside DataParallel": lambda s: {f"module._orig_mod.{k}": v for k, v in s.items()},
    "DataParallel inside compiled": lambda s: {f"_orig_mod.module.{k}": v for k, v in s.items()},
    "wrappers of one's own": lambda s: {"model_state": {f"net.backbone.{k}": v for k, v in s.items()}},
    "DataParallel around a part": lambda s: {k.replace("features.", "features.module."): v for k, v in s.items()},
    "counters of a profiler": lambda s: {**s, "features.0.total_ops": torch.zeros(1), "total_params": torch.zeros(1)},
    "nothing but an average": lambda s: {
        "ema": {**{f"module.{k}": v for k, v in s.items()}, "n_averaged": torch.tensor(4)}
    },
    "timm": lambda s: {
        "arch": "resnet18",
        "args": argparse.Namespace(lr=0.1, model="resnet18"),
        "metric": np.float64(81.3),
        "state_dict": s,
        "state_dict_ema": {k: v + 1 if v.is_floating_point() else v for k, v in s.items()},
    },
}


@pytest.mark.parametrize("name", OTHERS)
def test_weights_as_training_scripts_save_them_are_found_and_what_was_changed_is_counted(tmp_path, name):
    state = dict(small().state_dict())
    file = tmp_path / "w.pth"
    torch.save(OTHERS[name](state), file)
    notes: list[str] = []
    loaded = models.build("small_cnn", classes=2, channels=1, pretrained=str(file), notes=notes).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    assert notes
    text = " ".join(notes)
    if name == "Lightning with a loss":
        assert "2 tensors of the training are dropped: criterion.weight, train_loss.pos_weight" in text
    if name == "timm":
        assert f"the running average under 'state_dict_ema' is not: to use that one, give {file}:state_dict_ema" in text
        averaged = models.build("small_cnn", classes=2, channels=1, pretrained=f"{file}:state_dict_ema").state_dict()
        assert torch.equal(averaged["classifier.weight"], state["classifier.weight"] + 1)
        text = error(models.build, "small_cnn", classes=2, channels=1, pretrained=f"{file}:ema")
        assert "has nothing under 'ema'; it holds 'arch', " in text
    if "average" in name:
        assert "a running average: there are no others" in text
    if name.startswith(("compiled", "DataParallel inside", "wrappers")):
        assert f"{len(state)} of {len(state)} weights are taken without" in text


def test_names_that_fit_as_they_are_stay_as_they_are(tmp_path):
    """A network whose own names begin like a wrapper's."""
    wanted = {"model.0.weight": torch.zeros(2), "loss.weight": torch.zeros(3)}
    found, notes = state_dicts.fitted({k: v + 1 for k, v in wanted.items()}, wanted, "w.pth")
    assert list(found) == list(wanted)
    assert not notes
    twice = {f"module.{k}": v for k, v in wanted.items()}
    assert list(state_dicts.fitted(twice, wanted, "w.pth")[0]) == list(wanted)


def test_weights_of_another_network_are_not_dropped_silently(tmp_path):
    state: dict[str, Tensor] = {**small().state_dict(), "second_head.weight": torch.ones(2)}
    torch.save(state, tmp_path / "w.pth")
    text = error(models.build, "small_cnn", classes=2, channels=1, pretrained=str(tmp_path / "w.pth"))
    assert "1 unexpected (second_head.weight)" in text


def test_a_torchscript_file_is_called_that(tmp_path):
    traced().save(str(tmp_path / "vendor.pt"))
    text = error(models.build, "small_cnn", classes=2, channels=1, pretrained=str(tmp_path / "vendor.pt"))
    assert "is a TorchScript program" in text
    assert f"--model {tmp_path / 'vendor.pt'}" in text


def test_a_mask_of_minus_infinity_is_kept_and_other_infinities_are_damage(tmp_path, monkeypatch):
    (tmp_path / "my_masked_net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.head = nn.Linear(1, 2)\n"
        "        self.register_buffer('mask', torch.full((3, 3), -torch.inf).triu(1))\n"
        "    def forward(self, x):\n"
        "        return self.head(x.mean((2, 3))) + self.mask.softmax(1).sum()\n"
    )
    monkeypatch.chdir(tmp_path)
    net = models.build("my_masked_net:Net", classes=2, channels=1, size=28)
    checkpoint.write(tmp_path / "c", net, CARD | {"architecture": "my_masked_net:Net"})
    back, _ = checkpoint.read(tmp_path / "c", trust_code="my_masked_net:Net")
    assert torch.equal(back.mask, net.mask)
    net.mask[0, 0] = torch.inf
    assert "mask" in error(checkpoint.write, tmp_path / "d", net, CARD | {"architecture": "my_masked_net:Net"})


# -- code ----------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path) -> Path:
    checkpoint.write(tmp_path / "m", small(), CARD)
    return tmp_path / "m"


def edit(folder: Path, **changed) -> None:
    told = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(told | changed))


@pytest.mark.parametrize("name", ["vendor_code:make", "vendor_code:make+mlp8", "os:abort", "pytest:main"])
def test_code_that_a_saved_model_names_runs_only_where_the_user_trusts_it(saved, tmp_path, monkeypatch, name):
    (tmp_path / "vendor_code.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "vendor_code", raising=False)
    edit(saved, architecture=name)
    for trust in (False, "other:make"):
        text = error(mr.Classifier.load, saved, trust_code=trust)
        assert f"names the code {name.removesuffix('+mlp8')}" in text
        assert "--trust-code" in text
    assert not (tmp_path / "ran").exists()
    assert "vendor_code" not in sys.modules
    if name == "vendor_code:make":
        assert "has no function 'make'" in error(mr.Classifier.load, saved, trust_code=name)
        assert (tmp_path / "ran").exists()


def test_every_command_that_loads_a_model_folder_takes_trust_code():
    from medrobust import cli
    from medrobust.cli.options import expanded
    from medrobust.cli.study import run

    loading = [
        c
        for c in cli.COMMANDS
        if c.__name__ in ("audit", "attack", "detect", "evade", "explain", "universal", "certify", "defend", "search")
    ]
    assert len(loading) == 9
    assert all("trust_code" in inspect.signature(expanded(c)).parameters for c in [*loading, run])


# -- sizes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("small_cnn:depth=1000000", "MEDROBUST_MAX_MODULES"),
        ("small_cnn:width=1000000", "MEDROBUST_MAX_PARAMETERS"),
        ("small_cnn:width=99999999999999999999", "cannot be made"),
        ("cifar_resnet20:width=100000", "MEDROBUST_MAX_PARAMETERS"),
        ("vit_gigantic_patch14_224", "MEDROBUST_MAX_PARAMETERS"),
        ("vit_gigantic_patch14_224+mlp8", "MEDROBUST_MAX_PARAMETERS"),
    ],
)
def test_a_network_beyond_the_limits_is_refused_before_it_is_made(saved, name, said):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert said in error(models.build, name, classes=2, channels=1, size=None)
    edit(saved, architecture=name)
    assert said in error(mr.Classifier.load, saved)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB; the networks are above 2 GB


def test_modules_are_counted_while_they_are_made(monkeypatch):
    monkeypatch.setenv("MEDROBUST_MAX_MODULES", "60")
    assert "more modules than the limit of 60" in error(models.build, "small_cnn:depth=50", classes=2, channels=1)
    assert "more modules than the limit of 60" in error(models.build, "resnet34", classes=2, channels=1)
    models.build("small_cnn:depth=2", classes=2, channels=1)


def test_the_limits_can_be_raised_and_lowered(monkeypatch):
    monkeypatch.setenv("MEDROBUST_MAX_PARAMETERS", "1000")
    assert "more than the limit of 1,000" in error(models.build, "small_cnn", classes=2, channels=1)
    monkeypatch.setenv("MEDROBUST_MAX_PARAMETERS", "100000")
    models.build("small_cnn", classes=2, channels=1)


def test_counting_draws_nothing_from_the_generator():
    torch.manual_seed(0)
    one = models.build("resnet10t", classes=2, channels=1).state_dict()
    torch.manual_seed(0)
    import timm

    other = timm.create_model("resnet10t", num_classes=2, in_chans=1).state_dict()
    assert torch.equal(one["conv1.0.weight"], other["conv1.0.weight"])


# -- model.json ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"classes": []}, "classes"),
        ({"classes": ["a", "a"]}, "a name of its own"),
        ({"classes": ["a", " "]}, "a name of its own"),
        ({"classes": [f"c{i}" for i in range(20_000)]}, "limit of 10,000"),
        ({"classes": ["a"]}, "2 or more classes"),
        ({"size": -5}, "a side of -5 pixels"),
        ({"size": 10**9}, "MEDROBUST_MAX_IMAGE_PIXELS"),
        ({"head": "logit", "classes": ["a", "b", "c"]}, "exactly 2"),
        ({"mean": [0.1] * 7}, "mean has 7 values"),
        ({"threshold": 7}, "between 0 and 1"),
        ({"architecture": 5}, "architecture"),
        ({"channels": 2}, "channels"),
        ({"outputs": "odds"}, "outputs"),
    ],
)
def test_what_is_impossible_in_a_saved_model_is_one_line(saved, changed, said):
    edit(saved, **changed)
    assert said in error(mr.Classifier.load, saved)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested too deep"),
        ("{", "no readable JSON"),
        ("[]", "must hold a JSON object"),
        ("\xff", "JSON"),
    ],
    ids=["deep", "cut", "list", "bytes"],
)
def test_a_card_that_is_no_card_is_one_line(saved, text, said):
    (saved / "model.json").write_bytes(text.encode("latin-1"))
    assert said in error(mr.Classifier.load, saved)


def test_weights_of_an_impossible_shape_are_one_line(saved):
    import hashlib

    header = json.dumps({"w": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}).encode()
    content = len(header).to_bytes(8, "little") + header + b"\0" * 4
    (saved / "model.safetensors").write_bytes(content)
    edit(saved, sha256=hashlib.sha256(content).hexdigest())
    assert "no readable safetensors" in error(mr.Classifier.load, saved)
    (saved / "w.safetensors").write_bytes(content)
    assert "no readable safetensors" in error(
        models.build, "small_cnn", classes=2, channels=1, pretrained=str(saved / "w.safetensors")
    )
    save_file({"x": torch.zeros(2, 0)}, saved / "w.safetensors")
    assert "another architecture" in error(
        models.build, "small_cnn", classes=2, channels=1, pretrained=str(saved / "w.safetensors")
    )


# -- module:function ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("torchvision.models:ResNet", "needs the argument 'block'"),
        ("torchvision.models:resnet18x", "has no function"),
        ("torch.nn:Identity", "returns (2, 1, 28, 28)"),
        ("builtins:exit", "SystemExit"),
        ("math:pi", "has no function 'pi'"),
    ],
)
def test_a_name_of_code_that_gives_no_classifier_is_one_line(name, said):
    assert said in error(models.build, name, classes=2, channels=1, size=28)


def test_torchvision_s_functions_and_a_network_that_is_there_already_can_be_named(tmp_path, monkeypatch):
    net = models.build("torchvision.models:resnet18", classes=3, channels=1, size=32, run=False)
    assert net.fc.out_features == 3
    classifier = mr.Classifier(net, ("a", "b", "c"))
    assert classifier.logits(torch.rand(4, 1, 32, 32)).shape == (4, 3)
    assert classifier.channels == 3
    (tmp_path / "my_ready_net.py").write_text(
        "from torch import nn\nnet = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))\n"
        "make = lambda num_classes: net\n"
    )
    monkeypatch.chdir(tmp_path)
    ready = models.build("my_ready_net:net", classes=2, channels=1, size=28)
    assert models.build("my_ready_net:make", classes=2, channels=1, size=28) is ready
