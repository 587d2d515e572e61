"""A cell as a worker is handed it: plain JSON, so that any executor can send it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Required, TypedDict


class DataFields(TypedDict):
    """A ``grid.Data`` without ``get``."""

    name: str
    spec: str
    size: int | None
    channels: int | None
    label: str
    findings: tuple[str, ...] | None
    separator: str | None
    patient: str | None
    fit: str | None
    classes: Sequence[str]
    each: int | None
    seed: int


class SystemTicket(TypedDict):
    """The system under test and the experiments of a command. config: of an AuditSpec; digests: of model and data."""

    kind: str
    config: Mapping[str, object]
    options: Mapping[str, Any]
    device: str | None
    digests: Sequence[str]


class Spec(TypedDict, total=False):
    """What the key of a cell is made of: its task and code, its arguments, digests of images, keys of needed cells."""

    task: Required[str]
    code: str | None
    args: Mapping[str, object]
    data: str | None
    also: Mapping[str, str | None]
    needs: Mapping[str, str]
    attacks: Mapping[str, str]
    digest: str
    network: str | None
    step: str
    system: str


class Ticket(TypedDict, total=False):
    """What one cell is computed from. models: by the name of a need, the code that may run to build that network.

    run, root, folder: of the run, of --data, and of the study file. system: of a step of a command.
    """

    task: Required[str]
    key: Required[str]
    spec: Required[Spec]
    args: Required[Mapping[str, Any]]
    data: Required[DataFields | None]
    needs: Required[Mapping[str, str]]
    models: Required[Mapping[str, bool | str]]
    run: Required[str]
    root: Required[str]
    folder: Required[str | None]
    also: Mapping[str, DataFields | None]
    keep_names: bool
    system: SystemTicket
