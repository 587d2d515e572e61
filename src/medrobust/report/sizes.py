"""The size of a change in words: grey levels as files store them, and whether an eye could see it."""

from __future__ import annotations

import math

from medrobust.report import words
from medrobust.report.findings import Findings
from medrobust.report.words import NBSP


def levels(f: Findings, eps: float) -> float:
    """eps in stored grey levels a pixel: the most any pixel may change (Linf), or the root mean square (L2)."""
    unit = f.run.conditions.grey_scale.unit
    if f.run.conditions.norm == "Linf":
        return eps * unit
    pixels, channels = f.run.conditions.pixels, f.run.conditions.channels
    return eps * unit / math.sqrt(pixels * channels) if pixels and channels else math.nan


def out_of(f: Findings) -> str:
    """ "out of 4,095": the whitest grey level."""
    return f"out of {words.count(f.run.conditions.grey_scale.levels)}"


def size_words(f: Findings, eps: float) -> str:
    """ "0.3 grey levels out of 255"; for L2 the norm and what it is on average."""
    if f.run.conditions.norm == "Linf":
        return f"{words.grey_levels(levels(f, eps))} {out_of(f)}"
    mean = levels(f, eps)
    average = "" if math.isnan(mean) else f", on average {words.grey_levels(mean)} {out_of(f)} a pixel"
    return f"{f.run.conditions.norm} size {words.number(eps)}{average}"


def short_size(f: Findings, eps: float) -> str:
    if f.run.conditions.norm == "Linf":
        return words.grey_levels(levels(f, eps))
    return f"{f.run.conditions.norm}{NBSP}{words.number(eps)}"


def greys(f: Findings, eps: float) -> float:
    """``levels`` in 8-bit grey levels: what an eye sees."""
    scale = f.run.conditions.grey_scale
    return levels(f, eps) * scale.greys / scale.unit


def visibility(f: Findings, eps: float) -> str:
    """Whether an eye sees a change of that size."""
    grey = greys(f, eps)
    if math.isnan(grey):
        return "how visible that is depends on the image"
    if grey < 0.5 - 1e-6:
        return "invisible, and smaller than the rounding when an image is saved at 8 bits"
    if grey <= 0.5 + 1e-6:
        return "invisible, and no larger than the rounding when an image is saved at 8 bits"
    if grey <= 1:
        return "invisible to the eye"
    if grey <= 4:
        return "very hard to see"
    return "faint" if grey <= 8 else "large enough to be seen as grain or mottle"


def change(f: Findings, eps: float) -> str:
    if f.run.conditions.norm == "Linf":
        return f"A change of at most {size_words(f, eps)} in each pixel"
    return f"A change of {size_words(f, eps)}"
