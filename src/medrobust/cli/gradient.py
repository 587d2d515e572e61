"""What commands say of the gradient that their attacks follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medrobust.cli.text import say

if TYPE_CHECKING:
    from medrobust.studies.checks import Check

MARK = " (inconclusive)"


def gradient_warning(check: Check | dict[str, Any]) -> None:
    """One line where the gradient is not known to be that of the network; nothing where it is."""
    told = check if isinstance(check, dict) else check.plain()
    if told["passed"] is False:
        say(
            f"INCONCLUSIVE: failed: “{told['name']}”. What attacks that follow gradients leave is no sign of strength "
            f"({told['detail']})"
        )
    elif told["passed"] is None:
        say(f"inconclusive: {told['name']}: {told['detail']}")
