"""Prevalence: shares of studies that have a disease or a finding where a classifier is used, as a reader states them.

Only counts in 1,000 studies depend on them; nothing is computed with them before the report.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from medrobust.errors import InputError

HELP = (
    "Share of studies with the disease (0.03 or 3%), or NAME=SHARE a class or finding; the test images' own if absent."
)


def read(text: str) -> float | dict[str, float]:
    """``0.03`` or ``3 %`` of the disease class, or ``pneumonia=0.03,effusion=5 %``. InputError where it is neither."""
    if "=" not in text:
        return _share(text)
    parts = [part.rpartition("=") for part in text.split(",")]
    shares = {name.strip(): _share(value) for name, _, value in parts}
    if len(shares) < len(parts):
        raise InputError(f"--prevalence {text!r} names a class twice; give each class or finding once")
    return shares


def _share(text: str) -> float:
    number, percent, rest = text.strip().partition("%")
    try:
        share = float(number) / (100 if percent else 1)
    except ValueError:
        share = math.nan
    if rest.strip() or not 0 < share < 1:
        raise InputError(f"--prevalence wants a share between 0 and 1, such as 0.03 or 3%, got {text.strip()!r}")
    return share


def placed(
    shares: float | Mapping[str, float], classes: Sequence[str], disease: Sequence[str], *, several: bool
) -> dict[str, float]:
    """The shares by name of class or finding. One number is that of the only disease class, or of the only finding.

    several: the names are findings, of which an image may have several: their shares need not add up. InputError where
    a name is not known, where one number leaves open which class is meant, and where classes add up to no whole.
    """
    if not isinstance(shares, Mapping):
        names = classes if several else disease
        if len(names) != 1:
            what = f"{', '.join(names[:8])} are {len(names)}" if names else "no class is known to stand for disease"
            raise InputError(
                f"--prevalence {shares:g} is of one disease, and {what}; give NAME=SHARE, or --healthy NAMES"
            )
        shares = {names[0]: shares}
    for name, share in shares.items():
        if not 0 < share < 1:
            raise InputError(f"--prevalence of {name} must be a share between 0 and 1, got {share:g}")
        if name not in classes:
            raise InputError(f"--prevalence: there is no class or finding {name!r}; there are {', '.join(classes[:8])}")
    whole, every = math.fsum(shares.values()), len(shares) == len(classes)
    if not several and (whole > 1 + 1e-9 or (every and whole < 1 - 1e-9)):
        wanted = "exactly 1 of all classes" if every else "at most 1"
        raise InputError(f"--prevalence: the shares of classes add up to {whole:g}; they must add up to {wanted}")
    return dict(shares)


def completed(shares: Mapping[str, float], observed: Mapping[str, float], *, several: bool) -> dict[str, float]:
    """``shares``, and those of further names in ``observed``, the shares among the test images: of findings as they
    are; of classes, which exclude each other, what is left of 1, divided as among the test images."""
    others = {name: share for name, share in observed.items() if name not in shares}
    left, whole = 1 - math.fsum(shares.values()), math.fsum(others.values())
    scale = 1.0 if several or not shares or whole == 0 else max(left, 0.0) / whole
    return {**{name: share * scale for name, share in others.items()}, **shares}
