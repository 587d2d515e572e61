"""Attacks and defences in the terms of NIST AI 100-2, MITRE ATLAS and the FDA's draft: one versioned table.

``crosswalk.yaml`` beside this file holds it. An attack of another package has no row; the report then says so.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

FILE = "crosswalk.yaml"
NOT_LISTED = "not in the crosswalk"
NOTHING = "–"


class TablePart(BaseModel):
    """A part of a table in YAML: an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Framework(TablePart):
    """basis: what is taken from it, and how it was read."""

    title: str
    basis: str


class NamedKind(TablePart):
    """A kind of attack, tested or not. nist, atlas: identifiers; fda: the risk of the draft guidance."""

    title: str
    nist: tuple[str, ...]
    atlas: tuple[str, ...] = ()
    fda: str

    @property
    def identifiers(self) -> tuple[str, ...]:
        return (*self.nist, *self.atlas)


class ThreatKind(NamedKind):
    """One kind of attack or defence.

    command: what measures it. needs_network: gradients or features, which scores and decisions do not give.
    """

    role: Literal["attack", "control", "nature"]
    goal: str
    knowledge: str
    access: str
    capability: str
    command: str
    needs_network: bool = False

    @property
    def attacker(self) -> str:
        """ "black box: scores of any image, by query": what the attacker knows and has."""
        return ": ".join(text for text in (self.knowledge, self.access) if text != NOTHING) or NOTHING


class Member(TablePart):
    """One attack or defence. threat: its kind; black_box: its kind by what a classifier without gradients gives."""

    title: str
    threat: str
    black_box: Mapping[Literal["scores", "labels"], str] = {}


Members = Mapping[str, Member]


class Crosswalk(TablePart):
    """version: grows with every change. Members by name, as the tables of the package have them."""

    version: int
    date: datetime.date
    frameworks: Mapping[str, Framework]
    threats: Mapping[str, ThreatKind]
    attacks: Members
    universal: Members
    evasions: Members
    detectors: Members
    defences: Members
    hardening: Members
    input_defences: Members
    proofs: Members
    images: Members
    not_tested: tuple[NamedKind, ...]
    """What this package has no test for."""

    def members(self) -> Iterator[Member]:
        """All attacks and defences."""
        attacks = (self.attacks, self.universal, self.evasions, self.detectors)
        every = (*attacks, self.defences, self.hardening, self.input_defences, self.proofs, self.images)
        for table in every:
            yield from table.values()


def member(members: Members, name: str, title: str = "") -> Member | None:
    """The row of that name, else the first of that title: of "pgd:steps=100", whose title is that of "pgd".

    None where there is none.
    """
    return members.get(name) or next((m for m in members.values() if m.title == title), None)


def missing(members: Members, names: Collection[str]) -> str:
    """A line that says which names have no row and where to add it, or which rows name nothing; empty where neither."""
    lacking = [name for name in names if name not in members]
    if lacking:
        return f"{FILE} has no row for {', '.join(lacking)}: add a line for each to src/medrobust/{FILE}"
    unknown = [name for name in members if name not in names]
    return f"{FILE} has a row for {', '.join(unknown)}, which does not exist: remove it" if unknown else ""


@cache
def crosswalk() -> Crosswalk:
    """The table of this version of the package."""
    text = (files("medrobust") / FILE).read_text(encoding="utf-8")
    return Crosswalk.model_validate(yaml.safe_load(text))
