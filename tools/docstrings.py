"""A griffe extension for the reference: lines ``name: text`` of a docstring become a list."""

from __future__ import annotations

import re
from typing import Any

import griffe

NAME = re.compile(r"^(?P<names>[a-z_]\w*(?:, [a-z_]\w*)*): (?=\S)")


def as_markdown(docstring: str) -> str:
    """The docstring with its parameters as a Markdown list; continuation lines are indented already."""
    lines: list[str] = []
    for line in docstring.splitlines():
        item = NAME.sub(r"- **\g<names>**: ", line)
        if item != line and lines and lines[-1] and not lines[-1].startswith(("- ", "    ")):
            lines.append("")
        lines.append(item)
    return "\n".join(lines)


class Parameters(griffe.Extension):
    """Applied to every object that has a docstring."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)
