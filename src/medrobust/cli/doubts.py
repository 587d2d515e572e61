"""What commands say before any number: outputs that may be swapped, gradients that mislead, classes assumed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from medrobust.cli.text import say

if TYPE_CHECKING:
    from medrobust.results import Check

MARK = " (inconclusive)"


def warn(checks: Iterable[Check], class_notes: Iterable[str] = ()) -> None:
    """Print the doubts that limit every number, that about swapped outputs first."""
    checks = list(checks)
    warn_of_order(checks)
    for check in checks:
        warn_of_gradient(check)
    say_classes(class_notes)


def warn_of_order(checks: Iterable[Check]) -> None:
    """The first line that a person reads where the outputs are probably swapped."""
    from medrobust.experiments.output_order import NAME, question

    for check in checks:
        if check.name == NAME and (sentence := question(check)):
            say(sentence)


def warn_of_gradient(check: Check) -> None:
    """One line where the gradient is not known to be that of the network; nothing where it is."""
    from medrobust.results import GRADIENT

    if check.attack != GRADIENT:
        return
    if check.passed is False:
        say(
            f"INCONCLUSIVE: failed: “{check.name}”. What attacks that follow gradients leave is no sign of strength "
            f"({check.detail})"
        )
    elif check.passed is None:
        say(f"inconclusive: {check.name}: {check.detail}")


def say_classes(notes: Iterable[str]) -> None:
    """What was assumed, mapped or is missing among the classes, a line each."""
    for note in notes:
        say(f"classes: {note}")
