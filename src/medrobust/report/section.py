"""The sections of a page, in one list: from it come contents, page and LaTeX.

A section is two files: NAME.py with ANCHOR, TITLE, ORDER and ``build(findings) -> Content | None``, and NAME.html
beside it, which is rendered with the content's values. It is found in ``medrobust.report.sections``, or as an entry
point of the group ``medrobust.sections`` that names its module. NEEDS names the experiments that it shows: where one of
them is pending, the section says that it is still to come. COMMANDS names the commands on whose pages it stands, or
EVERY_COMMAND; the audit's alone where it has none. FOLDED = True: it is closed on the screen until it is opened, and
left out of print while it is closed. One with LAST is built after all others, by ``build(findings, shown)``; shown:
titles of the sections that have content, by anchor.

A module of several sections, such as the parts of a study, or of none where there is nothing to show: its ``build``
returns a list of contents with an anchor and a title each, and it needs neither ANCHOR nor TITLE.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import import_module, metadata
from importlib.resources import files
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from medrobust.report import words
from medrobust.report.tables import Table

if TYPE_CHECKING:
    from jinja2 import Environment, Template

PACKAGE, GROUP = "medrobust.report.sections", "medrobust.sections"
EVERY_COMMAND = "every command"
"""Of those that test one classifier."""
ATTACK_COMMANDS = ("audit", "universal", "defend", "harden", "input-defences", "detect", "evade", "certify")
"""Those that attack one classifier, or defend it."""


@dataclass(frozen=True)
class Content:
    """values: of its template, escaped there. tables: all that it shows, for LaTeX. figures: name to SVG.

    anchor, title, folded: where they are not those of the module.
    """

    values: Mapping[str, Any]
    tables: list[Table] = field(default_factory=list)
    figures: Mapping[str, str] = field(default_factory=dict)
    anchor: str = ""
    title: str = ""
    folded: bool | None = None


class Subject(Protocol):
    """What a page is about. pages: values of COMMANDS that its sections have. pending: experiments still to come."""

    @property
    def pages(self) -> Set[str]: ...

    @property
    def pending(self) -> Set[str]: ...


@dataclass(frozen=True)
class Built:
    """A section of one run. content: None where the run did not measure it."""

    module: ModuleType
    content: Content | None
    pending: bool

    @property
    def anchor(self) -> str:
        return (self.content and self.content.anchor) or str(self.module.ANCHOR)

    @property
    def title(self) -> str:
        return (self.content and self.content.title) or str(self.module.TITLE)

    @property
    def folded(self) -> bool:
        if self.content is not None and self.content.folded is not None:
            return self.content.folded
        return bool(getattr(self.module, "FOLDED", False))

    @property
    def tables(self) -> list[Table]:
        return [] if self.content is None else self.content.tables

    def html(self, values: Mapping[str, Any]) -> str:
        """What stands below its heading. values: what all sections see."""
        package, _, name = self.module.__name__.rpartition(".")
        text = (files(package) / f"{name}.html").read_text(encoding="utf-8")
        content = self.content or Content({})
        values = {**values, "content": None, **content.values, "figures": content.figures, "pending": self.pending}
        return rendered(text, values).lstrip("\n")


def modules(package: str = PACKAGE) -> list[ModuleType]:
    """The modules of all sections, by their ORDER."""
    path = import_module(package).__path__
    imported = [import_module(f"{package}.{m.name}") for m in pkgutil.iter_modules(path)]
    imported += [entry.load() for entry in metadata.entry_points(group=GROUP)]
    return sorted(imported, key=lambda m: (m.ORDER, m.__name__))


def built(f: Subject, package: str = PACKAGE) -> list[Built]:
    """Every section of a page, in order."""
    chosen = [m for m in modules(package) if f.pages & set(getattr(m, "COMMANDS", ("audit",)))]
    sections: list[Built] = []
    for module in sorted(chosen, key=lambda m: getattr(m, "LAST", False)):
        more = ({s.anchor: s.title for s in sections if s.content is not None},) if hasattr(module, "LAST") else ()
        content, pending = module.build(f, *more), bool(f.pending & set(getattr(module, "NEEDS", ())))
        contents = content if isinstance(content, list) else [content]
        sections += [Built(module, c, pending) for c in contents]
    return sorted(sections, key=lambda s: chosen.index(s.module))


def rendered(text: str, values: Mapping[str, Any]) -> str:
    """A template with these values; the macros that all templates share see the same values."""
    macros = (files("medrobust.report") / "macros.html").read_text(encoding="utf-8")
    return _compiled(text).render({**values, **vars(_compiled(macros).make_module(dict(values)))})


@lru_cache(maxsize=64)
def _compiled(text: str) -> Template:
    """Once a process: a run writes its report several times, and compiling takes longer than rendering."""
    return environment().from_string(text)


def _unbroken(text: str) -> str:
    """No line break inside an option such as --prevalence."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"--[a-z][a-z-]*", r'<span class="option">\g<0></span>', str(escape(text))))


@cache
def environment() -> Environment:
    """Of all templates: what comes from data is escaped, an unknown name is an error."""
    from jinja2 import Environment, StrictUndefined

    jinja = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    jinja.filters |= {"count": words.count, "whole": words.whole, "unbroken": _unbroken}
    return jinja
