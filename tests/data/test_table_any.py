"""Any table that csv can hold is a data set in which every row is accounted for, or one line."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from medrobust import data
from medrobust.data import Dataset
from medrobust.errors import InputError
from tests.data_files import picture

IMAGES = 6
FILES = st.sampled_from([*(f"{i}.png" for i in range(IMAGES)), "./0.png", ".\\1.png", "", "nan"])
WORDS = st.sampled_from(["ill", "well", "Ill", " well ", "NA", "", "1", "1.0", "10", "Grade 2"])
NAMES = st.sampled_from(["file", "label", "patient", "Patient ID", "split", "subset", "age", "", "lesion_id"])
COLUMNS = NAMES | st.text(max_size=6)
ANY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("tables")
    for i in range(IMAGES):
        Image.fromarray(picture(i, 8)).save(where / f"{i}.png")
    return where


def loaded(folder: Path, content: bytes) -> Dataset | None:
    """The data set of a table; None where it was refused in one line. Anything else that is raised fails the test."""
    (folder / "labels.csv").write_bytes(content)
    refusals = []
    try:
        return data.load(f"csv:{folder / 'labels.csv'}")
    except InputError as error:
        refusals.append(str(error))
    assert [line.splitlines() for line in refusals] == [refusals]
    return None


def check(folder: Path, content: bytes) -> None:
    """Rows = kept + left out + repeated; ids, labels and classes belong together; notes are one line each."""
    found = loaded(folder, content)
    if found is None:
        return
    repeated = [re.match(r"(\d+) rows of the table repeat", note) for note in found.notes]
    again = sum(int(match[1]) for match in repeated if match)
    text = content.decode("utf-8")
    first = next(line for line in re.split(r"[\r\n]+", text) if line.strip())
    separator = max(",;\t", key=re.sub('"[^"]*"', "", first).count)
    rows = [r for r in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if any(c.strip() for c in r)]
    assert len(rows) - 1 == len(found) + len(found.left_out) + again
    assert len(set(found.ids)) == len(found)
    assert set(found.labels.tolist()) <= set(range(len(found.classes)))
    assert len(set(found.classes)) == len(found.classes) >= 2
    assert all(note.splitlines() == [note] for note in found.notes)
    found.digest()


@ANY
@given(
    st.lists(
        st.tuples(FILES, WORDS, WORDS | st.text(max_size=8), WORDS), min_size=2, max_size=8, unique_by=lambda r: r[0]
    ),
    st.lists(COLUMNS.filter(lambda name: name not in ("file", "label")), min_size=2, max_size=2, unique=True),
    st.sampled_from(",;\t"),
)
def test_any_table_of_images(
    folder: Path, rows: list[tuple[str, str, str, str]], more: list[str], separator: str
) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator)
    writer.writerows([("file", "label", *more), *rows])
    check(folder, stream.getvalue().encode("utf-8", "ignore"))


@ANY
@given(
    st.permutations([f"{i}.png" for i in range(IMAGES)]), st.lists(WORDS | st.text(max_size=8), min_size=6, max_size=6)
)
def test_any_labels(folder: Path, files: list[str], labels: list[str]) -> None:
    stream = io.StringIO()
    csv.writer(stream).writerows([("file", "label"), *zip(files, labels, strict=True)])
    check(folder, stream.getvalue().encode("utf-8", "ignore"))


@ANY
@given(st.lists(st.lists(st.text(max_size=10) | COLUMNS | FILES, max_size=6), max_size=8))
def test_any_cells(folder: Path, rows: list[list[str]]) -> None:
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    check(folder, stream.getvalue().encode("utf-8", "ignore"))


@ANY
@given(st.binary(max_size=60), st.integers(0, 80))
def test_any_bytes_in_a_table(folder: Path, noise: bytes, place: int) -> None:
    plain = ("file,label\n" + "\n".join(f"{i}.png,{'ab'[i % 2]}" for i in range(IMAGES))).encode()
    found = loaded(folder, plain[:place] + noise + plain[place:])
    assert found is None or len(found) >= 2
