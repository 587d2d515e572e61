"""csv:FILE: one row an image, with a column for the file (relative to the table) and one for the label.

Columns ``split`` and ``patient`` are used where they are there; every other column goes to ``extra``.
Comma, semicolon and tab all separate.
"""

from __future__ import annotations

import csv
from pathlib import Path

from medrobust.data.dataset import Dataset
from medrobust.data.files import open_files
from medrobust.data.source import Listing, Request
from medrobust.errors import InputError

FILE_COLUMNS = ("file", "filename", "path", "image")


def open_table(where: str, request: Request) -> Dataset:
    """The Dataset of ``csv:where``."""
    table = Path(where).expanduser()
    if not table.is_file():
        raise InputError(f"there is no table {where}; csv: needs the path of a CSV file with columns file and label")
    rows, columns = read_rows(table)
    name = f"{table.resolve().parent.name}/{table.name}"
    file_column = next((c for c in FILE_COLUMNS if c in columns), None)
    if file_column is None:
        raise InputError(f"{name} has no column file, only {', '.join(columns)}; name the column of image paths file")
    if request.label not in columns:
        others = [c for c in columns if c != file_column]
        raise InputError(
            f"{name} has no column {request.label!r}, only {', '.join(columns)}; "
            f"choose the label with label=, for example label={(others or ['diagnosis'])[0]!r}"
        )
    rows, notes = _once(name, rows, file_column, request.label)
    files = [table.parent / row[file_column] for row in rows]
    _check_there(name, [row[file_column] for row in rows], files)
    used = {file_column, request.label, "split", "patient"}
    listing = Listing(
        ids=[_identity(table, row[file_column]) for row in rows],
        labels=[row[request.label] for row in rows],
        splits=[row["split"] for row in rows] if "split" in columns and request.label != "split" else None,
        patients=[row["patient"] for row in rows] if "patient" in columns else None,
        extra={column: [row[column] for row in rows] for column in columns if column not in used},
        notes=notes,
    )
    return open_files(name, files, listing, request)


def read_rows(table: Path) -> tuple[list[dict[str, str]], list[str]]:
    """The rows, blank cells as "", and the column names in their order."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{table} is not UTF-8 text; save the table as CSV UTF-8") from None
    lines = text.splitlines()
    if not lines:
        raise InputError(f"{table} is empty; it needs a first line with column names, for example file,label")
    separator = max(",;\t", key=lines[0].count)
    records = [r for r in csv.reader(lines, delimiter=separator) if any(cell.strip() for cell in r)]
    columns = [column.strip() for column in records[0]]
    if len(records) < 2:
        raise InputError(f"{table} has column names and no rows; it needs one row an image")
    rows = []
    for record in records[1:]:
        cells = [cell.strip() for cell in record] + [""] * (len(columns) - len(record))
        rows.append(dict(zip(columns, cells, strict=False)))
    return rows, columns


def _once(name: str, rows: list[dict[str, str]], file: str, label: str) -> tuple[list[dict[str, str]], tuple[str, ...]]:
    """Each file once; InputError if it comes with two labels."""
    first: dict[str, dict[str, str]] = {}
    for row in rows:
        if first.setdefault(row[file], row)[label] != row[label]:
            raise InputError(
                f"{name} lists {row[file]} as {first[row[file]][label]!r} and as {row[label]!r}; "
                "an image has one label here: keep one of the rows"
            )
    again = len(rows) - len(first)
    notes = (f"{again} rows of the table repeat an earlier file and were passed over.",) if again else ()
    return list(first.values()), notes


def _check_there(name: str, shown: list[str], files: list[Path]) -> None:
    missing = [text for text, file in zip(shown, files, strict=True) if not file.is_file()]
    if missing:
        some = ", ".join(repr(text) for text in missing[:3])
        raise InputError(
            f"{len(missing)} of the {len(files)} files of {name} are not there: {some}"
            f"{' …' if len(missing) > 3 else ''}; paths count from the folder of the table"
        )


def _identity(table: Path, text: str) -> str:
    """The path relative to the table where it lies below it, so that it survives a move of the folder."""
    path = Path(text)
    if path.is_absolute() and path.is_relative_to(table.resolve().parent):
        path = path.relative_to(table.resolve().parent)
    return path.as_posix()
