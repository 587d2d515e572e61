"""Folders and .npz files: links, names that are no text, empty classes, headers that lie, entries nobody needs."""

from __future__ import annotations

import io
import os
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medrobust import data
from medrobust.data import Dataset
from medrobust.errors import InputError
from medrobust.runner.digest_cache import file_state
from tests.data_files import class_folders, picture


def noted(found: Dataset, text: str) -> bool:
    return any(text in note for note in found.notes)


# -- folders -------------------------------------------------------------------------------------------------


def test_every_format_that_can_be_read_is_read_from_a_folder(tmp_path: Path) -> None:
    kinds = {"jp2": "JPEG2000", "webp": "WEBP", "gif": "GIF", "pgm": "PPM", "PNG": "PNG", "TIFF": "TIFF", "bmp": "BMP"}
    for name in ("ill", "well"):
        (tmp_path / name).mkdir()
        for i, (suffix, kind) in enumerate(kinds.items()):
            Image.fromarray(picture(i)).save(tmp_path / name / f"{i}.{suffix}", kind)
    found = data.load(f"folder:{tmp_path}")
    assert len(found) == 2 * len(kinds)


def test_links_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    store = class_folders(tmp_path / "store", n=4)
    root = tmp_path / "study"
    (root / "ill").mkdir(parents=True)
    (root / "well").symlink_to(store / "well", target_is_directory=True)
    (root / "ill" / "more").symlink_to(store / "ill", target_is_directory=True)
    (root / "ill" / "again").symlink_to(root / "ill", target_is_directory=True)
    (root / "ill" / "up").symlink_to(root, target_is_directory=True)
    (root / "ill" / "gone.png").symlink_to(root / "nowhere.png")
    found = data.load(f"folder:{root}")
    assert np.bincount(found.labels).tolist() == [4, 4]
    assert found.ids[0] == "ill/more/0.png"
    assert noted(found, "2 links to a folder above themselves were not followed")
    assert noted(found, "1 links that lead nowhere")


def test_one_file_in_two_classes_is_refused_and_in_one_class_read_once(tmp_path: Path) -> None:
    root = class_folders(tmp_path, n=4)
    (root / "ill" / "copy.png").hardlink_to(root / "ill" / "0.png")
    found = data.load(f"folder:{root}")
    assert len(found) == 8
    assert noted(found, "1 files are other names of a file")
    (root / "well" / "copy.png").symlink_to(root / "ill" / "1.png")
    with pytest.raises(InputError, match="is one file in the classes 'ill' and 'well'"):
        data.load(f"folder:{root}")


def test_what_lies_in_a_folder_and_is_no_image_of_a_class_is_counted(tmp_path: Path) -> None:
    root = class_folders(tmp_path, n=4)
    (root / "edema").mkdir()
    (root / "ill" / "list.txt").touch()
    (root / "ill" / "scan.dat").touch()
    (root / "ill" / "README").touch()
    shutil.copy(root / "ill" / "0.png", root / "loose.png")
    found = data.load(f"folder:{root}")
    assert found.classes == ("ill", "well")
    assert noted(found, "1 class folders hold no images: 'edema'")
    assert noted(found, "3 files that are no images (1 .dat, 1 .txt, 1 without ending) were passed over")
    assert noted(found, "1 images that lie in no class folder")


def test_class_folders_that_differ_in_case_are_one_class(tmp_path: Path) -> None:
    root = class_folders(tmp_path, ("train", "test"), n=4)
    (root / "test" / "ill").rename(root / "test" / "Ill")
    found = data.load(f"folder:{root}")
    assert found.classes == ("Ill", "well")
    assert noted(found, "4 labels written 'ill' were read as the class 'Ill'")


def test_file_names_that_are_no_text_are_ids_that_can_be_written(tmp_path: Path) -> None:
    root = class_folders(tmp_path, n=4)
    os.rename(root / "ill" / "0.png", os.fsencode(root / "ill") + b"/\xff\xfe.png")
    os.rename(root / "well", os.fsencode(root) + b"/w\xe9ll")
    found = data.load(f"folder:{root}")
    assert "ill/\\xff\\xfe.png" in found.ids
    assert found.classes == ("ill", "w\\xe9ll")
    "".join(found.ids).encode()
    assert len(found.digest()) == 64
    assert found.tensors()[0].shape[0] == 8


def test_a_change_behind_a_link_or_under_a_name_that_is_no_text_is_seen_by_studies(tmp_path: Path) -> None:
    store, root = class_folders(tmp_path / "store", n=2), tmp_path / "study"
    root.mkdir()
    (root / "all").symlink_to(store, target_is_directory=True)
    (store / "loop").symlink_to(store, target_is_directory=True)
    before = file_state(root)
    odd = os.fsencode(store / "ill") + b"/\xff.png"
    shutil.copy(store / "ill" / "0.png", odd)
    with_odd = file_state(root)
    os.utime(odd, (1, 1))
    assert len({before, with_odd, file_state(root)}) == 3


# -- npz -----------------------------------------------------------------------------------------------------

IMAGES = np.stack([picture(i, 12) for i in range(6)])
LABELS = np.array([0, 1, 0, 1, 0, 1], np.uint8)


def archive(file: Path, **arrays: np.ndarray) -> str:
    np.savez_compressed(file, **({"test_images": IMAGES, "test_labels": LABELS} | arrays))
    return f"medmnist:{file}"


def entry(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def zipped(file: Path, entries: dict[str, bytes]) -> str:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in entries.items():
            out.writestr(name, content)
    return f"medmnist:{file}"


def lying(file: Path, shape: str, dtype: str = "|u1") -> str:
    """An archive whose images state another shape."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (118 - len(header) - 1) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + IMAGES.tobytes()
    return zipped(file, {"test_images.npy": content, "test_labels.npy": entry(LABELS)})


def encrypted(file: Path) -> str:
    spec = archive(file)
    content = bytearray(file.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(mark)
        while place >= 0:
            content[place + offset] |= 1
            place = content.find(mark, place + 1)
    file.write_bytes(content)
    return spec


def doubled(file: Path) -> str:
    spec = archive(file)
    with zipfile.ZipFile(file, "a") as out, pytest.warns(UserWarning, match="Duplicate"):
        out.writestr("test_images.npy", entry(IMAGES))
    return spec


def cut(file: Path) -> str:
    spec = archive(file)
    content = bytearray(file.read_bytes())
    content[80:140] = b"\xff" * 60
    file.write_bytes(content)
    return spec


BAD: dict[str, tuple[Callable[[Path], str], str]] = {
    "a label of 10^9": (lambda f: archive(f, test_labels=LABELS.astype(np.int64) * 10**9), "1,000,000,001 classes"),
    "a label of 2^64": (lambda f: archive(f, test_labels=LABELS * np.uint64(2**64 - 1)), "more than the limit"),
    "a label of 1e300": (lambda f: archive(f, test_labels=LABELS * 1e300), "more than the limit of 10,000"),
    "a label of infinity": (lambda f: archive(f, test_labels=np.where(LABELS, np.inf, 0.0)), "hold inf"),
    "a label of a half": (lambda f: archive(f, test_labels=LABELS / 2), "hold 0.5"),
    "a negative label": (lambda f: archive(f, test_labels=-LABELS.astype(int)), "hold -1"),
    "labels that are words": (lambda f: archive(f, test_labels=LABELS.astype(str)), "whole numbers from 0 are needed"),
    "no labels": (lambda f: archive(f, test_labels=LABELS * np.nan), "two classes, found 0"),
    "most labels missing": (
        lambda f: archive(f, test_labels=np.array([0, 1, *[np.nan] * 4])),
        "4 of the 6 images .* have no label",
    ),
    "objects": (lambda f: archive(f, test_labels=LABELS.astype(object)), "Python objects, which are not read"),
    "an impossible shape": (lambda f: lying(f, "(10**9, 12, 12)"), "cannot be read as .npz"),
    "a shape too large": (lambda f: lying(f, "(1000000000000, 12, 12)"), "states the shape .* and holds 864"),
    "a negative shape": (lambda f: lying(f, "(-6, 12, 12)"), "states the shape|cannot be read"),
    "a type too large": (lambda f: lying(f, "(6, 12, 12)", "|S999999999"), "states the shape"),
    "a bad header": (lambda f: lying(f, "(6, 12, 12"), "cannot be read as .npz"),
    "a deep header": (lambda f: lying(f, "(" * 4000 + ")" * 4000), "cannot be read as .npz"),
    "no header": (lambda f: zipped(f, {"test_images.npy": b"x", "test_labels.npy": entry(LABELS)}), "cannot be read"),
    "encrypted": (encrypted, "is encrypted"),
    "an entry twice": (doubled, "holds test_images twice"),
    "damaged": (cut, "cannot be read as .npz"),
    "no sides": (lambda f: archive(f, test_images=IMAGES[:, :0, :0]), "needed is uint8"),
    "absurd names": (
        lambda f: zipped(f, {"../../x.npy": b"", "/etc/passwd": b"", "a" * 60_000: b"", "\x1b[2J": b""}),
        r"it has '\\x1b\[2J', '../../x', '/etc/passwd', 'aaa",
    ),
    "multi-label": (lambda f: archive(f, test_labels=np.zeros((5, 14), int)), r"labels \(5, 14\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_archive_gets_one_line(tmp_path: Path, case: str) -> None:
    make, pattern = BAD[case]
    spec = make(tmp_path / "a.npz")
    with pytest.raises(InputError, match=pattern) as caught:
        data.load(spec)
    assert str(caught.value).isprintable()


def test_entries_that_nobody_needs_are_not_unpacked(tmp_path: Path) -> None:
    zeros = np.zeros(50_000_000, np.uint8)
    spec = archive(tmp_path / "a.npz", extra=zeros, train_masks=zeros)
    tracemalloc.start()
    try:
        assert len(data.load(spec)) == 6
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_wanted_entries_beyond_the_limit_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDROBUST_MAX_UNPACKED_BYTES", "1000")
    with pytest.raises(InputError, match=r"unpacked, has .* bytes, more than the limit of 1,000"):
        data.load(archive(tmp_path / "a.npz"))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.uint64, np.int8, np.float32, np.float64])
def test_labels_of_any_numeric_type_mean_the_same(tmp_path: Path, dtype: type) -> None:
    found = data.load(archive(tmp_path / "a.npz", test_labels=LABELS.astype(dtype)[:, None]))
    assert found.labels.tolist() == LABELS.tolist()
    assert noted(found, "were read as whole numbers") == (dtype in (bool, np.float32, np.float64))


def test_a_label_that_is_nan_is_left_out(tmp_path: Path) -> None:
    labels = LABELS.astype(float)
    labels[0] = np.nan
    found = data.load(archive(tmp_path / "a.npz", test_labels=labels))
    assert [tuple(left) for left in found.left_out] == [("test-0", "it has no label")]
    assert len(found) == 5


def test_an_archive_that_fails_leaves_no_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medrobust.data.npz.KEPT_BYTES", 100)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    with pytest.raises(InputError):
        data.load(archive(tmp_path / "a.npz", test_labels=LABELS / 2))
    assert not list((tmp_path / "t").iterdir())
