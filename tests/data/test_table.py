"""Tables as people and programs write them: every row is kept or counted as left out, or the table is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medrobust import data
from medrobust.data import Dataset
from medrobust.errors import InputError
from tests.data_files import cohort, picture

N = 12


def written(folder: Path, text: str | bytes, n: int = N) -> str:
    """A table of that text beside n images 000.png, …"""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.fromarray(picture(i)).save(folder / f"{i:03d}.png")
    (folder / "labels.csv").write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return f"csv:{folder / 'labels.csv'}"


def rows(*more: list[str], n: int = N, separator: str = ",") -> list[str]:
    """Lines of file, label and ``more``."""
    return [separator.join([f"{i:03d}.png", ("ill", "well")[i % 2], *(m[i] for m in more)]) for i in range(n)]


def table(folder: Path, header: str = "file,label", lines: list[str] | None = None, **options: str) -> Dataset:
    return data.load(written(folder, "\n".join([header, *(rows() if lines is None else lines)]) + "\n"), **options)


def noted(found: Dataset, text: str) -> bool:
    return any(text in note for note in found.notes)


# -- how the text is read ------------------------------------------------------------------------------------


LINES = "\n".join(["file,label", *rows()])
READ: dict[str, str | bytes] = {
    "byte order mark": b"\xef\xbb\xbf" + LINES.encode(),
    "UTF-16 as Excel writes it": LINES.replace(",", "\t").encode("utf-16"),
    "UTF-16 without a mark": LINES.encode("utf-16-le"),
    "UTF-32": LINES.encode("utf-32"),
    "Windows line ends": LINES.replace("\n", "\r\n"),
    "old Macintosh line ends": LINES.replace("\n", "\r"),
    "semicolons": LINES.replace(",", ";"),
    "sep=;": "sep=;\r\n" + LINES.replace(",", ";"),
    "quoted sep": '"sep=;"\n' + LINES.replace(",", ";"),
    "tabs": LINES.replace(",", "\t"),
    "blank lines": "\n\n" + LINES.replace("\n", "\n\n") + "\n,\n",
    "blanks after the separator": LINES.replace(",", ", "),
    "quotes everywhere": "\n".join('"' + line.replace(",", '","') + '"' for line in LINES.split("\n")),
    "a separator at the end of every row": LINES.replace("\n", ",\n") + ",",
    "other case": LINES.replace("file,label", "FILE,Label"),
    "no-break blanks": LINES.replace("ill", "ill\u00a0"),
    "a semicolon in a comma header": LINES.replace("file,label", 'file,label,"a;b;c;d"'),
}


@pytest.mark.parametrize("case", READ)
def test_tables_of_every_program_read_the_same(tmp_path: Path, case: str) -> None:
    found = data.load(written(tmp_path, READ[case]))
    assert found.classes == ("ill", "well")
    assert found.labels.tolist() == [0, 1] * (N // 2)
    assert found.left_out == ()


def test_what_is_not_utf_8_is_read_and_noted(tmp_path: Path) -> None:
    found = data.load(written(tmp_path, LINES.replace("ill", "fièvre").encode("latin-1")))
    assert found.classes == ("fièvre", "well")
    assert noted(found, "Windows-1252")


def test_a_quoted_cell_may_hold_line_breaks_and_quotes(tmp_path: Path) -> None:
    found = table(tmp_path, "file,label,remark", rows(['"two\nlines, ""quoted"""'] * N))
    assert found.extra["remark"][0] == 'two\nlines, "quoted"'
    assert len(found) == N


def swapped(line: int, text: str) -> str:
    """The plain table with another text in that line (1 is the header)."""
    lines = LINES.split("\n")
    lines[line - 1] = text
    return "\n".join(lines)


def quote_in_two(first: str, second: str) -> str:
    lines = LINES.split("\n")
    lines[4], lines[8] = first, second
    return "\n".join(lines)


REFUSED: dict[str, tuple[str | bytes, str]] = {
    "open quote to the end": (swapped(5, '003.png,"well'), "line 5 .*quote"),
    "open quote in the file": (swapped(5, '"003.png,well'), "line 5 .*quote"),
    "two open quotes": (quote_in_two('003.png,"well', '007.png,"well'), "line 5 .*quote"),
    "a quote closed rows later": (quote_in_two('003.png,"well', '007.png,well"'), "line 5 .*quote"),
    "a quote around rows": (quote_in_two('"003.png,well', '007.png",well'), "line 5 .*quote"),
    "a quote in a remark": (
        'file,label,remark\n000.png,ill,"a\n001.png,well,b\n002.png,ill,c"\n003.png,well,d\n',
        "line 2 .*quote",
    ),
    "text after a quote": (swapped(5, '"003.png"x,well'), "line 5 .*quote"),
    "a row too long": (swapped(5, "003.png,well,again"), "line 5 .*has 3 cells.*2 columns"),
    "a row too long after sep=": ("sep=,\n" + swapped(5, "003.png,well,again"), "line 6 .*has 3 cells"),
    "two label columns": (LINES.replace("file,label", "file,label,label"), "column 'label' more than once"),
    "two names alike": (LINES.replace("file,label", "file,label,age, age"), "column 'age' more than once"),
    "zero bytes": (LINES + "\0", "zero bytes|not readable"),
    "a workbook": (b"PK\x03\x04" + b"\0" * 100, "spreadsheet"),
    "an image": (b"\x89PNG\r\n\x1a\n\x81\x8d\x8f" + b"\0" * 100, "not readable|zero bytes"),
    "empty": ("", "is empty"),
    "blank": ("\n \n", "is empty"),
    "a header only": ("file,label\n", "no rows"),
    "a long cell": (swapped(5, f"003.png,{'x' * 131_073}"), "line 5 .*100,000 characters"),
    "a long cell below the limit of csv": (swapped(5, f"003.png,{'x' * 120_000}"), "line 5 .*100,000 characters"),
    "a label of 5,000 digits": (swapped(5, f"003.png,{'7' * 5000}"), "5,000 characters, more than the limit"),
    "a name too long for a file": (swapped(5, f"{'x' * 5000}.png,ill"), "1 of the 12 files .* are not there"),
    "a folder for a file": (swapped(5, ".,ill"), "1 of the 12 files .* are not there: '.'"),
    "no file in most rows": (LINES.replace(".png", "").replace("00", "").replace("01", ""), "not there"),
    "blank files": ("file,label\n" + "\n".join([",ill"] * 8 + ["000.png,ill", "001.png,well"]), "8 of the 10 rows"),
    "one file, two labels": (LINES + "\n./000.png,well", "lines 2 and 14 .*'000.png'.*'ill' and with 'well'"),
    "one file, two labels, Windows path": (LINES + "\n.\\000.png,well", "lines 2 and 14 "),
    "control characters in a name": (swapped(5, "\x1b[2J003.png,well"), r"not there: '\\x1b\[2J003.png'"),
    "no labels": (LINES.replace("well", "NA").replace("002.png,ill", "002.png,"), "7 of the 12 images .* no label"),
    "one class": (LINES.replace("well", " ILL"), "at least two classes, found only 'ILL'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_table_that_would_be_misread_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    text, pattern = REFUSED[case]
    spec = written(tmp_path, text)
    with pytest.raises(InputError, match=pattern) as caught:
        data.load(spec)
    assert str(caught.value).isprintable()


def test_cells_and_names_may_be_longer_where_the_limit_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDROBUST_MAX_CELL_CHARACTERS", "200000")
    assert len(table(tmp_path, "file,label,remark", rows(["x" * 150_000] * N))) == N


# -- the same file, rows without a file, short rows ----------------------------------------------------------


def test_one_file_under_several_spellings_is_one_image(tmp_path: Path) -> None:
    again = ["./000.png,ill", ".\\001.png,well", f"{tmp_path}/002.png,ill", "../x/003.png,well", "hard.png,ill"]
    (tmp_path / "x").mkdir()
    spec = written(tmp_path / "x", "\n".join([LINES, *again[:2], f"{tmp_path}/x/002.png,ill", *again[3:]]))
    (tmp_path / "x" / "hard.png").hardlink_to(tmp_path / "x" / "004.png")
    found = data.load(spec)
    assert len(found) == N
    assert noted(found, "5 rows of the table repeat")
    assert found.ids == tuple(f"{i:03d}.png" for i in range(N))


def test_one_file_on_two_sides_of_the_split_is_refused(tmp_path: Path) -> None:
    given = ["train"] * 6 + ["test"] * 6
    with pytest.raises(InputError, match="with the split 'train' and with 'test'"):
        table(tmp_path, "file,label,split", [*rows(given), "./000.png,ill,test"])


def test_a_label_in_one_of_two_rows_of_a_file_is_its_label(tmp_path: Path) -> None:
    for order in (1, -1):
        found = table(tmp_path, lines=[*rows()[1:], *["000.png,", "./000.png,ill"][::order]])
        assert found.labels.tolist() == [0, 1] * (N // 2)


def test_windows_paths_and_either_unicode_form_are_found(tmp_path: Path) -> None:
    spec = written(tmp_path, LINES.replace("000.png", "sub\\Über.png").replace("001.png", "sub/U\u0308ber 2.png"))
    (tmp_path / "sub").mkdir()
    (tmp_path / "000.png").rename(tmp_path / "sub" / "U\u0308ber.png")
    (tmp_path / "001.png").rename(tmp_path / "sub" / "Über 2.png")
    assert set(data.load(spec).ids[-2:]) == {"sub/Über.png", "sub/Über 2.png"}


def test_rows_without_a_file_and_short_rows_are_counted(tmp_path: Path) -> None:
    lines = rows(["p1"] * N)
    lines[2], lines[3] = ",ill,p1", "003.png,well"
    found = table(tmp_path, "file,label,patient", lines)
    assert [tuple(left) for left in found.left_out] == [("line 4", "its row names no file")]
    assert noted(found, "1 of 12 images were left out (1: its row names no file)")
    assert noted(found, "1 rows of the table have fewer cells")
    assert len(found) == N - 1


def test_the_order_of_rows_changes_nothing(tmp_path: Path) -> None:
    people = [f"p{i % 5}" for i in range(N)]
    lines = [*rows(people), "./003.png,well,", "no.png,,p1", "000.png,Ill,p0"]
    written(tmp_path, "")
    Image.fromarray(picture(99)).save(tmp_path / "no.png")
    shuffled = [lines[i] for i in np.random.default_rng(1).permutation(len(lines))]
    first, second = (table(tmp_path, "file,label,patient", part) for part in (lines, shuffled))
    assert first.digest() == second.digest()
    for field in ("ids", "classes", "left_out", "notes"):
        assert getattr(first, field) == getattr(second, field)
    for field in ("labels", "split_of", "patients"):
        assert np.array_equal(getattr(first, field), getattr(second, field))
    assert np.array_equal(first.tensors()[0], second.tensors()[0])


# -- labels --------------------------------------------------------------------------------------------------


def labelled(folder: Path, words: list[str]) -> Dataset:
    return table(folder, lines=[f"{i:03d}.png,{word}" for i, word in enumerate(words)])


@pytest.mark.parametrize(
    ("words", "classes"),
    [
        ([f"{k}.0" for k in range(12)], [f"{k}.0" for k in range(12)]),
        ([f"Grade {k}" for k in range(12)], [f"Grade {k}" for k in range(12)]),
        ([str(k - 6) for k in range(12)], [str(k - 6) for k in range(12)]),
        (["1e300", "2", "10", "-1.5"] * 3, ["-1.5", "2", "10", "1e300"]),
        (["10 mm", "9.5 mm", "9 mm", "T1"] * 3, ["9 mm", "9.5 mm", "10 mm", "T1"]),
        (["7" * 400, "8" * 399, "x"] * 4, ["8" * 399, "7" * 400, "x"]),
        (["True", "False"] * 6, ["False", "True"]),
        (["none", "unknown"] * 6, ["none", "unknown"]),
        (["a", "A"] * 6, ["A", "a"]),
        (["[/nope]", "[bold]"] * 6, ["[/nope]", "[bold]"]),
        (["²", "٣"] * 6, ["٣", "²"]),
    ],
)
def test_classes_are_sorted_as_people_count(tmp_path: Path, words: list[str], classes: list[str]) -> None:
    found = labelled(tmp_path, words)
    assert list(found.classes) == classes
    assert [found.classes[k] for k in found.labels] == words


def test_spellings_of_one_class_are_merged_and_counted(tmp_path: Path) -> None:
    words = [
        "Normal",
        "normal ",
        "normal",
        "Nor\u200bmal",
        "ill",
        "ILL",
        "\x0bill",
        "ill\x1b",
        "Fièvre",
        "Fie\u0300vre",
    ]
    found = labelled(tmp_path, words)
    assert found.classes == ("Fièvre", "Normal", "ill")
    assert found.labels.tolist() == [1] * 4 + [2] * 4 + [0] * 2
    assert noted(found, "3 labels written 'Nor\\u200bmal', 'normal' were read as the class 'Normal'")
    assert noted(found, "3 labels written '\\x0bill', 'ILL', 'ill\\x1b' were read as the class 'ill'")
    assert noted(found, "1 labels written 'Fie\u0300vre' were read as the class 'Fièvre'")


def test_equal_numbers_are_one_class(tmp_path: Path) -> None:
    found = labelled(tmp_path, ["0", "1", "1.0", "0.0", "01", "1"] * 2)
    assert found.classes == ("0", "1")
    assert found.labels.tolist() == [0, 1, 1, 0, 1, 1] * 2
    assert noted(found, "4 labels written '01', '1.0' were read as the class '1'")


@pytest.mark.parametrize("word", ["", "NA", "nan", "NaN", "null", "N/A", "#N/A", "<NA>", " "])
def test_missing_labels_are_no_class(tmp_path: Path, word: str) -> None:
    found = labelled(tmp_path, ["ill", "well"] * 5 + [word, word])
    assert found.classes == ("ill", "well")
    assert [left.file for left in found.left_out] == ["010.png", "011.png"]
    assert noted(found, "2 of 12 images were left out (2: it has no label)")


def test_a_column_of_names_is_pointed_out(tmp_path: Path) -> None:
    n = 30
    words = [f"x{i}" for i in range(n)]
    found = data.load(
        written(tmp_path, "\n".join(["file,label", *(f"{i:03d}.png,{w}" for i, w in enumerate(words))]), n)
    )
    assert noted(found, "30 images have 30 classes")


# -- patients and splits -------------------------------------------------------------------------------------

PEOPLE = [f"p{i % 5}" for i in range(N)]


@pytest.mark.parametrize(
    "column",
    [
        "patient",
        "Patient ID",
        "PatientID",
        "patient-id",
        "PATIENT_ID",
        "pat_id",
        "patientId",
        "subject",
        "Subject ID",
        "subject.id",
        "case",
        "case_id",
        "CaseID",
        "person_id",
        "participant",
        "MRN",
        "pid",
        "patient no",
    ],
)
def test_patients_are_found_under_their_usual_names(tmp_path: Path, column: str) -> None:
    found = table(tmp_path, f"file,label,{column}", rows(PEOPLE))
    assert found.patients is not None
    assert found.patients.tolist() == PEOPLE
    assert noted(found, "5 patients in 12 images")
    assert column == "patient" or noted(found, f"read from the column '{column}'")
    for person in set(PEOPLE):
        assert len(set(found.split_of[found.patients == person])) == 1


def test_a_named_column_is_used_and_none_uses_none(tmp_path: Path) -> None:
    header = "file,label,patient,eye owner"
    lines = rows(PEOPLE, [f"q{i % 4}" for i in range(N)])
    assert table(tmp_path, header, lines, patient="Eye_Owner").patients.tolist()[:5] == ["q0", "q1", "q2", "q3", "q0"]
    without = table(tmp_path, header, lines, patient="none")
    assert without.patients is None
    assert noted(without, "No column was used as patients")
    with pytest.raises(InputError, match=r"no column 'doctor' for the patients, only 'patient', 'eye owner'"):
        table(tmp_path, header, lines, patient="doctor")


def test_two_columns_of_patients_must_be_told_apart(tmp_path: Path) -> None:
    lines = rows(PEOPLE, [f"q{i % 4}" for i in range(N)])
    with pytest.raises(InputError, match=r"'patient', 'subject_id'.*group the images differently.*--patient"):
        table(tmp_path, "file,label,patient,subject_id", lines)
    alike = table(tmp_path, "file,label,patient,subject_id", rows(PEOPLE, [f"x{p}" for p in PEOPLE]))
    assert alike.patients.tolist() == PEOPLE


def test_words_for_nobody_are_no_patient_and_are_counted(tmp_path: Path) -> None:
    people = [*PEOPLE[:4], "nan", "NA", "", "unknown", "Unknown ", "-", "None", "N/A"]
    found = table(tmp_path, "file,label,patient", rows(people))
    assert found.patients.tolist() == [*PEOPLE[:4], *[""] * 8]
    assert noted(found, "4 patients in 12 images; 8 images have no patient")
    nobody = table(tmp_path, "file,label,patient", rows(["nan"] * N))
    assert nobody.patients is None
    assert noted(nobody, "No image has a patient")


def test_ids_that_look_like_patients_are_pointed_out_and_ages_are_not(tmp_path: Path) -> None:
    for column, cells in (("lesion_id", PEOPLE), ("code", PEOPLE), ("scan owner", PEOPLE)):
        found = table(tmp_path, f"file,label,{column}", rows(cells))
        assert found.patients is None
        assert noted(found, f"'{column}' looks like ids"), column
    for column, cells in (("age", [str(40 + i % 5) for i in range(N)]), ("site", ["a", "b"] * 6)):
        assert not noted(table(tmp_path, f"file,label,{column}", rows(cells)), "looks like ids")
    case = table(tmp_path, "file,label,case", rows(["0", "1"] * 6))
    assert case.patients is None
    assert noted(case, "'case' has 2 values only")


def test_the_split_is_found_under_other_names_where_every_cell_is_one(tmp_path: Path) -> None:
    given = ["Train", "val", "TEST"] * 4
    for column in ("Split", "subset", "data_split", "partition"):
        found = table(tmp_path, f"file,label,{column}", rows(given))
        assert found.split_given
        assert found.split_of.tolist() == ["train", "val", "test"] * 4
    folds = table(tmp_path, "file,label,fold", rows(["1", "2", "3"] * 4))
    assert not folds.split_given
    half = table(tmp_path, "file,label,set", rows(["train", "val", "?"] * 4))
    assert not half.split_given
    assert noted(half, "'set' was not taken for the split")
    with pytest.raises(InputError, match="'set', 'subset'; name one of them split"):
        table(tmp_path, "file,label,set,subset", rows(given, given[::-1]))


def test_of_several_columns_of_files_the_one_with_files_is_read(tmp_path: Path) -> None:
    found = data.load(
        written(tmp_path, "\n".join(["image,label,Image_Path", *(f"{i},{'ab'[i % 2]},{i:03d}.png" for i in range(N))]))
    )
    assert found.ids[0] == "000.png"
    assert noted(found, "read from 'Image_Path'")


def test_labels_for_less_than_half_of_the_images_are_not_enough(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"11 of the 20 images .* have no label .blank, NA, nan or null."):
        data.load(f"csv:{cohort(tmp_path, 20, dx=['NA'] * 11 + ['a', 'b', 'c'] * 3)}", label="dx")


def test_patients_are_part_of_the_digest(tmp_path: Path) -> None:
    header, lines = "file,label,split,patient", rows(["train", "val", "test"] * 4, PEOPLE)
    assert table(tmp_path, header, lines).digest() != table(tmp_path, header, lines, patient="none").digest()


@pytest.mark.parametrize(
    ("header", "lines", "pattern"),
    [
        ("file,label", [f"{i:03d}.png,ill" for i in range(N)], "at least two classes"),
        ("file,label", [f"{i:03d}.png,{'7' * 5000}" for i in range(N)], "more than the limit"),
        ("file,label,split", rows(["fold1"] * N), "split column has 'fold1'"),
    ],
)
def test_wrong_labels_and_splits_are_refused_before_images_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: str, lines: list[str], pattern: str
) -> None:
    monkeypatch.setattr("medrobust.data.files.decode", lambda *_: pytest.fail("an image was decoded"))
    with pytest.raises(InputError, match=pattern):
        table(tmp_path, header, lines)
