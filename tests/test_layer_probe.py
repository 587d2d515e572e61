"""Layers by what they carry: tokens, channels-last maps, windows in the batch and attention, on networks of timm."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import medrobust as mr
from medrobust import explain, layer_probe
from medrobust.detectors import DETECTORS, Features

from .vendor_nets import CLASSES, Around, one_by_one, reference

SIDE = 32
SWIN = {"img_size": SIDE, "patch_size": 2, "embed_dim": 8, "depths": (2, 1), "num_heads": (2, 2), "window_size": 4}
VIT = {"img_size": SIDE, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}
CONVNEXT = {"depths": (1, 1, 1, 1), "dims": (4, 8, 8, 16)}
NETWORKS = {
    "swin": ("swin_tiny_patch4_window7_224", SWIN),
    "vit": ("vit_tiny_patch16_224", VIT),
    "convnext": ("convnext_tiny", CONVNEXT),
    "mobilenet": ("mobilenetv3_small_050", {}),
    "densenet": ("densenet121", {"growth_rate": 4, "block_config": (1, 1, 1, 1)}),
}


def made(kind: str, **options: object) -> mr.Classifier:
    name, own = NETWORKS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = timm.create_model(name, num_classes=2, **own, **options)
        for parameter in net.parameters():  # biases and scales that start at 0 would hide a layer
            if parameter.ndim == 1:
                nn.init.normal_(parameter, 1.0, 0.1)
    return mr.Classifier(net.eval(), ("a", "b"), outputs="logits", channels=3, batch_size=4)  # some lie within [0, 1]


@pytest.fixture(scope="module", params=NETWORKS)
def case(request):
    clf = made(request.param)
    images = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    names = [n for n, _ in clf.net.named_modules() if n]
    found = {n: layout for n, layout in layer_probe.probe(clf, images.shape, names).items() if not layout.fault}
    return clf, images, found


def outputs(clf: mr.Classifier, images: torch.Tensor) -> dict[str, torch.Tensor]:
    kept: dict[str, torch.Tensor] = {}
    clf(images)  # a network seen for the first time is run twice
    hooks = [
        m.register_forward_hook(lambda _, __, out, n=n: kept.__setitem__(n, out.clone()))
        for n, m in clf.net.named_modules()
        if n
    ]
    with torch.no_grad():
        clf(images)
    for hook in hooks:
        hook.remove()
    return kept


def test_the_features_of_an_image_are_those_of_the_image_alone(case):
    clf, images, found = case
    features = Features(clf, tuple(found))
    together = features(images)
    for i in range(3):
        for name, values in features(images[i : i + 1]).items():
            torch.testing.assert_close(values[0], together[name][i], rtol=1e-4, atol=1e-5, msg=name)


def test_a_layer_is_pooled_over_positions_to_its_channels(case):
    """Of a linear layer, LayerNorm or convolution the number of channels is known, whatever its output's shape."""
    clf, images, found = case
    modules, table = dict(clf.net.named_modules()), Features(clf, tuple(found))(images)
    checked = 0
    for name in found:
        module = modules[name]
        if isinstance(module, nn.Linear | nn.Conv2d):
            wanted = module.out_features if isinstance(module, nn.Linear) else module.out_channels
        elif type(module) is nn.LayerNorm:
            wanted = module.normalized_shape[0]
        else:
            continue
        assert table[name].shape == (3, wanted), (name, found[name])
        checked += 1
    assert checked > 5


def test_maps_measures_and_a_detector_need_no_layer_to_be_named(case):
    clf, images, _ = case
    labels = clf.predict(images)
    maps = explain.grad_cam(clf, images, labels)
    assert maps.shape == (3, SIDE, SIDE)
    assert bool(torch.isfinite(maps).all())
    assert bool(maps.flatten(1).any(1).any())
    measured = explain.measure(clf, images, labels, ids=range(3))
    empty = {name for name, values in measured.items() if not torch.isfinite(values).all()}
    assert empty <= {"curvature"}  # torch has no second derivative of MobileNetV3's activation
    many = torch.rand(24, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    features = Features(clf, ("penultimate",))
    detector = DETECTORS["mahalanobis"]().fit(features, features(many), None, seed=0)
    assert bool(torch.isfinite(detector.score_features(features(images))).all())


def test_layers_of_swin_vit_and_convnext_by_hand():
    for kind, name, mean in (
        ("swin", "layers.1.blocks.0.norm1", lambda v: v.mean((1, 2))),
        ("swin", "layers.0.blocks.1.attn.proj", lambda v: v.view(3, 16, 16, 8).mean((1, 2))),
        ("swin", "layers.0.blocks.1.norm2", lambda v: v.mean(1)),
        ("vit", "blocks.0.norm1", lambda v: v[:, 1:].mean(1)),
        ("vit", "patch_embed.proj", lambda v: v.mean((2, 3))),
        ("convnext", "stages.0.blocks.0.mlp.fc1", lambda v: v.mean((1, 2))),
    ):
        clf = made(kind)
        images = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
        wanted = mean(outputs(clf, images)[name])
        torch.testing.assert_close(Features(clf, (name,))(images)[name], wanted, rtol=1e-4, atol=1e-5, msg=name)


def test_attention_weights_are_left_out_in_one_line():
    for kind, name in (("swin", "layers.0.blocks.0.attn.softmax"), ("vit", "blocks.0.attn.attn_drop")):
        clf = made(kind)
        images = torch.rand(2, 3, SIDE, SIDE)
        for module in clf.net.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False
        with pytest.raises(mr.InputError, match="holds attention from positions to positions"):
            Features(clf, (name,))(images)
        with pytest.raises(mr.InputError, match="holds attention"):
            explain.grad_cam(clf, images, layer=name)
        assert name not in [layer.name for layer in explain.spatial_layers(clf, images.shape)]


def test_windows_have_no_map():
    with pytest.raises(mr.InputError, match="gives no map"):
        explain.grad_cam(made("swin"), torch.rand(2, 3, SIDE, SIDE), layer="layers.0.blocks.0.attn.proj")


# -- a patch that alone decides ------------------------------------------------------------------------------


@torch.no_grad()
def reads_brightness(kind: str) -> mr.Classifier:
    """Channel 0 of every position is its brightness; blocks add nothing, the logits read channel 0."""
    net = made(kind).net
    for name, parameter in net.named_parameters():
        if parameter.ndim == 1:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        else:
            parameter.zero_()
    net.patch_embed.proj.weight[0] = 1.0
    if kind == "swin":
        net.layers[1].downsample.reduction.weight[0, [0, 8, 16, 24]] = 1.0
        head = net.head.fc
    else:  # the class token sees the patches by the attention of the last block, the same of all
        last = net.blocks[-1].attn
        last.qkv.weight[32:] = torch.eye(16)
        last.proj.weight.copy_(torch.eye(16))
        head = net.head
    head.weight[1, 0], head.weight[0, 0] = 1.0, -1.0
    return mr.Classifier(net, ("dark", "bright"), channels=3)


@pytest.mark.parametrize("kind", ["swin", "vit"])
@pytest.mark.parametrize(("row", "column"), [(4, 24), (20, 8)])
def test_grad_cam_peaks_at_the_patch_that_decides(kind, row, column):
    clf = reads_brightness(kind)
    images = torch.zeros(2, 3, SIDE, SIDE)
    images[1, :, row : row + 4, column : column + 4] = 1.0
    maps = explain.grad_cam(clf, images, torch.tensor([1, 1]))
    assert not maps[0].any()
    place = divmod(int(maps[1].argmax()), SIDE)
    assert row <= place[0] < row + 4
    assert column <= place[1] < column + 4


class Folded(nn.Module):
    """Layers of every form that carries an image, and a decision that each of them reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Conv2d(1, 5, 1, bias=False)
        self.last, self.tokens, self.other, self.rows, self.mean = (nn.Identity() for _ in range(5))
        self.say = nn.Linear(5, 2)
        with torch.no_grad():
            self.see.weight.copy_(torch.tensor([1.0, -1.0, 0.5, 2.0, 0.1]).view(5, 1, 1, 1))
            self.say.weight.copy_(torch.tensor([[-1.0, 0, 0, 0, 0], [1.0, 0, 0, 0, 0]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.see(x)
        x = self.last(x.permute(0, 2, 3, 1))  # n h w c
        x = self.tokens(x.flatten(1, 2))  # n t c
        x = self.other(x.mT)  # n c t
        x = self.rows(x.permute(2, 0, 1))  # t n c, as of nn.MultiheadAttention
        return self.say(x.mean(0)) + 0 * self.mean(x.mean(1)).sum()


@pytest.mark.parametrize(("height", "width"), [(8, 8), (6, 12)])
def test_a_map_is_the_same_whatever_its_axes(height, width):
    clf = mr.Classifier(Folded(), ("dark", "bright"), channels=1)
    images = torch.rand(2, 1, height, width, generator=torch.Generator().manual_seed(3))
    wanted = explain.grad_cam(clf, images, torch.tensor([1, 1]), layer="see")
    torch.testing.assert_close(wanted / wanted.amax((1, 2), True), images[:, 0] / images[:, 0].amax((1, 2), True))
    table = Features(clf, ("see", "last", "tokens", "other", "rows"))(images)
    for name in ("last", "tokens", "other", "rows"):
        torch.testing.assert_close(explain.grad_cam(clf, images, torch.tensor([1, 1]), layer=name), wanted)
        torch.testing.assert_close(table[name], table["see"])
        torch.testing.assert_close(explain.layer_maps(clf, images, name), explain.layer_maps(clf, images, "see"))
    with pytest.raises(mr.InputError, match="holds nothing of one image"):
        Features(clf, ("mean",))(images)


def test_a_network_that_takes_one_image_at_a_time_has_the_layers_of_any_other():
    images = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    plain = mr.Classifier(reference(), CLASSES)
    alone = mr.Classifier(Around(before=one_by_one).eval(), CLASSES)
    mine = Features(plain, ("conv", "norm", "penultimate"))(images)
    theirs = Features(alone, ("inner.conv", "inner.norm", "penultimate"))(images)
    assert alone.form.single
    for a, b in zip(mine.values(), theirs.values(), strict=True):
        torch.testing.assert_close(a, b)
    assert explain.last_spatial(alone, images.shape) == "inner." + explain.last_spatial(plain, images.shape)
    torch.testing.assert_close(explain.grad_cam(plain, images), explain.grad_cam(alone, images))
