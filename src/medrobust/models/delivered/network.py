"""What is asked of a delivered network, and what its files say of it."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from torch import nn

from medrobust.errors import InputError


@dataclass(frozen=True)
class NetworkRequest:
    """source: FILE, FOLDER or NAME. weights: a file, where the source is the name of an architecture. classes: names of
    the outputs, () where none were given. channels, size: of the
    images. head: as in ``Classifier``.
    output: which entry of the network's output is used, by name or position."""

    source: str
    classes: tuple[str, ...]
    weights: str | None = None
    channels: int = 1
    size: int | None = None
    head: str = "softmax"
    output: str | int | None = None

    @property
    def outputs(self) -> int | None:
        """Raw outputs that are wanted; None where the source decides."""
        return None if not self.classes else 1 if self.head == "logit" else len(self.classes)


@dataclass(frozen=True)
class Delivered:
    """A network, and what its files state: None where they do not.

    mean, std: on the [0, 1] scale. size: pixels a side.
    preprocessing: as ``Classifier`` takes it. outputs: "logits" or "probabilities". chosen: the
    output that was asked for is already the only one. notes: a sentence each.
    """

    net: nn.Module
    classes: tuple[str, ...] | None = None
    head: str | None = None
    outputs: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channels: int | None = None
    size: int | None = None
    preprocessing: str | None = None
    chosen: bool = False
    notes: tuple[str, ...] = ()


def needed(extra: str, what: str, *modules: str) -> Sequence[ModuleType]:
    """The modules of an optional extra; InputError that says how to install it where one is missing."""
    try:
        return [importlib.import_module(name) for name in modules]
    except ImportError as error:
        missing = (error.name or modules[0]).partition(".")[0]
        raise InputError(f"{what} needs {missing}: pip install 'medrobust[{extra}]'") from error
