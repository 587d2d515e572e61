"""Options of a command in a YAML file: ``medrobust init`` writes one with comments, ``medrobust audit FILE`` runs it.

A file holds option names without dashes. It is turned into the options that it stands for, so that it is checked as
they are; what is typed after the file takes precedence.
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from medrobust import limits
from medrobust.errors import InputError

SUFFIXES = (".yaml", ".yml")
COMMAND = "command"
"""The entry of a file that names the command it is for."""
NOT_WRITTEN = ("help", "json", "list", "quiet")
"""Options that belong on the command line."""


class Option(NamedTuple):
    """An option of a command. typed: "--train"; negative: "--no-train", or "" where there is none."""

    typed: str
    negative: str
    is_flag: bool
    help: str
    default: Any
    repeated: bool
    """Whether it may be given several times: a list in the file."""


def options_of(context: Any) -> dict[str, dict[str, Option]]:
    """By command and by name: of the command line to which a click context belongs. Groups of commands are left out."""
    commands = context.find_root().command.commands
    return {name: command_options(command) for name, command in commands.items() if not hasattr(command, "commands")}


def command_options(command: Any) -> dict[str, Option]:
    """The options of a click command, by name."""
    options = {}
    for parameter in command.params:
        if parameter.param_type_name != "option":
            continue
        typed = max(parameter.opts, key=len)
        negative = max(parameter.secondary_opts, key=len, default="")
        is_flag, repeated = bool(parameter.is_flag), bool(parameter.multiple)
        option = Option(typed, negative, is_flag, parameter.help or "", parameter.default, repeated)
        options[typed.removeprefix("--")] = option
    return options


def expanded(arguments: Sequence[str], group: Any) -> list[str]:
    """``audit FILE.yaml --seed 1`` to ``audit --data=… --seed 1``; other arguments as they are. group: of click."""
    if len(arguments) < 2 or Path(arguments[1]).suffix.lower() not in SUFFIXES or arguments[0] == "init":
        return list(arguments)
    command, path = arguments[0], Path(arguments[1])
    if command not in group.commands or hasattr(group.commands[command], "commands"):
        return list(arguments)
    entries = _read(path)
    named = entries.pop(COMMAND, command)
    if named != command:
        raise InputError(f"{path} is for medrobust {named}, not {command}")
    options, words = command_options(group.commands[command]), [command]
    for name, value in entries.items():
        words += _words(path, str(name).replace("_", "-"), value, options)
    return [*words, *arguments[2:]]


def _read(path: Path) -> dict[str, object]:
    import yaml

    try:
        limits.check(limits.JSON_BYTES, path.stat().st_size, str(path))
        entries = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path} is no readable YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(entries, dict):
        raise InputError(f"{path} must hold options, a line each (data: csv:labels.csv); medrobust init writes one")
    return entries


def _words(path: Path, name: str, value: object, options: Mapping[str, Option]) -> list[str]:
    if name not in options or name in NOT_WRITTEN:
        near = difflib.get_close_matches(name, options, 1)
        raise InputError(f"{path}: no option {name!r}{f'; did you mean {near[0]}?' if near else ''}")
    option = options[name]
    if option.repeated and value == []:
        # criteria without any would read as a gate and pass everything
        raise InputError(f"{path}: {name} has no entry; write one, or leave the line out")
    if value is None:
        return []
    if option.is_flag != isinstance(value, bool):
        wanted = "is true or false" if option.is_flag else "takes a value; text such as yes and no needs quotes"
        raise InputError(f"{path}: {name} {wanted}, got {value!r}")
    if option.is_flag:
        return [word for word in (option.typed if value else option.negative,) if word]
    if option.repeated:
        return [f"{option.typed}={each}" for each in (value if isinstance(value, list) else [value])]
    if isinstance(value, Mapping):
        value = [f"{k}={v}" for k, v in value.items()]
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return [f"{option.typed}={text}"]


def template(command: str, options: Mapping[str, Option]) -> str:
    """The file that ``medrobust init`` writes: every option with its help and its default, as comments."""
    lines = [
        f"# medrobust {command} FILE.yaml runs this; options that are typed after the file take precedence.",
        "# Paths are relative to the folder in which the command is given. Remove the # of a line to set its option.",
        "",
        f"{COMMAND}: {command}",
    ]
    for name, option in options.items():
        if name not in NOT_WRITTEN:
            text = textwrap.wrap(" ".join(option.help.split()), 110)
            lines += ["", *(f"# {line}" for line in text), f"# {name}: {_value(option.default)}".rstrip()]
    return "\n".join(lines) + "\n"


def _value(default: object) -> str:
    if default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    text = str(default)
    return f'"{text}"' if any(c in text for c in ":#/") else text
