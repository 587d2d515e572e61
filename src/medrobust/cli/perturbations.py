"""What `universal` and `defend` have in common: options, the method, the goal and the ball of a perturbation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from medrobust.cli.text import eps_list
from medrobust.errors import InputError

if TYPE_CHECKING:
    from medrobust.images import Lazy
    from medrobust.threat import Ball, Goal
    from medrobust.universal import UniversalMethod

Target = Annotated[str | None, typer.Option(help="Class to which all images are to go, by name; none: any other.")]
Norm = Annotated[str, typer.Option(help="l2 or linf.")]
Zeta = Annotated[
    float | None, typer.Option(help="Size as a share of the training images' mean norm; 0.04 where no --eps is given.")
]
Eps = Annotated[str | None, typer.Option(help="Size as a fraction of the pixel range (linf) or a length (l2): 8/255.")]


def method_named(text: str) -> UniversalMethod:
    """``name`` or ``name:key=value:…`` to a method for universal perturbations."""
    from medrobust import options
    from medrobust.universal import UNIVERSAL

    name, values = options.parse(text, UNIVERSAL, "method")
    return UNIVERSAL[name](**values)


def goal_named(target: str | None, classes: tuple[str, ...]) -> Goal:
    """Nontargeted, or towards the class of that name or number."""
    from medrobust.threat import Targeted, Untargeted

    if target is None:
        return Untargeted()
    if target in classes:
        return Targeted(classes.index(target))
    if target.isdecimal() and len(target) < 10 and int(target) < len(classes):
        return Targeted(int(target))
    raise InputError(f"--target {target!r} is not a class; the data has {', '.join(classes)}")


def check_size(norm: str, zeta: float | None, eps: str | None) -> None:
    """Says what is wrong with a size before anything is loaded."""
    from medrobust.threat import BALLS

    if norm not in BALLS:
        raise InputError(f"--norm must be {' or '.join(BALLS)}, got {norm!r}")
    if zeta is not None and eps is not None:
        raise InputError("--zeta is relative to the images, --eps absolute: give one of the two")
    if zeta is not None and not 0 < zeta < 10:
        raise InputError(f"--zeta is a share such as 0.04, got {zeta:g}")
    absolute = eps_list(eps)
    if absolute is not None:
        if len(absolute) != 1 or not absolute[0] > 0:
            raise InputError(f"--eps wants one size above 0 such as 8/255, got {eps}")
        BALLS[norm](absolute[0])


def ball_of(norm: str, zeta: float | None, eps: str | None, images: Lazy) -> Ball:
    """The ball of that absolute size, or of that size relative to ``images``."""
    from medrobust.threat import BALLS

    absolute = eps_list(eps)
    if absolute is not None:
        return BALLS[norm](absolute[0])
    return BALLS[norm].relative(0.04 if zeta is None else zeta, images)


def size_told(ball: Ball, zeta: float | None, eps: str | None) -> str:
    """The size, for people."""
    length = float(ball.eps)
    told = f"{length * 255:.3g}/255 a pixel" if ball.name == "linf" else f"L2 norm {length:.3g}"
    return told if eps is not None else f"{told} = {0.04 if zeta is None else zeta:.3g} x the images' mean norm"
