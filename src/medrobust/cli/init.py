"""`medrobust init`: a commented file of a command's options, to be filled in and run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medrobust.cli.text import say
from medrobust.errors import InputError


def init(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="File to write; COMMAND.yaml if not given.")] = None,
    command: Annotated[str, typer.Option(help="The command that it is for.")] = "audit",
) -> None:
    """Write a YAML file with every option of a command, commented; medrobust audit FILE.yaml runs it."""
    from medrobust import atomic
    from medrobust.cli.config_file import SUFFIXES, options_of, template

    commands = options_of(context)
    if command not in commands:
        raise InputError(f"--command {command!r} is not known; choose from {', '.join(commands)}")
    path = file or Path(f"{command}.yaml")
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} must end in .yaml: that is how a command tells it from an option")
    if path.exists():
        raise InputError(f"{path} is there already; give another name")
    atomic.write_text(path, template(command, commands[command]))
    say(f"{path}\nrun it: medrobust {command} {path}")
