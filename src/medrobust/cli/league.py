"""`medrobust league add|page`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medrobust.cli.options import expanded
from medrobust.cli.text import complain, say
from medrobust.errors import InputError, visible

if TYPE_CHECKING:
    from medrobust.league.table import League

league = typer.Typer(
    help="A table of classifiers under one attack, at fixed sizes on fixed images.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@league.command()
def add(
    run: Annotated[Path, typer.Argument(help="Run folder of an audit, or of a study such as studies/league.py.")],
    to: Annotated[Path, typer.Option(help="The table; made where it is not there.")] = Path("league.json"),
    set_: Annotated[
        str | None, typer.Option("--set", metavar="NAME", help="Of its images, where the table does not hold them.")
    ] = None,
    architecture: Annotated[str | None, typer.Option(help="Of a classifier that does not say it.")] = None,
    training: Annotated[
        str | None, typer.Option(help="Of a classifier that does not say it, in a few words: TRADES, 8/255.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="PUBLIC", help="Ed25519 public key (PEM or OpenSSH) whose signature the run must carry."),
    ] = None,
) -> None:
    """Check a run and add its classifiers to a league table; one that breaks a rule is refused.

    Files as the run left them, auto with its defaults at the sizes and on the images of the table, no decisive check
    failed, this version of medrobust. Exit code: 0 all are in the table, 2 one was refused (a line each).
    """
    from medrobust import signing
    from medrobust.league import adding, reading, table

    known = table.read(to) if to.exists() else table.League()
    public = None if key is None else signing.public_key(key)
    found = reading.read(run, public, reading.Stated(architecture, training, set_))
    added = adding.add(known, found, run)
    for entry in added.added:
        say(visible(f"added: {entry.name}" + (f"; inconclusive: {entry.inconclusive}" if entry.inconclusive else "")))
    for entry in added.there:
        say(visible(f"in the table already, with the same numbers: {entry.name}"))
    if added.added:
        table.write(to, added.league)
    for why in added.refused:
        complain(why)
    if added.league.entries:
        say(f"{to}: {_counted(added.league)}")
    if added.refused:
        raise typer.Exit(2)


@league.command()
def page(
    file: Annotated[Path, typer.Argument(metavar="LEAGUE.json", help="A league table.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.html", help="The page.")],
) -> None:
    """Check a league table against its rules and write its page: one file that sorts and filters."""
    from medrobust.league import page as league_page
    from medrobust.league import table

    if out.suffix != ".html":
        raise InputError(f"the page is an .html file, got {out}")
    held = table.read(file)
    if not held.entries:
        raise InputError(f"{file} has no entries; add one with medrobust league add RUN --to {file}")
    league_page.write(out, held)
    say(f"page {out}: {_counted(held)}")


def _counted(held: League) -> str:
    entries, sets = len(held.entries), len(held.sets)
    return f"{entries} {'entry' if entries == 1 else 'entries'} on {sets} image set{'' if sets == 1 else 's'}"


for each in league.registered_commands:
    assert each.callback is not None
    each.callback = expanded(each.callback)
