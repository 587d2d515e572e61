"""A paragraph of the first page."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Paragraph:
    title: str
    text: str
    warn: bool = False
