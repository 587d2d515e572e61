"""The command line: parse, call, print. The only room that prints or exits; one module a command.

Exit codes: 0 done; 2 the input was wrong (one line: what, where, and the fix); 3 an acceptance criterion fails; 4
none fails and one cannot be judged; 5 a run is not as it was left (``verify``); 130 stopped by Ctrl-C; 1 our fault.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Annotated, Any, NoReturn

import typer

from medrobust import __version__
from medrobust.cli import config_file
from medrobust.cli.attack import attack
from medrobust.cli.audit import audit
from medrobust.cli.certify import certify
from medrobust.cli.compare import compare
from medrobust.cli.defend import defend
from medrobust.cli.detect import detect
from medrobust.cli.doctor import doctor
from medrobust.cli.evade import evade
from medrobust.cli.explain import explain
from medrobust.cli.harden import harden
from medrobust.cli.init import init
from medrobust.cli.input_defences import input_defences
from medrobust.cli.league import league
from medrobust.cli.names import names
from medrobust.cli.options import expanded
from medrobust.cli.report import report
from medrobust.cli.search import search
from medrobust.cli.study import study
from medrobust.cli.text import complain, survive_any_terminal
from medrobust.cli.train import train
from medrobust.cli.universal import universal
from medrobust.cli.verify import verify
from medrobust.errors import CellWarning, InputError

# typer carries its own copy of click or imports it, by version: its base for wrong usage is found through its own name
WrongUsage: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    name="medrobust",
    help="How easily is a medical image classifier fooled, and what can be done about it?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # coloured help would cost half of the start-up
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False) -> None:
    if version:
        typer.echo(f"medrobust {__version__}")
        raise typer.Exit


COMMANDS = (
    audit,
    train,
    attack,
    detect,
    evade,
    explain,
    universal,
    certify,
    defend,
    harden,
    input_defences,
    search,
    compare,
    report,
    verify,
    init,
    names,
    doctor,
)
"""Every command is a function in a module of its own; this is where it is added."""

for command in COMMANDS:
    app.command()(expanded(command))
app.add_typer(study, name="study")
app.add_typer(league, name="league")


@contextlib.contextmanager
def counting_damaged_cells() -> Iterator[None]:
    """Print at the end how many finished cells were edited or damaged and had to be computed again."""
    damaged: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", CellWarning)
        show = warnings.showwarning

        def collect(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, CellWarning):
                damaged.add(str(message))
            else:
                show(message, category, *where, **more)

        warnings.showwarning = collect
        try:
            yield
        finally:
            if damaged:
                cells = "1 finished cell was" if len(damaged) == 1 else f"{len(damaged)} finished cells were"
                complain(f"{cells} edited or damaged and not used, but computed again: {min(damaged)}")


def main() -> NoReturn:
    """Run the command line and exit with the code that says what happened."""
    survive_any_terminal(sys.stdout, sys.stderr)
    # Pillow's words on odd metadata: a file whose pixels cannot be read is counted and named without them
    warnings.filterwarnings("ignore", module=r"PIL\.")
    with counting_damaged_cells():
        _main()


def _arguments() -> list[str]:
    """What was typed, with the options of a YAML file in the place of its name."""
    typed = sys.argv[1:]
    if len(typed) > 1 and typed[1].lower().endswith(config_file.SUFFIXES):
        return config_file.expanded(typed, typer.main.get_command(app))
    return typed


def _main() -> NoReturn:
    code = 0
    try:
        code = app(_arguments(), standalone_mode=False) or 0
        if code == STOPPED:  # newer typer turns Ctrl-C into this code
            raise KeyboardInterrupt
    except typer.Exit as error:
        code = error.exit_code
    except WrongUsage as error:
        complain(f"{error.format_message()}; see medrobust --help")
        code = 2
    except InputError as error:
        complain(str(error))
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        print(file=sys.stderr)
        complain("stopped; what is finished is kept, the same command goes on from there")
        sys.exit(STOPPED)
    except MemoryError as error:
        complain(f"memory ran out ({error}); use fewer images (--limit), smaller ones (--size) or a smaller model")
        sys.exit(2)
    except OSError as error:
        # a disk that fills up or goes away in the middle is nobody's bug
        complain(f"{error.strerror or error}: {error.filename or 'no file named'}")
        sys.exit(2)
    sys.exit(code)
