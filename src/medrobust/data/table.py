"""csv:FILE: one row an image, with a column for the file (relative to the table) and one for the label.

Columns of splits and patients are used where they are there, by their usual names; every other column goes to
``extra``. Comma, semicolon and tab all separate. Images are in the order of their ids, whatever the order of the rows.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

import medrobust.data.csv_rows as csv_rows
import medrobust.data.finding_labels as finding_labels
import medrobust.data.patients as patients
import medrobust.data.splits as splits
import medrobust.data.words as words
from medrobust.data.csv_rows import Cells
from medrobust.data.dataset import Dataset
from medrobust.data.files import open_files
from medrobust.data.source import NO_FILE, LeftOut, Listing, Request
from medrobust.errors import InputError

FILE_COLUMNS = (
    *("file", "filename", "path", "filepath", "image", "imagepath", "imagefile", "imagefilename", "imagename"),
    "imageindex",  # as NIH ChestX-ray14 calls it
)
"""Names of the column of image files, the first before the others, as ``words.bare`` writes them."""

SPLIT_COLUMNS = ("split", "datasplit", "subset", "partition", "set", "fold", "phase")
"""Names of the column of splits. All but the first are used only where every cell of them names a split."""


class TableImage(NamedTuple):
    """A row of the table that names an image. place: (device, inode), which two spellings of a file share."""

    id: str
    file: Path
    place: tuple[int, int]
    line: int
    label: str
    split: str
    patient: str
    extra: tuple[str, ...]


def open_table(where: str, request: Request) -> Dataset:
    """The Dataset of ``csv:where``."""
    table = Path(where).expanduser()
    if not _is_file(table):
        raise InputError(f"there is no table {where}; csv: needs the path of a CSV file with columns file and label")
    name = f"{table.resolve().parent.name}/{table.name}"
    cells = csv_rows.read(table, name)
    file, label, split, patient, notes = _roles(name, table, cells, request)
    used = {file, *label, split, patient}
    extra = [column for column in cells.columns if column not in used]
    blank = [""] * len(cells.rows)
    columns = [cells.column(c) if c is not None else blank for c in (file, label[0], split, patient)]
    if request.findings is not None:
        columns[1] = finding_labels.of_columns(name, cells, label)
    others = [cells.column(c) for c in extra]
    listed, left_out, missing = [], [], []
    for row, line in enumerate(cells.lines):
        text, word, side, who = (column[row] for column in columns)
        located = _located(table, text)
        if located is None:
            if words.is_missing(text):
                left_out.append(LeftOut(f"line {line}", NO_FILE))
            else:
                missing.append(text)
            continue
        more = tuple(column[row] for column in others)
        if "\n" in word or "\r" in word:
            raise InputError(f"line {line} of {name} has a label with a line break in it; is a quote open there?")
        listed.append(TableImage(_identity(table, located[2]), located[0], located[1], line, word, side, who, more))
    _check_there(name, missing, len(cells.rows))
    if 2 * len(left_out) > len(cells.rows):
        raise InputError(f"{len(left_out)} of the {len(cells.rows)} rows of {name} name no file in column {file!r}")
    images, once = _once(name, listed)
    classes, labels, on_labels = _labels(name, [image.label for image in images], label, request)
    listing = Listing(
        ids=[image.id for image in images],
        labels=labels,
        classes=classes,
        splits=[image.split for image in images] if split is not None else None,
        patients=[image.patient for image in images] if patient is not None else None,
        extra={column: [image.extra[place] for image in images] for place, column in enumerate(extra)},
        notes=(*cells.notes, *notes, *once, *on_labels),
        left_out=tuple(left_out),
    )
    return open_files(name, [image.file for image in images], listing, request)


def _labels(
    name: str, labels: list[str], columns: tuple[str, ...], request: Request
) -> tuple[tuple[str, ...] | None, list[str] | np.ndarray, tuple[str, ...]]:
    """The fields ``classes`` and ``labels`` of the listing, and notes: one class an image, or several findings."""
    if request.findings is not None:
        return columns, finding_labels.matrix(labels), ()
    separator, on_separator = finding_labels.separator_of(labels, request.separator)
    if separator is None:
        return None, labels, on_separator
    classes, sets, on_sets = finding_labels.of_sets(name, labels, separator)
    return classes, sets, (*on_separator, *on_sets)


def _roles(
    name: str, table: Path, cells: Cells, request: Request
) -> tuple[str, tuple[str, ...], str | None, str | None, tuple[str, ...]]:
    """The columns of files, labels, splits and patients, and notes on how they were chosen."""
    wanted = request.findings or (request.label,)
    columns = [_label(cells.columns, name) for name in wanted]
    label = tuple(column for column in columns if column is not None)
    files = [c for bare in FILE_COLUMNS for c in cells.columns if words.bare(c) == bare and c not in label]
    listed = ", ".join(words.quoted(c) for c in cells.columns[:20]) + (" …" if len(cells.columns) > 20 else "")
    if not files:
        raise InputError(f"{name} has no column file, only {listed}; name the column of image paths file")
    # of several, the one whose cells are files: a table may have a column "image" with numbers
    file = next((c for c in files if any(_located(table, text) for text in cells.column(c)[:50])), files[0])
    notes = []
    if len(files) > 1:
        notes.append(f"Of the columns {', '.join(map(words.quoted, files))}, the image files are read from {file!r}.")
    if len(label) < len(wanted):
        missing = f"{name} has no column {words.quoted(wanted[columns.index(None)])}, only {listed}"
        if request.findings is not None:
            raise InputError(f"{missing}; name the columns of the findings with --findings")
        others = [c for c in cells.columns if c not in files]
        raise InputError(
            f"{missing}; choose the label with label=, for example label={words.quoted((others or ['diagnosis'])[0])}"
            f"{_suggested(cells, others)}"
        )
    if len(set(label)) < len(label):
        raise InputError(f"--findings names a column twice: {', '.join(map(words.quoted, label))}")
    split, on_split = _split(name, cells, {file, *label})
    free = {c: cells.column(c) for c in cells.columns if c not in (file, *label, split)}
    patient, on_patient = patients.find_column(name, free, request.patient)
    if patient is not None and patient != "patient":
        notes.append(f"Patients were read from the column {words.quoted(patient)}.")
    return file, label, split, patient, (*notes, *on_split, *on_patient)


def _suggested(cells: Cells, columns: Sequence[str]) -> str:
    """What to write where some columns look like those of findings."""
    likely = [c for c in columns if set(map(words.tidy, cells.column(c))) >= {"0", "1"}][:5]
    return f", or the columns of several findings with --findings {','.join(likely)}" if len(likely) > 1 else ""


def _label(columns: Sequence[str], wanted: str) -> str | None:
    if wanted in columns:
        return wanted
    same = [column for column in columns if words.bare(column) == words.bare(wanted)]
    return same[0] if len(same) == 1 else None


def _split(name: str, cells: Cells, used: set[str]) -> tuple[str | None, list[str]]:
    """The column of given splits, and a note where it goes by another name than "split"."""
    free = [column for column in cells.columns if column not in used]
    exact = [column for column in free if words.bare(column) == SPLIT_COLUMNS[0]]
    named = [column for column in free if words.bare(column) in SPLIT_COLUMNS[1:]]
    valid = [c for c in named if all(words.tidy(cell).casefold() in splits.SYNONYMS for cell in cells.column(c))]
    candidates = exact or valid
    if len(candidates) > 1:
        raise InputError(
            f"{name} has {len(candidates)} columns that may be the split, {', '.join(map(words.quoted, candidates))}; "
            "name one of them split and rename the others"
        )
    notes = [
        f"The column {words.quoted(c)} was not taken for the split: not every cell is train, val or test."
        for c in named
        if c not in valid and not exact and any(words.tidy(x).casefold() in splits.SYNONYMS for x in cells.column(c))
    ]
    if candidates and candidates[0] != "split":
        notes.append(f"The split was read from the column {words.quoted(candidates[0])}.")
    return (candidates[0] if candidates else None), notes


def _once(name: str, listed: list[TableImage]) -> tuple[list[TableImage], list[str]]:
    """Each file once, in the order of ids; InputError where one comes with two labels, splits or patients."""
    first: dict[tuple[int, int], TableImage] = {}
    for image in sorted(listed, key=lambda i: (i.id, i.label, i.split, i.patient, i.extra, i.line)):
        kept = first.setdefault(image.place, image)
        if kept is image:
            continue
        for what in ("label", "split", "patient"):
            one, two = (words.tidy(getattr(i, what)) for i in (kept, image))
            if words.is_missing(one):
                kept = TableImage(**(kept._asdict() | {what: two}))
            elif one.casefold() != two.casefold() and not words.is_missing(two):
                (first_line, one), (last_line, two) = sorted([(kept.line, one), (image.line, two)])
                raise InputError(
                    f"lines {first_line} and {last_line} of {name} are the same image, {words.quoted(kept.id)}, with "
                    f"the {what} {words.quoted(one)} and with {words.quoted(two)}; keep one of the rows"
                )
        first[image.place] = kept
    again = len(listed) - len(first)
    notes = [f"{again} rows of the table repeat an image of another row and were passed over."] if again else []
    return sorted(first.values(), key=lambda image: words.natural(image.id)), notes


def _located(table: Path, text: str) -> tuple[Path, tuple[int, int], str] | None:
    """The file that a cell names, its (device, inode), and the spelling of the cell that led to it; None if none does.

    Tried in turn: as it is written, without blanks around it, with / for Windows' \\, in the other Unicode forms.
    """
    spellings = [text, text.strip()]
    if "\\" in text and os.sep == "/":
        spellings.append(text.strip().replace("\\", "/"))
    spellings += [unicodedata.normalize(form, spellings[-1]) for form in ("NFC", "NFD")]
    for spelling in dict.fromkeys(spellings):
        path = table.parent / spelling
        if spelling and _is_file(path):
            status = path.stat()
            return path, (status.st_dev, status.st_ino), spelling
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for the file system, or no name at all
        return False


def _check_there(name: str, missing: list[str], count: int) -> None:
    if missing:
        some = ", ".join(words.quoted(text) for text in sorted(missing)[:3])
        raise InputError(
            f"{len(missing)} of the {count} files of {name} are not there: {some}"
            f"{' …' if len(missing) > 3 else ''}; paths count from the folder of the table"
        )


def _identity(table: Path, text: str) -> str:
    """The path relative to the table where it lies below it, so that it survives a move of the folder."""
    home = table.resolve().parent
    path = Path(os.path.normpath(home / text))
    if path.is_relative_to(home) or not Path(text).is_absolute():
        path = Path(os.path.relpath(path, home))
    return unicodedata.normalize("NFC", path.as_posix())
