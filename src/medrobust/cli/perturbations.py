"""Options that `universal` and `defend` have in common: the goal and the size of a perturbation."""

from __future__ import annotations

from typing import Annotated

import typer

from medrobust.cli.text import eps_fields
from medrobust.errors import InputError

Target = Annotated[
    str | None,
    typer.Option(
        help="Class to which all images are to go, by name; of findings hide:NAME or invent:NAME; none: any other."
    ),
]
Norm = Annotated[str, typer.Option(help="l2 or linf.")]
Zeta = Annotated[
    float | None, typer.Option(help="Size as a share of the training images' mean norm; 0.04 where no --eps is given.")
]
Eps = Annotated[
    str | None,
    typer.Option(help="Size: a fraction of what is shown (linf), a length (l2), or stored levels: 8/255, 4lv."),
]


def one_size(text: str | None) -> tuple[float | None, str]:
    """The one size that --eps gives, and its unit: fraction, lv or hu."""
    given = eps_fields(text)
    unit = str(given.get("eps_unit", "fraction"))
    sizes = given.get("eps")
    if sizes is not None and (not isinstance(sizes, tuple) or len(sizes) != 1):
        raise InputError(f"--eps wants one size above 0 such as 8/255 or 4lv, got {text}")
    return (None if sizes is None else float(sizes[0])), unit
