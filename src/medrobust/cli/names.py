"""`medrobust names`: the owner of the data finds the image, patient or path of a code again."""

from __future__ import annotations

from typing import Annotated

import typer

from medrobust.cli.bars import Bars
from medrobust.cli.options import ImageOptions
from medrobust.cli.text import say, table
from medrobust.errors import InputError


def names(
    codes: Annotated[list[str] | None, typer.Argument(help="Codes from a report; all of the data without.")] = None,
    *,
    images: ImageOptions,
) -> None:
    """Find the image or patient of a code in a report again; only with the salt of whoever wrote the report."""
    from medrobust import data as data_room
    from medrobust import private_names

    with Bars():
        data = data_room.load(images.data, **images.read).renamed(*images.renaming)
    patients = [] if data.patients is None else sorted({str(p) for p in data.patients} - {""})
    rows = [["image", private_names.code(name), name] for name in data.ids]
    rows += [["image, left out", private_names.code(x.file), x.file] for x in data.left_out]
    rows += [["patient", private_names.code(p, "patient"), p] for p in patients]
    if codes:
        rows = [row for row in rows if row[1] in codes]
        unknown = [c for c in codes if c not in {row[1] for row in rows}]
        if unknown:
            raise InputError(
                f"{unknown[0]} is the code of no image or patient of {images.data} under the salt of this user "
                f"({private_names.VARIABLE} or {private_names.salt_file()})"
            )
    table(["what", "code", "name"], rows, f"Names behind the codes of {data.name}")
    say(f"codes are made with the salt in {private_names.VARIABLE} or {private_names.salt_file()}: keep it to yourself")
