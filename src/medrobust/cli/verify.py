"""`medrobust verify`: whether a run folder is as its run left it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medrobust.cli.text import say
from medrobust.errors import visible

if TYPE_CHECKING:
    from medrobust.verification import Verification

CHANGED = 5
"""Exit code where something is not as the run left it."""


def verify(
    folder: Annotated[Path, typer.Argument(help="A run folder.")],
    key: Annotated[
        Path | None,
        typer.Option(metavar="PUBLIC", help="Ed25519 public key (PEM or OpenSSH) whose signature the run must carry."),
    ] = None,
    structured: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compare a run folder with its manifest: files, finished pieces of work, numbers, criteria and signature.

    Exit code: 0 all is as the run left it, 5 something is not (a line each), 2 the folder has no readable manifest.
    """
    from medrobust import signing, verification

    result = verification.verify(folder, None if key is None else signing.public_key(key))
    if structured:
        print(_json(result))
    else:
        for finding in result.findings:
            say(visible(f"{finding.file}: {finding.what}; {finding.meaning}"))
        say(visible(_line(folder, result)))  # names come from a file: a line break in one must not look like a line
    if not result.passed:
        raise typer.Exit(CHANGED)


def _line(folder: Path, result: Verification) -> str:
    run = f"{folder} (run {result.run}, {result.kind})"
    if not result.passed:
        differ = "1 difference" if len(result.findings) == 1 else f"{len(result.findings)} differences"
        return f"NOT VERIFIED: {run}: {differ} from what the run left"
    signed = {
        "valid": "signed with that key",
        "not checked": "its signature was not checked (--key)",
        "none": "not signed",
    }[result.signature]
    return f"verified: {run}: {result.files} files are as the run left them; {signed}"


def _json(result: Verification) -> str:
    findings = [{name: visible(value) for name, value in f._asdict().items()} for f in result.findings]
    content = {
        "verified": result.passed,
        "run": result.run,
        "kind": result.kind,
        "files": result.files,
        "signature": result.signature,
        "findings": findings,
    }
    return json.dumps(content, indent=1)
