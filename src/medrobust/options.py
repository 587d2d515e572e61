"""``name`` or ``name:key=value:…``, as the command line and saved specs write what has settings."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from medrobust.errors import InputError


def parse(
    text: str, table: Mapping[str, Callable[..., Any]], kind: str, *, hidden: Collection[str] = ()
) -> tuple[str, dict[str, Any]]:
    """The name, a key of ``table``, and the values of its options, each of the type of that option's default.

    kind: what errors call it. hidden: arguments that no text may set. InputError for everything unknown or malformed.
    """
    name, *pairs = text.split(":")
    if name not in table:
        raise InputError(f"{kind} {name!r} is not known; choose from {', '.join(table)}")
    takes = {k: p for k, p in inspect.signature(table[name]).parameters.items() if k not in hidden}
    values: dict[str, Any] = {}
    for pair in pairs:
        option, equals, value = pair.partition("=")
        if not equals or option not in takes:
            raise InputError(f"{kind} {name!r} takes {', '.join(takes) or 'no options'}, got {pair!r}")
        if option in values:
            raise InputError(f"{kind} {name!r}: {option} is given twice")
        values[option] = _value(f"{kind} {name!r}: {option}", value, takes[option].default)
    return name, values


def text(name: str, values: Mapping[str, Any]) -> str:
    """What ``parse`` reads as this name and these values."""
    return ":".join([name, *(f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in values.items())])


def _value(whose: str, text: str, default: object) -> Any:
    """``text`` as what the option's default is."""
    if isinstance(default, bool):
        if text not in ("true", "false"):
            raise InputError(f"{whose} must be true or false, got {text!r}")
        return text == "true"
    if isinstance(default, str):
        return text
    try:
        number = int(text) if isinstance(default, int) else float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{whose} must be a {'whole number' if isinstance(default, int) else 'number'}, got {text!r}")
    return number
