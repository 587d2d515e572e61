"""A trained network on disk: model.safetensors and model.json, written so that a kill leaves no half of it.

There is no pickle anywhere. model.json names the architecture and the weights' sha256, and is written last:
where it stands, the checkpoint is whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from pydantic_core import PydanticSerializationError
from torch import Tensor, nn

import medrobust.models.mlp_head as mlp_head
from medrobust import atomic, json_files, limits, own_files
from medrobust.errors import InputError
from medrobust.models.architectures import SMALLEST, build
from medrobust.models.memory_layout import channels_last, is_channels_last
from medrobust.models.own_network import check_trust
from medrobust.models.pretrained import check_finite, difference, file_sha256

WEIGHTS, CARD = "model.safetensors", "model.json"
KIND = "model"
"""The kind that the metadata of WEIGHTS states."""


class Card(BaseModel):
    """The content of model.json; an unknown field is dropped, a missing one or one of the wrong type is an error."""

    model_config = ConfigDict(strict=False, extra="ignore", allow_inf_nan=False)

    format: Literal[1] = 1
    architecture: str
    classes: tuple[str, ...]
    channels: Literal[1, 3]
    size: int | None = None
    preprocessing: str | None = None
    head: Literal["softmax", "logit", "multilabel"] = "softmax"
    outputs: Literal["logits", "probabilities"] | None = None
    output: str | int | None = None
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    threshold: float | tuple[float, ...] | None = None
    channels_last: bool = False
    """How the weights lie in memory: other kernels run, and the last bits of a logit differ."""
    provenance: Mapping[str, Any] = {}
    sha256: str = ""

    @field_validator("classes")
    @classmethod
    def _names(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        limits.check(limits.CLASSES, len(classes), CARD)
        if len(set(classes)) != len(classes) or not all(c.strip() for c in classes):
            raise ValueError("every class needs a name of its own")
        return classes

    @field_validator("size")
    @classmethod
    def _side(cls, size: int | None) -> int | None:
        if size is not None:
            if size < SMALLEST:
                raise ValueError(f"a side of {size} pixels")
            limits.check(limits.IMAGE_PIXELS, size * size, f"{CARD}: an input of {size} x {size} pixels")
        return size


def write(directory: str | Path, net: nn.Module, info: Mapping[str, Any]) -> None:
    """Write ``net`` and what is needed to build and use it again.

    info: architecture (a name that ``build`` takes), classes, channels, size, head, mean, std, threshold,
    provenance (plain JSON). InputError where something is missing, not writable, or a file there is none of ours.
    """
    from safetensors.torch import save

    if not info.get("architecture"):
        raise InputError(
            "a network given as a live torch module cannot be saved, nothing says how to build it again: "
            "make it by name, as module:function, or save its state_dict yourself"
        )
    if info.get("provenance", {}).get("delivered"):
        raise InputError(f"{info['architecture']} is a model of others: it is used where it is, not saved again")
    state = _plain(net.state_dict())
    check_finite(state, "this network", net)
    directory = Path(directory)
    card = _card({**info, "channels_last": is_channels_last(net)}, "what is known of this network")
    try:
        card.model_dump_json()
    except PydanticSerializationError as error:
        raise InputError(f"the provenance of a checkpoint must be plain JSON: {error}") from error
    own_files.check_safetensors(directory / WEIGHTS, KIND)
    own_files.check_json(directory / CARD, lambda earlier: {"format", "architecture", "sha256"} <= earlier.keys(), KIND)
    with atomic.disk_errors(directory):
        (directory / CARD).unlink(missing_ok=True)  # so that a kill from here on reads as incomplete
    content = save(state, own_files.metadata(KIND))
    atomic.write_bytes(directory / WEIGHTS, content)
    card = card.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    atomic.write_text(directory / CARD, card.model_dump_json(indent=1) + "\n")


def read(directory: str | Path, *, trust_code: bool | str = False) -> tuple[nn.Module, dict[str, Any]]:
    """The network on the CPU in eval mode, and what ``write`` was told of it.

    trust_code: whether an architecture ``module:function`` may be imported and called: True, or that very name.
    InputError where files are missing, were changed, do not fit each other, hold weights that are not finite or ask
    for a network beyond the limits, and for code that is not trusted.
    """
    directory = Path(directory)
    for name in (CARD, WEIGHTS):
        if not (directory / name).is_file():
            raise InputError(f"no checkpoint in {directory}: {name} is missing; was its writing interrupted?")
    card = check_trusted(directory, trust_code)
    weights = directory / WEIGHTS
    if file_sha256(weights) != card.sha256:
        raise InputError(f"{weights} is not the file that {CARD} describes (sha256 differs): restore both together")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(weights)
    except SafetensorError as error:
        raise InputError(f"{weights} is no readable safetensors file: {error}") from error
    with torch.random.fork_rng(devices=[]):  # the fresh weights are overwritten; leave the caller's generator alone
        net = build(
            card.architecture,
            classes=len(card.classes),
            channels=card.channels,
            size=card.size,
            head=card.head,
            run=False,
        )
    check_finite(state, str(weights), net)
    wrong = difference(state, net.state_dict())
    if wrong:
        raise InputError(f"{directory} is a checkpoint of another architecture than {card.architecture}: {wrong}")
    if card.channels_last:
        channels_last(net)
    net.load_state_dict(state)
    return net.eval(), card.model_dump()


def check_trusted(directory: Path, trust_code: bool | str) -> Card:
    """The content of model.json; InputError where it names code that is not trusted."""
    card = read_card(directory)
    check_trust(mlp_head.split_name(card.architecture)[0], trust_code, str(directory / CARD))
    return card


def read_card(directory: Path) -> Card:
    """The content of model.json; InputError where it cannot be used."""
    return _card(json_files.read_object(directory / CARD), str(directory / CARD))


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, and each tensor with memory of its own, as safetensors demands of tied weights."""
    plain: dict[str, Tensor] = {}
    storages: set[int] = set()
    for key, value in state.items():
        value = value.detach().cpu().contiguous()
        storage = value.untyped_storage()
        if storage.data_ptr() in storages or storage.nbytes() != value.nbytes:
            value = value.clone()
        storages.add(value.untyped_storage().data_ptr())
        plain[key] = value
    return plain


def _card(raw: Any, where: str) -> Card:
    try:
        return Card.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "it"
        raise InputError(f"{where}: {field}: {first['msg']}") from error
