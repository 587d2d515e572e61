"""A network by its name: timm's, our small ones, or the user's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn.parameter import is_lazy

import medrobust.models.mlp_head as mlp_head
import medrobust.models.own_network as own_network
import medrobust.models.pretrained as pretrained
import medrobust.models.size as sizes
import medrobust.models.timm_network as timm_network
from medrobust import limits, options
from medrobust.errors import InputError, one_line
from medrobust.models.cifar_resnet import CifarResNet
from medrobust.models.handmade import HANDMADE, Handmade
from medrobust.models.small_cnn import SmallCNN

ALIASES: dict[str, str] = {
    # the seven of Hirano et al. 2021, as the paper writes them, to timm's names
    "Inception V3": "inception_v3",
    "VGG16": "vgg16",
    "VGG19": "vgg19",
    "ResNet-50": "resnet50",
    "Inception-ResNet V2": "inception_resnet_v2",
    "DenseNet-121": "densenet121",
    "DenseNet-169": "densenet169",
}

OWN: dict[str, Callable[..., nn.Module]] = {
    # each takes options of whole numbers in its name: small_cnn:width=32:depth=2
    "small_cnn": SmallCNN,
    "cifar_resnet20": partial(CifarResNet, 3),
    "cifar_resnet56": partial(CifarResNet, 9),
    **{kind: partial(Handmade, kind) for kind in HANDMADE},
}

SMALLEST = 8
"""Pixels a side of the smallest images that are classified."""
HEADS = ("softmax", "logit", "multilabel")


def build(
    name: str,
    *,
    classes: int,
    channels: int,
    size: int | None = None,
    pretrained: str | None = None,
    head: str = "softmax",
    run: bool = True,
    notes: list[str] | None = None,
) -> nn.Module:
    """A network that takes (n, channels, size, size) and returns logits (n, classes), or (n, 1) for head="logit".

    name: a timm architecture, one of OWN (with its options, ``small_cnn:width=32:depth=2``), a paper's name out of
        ALIASES, or the user's ``module:function``. With "+mlp8" behind it, its last linear layer is an MLP of 8
        hidden units.
    size: pixels a side; None leaves it to the architecture and skips the check that it is taken.
    pretrained: None, "hub" (timm downloads), or a file (.safetensors, or .pth/.th that loads with weights_only).
    run: try that two images of that size give (2, outputs); a network that is run on real images next needs no trial.
    notes: takes a sentence for whatever is renamed in or dropped from the weights.
    Fresh layers are drawn from torch's global generator. InputError for whatever does not fit.
    """
    _check(classes, channels, size, head)
    name, hidden = mlp_head.split_name(name)
    name = ALIASES.get(name, name)
    outputs = 1 if head == "logit" else classes
    net = _make(name, outputs, channels, size, hub=pretrained == "hub")
    if pretrained is not None and pretrained != "hub":
        loaded = _load(net, name, pretrained)
        if notes is not None:
            notes += loaded.notes
    if hidden is not None:
        mlp_head.put(net, hidden)
    lazy = any(is_lazy(p) for p in net.parameters())
    if size is not None and (run or lazy):  # layers of torch.nn.Lazy… get their weights when they first run
        _check_forward(net, name, outputs, channels, size)
    return net


def _make(name: str, outputs: int, channels: int, size: int | None, hub: bool) -> nn.Module:
    if own_network.is_own(name) or is_ours(name):
        if hub:
            raise InputError(f"the hub has no weights for {name}: give a file, pretrained=FILE.safetensors")
        if is_ours(name):
            return _ours(name, outputs, channels)
        with sizes.counted(name) as count:
            net = own_network.make(name, outputs=outputs, channels=channels, size=size)
        count.check()
        return net
    if timm_network.is_timm(name):
        make = partial(timm_network.make, name, outputs=outputs, channels=channels, size=size)
        sizes.check(name, partial(make, hub=False))
        net = make(hub=hub)
        if not (hub and timm_network.configuration(name).get("num_classes") == outputs):
            pretrained.draw_classifier(net, pretrained.classifier_keys(net, timm_network.classifier(name)))
        return net
    raise _unknown(name)


def _unknown(name: str) -> InputError:
    near = timm_network.nearest(name, [*OWN, *ALIASES])
    return InputError(
        f"no model {name!r}: "
        + (f"the nearest are {', '.join(near)}. " if near else "")
        + "Any timm architecture, small_cnn, or your own as module:function"
    )


def check_name(name: str, weights: str | None = None) -> None:
    """InputError where ``build`` would refuse the name, its options or the file of weights, without building anything.

    A network of one's own is not imported.
    """
    name, _ = mlp_head.split_name(name)
    name = ALIASES.get(name, name)
    if weights == "hub" and (own_network.is_own(name) or is_ours(name)):
        raise InputError(f"the hub has no weights for {name}: give a file, pretrained=FILE.safetensors")
    if weights is not None and weights != "hub":
        pretrained.Pretrained(weights)
    if is_ours(name):
        _our_options(name)
    elif not own_network.is_own(name):
        if not timm_network.is_timm(name):
            raise _unknown(name)
        timm_network.configuration(name)  # knows the tag after the name


def is_ours(name: str) -> bool:
    """Whether the name is one of OWN, with or without options."""
    return name.partition(":")[0] in OWN


def _our_options(name: str) -> tuple[str, dict[str, int]]:
    """("small_cnn", {"width": 32}) of "small_cnn:width=32"."""
    base, values = options.parse(name, OWN, "model", hidden=("outputs", "channels"))
    for option, value in values.items():
        if value < 1:
            raise InputError(f"model {base!r}: {option} must be 1 or more, got {value}")
        if option == "depth":  # layers, each of which is a module
            limits.check(limits.MODULES, value, f"model {name[:100]!r}")

    return base, values


def _ours(name: str, outputs: int, channels: int) -> nn.Module:
    base, values = _our_options(name)

    def make() -> nn.Module:
        return OWN[base](outputs=outputs, channels=channels, **values)

    sizes.check(name, make)
    try:
        return make()
    except (RuntimeError, OverflowError, TypeError) as error:  # a number beyond what torch can count to
        raise InputError(f"model {name[:100]!r} cannot be made: {one_line(error)}") from error


def _load(net: nn.Module, name: str, file: str) -> pretrained.Loaded:
    stated = () if is_ours(name) or own_network.is_own(name) else timm_network.classifier(name)
    return pretrained.Pretrained(file).into(net, name, stated)


def _check(classes: int, channels: int, size: int | None, head: str) -> None:
    if head not in HEADS:
        raise InputError(f"head must be one of {', '.join(HEADS)}, got {head!r}")
    least = 1 if head == "multilabel" else 2
    if classes < least or (head == "logit" and classes != 2):
        needed = "exactly 2" if head == "logit" else f"{least} or more"
        raise InputError(f"head {head!r} needs {needed} classes, got {classes}")
    limits.check(limits.CLASSES, classes, "the network")
    if channels not in (1, 3):
        raise InputError(f"channels must be 1 (grey) or 3 (colour), got {channels}")
    if size is not None and size < SMALLEST:
        raise InputError(f"images of {size} px are too small to classify; load the data with size=28 or more")


def _check_forward(net: nn.Module, name: str, outputs: int, channels: int, size: int) -> None:
    """InputError unless the network takes the size and returns (n, outputs)."""
    result = _try(net, channels, size)
    if isinstance(result, Exception):
        least = None if own_network.is_own(name) else _smallest(net, channels, size)
        reason = one_line(result)
        remedy = f"the smallest it takes is {least}, load the data with size={least}" if least else reason
        raise InputError(f"{name} does not take {channels} x {size} x {size} images: {remedy}") from result
    if result != (2, outputs):
        raise InputError(f"{name} returns {result} for 2 images, it must return logits (2, {outputs})")


def _try(net: nn.Module, channels: int, size: int) -> tuple[int, ...] | Exception:
    training = {module: module.training for module in net.modules()}
    net.eval()  # two empty images must not move BatchNorm's statistics
    try:
        with torch.no_grad():
            out = net(torch.zeros(2, channels, size, size))
        return tuple(out.shape) if isinstance(out, torch.Tensor) else (len(out),)
    except Exception as error:
        return error
    finally:
        for module, mode in training.items():
            module.training = mode


def _smallest(net: nn.Module, channels: int, size: int) -> int | None:
    """The smallest size above ``size`` that the network takes, up to 512 px; None where none was found."""
    low = size
    for high in (32, 48, 64, 96, 128, 192, 256, 384, 512):
        if high <= size:
            continue
        if not isinstance(_try(net, channels, high), Exception):
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if isinstance(_try(net, channels, middle), Exception) else (low, middle)
            return high
        low = high
    return None
