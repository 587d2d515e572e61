"""Networks by name, pretrained weights, checkpoints."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from medrobust import InputError, models
from medrobust.models import checkpoint, hub, own_network, timm_network

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
WEIGHTS = SHARED / "weights"
needs_data = pytest.mark.skipif(not WEIGHTS.is_dir(), reason="shared/data is not here")

SEVEN = ("Inception V3", "VGG16", "VGG19", "ResNet-50", "Inception-ResNet V2", "DenseNet-121", "DenseNet-169")
CARD = {"architecture": "small_cnn", "classes": ("normal", "pneumonia"), "channels": 1, "size": 28, "head": "softmax"}


def small(classes: int = 2, channels: int = 1, head: str = "softmax", seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return models.build("small_cnn", classes=classes, channels=channels, size=28, head=head)


def error(call, *args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    return text


# -- by name -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEVEN)
def test_the_papers_seven_build_for_grey_images_and_two_classes(name):
    with torch.device("meta"):  # shapes without weights: VGG19 alone would take half a gigabyte
        net = models.build(name, classes=2, channels=1)
        assert net.eval()(torch.empty(2, 1, 96, 96)).shape == (2, 2)


@pytest.mark.parametrize("name", ["small_cnn", "cifar_resnet20", "resnet18", "mobilenetv2_100"])
@pytest.mark.parametrize(("channels", "head", "outputs"), [(1, "softmax", 3), (3, "multilabel", 3), (1, "logit", 1)])
def test_outputs_follow_classes_and_head(name, channels, head, outputs):
    net = models.build(name, classes=2 if head == "logit" else 3, channels=channels, size=32, head=head)
    assert net(torch.rand(2, channels, 32, 32)).shape == (2, outputs)


def test_depth_of_the_cifar_resnets_is_their_name():
    for name, depth in (("cifar_resnet20", 20), ("cifar_resnet56", 56)):
        net = models.build(name, classes=10, channels=3)
        assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in net.modules()) == depth


def test_a_vision_transformer_is_built_for_the_images_size():
    with torch.device("meta"):
        net = timm_network.make("vit_tiny_patch16_224", outputs=2, channels=1, size=64, hub=False)
        assert net(torch.empty(1, 1, 64, 64)).shape == (1, 2)


def test_an_unknown_name_is_answered_with_the_nearest():
    assert "resnet18" in error(models.build, "resnet-18x", classes=2, channels=1)
    assert "small_cnn" in error(models.build, "smal_cnn", classes=2, channels=1)


def test_an_unknown_tag_is_answered_with_the_known():
    assert "resnet18.a1_in1k" in error(models.build, "resnet18.nonsense", classes=2, channels=1)


def test_too_small_images_are_answered_with_the_smallest_size():
    text = error(models.build, "densenet121", classes=2, channels=1, size=16)
    least = int(text.rpartition("size=")[2])
    assert models.build("densenet121", classes=2, channels=1, size=least) is not None
    with pytest.raises(InputError):
        models.build("densenet121", classes=2, channels=1, size=least - 1)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"channels": 2}, "channels must be 1"),
        ({"classes": 1}, "2 or more classes"),
        ({"classes": 3, "head": "logit"}, "exactly 2"),
        ({"head": "sigmoid"}, "softmax, logit, multilabel"),
        ({"size": 4}, "too small"),
        ({"pretrained": "hub"}, "no weights for small_cnn"),
        ({"pretrained": "nowhere.safetensors"}, "no weights file nowhere.safetensors"),
    ],
)
def test_what_can_not_be_built_is_refused(wrong, said):
    assert said in error(models.build, "small_cnn", **{"classes": 2, "channels": 1, "size": 28, **wrong})


def test_building_moves_no_batchnorm_statistics():
    net = small()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert int(module.num_batches_tracked) == 0
    assert net.training


def test_an_unreachable_hub_is_one_line(monkeypatch):
    import timm

    def fail(*args, **kwargs):
        raise FileNotFoundError("An error happened\nwhile trying to locate the file on the Hub")

    monkeypatch.setattr(hub, "answers", lambda: True)
    monkeypatch.setattr(timm, "create_model", fail)
    text = error(models.build, "resnet18", classes=2, channels=1, pretrained="hub")
    assert "could not be downloaded" in text
    assert "pretrained=FILE" in text


# -- the user's own network ----------------------------------------------------------------------------------

OWN = """
import torch
from torch import nn

def make(classes, channels, size=None):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))

def everything(**told):
    assert set(told) == {"classes", "channels", "size"}
    return make(**told)

def bare():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))

def needs(classes, depth):
    return bare()

def text():
    return "a network"

def breaks(classes):
    raise KeyError("weights")

def wide(channels):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 7))
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "my_own_net.py").write_text(OWN)
    (tmp_path / "my_broken_net.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("function", ["make", "everything", "bare"])
def test_an_own_network_gets_the_arguments_it_takes(here, function):
    net = models.build(f"my_own_net:{function}", classes=2, channels=1, size=28)
    assert net(torch.rand(3, 1, 28, 28)).shape == (3, 2)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my_own_net:needs", "needs the argument 'depth'"),
        ("my_own_net:text", "returned str"),
        ("my_own_net:breaks", "KeyError"),
        ("my_own_net:wide", "(2, 7)"),
        ("my_own_net:absent", "has no function 'absent'"),
        ("my_absent_net:make", "no module 'my_absent_net'"),
        ("my_broken_net:make", "a_module_that_is_not_there"),
        ("my_own_net:", "must read module:function"),
    ],
)
def test_an_own_network_that_does_not_work_is_one_line(here, name, said):
    assert said in error(models.build, name, classes=2, channels=1, size=28)


def test_importing_an_own_network_leaves_the_path_as_it_was(here):
    import sys

    before = list(sys.path)
    own_network.make("my_own_net:bare", outputs=2, channels=1, size=28)
    assert sys.path == before


# -- pretrained weights --------------------------------------------------------------------------------------


@needs_data
def test_published_cifar_weights_reach_their_accuracy():
    file = WEIGHTS / "cifar10_resnet20-12fca82f.th"
    net = models.build("cifar_resnet20", classes=10, channels=3, size=32, pretrained=str(file)).eval()
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in models.normalisation("cifar_resnet20", str(file)))
    with np.load(SHARED / "cifar10_test3000.npz") as data:
        images = torch.from_numpy(data["test_images"][:500]).permute(0, 3, 1, 2) / 255
        labels = torch.from_numpy(data["test_labels"][:500].ravel().astype(np.int64))
    with torch.no_grad():
        accuracy = float((net((images - mean) / std).argmax(1) == labels).double().mean())
    assert accuracy == pytest.approx(0.81, abs=0.03)


@needs_data
def test_only_the_classifier_layer_of_imagenet_weights_is_drawn_anew():
    file = WEIGHTS / "mobilenetv2_100_imagenet.safetensors"
    published = load_file(file)
    kept = models.build("mobilenetv2_100", classes=1000, channels=3, size=64, pretrained=str(file)).state_dict()
    assert all(torch.equal(kept[key], value) for key, value in published.items())
    tuned = models.build("mobilenetv2_100", classes=2, channels=1, size=64, pretrained=str(file)).state_dict()
    differing = {key for key, value in published.items() if not torch.equal(tuned[key], value)}
    assert differing == {"classifier.weight", "classifier.bias", "conv_stem.weight"}
    assert torch.equal(tuned["conv_stem.weight"], published["conv_stem.weight"].sum(1, keepdim=True))


def test_grey_weights_give_the_same_logits_on_repeated_channels(tmp_path):
    grey = small(channels=1).eval()
    save_file(grey.state_dict(), tmp_path / "grey.safetensors")
    colour = models.build(
        "small_cnn", classes=2, channels=3, size=28, pretrained=str(tmp_path / "grey.safetensors")
    ).eval()
    images = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(colour(images.repeat(1, 3, 1, 1)), grey(images))


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.model."])
def test_wrapped_and_prefixed_torch_files_load(tmp_path, wrapper, prefix):
    net = small(seed=3)
    state = {prefix + key: value for key, value in net.state_dict().items()}
    torch.save(state if wrapper is None else {wrapper: state, "epoch": 3}, tmp_path / "w.pth")
    loaded = models.build("small_cnn", classes=2, channels=1, size=28, pretrained=str(tmp_path / "w.pth"))
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), loaded.state_dict().values(), strict=True))


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    with (tmp_path / "plain.pth").open("wb") as opened:
        pickle.dump({"a": Evil()}, opened)
    torch.save({"state_dict": Evil()}, tmp_path / "zipped.pth")
    torch.save(small(), tmp_path / "whole.pth")
    for name in ("plain.pth", "zipped.pth", "whole.pth"):
        file = str(tmp_path / name)
        assert "refused" in error(models.build, "small_cnn", classes=2, channels=1, pretrained=file)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth", "empty.safetensors", "empty.pth"])
def test_a_damaged_file_is_one_line(tmp_path, name):
    file = tmp_path / name
    if name.endswith("pth"):
        torch.save(small().state_dict(), file)
    else:
        save_file(small().state_dict(), file)
    file.write_bytes(file.read_bytes()[: 0 if name.startswith("empty") else 3000])
    assert str(file) in error(models.build, "small_cnn", classes=2, channels=1, pretrained=str(file))


def test_weights_that_do_not_fit_are_refused_with_their_names(tmp_path):
    file = tmp_path / "w.safetensors"
    save_file(models.build("cifar_resnet20", classes=2, channels=1).state_dict(), file)
    text = error(models.build, "small_cnn", classes=2, channels=1, pretrained=str(file))
    assert "another architecture" in text
    assert "missing (features.0.0.weight" in text
    assert "unexpected (bn1.bias" in text
    state = small().state_dict()
    state["features.1.0.weight"] = torch.zeros(32, 16, 5, 5)
    save_file(state, file)
    text = error(models.build, "small_cnn", classes=2, channels=1, pretrained=str(file))
    assert "features.1.0.weight (32, 16, 5, 5) for (32, 16, 3, 3)" in text


def test_weights_that_are_not_finite_are_refused(tmp_path):
    state = small().state_dict()
    state["features.0.0.weight"][0, 0, 0, 0] = float("nan")
    save_file(state, tmp_path / "w.safetensors")
    file = str(tmp_path / "w.safetensors")
    assert "features.0.0.weight" in error(models.build, "small_cnn", classes=2, channels=1, pretrained=file)


def test_normalisation_is_the_files_own_else_timms(tmp_path):
    plain, told, wrong = (str(tmp_path / f"{name}.safetensors") for name in ("plain", "told", "wrong"))
    save_file({"w": torch.zeros(1)}, plain)
    save_file({"w": torch.zeros(1)}, told, {"mean": "[0.5, 0.5, 0.5]", "std": "0.25"})
    save_file({"w": torch.zeros(1)}, wrong, {"mean": "half", "std": "0.25"})
    assert models.normalisation("resnet18", None) is None
    assert models.normalisation("resnet18", plain) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert models.normalisation("Inception V3", "hub") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert models.normalisation("resnet18", told) == ((0.5, 0.5, 0.5), (0.25,))
    assert models.normalisation("small_cnn", plain) is None
    assert "'half'" in error(models.normalisation, "resnet18", wrong)


# -- checkpoints ---------------------------------------------------------------------------------------------


def written(folder: Path, **changed) -> nn.Module:
    net = small(seed=5)
    checkpoint.write(folder, net, CARD | {"mean": (0.4,), "std": (0.2,), "provenance": {"seed": 5}} | changed)
    return net.eval()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("name", "channels"), [("small_cnn", 1), ("mobilenetv2_100", 1), ("resnet18", 3)])
def test_a_checkpoint_gives_the_same_logits_to_the_bit(tmp_path, name, channels, layout):
    net = models.build(name, classes=2, channels=channels, size=32)
    if layout == torch.channels_last:
        net = models.channels_last(net)
    checkpoint.write(tmp_path, net, CARD | {"architecture": name, "channels": channels, "size": 32})
    state = torch.get_rng_state()
    back, info = checkpoint.read(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert not back.training
    assert info["classes"] == ("normal", "pneumonia")
    images = torch.rand(16, channels, 32, 32)
    with torch.no_grad():
        assert torch.equal(back(images), net.eval()(images))


def test_a_checkpoint_is_two_files_and_keeps_what_it_was_told(tmp_path):
    written(tmp_path, threshold=0.3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]
    _, info = checkpoint.read(tmp_path)
    kept = {key: info[key] for key in ("mean", "std", "threshold", "provenance", "size", "head")}
    assert kept == {
        "mean": (0.4,),
        "std": (0.2,),
        "threshold": 0.3,
        "provenance": {"seed": 5},
        "size": 28,
        "head": "softmax",
    }


def test_tied_weights_are_kept(tmp_path, monkeypatch):
    (tmp_path / "my_tied_net.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 4), nn.Linear(4, 4),"
        " nn.Linear(4, 2))\n"
        "    net[3].weight = net[2].weight\n"
        "    return net\n"
    )
    monkeypatch.chdir(tmp_path)
    net = models.build("my_tied_net:make", classes=2, channels=1, size=28)
    checkpoint.write(tmp_path / "c", net, CARD | {"architecture": "my_tied_net:make"})
    back, _ = checkpoint.read(tmp_path / "c", trust_code=True)
    assert back[3].weight is back[2].weight
    assert torch.equal(back[3].weight, net[3].weight)


def test_a_checkpoint_that_was_changed_is_refused(tmp_path):
    written(tmp_path)
    card = (tmp_path / "model.json").read_text()
    weights = (tmp_path / "model.safetensors").read_bytes()
    flipped = bytearray(weights)
    flipped[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(flipped)
    assert "sha256 differs" in error(checkpoint.read, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(weights)

    def told(**changed) -> str:
        (tmp_path / "model.json").write_text(json.dumps(json.loads(card) | changed))
        return error(checkpoint.read, tmp_path)

    assert "another architecture than cifar_resnet20" in told(architecture="cifar_resnet20")
    assert "another architecture" in told(classes=["a", "b", "c"])
    assert "another architecture" in told(channels=3)
    assert "channels" in told(channels=5)
    assert "no model 'small_cn'" in told(architecture="small_cn")
    assert "--trust-code" in told(architecture="os:abort")
    (tmp_path / "model.json").write_text(card[:40])
    assert "no readable JSON" in error(checkpoint.read, tmp_path)
    (tmp_path / "model.json").write_text(card)
    checkpoint.read(tmp_path)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_half_a_checkpoint_is_refused(tmp_path, name):
    written(tmp_path)
    (tmp_path / name).unlink()
    assert f"{name} is missing" in error(checkpoint.read, tmp_path)


def test_a_write_that_is_cut_short_leaves_no_checkpoint_that_reads(tmp_path, monkeypatch):
    written(tmp_path)

    def full(file, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    assert "No space left" in error(written, tmp_path)
    assert "model.json is missing" in error(checkpoint.read, tmp_path)


def test_what_can_not_be_kept_is_refused_before_anything_is_written(tmp_path):
    net = small()
    assert "module:function" in error(checkpoint.write, tmp_path / "c", net, CARD | {"architecture": None})
    assert "classes" in error(checkpoint.write, tmp_path / "c", net, {"architecture": "small_cnn", "channels": 1})
    assert "plain JSON" in error(checkpoint.write, tmp_path / "c", net, CARD | {"provenance": {"net": net}})
    with torch.no_grad():
        net.classifier.weight[0, 0] = float("inf")
    assert "classifier.weight" in error(checkpoint.write, tmp_path / "c", net, CARD)
    assert not (tmp_path / "c").exists()


def test_a_folder_that_can_not_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot write to" in error(checkpoint.write, tmp_path / "file" / "c", small(), CARD)


@needs_data
def test_a_fresh_classifier_starts_near_the_loss_of_not_knowing():
    file = WEIGHTS / "mobilenetv2_100_imagenet.safetensors"
    net = models.build("mobilenetv2_100", classes=2, channels=1, size=64, pretrained=str(file)).train()
    with torch.no_grad():
        loss = nn.functional.cross_entropy(net(torch.randn(16, 1, 64, 64)), torch.arange(16) % 2)
    assert float(loss) == pytest.approx(np.log(2), rel=0.5)


# -- options in the name -----------------------------------------------------------------------------------


def parameters(name: str) -> int:
    return sum(p.numel() for p in models.build(name, classes=2, channels=1, size=28).parameters())


def test_a_small_network_grows_with_its_options():
    assert parameters("small_cnn:width=16:depth=1") == parameters("small_cnn")
    sizes = [parameters(f"small_cnn:width={w}") for w in (2, 4, 8, 32)]
    assert sizes == sorted(sizes)
    net = models.build("small_cnn:width=4:depth=3", classes=2, channels=1)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [m.stride[0] for m in convolutions] == [2, 1, 1] * 3
    assert parameters("cifar_resnet20:width=8") < parameters("cifar_resnet20")


def test_a_checkpoint_keeps_the_options(tmp_path):
    net = models.build("small_cnn:width=4:depth=2", classes=2, channels=1, size=28)
    checkpoint.write(tmp_path, net, {**CARD, "architecture": "small_cnn:width=4:depth=2"})
    again, info = checkpoint.read(tmp_path)
    assert info["architecture"] == "small_cnn:width=4:depth=2"
    images = torch.rand(2, 1, 28, 28)
    assert torch.equal(net.eval()(images), again(images))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("small_cnn:w=4", "takes width, depth, got 'w=4'"),
        ("small_cnn:outputs=4", "takes width, depth"),
        ("small_cnn:width=wide", "width must be a whole number"),
        ("small_cnn:width=0", "width must be 1 or more"),
    ],
)
def test_a_wrong_option_is_answered_in_one_line(name, said):
    assert said in error(models.build, name, classes=2, channels=1)
