"""Where the images lie in the last features: t-SNE, and how far its groups are apart in numbers."""

from __future__ import annotations

from medrobust.report import explanation_tables as tables
from medrobust.report import explanation_words as words
from medrobust.report.explained import explained
from medrobust.report.findings import Findings
from medrobust.report.section import Content

ANCHOR, TITLE, ORDER, NEEDS = "embedding", "Where the images lie", 60, ("explanation",)
COMMANDS = ("explain",)


def build(f: Findings) -> Content | None:
    classifiers = explained(f.run)
    table = tables.embedding(classifiers)
    if table is None:
        return None
    figures = [
        (e.name, e.picture, words.embedded(e.name, e.info.n, e.info.reached, e.size)) for e in classifiers if e.picture
    ]
    return Content({"content": table, "pictures": figures}, [table])
