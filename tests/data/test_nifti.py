"""Slices of NIfTI volumes: the right one, turned upright, with grey levels of the file; damaged files get one line."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medrobust.data import load
from medrobust.errors import InputError


def volume(file: Path, values: np.ndarray, slope: float = 1.0, intercept: float = 0.0, kind: str = "1") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    made = {"1": nibabel.Nifti1Image, "2": nibabel.Nifti2Image}[kind](values, np.eye(4))
    made.header.set_slope_inter(slope, intercept)
    nibabel.save(made, file)
    return file


def ramp(dtype: str = "int16") -> np.ndarray:
    """(12, 12, 5): value = 100 * slice + 10 * column + row, of the file's axes."""
    i, j, k = np.indices((12, 12, 5))
    return (100 * k + 10 * i + j).astype(dtype)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for n, ending in enumerate((".nii", ".nii.gz", ".nii", ".nii.gz")):
        volume(tmp_path / ("ill", "well")[n % 2] / f"v{n}{ending}", ramp() + n, kind="12"[n // 2])
    return tmp_path


def shown(data, row: int = 0) -> np.ndarray:
    return (data.images([row])[0, 0].numpy() * data.levels[row]).round().astype(int)


def test_the_middle_slice_is_read_upright_in_levels_of_the_file(root: Path) -> None:
    data = load(f"nifti:{root}", window="200,401")  # from 0 to 400, of whole stored values
    assert (data.classes, len(data), data.channels) == (("ill", "well"), 4, 1)
    assert np.array_equal(shown(data), np.rot90(ramp()[:, :, 2]).clip(0, 400))
    assert data.levels.tolist() == [400] * 4
    assert any("in the middle" in note for note in data.notes)
    assert any("window that was asked for" in note for note in data.notes)
    one = load(f"nifti:{root}", window="200,401", frames="1")
    assert np.array_equal(shown(one), np.rot90(ramp()[:, :, 0]).clip(0, 400))
    every = load(f"nifti:{root}", window="200,401", frames="all")
    assert len(every) == 20
    assert np.array_equal(shown(every, list(every.ids).index("ill/v0.nii#5")), np.rot90(ramp()[:, :, 4]).clip(0, 400))
    assert sorted(set(every.patients)) == ["ill/v0.nii", "ill/v2.nii", "well/v1.nii.gz", "well/v3.nii.gz"]


def test_black_and_white_are_percentiles_of_the_volume_unless_asked(root: Path) -> None:
    low, high = np.percentile(ramp(), (0.5, 99.5))
    data = load(f"nifti:{root}")
    assert data.levels[0] == round(high) - round(low)
    assert np.array_equal(shown(data), np.rot90(ramp()[:, :, 2]).clip(round(low), round(high)) - round(low))
    assert any("99.5th percentile" in note for note in data.notes)
    assert load(f"nifti:{root}", window="none").levels[0] == ramp().max() - ramp().min()


def test_a_rescaled_volume_is_shown_in_its_units(tmp_path: Path) -> None:
    for name in ("a", "b"):
        volume(tmp_path / name / "v.nii", ramp(), -2.0, 1000.0)
    data = load(f"nifti:{tmp_path}", window="700,401")  # from 500 to 900: stored 250 down to 50
    assert np.array_equal(shown(data), (250 - np.rot90(ramp()[:, :, 2])).clip(0, 200))
    float_root = tmp_path / "float"
    for name in ("a", "b"):
        values = ramp("float32")
        values[0, 0, 0] = np.nan
        volume(float_root / name / "v.nii", values)
    data = load(f"nifti:{float_root}", window="200,401")
    assert data.levels.tolist() == [65535, 65535]
    assert np.allclose(data.images([0])[0, 0], (np.rot90(ramp()[:, :, 2]) + 0.5) / 400, atol=1e-5)


def test_a_table_may_name_volumes(root: Path) -> None:
    table = root / "t.csv"
    table.write_text("file,label\nill/v0.nii,yes\nwell/v1.nii.gz,no\n")
    data = load(f"csv:{table}")
    assert (data.classes, len(data)) == (("no", "yes"), 2)


def damaged(file: Path, how: str) -> None:
    data = bytearray(volume(file, ramp()).read_bytes())
    if how == "truncated":
        data = data[:600]
    elif how == "claims 10 GB":
        data[40:56] = np.array([4, 12, 12, 30000, 2000, 1, 1, 1], "<i2").tobytes()
    elif how == "no axes":
        data[40:56] = bytes(16)
    elif how == "negative axes":
        data[40:56] = np.array([3, -5, 12, 5, 1, 1, 1, 1], "<i2").tobytes()
    elif how == "colours":
        data[70:74] = np.array([128, 24], "<i2").tobytes()
    elif how == "offset":
        data[108:112] = np.float32(np.nan).tobytes()
    elif how == "no header":
        data[:] = b"x" * len(data)
    elif how == "constant":
        data[352:] = bytes(len(data) - 352)
    elif how == "bad gzip":
        data = bytearray(gzip.compress(bytes(data)))
        data[40:80] = bytes(40)
    else:
        data = bytearray()
    file.write_bytes(data)


HOW = ["truncated", "claims 10 GB", "no axes", "negative axes", "colours", "offset", "no header", "constant"]


@pytest.mark.parametrize("how", [*HOW, "bad gzip", "empty"])
def test_a_damaged_volume_is_left_out_with_one_line(root: Path, how: str) -> None:
    damaged(root / "ill" / ("bad.nii.gz" if how == "bad gzip" else "bad.nii"), how)
    data = load(f"nifti:{root}")
    assert len(data) == 4
    ((file, reason),) = data.left_out
    assert file.startswith("ill/bad.nii")
    assert reason
    assert "\n" not in reason


def test_what_is_no_volume_is_refused(tmp_path: Path) -> None:
    file = volume(tmp_path / "a" / "v.nii", ramp())
    with pytest.raises(InputError, match="a folder for each class"):
        load(f"nifti:{file}")
    with pytest.raises(InputError, match="a number from 1"):
        load(f"nifti:{tmp_path}", frames="0")
