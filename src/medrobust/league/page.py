"""The page of a league table: one HTML file with everything in it; a plain table where scripts are off."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from medrobust import atomic, own_files
from medrobust.league import rules
from medrobust.league.table import Accuracy, Entry, ImageSet, League
from medrobust.report import section
from medrobust.versions import versions

SIGN = b"<title>medrobust league table</title>"
"""By which a page of ours is known: no other file is overwritten."""


def write(path: Path, league: League) -> None:
    """Write the page. InputError where another file is there."""
    own_files.check_sign(path, SIGN, "page of a league table")
    atomic.write_text(path, html(league))


def html(league: League) -> str:
    """The whole page. Same table, same bytes."""
    room, report = files("medrobust.league"), files("medrobust.report")
    sets = {s.name: s for s in league.sets}
    sizes = sorted({size for s in league.sets for size in rules.sizes(s.px)})
    ordered = league.ordered()
    columns = [("Images", "text"), ("Architecture", "text"), ("Training", "text"), ("No attack", "number")]
    columns += [(_grey(size), "number") for size in sizes]
    columns += [("n", "number"), ("Seed", "number"), ("Model", "text"), ("Notes", "text")]
    chosen = [(0, "Images", list(sets))]
    for column, title, field in ((1, "Architecture", "architecture"), (2, "Training", "training")):
        chosen.append((column, title, sorted({getattr(e, field) for e in ordered})))
    content = json.dumps(league.model_dump(mode="json"), sort_keys=True)
    values = {
        "css": (report / "page.css").read_text(encoding="utf-8"),
        "script": (room / "page.js").read_text(encoding="utf-8"),
        "sets": [_set(s) for s in league.sets],
        "entries": [_row(e, sets[e.image_set], sizes) for e in ordered],
        "guesses": sum(bool(e.inconclusive) for e in ordered),
        "columns": columns,
        "filters": chosen,
        "settings": ", ".join(f"{value} {name}" for name, value in rules.SETTINGS.items()),
        "images": rules.IMAGES,
        "reference": "the third size",
        "version": versions()["medrobust"],
        "digest": hashlib.sha256(content.encode()).hexdigest(),
    }
    text = (room / "page.html").read_text(encoding="utf-8")
    return "<!DOCTYPE html>\n" + section.rendered(text, {**values, "doubts": [], "pending": False}).lstrip()


def _grey(size: float) -> str:
    return f"{255 * size:.3g}/255"


def _set(s: ImageSet) -> dict[str, Any]:
    sizes = ", ".join(f"{255 * size:.3g}" for size in rules.sizes(s.px))
    return {**s.model_dump(), "attacked": s.attacked, "sizes": sizes}


def _row(e: Entry, image_set: ImageSet, sizes: list[float]) -> dict[str, Any]:
    return {
        **e.model_dump(exclude={"accuracy", "versions", "seed"}),
        "accuracies": [_cell(e.at(size)) for size in (0.0, *sizes)],
        "inconclusive": e.inconclusive,
        "n": image_set.attacked,
        "seed": "–" if e.seed is None else e.seed,
        "note": "1" if e.inconclusive else "0",
        "images": image_set.digest,
        "versions": ", ".join(f"{name} {version}" for name, version in e.versions.items()),
    }


def _cell(a: Accuracy | None) -> dict[str, Any]:
    if a is None:
        return {"value": None}
    interval = f"{100 * a.low:.0f} to {100 * a.high:.0f}"
    return {"value": f"{100 * a.value:.1f}", "interval": interval, "sort": a.value, "doubt": bool(a.inconclusive)}
