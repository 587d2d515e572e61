"""Several findings an image in tables and archives: sets in a label column, a 0/1 column each, a matrix of MedMNIST."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medrobust import InputError, data
from medrobust.data.finding_labels import of_sets, separator_of
from medrobust.data.medmnist_classes import FINDINGS
from tests.data_files import picture, write_table


def table(folder: Path, **columns: list[str]) -> str:
    """A table of one image a row with these columns."""
    n = len(next(iter(columns.values())))
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        Image.fromarray(picture(i)).save(folder / f"{i}.png")
    return (
        f"csv:{write_table(folder, [{'file': f'{i}.png'} | {k: v[i] for k, v in columns.items()} for i in range(n)])}"
    )


def test_sets_in_a_label_column_are_recognised_and_a_blank_is_no_finding(tmp_path: Path) -> None:
    labels = ["Effusion", "Mass|Effusion", "No Finding", "", "Mass", "mass", "NA"] * 3
    images = data.load(table(tmp_path, label=labels))
    assert images.classes == ("Effusion", "Mass")
    assert images.labels[:6].tolist() == [[1, 0], [1, 1], [0, 0], [0, 0], [0, 1], [0, 1]]
    assert len(images) == 18
    assert len(images.left_out) == 3
    notes = " ".join(images.notes)
    assert "sets of findings, separated by |" in notes
    assert "6 images have no finding (label blank, 'No Finding')" in notes
    single = data.load(table(tmp_path, label=labels), separator="none")
    assert single.labels.ndim == 1
    assert "Mass|Effusion" in single.classes


@pytest.mark.parametrize(
    ("labels", "separator"),
    [
        (["a;b", "a", "b", "c"], ";"),
        (["a|b", "a|c", "b|c", "a", "b"], "|"),  # c stands with others only
        (["benign|nevus", "malignant|melanoma"], None),
        (["benign", "benign|atypical", "malignant"], None),
        (["left|ill", "left|well", "right|ill", "right|well"], None),
        (["grade|1", "grade|2", "grade|3"], None),
        (["a, b", "a", "b"], None),
        (["ill", "well"], None),
        (["a||b", "a", "b"], None),
    ],
)
def test_a_separator_is_recognised_only_where_findings_stand_alone_too(
    labels: list[str], separator: str | None
) -> None:
    found, notes = separator_of(labels, None)
    assert found == separator
    assert len(notes) == any(sign in "".join(labels) for sign in "|;")
    assert separator_of(labels, "none") == (None, ())
    assert separator_of(labels, ",") == (",", ())


def test_a_class_with_a_separator_in_its_name_stays_one_class(tmp_path: Path) -> None:
    images = data.load(table(tmp_path, label=["benign|nevus", "malignant|melanoma"] * 9))
    assert images.labels.ndim == 1
    assert images.classes == ("benign|nevus", "malignant|melanoma")
    assert "--separator '|'" in " ".join(images.notes)


def test_no_finding_beside_a_finding_is_a_contradiction() -> None:
    with pytest.raises(InputError, match="no finding and a finding"):
        of_sets("t", ["No Finding|Mass", "Mass", "Effusion"], "|")


def test_a_column_a_finding_has_unknown_values_which_are_counted(tmp_path: Path) -> None:
    effusion = ["1", "0", "1.0", "-1", "", "NaN", "0", "-1.0", ""] * 2
    nodule = ["0", "1", "", "1", "0", "1", "0", "0", "nan"] * 2
    images = data.load(
        table(tmp_path, effusion=effusion, Nodule=nodule, age=["7"] * 18), findings=["effusion", "nodule"]
    )
    assert images.classes == ("effusion", "Nodule")
    assert images.labels[:8].tolist() == [[1, 0], [0, 1], [1, -1], [-1, 1], [-1, 0], [-1, 1], [0, 0], [-1, 0]]
    assert len(images) == 16  # of two images nothing is known
    assert list(images.extra) == ["age"]
    assert any("10 findings of images are unknown (blank, NaN or -1)" in note for note in images.notes)
    assert any("effusion 8, Nodule 2" in note for note in images.notes)


@pytest.mark.parametrize("value", ["2", "yes", "0.5", "-2", "1|0"])
def test_any_other_value_of_a_finding_is_one_line(tmp_path: Path, value: str) -> None:
    spec = table(tmp_path, effusion=["1", "0", value], nodule=["0", "1", "1"])
    with pytest.raises(InputError, match=rf"line 4 of .*{value[0]}.*'effusion'.*-1 or nothing"):
        data.load(spec, findings=["effusion", "nodule"])


def test_columns_that_are_missing_or_named_twice_are_one_line(tmp_path: Path) -> None:
    spec = table(tmp_path, effusion=["1", "0", ""], nodule=["0", "1", "1"])
    with pytest.raises(InputError, match=r"no column 'hernia'.*--findings"):
        data.load(spec, findings=["effusion", "hernia"])
    with pytest.raises(InputError, match="twice"):
        data.load(spec, findings=["effusion", "effusion"])
    with pytest.raises(InputError, match="--findings effusion,nodule"):
        data.load(spec)


def chest(file: Path, **changed: np.ndarray) -> str:
    """A file laid out as ChestMNIST is."""
    draw, arrays = np.random.default_rng(0), {}
    for p, part in enumerate(("train", "val", "test")):
        arrays[f"{part}_images"] = np.stack([picture(100 * p + i, 12) for i in range(20)])
        arrays[f"{part}_labels"] = (draw.random((20, 14)) < 0.3).astype(np.uint8)
    np.savez_compressed(file, **(arrays | changed))
    return f"medmnist:{file}"


def test_chestmnist_has_its_fourteen_findings(tmp_path: Path) -> None:
    images = data.load(chest(tmp_path / "chestmnist_64.npz"))
    assert images.classes == FINDINGS["chestmnist"]
    assert images.labels.shape == (60, 14)
    assert len(images.split("val")) == 20
    other = data.load(chest(tmp_path / "xrv.npz", val_labels=np.where(np.eye(20, 14) > 0, np.nan, 1.0)))
    assert other.classes[13] == "finding 13"
    assert (other.split("val").labels == -1).sum() == 14


def test_labels_of_findings_are_0_1_or_unknown_and_as_many_in_every_part(tmp_path: Path) -> None:
    for wrong, said in (
        (np.full((20, 14), 3), "hold 3"),
        (np.zeros((20, 13)), "13, 14"),
        (np.zeros((19, 14)), "19, 14"),
    ):
        with pytest.raises(InputError, match=said):
            data.load(chest(tmp_path / "chestmnist.npz", val_labels=wrong))


def test_tables_laid_out_as_those_of_public_sets_are_read(tmp_path: Path) -> None:
    nih = table(tmp_path / "nih", **{"Finding Labels": ["No Finding", "Mass|Nodule", "Mass", "Nodule"] * 5})
    file = tmp_path / "nih" / "labels.csv"
    file.write_text(file.read_text().replace("file,", "Image Index,"))
    images = data.load(nih, label="finding labels")
    assert images.classes == ("Mass", "Nodule")
    assert images.counts.tolist() == [10, 10]
    values = {"No Finding": ["1.0", "", "", ""] * 5, "Edema": ["", "1.0", "-1.0", "0.0"] * 5}
    chexpert = table(tmp_path / "chexpert", **values)
    images = data.load(chexpert, findings=["No Finding", "Edema"])
    assert images.labels[:3].tolist() == [[1, -1], [-1, 1], [-1, 0]]
    assert len(images.left_out) == 5
    assert any("No Finding is read as a finding" in note for note in images.notes)
