"""A table as text (CSV, semicolons or tabs) to rows of cells, each with the number of its line."""

from __future__ import annotations

import codecs
import csv
import io
import re
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from medrobust import limits
from medrobust.data.words import quoted, tidy
from medrobust.errors import InputError
from medrobust.formats import SUFFIXES

SEPARATORS = ",;\t"
_FIELD_LIMIT = threading.Lock()  # the csv module's limit is one for the whole process


@dataclass(frozen=True)
class Cells:
    """columns: tidy names in their order. rows: one cell a column, without blanks around it. lines: where each row
    begins in the file, from 1. notes: on how the text was read."""

    columns: list[str]
    rows: list[list[str]]
    lines: list[int]
    notes: tuple[str, ...]

    def column(self, name: str) -> list[str]:
        """The cells of one column."""
        place = self.columns.index(name)
        return [row[place] for row in self.rows]


def read(table: Path, name: str) -> Cells:
    """The rows of a table; InputError, in one line, where it is none. name: what messages call it."""
    text, notes = _text(table, name)
    separator, text, skipped = _separator(text)
    records = _records(name, text, separator, skipped)
    if not records:
        raise InputError(f"{name} is empty; it needs a first line with column names, for example file,label")
    (head, header), body = records[0], records[1:]
    columns = _columns(name, header)
    if not body:
        raise InputError(f"{name} has column names and no rows; it needs one row an image")
    rows, lines, short = [], [], 0
    for line, cells in body:
        if any(cell.strip() for cell in cells[len(columns) :]):
            raise InputError(
                f"line {line} of {name} has {len(cells)} cells, the header in line {head} has {len(columns)} columns; "
                "put quotes around cells that hold a separator, or name the columns"
            )
        short += len(cells) < len(columns)
        padded = cells[: len(columns)] + [""] * (len(columns) - len(cells))
        _check_quotes(name, line, padded, separator, columns)
        rows.append([cell.strip(" ") for cell in padded])
        lines.append(line)
    if short:
        notes.append(f"{short} rows of the table have fewer cells than its header; the missing ones count as blank.")
    return Cells(columns, rows, lines, tuple(notes))


def _text(table: Path, name: str) -> tuple[str, list[str]]:
    """The text of a file and notes on its encoding: UTF-8, UTF-16 (Excel's "Unicode text"), else Windows-1252."""
    try:
        limits.check(limits.TABLE_BYTES, table.stat().st_size, name)
        data = table.read_bytes()
    except OSError as error:
        raise InputError(f"{name} cannot be read: {error.strerror or error}") from error
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise InputError(f"{name} is a spreadsheet, not a text table; save it as CSV UTF-8")
    marked = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
    encoding = next((code for mark, code in marked.items() if data.startswith(mark)), "utf-8-sig")
    if encoding == "utf-8-sig" and b"\0" in data[:2000]:
        encoding = "utf-16-le" if data[1:2000:2].count(0) > data[:2000:2].count(0) else "utf-16-be"
    notes = []
    try:
        text = data.decode(encoding)
        if encoding != "utf-8-sig":
            notes.append(f"The table is {encoding.upper()}, not UTF-8, and was read as such.")
    except UnicodeDecodeError as error:
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError:
            raise InputError(f"{name} is not readable text ({error.reason}); save the table as CSV UTF-8") from None
        if encoding != "utf-8-sig" or "\0" in text:
            raise InputError(f"{name} is not readable text ({error.reason}); save the table as CSV UTF-8") from None
        notes.append("The table is not UTF-8 and was read as Windows-1252; check names with accents.")
    if "\0" in text:
        raise InputError(f"{name} holds zero bytes: it is no text; save the table as CSV UTF-8")
    return text, notes


def _separator(text: str) -> tuple[str, str, int]:
    """The separator, the text without Excel's ``sep=;`` line, and how many lines that took away."""
    stated = re.match(r'"?sep=([,;\t])"?[;,\t]*(\r\n|\r|\n)', text, re.IGNORECASE)
    if stated:
        return stated[1], text[stated.end() :], 1
    first = next((line for line in re.split(r"[\r\n]+", text) if line.strip()), "")
    outside = re.sub(r'"[^"]*"', "", first)
    return max(SEPARATORS, key=outside.count), text, 0


def _records(name: str, text: str, separator: str, skipped: int) -> list[tuple[int, list[str]]]:
    """(line, cells) of every row that is not blank."""
    records = []
    allowed = limits.value(limits.CELL_CHARACTERS)
    with _FIELD_LIMIT:
        before = csv.field_size_limit(allowed)
        try:
            reader = csv.reader(
                io.StringIO(text, newline=""), delimiter=separator, strict=True, skipinitialspace=separator != "\t"
            )
            while True:
                line = reader.line_num + 1 + skipped
                try:
                    cells = next(reader)
                except StopIteration:
                    break
                except csv.Error as error:
                    raise InputError(_fault(name, line, reader.line_num + skipped, str(error), allowed)) from None
                if any(cell.strip() for cell in cells):
                    records.append((line, cells))
        finally:
            csv.field_size_limit(before)
    return records


def _fault(name: str, line: int, last: int, error: str, allowed: int) -> str:
    if "field limit" in error:
        return (
            f"line {line} of {name} has a cell of more than {allowed:,} characters: a quote may be open there; if you "
            f"trust it, raise the limit: {limits.CELL_CHARACTERS.variable}={10 * allowed}"
        )
    return (
        f"line {line} of {name} opens a quote that does not end a cell (read up to line {last}): "
        'remove the ", or write it twice inside a quoted cell'
    )


def _columns(name: str, header: list[str]) -> list[str]:
    """Names of the columns: blank ones are numbered. InputError where two have the same name."""
    while header and not header[-1].strip():
        header = header[:-1]
    columns = [tidy(cell) or f"column {place}" for place, cell in enumerate(header, 1)]
    twice = sorted(column for column, count in Counter(columns).items() if count > 1)
    if twice:
        places = [str(place) for place, column in enumerate(columns, 1) if column == twice[0]]
        raise InputError(
            f"{name} has the column {quoted(twice[0])} more than once (columns {', '.join(places)}); rename or "
            "remove all but one"
        )
    return columns


def _check_quotes(name: str, line: int, cells: list[str], separator: str, columns: list[str]) -> None:
    """InputError where a quoted cell has swallowed rows: a line inside it is itself a row with an image file."""
    for cell in cells:
        if "\n" not in cell and "\r" not in cell:
            continue
        for inner in re.split(r"[\r\n]+", cell)[1:]:
            parts = [part.strip(' "').lower() for part in inner.split(separator)]
            if len(parts) >= min(2, len(columns)) and any(part.endswith(SUFFIXES) for part in parts):
                raise InputError(
                    f'line {line} of {name} opens a quote that encloses the rows below it; remove the ", or write it '
                    "twice inside a quoted cell"
                )
