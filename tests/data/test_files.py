"""Image files come back as they were saved; damaged ones are left out and named; bad input gets one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from medrobust import data
from medrobust.data.decode import decode
from medrobust.errors import InputError
from tests.data_files import class_folders, cohort, npz, picture, write_table


def two_images(folder: Path, images: list[Image.Image], suffix: str = "png", **save: object) -> str:
    """A table of these images in two classes."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, image in enumerate(images):
        image.save(folder / f"{i}.{suffix}", **save)
        rows.append({"file": f"{i}.{suffix}", "label": ("ill", "well")[i % 2]})
    return f"csv:{write_table(folder, rows)}"


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
@pytest.mark.parametrize("colour", [False, True])
def test_eight_bit_pixels_come_back_exactly(tmp_path: Path, suffix: str, colour: bool) -> None:
    pixels = [picture(i, colour=colour) for i in range(4)]
    found = data.load(two_images(tmp_path, [Image.fromarray(p) for p in pixels], suffix))
    assert (found.channels, found.size, found.bits) == (3 if colour else 1, 16, 8)
    stored = (found.images(range(4)) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(stored.squeeze(), np.stack(pixels))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_keeps_sixteen_bits(tmp_path: Path, suffix: str) -> None:
    pixels = [np.random.default_rng(i).integers(0, 65536, (16, 16), np.uint16) for i in range(4)]
    found = data.load(two_images(tmp_path, [Image.fromarray(p) for p in pixels], suffix))
    assert found.bits == 16
    stored = (found.images(range(4)).double() * 65535).round().numpy()[:, 0]
    assert np.array_equal(stored, np.stack(pixels))


def test_sixteen_bit_colour_keeps_sixteen_bits(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (8, 8, 3), np.uint16)
    assert np.array_equal(decode(png_16(pixels)).pixels, pixels)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_sixteen_bit_colour_tiff_keeps_sixteen_bits(tmp_path: Path, order: str, compression: str | None) -> None:
    tifffile = pytest.importorskip("tifffile")  # PIL cannot write one
    pixels = np.random.default_rng(0).integers(0, 65536, (8, 8, 3), np.uint16)
    file = tmp_path / "x.tif"
    tifffile.imwrite(file, pixels, photometric="rgb", byteorder=order, compression=compression)
    assert np.array_equal(decode(file.read_bytes()).pixels, pixels)


def png_16(pixels: np.ndarray) -> bytes:
    """The bytes of an RGB PNG at 16 bits; PIL cannot write one."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_eight_and_sixteen_bits_mixed_mean_the_same_grey(tmp_path: Path) -> None:
    grey = picture(0)
    images = [Image.fromarray(grey), Image.fromarray(grey.astype(np.uint16) * 257)]
    found = data.load(two_images(tmp_path, images))
    first, second = found.images([0, 1])
    assert found.bits == 16
    assert found.levels.tolist() == [255, 65535]
    assert torch.equal(first, second)


def test_sixteen_bit_images_that_use_twelve_are_pointed_out(tmp_path: Path) -> None:
    pixels = [np.random.default_rng(i).integers(0, 4096, (16, 16), np.uint16) for i in range(2)]
    found = data.load(two_images(tmp_path, [Image.fromarray(p) for p in pixels]))
    assert any("very dark" in note for note in found.notes)


def test_resized_sixteen_bit_stays_on_its_grid_and_is_finer_than_eight(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    found = data.load(two_images(tmp_path, [Image.fromarray(ramp)] * 2), size=20)
    levels = found.images([0]).double() * 65535
    assert (levels - levels.round()).abs().max() < 0.01
    assert ((levels / 257) - (levels / 257).round()).abs().max() > 0.1


def test_alpha_is_dropped_palettes_are_looked_up_and_grey_jpeg_in_colour_is_grey(tmp_path: Path) -> None:
    colour = picture(1, colour=True)
    alpha = np.dstack([colour, picture(2)])
    found = data.load(two_images(tmp_path / "a", [Image.fromarray(alpha), Image.fromarray(colour)]))
    assert torch.equal(*found.images([0, 1]))
    flat = Image.fromarray(np.repeat(np.repeat(picture(3, 2, colour=True), 8, 0), 8, 1))
    found = data.load(two_images(tmp_path / "p", [flat.convert("P", palette=Image.Palette.ADAPTIVE), flat]))
    assert torch.equal(*found.images([0, 1]))
    grey = Image.fromarray(picture(4)).convert("RGB")
    assert data.load(two_images(tmp_path / "j", [grey, grey.rotate(90)], "jpg")).channels == 1


def test_the_orientation_in_the_file_is_respected(tmp_path: Path) -> None:
    upright = Image.fromarray(picture(0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    upright.rotate(90).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(decode((tmp_path / "turned.png").read_bytes()).pixels, picture(0))


def test_images_that_are_not_square_are_stretched_and_it_is_said(tmp_path: Path) -> None:
    wide = np.zeros((10, 40), np.uint8)
    wide[:, :2] = 255  # the border must not be cut off
    found = data.load(two_images(tmp_path, [Image.fromarray(wide)] * 2), size=20)
    assert found.images([0])[0, 0, :, 0].min() > 0.5
    assert any("stretched" in note for note in found.notes)


@pytest.mark.parametrize("filled_up", [False, True])
def test_a_truncated_image_among_many_is_left_out_and_named(
    tmp_path: Path, filled_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", filled_up)  # as WeasyPrint leaves it behind
    table = cohort(tmp_path, 40, suffix="jpg")
    whole = (tmp_path / "007.jpg").read_bytes()
    (tmp_path / "007.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "008.jpg").write_bytes(b"not an image")
    (tmp_path / "009.jpg").write_bytes(b"")
    done: list[tuple[int, int]] = []
    found = data.load(f"csv:{table}", progress=lambda *count: done.append(count))
    assert len(found) == 37
    assert [left.file for left in found.left_out] == ["007.jpg", "008.jpg", "009.jpg"]
    assert "truncated" in found.left_out[0].reason.lower()
    assert "not an image" in found.left_out[1].reason
    assert "empty" in found.left_out[2].reason
    assert done[-1] == (40, 40)
    assert found.images(range(37)).shape[0] == 37
    found.digest()


def test_the_digest_knows_pixels_and_labels_and_not_the_place(tmp_path: Path) -> None:
    table = cohort(tmp_path / "here", 20)
    digest = data.load(f"csv:{table}").digest()
    shutil.copytree(tmp_path / "here", tmp_path / "there" / "deep")
    moved = tmp_path / "there" / "deep" / "labels.csv"
    assert data.load(f"csv:{moved}").digest() == digest
    pixels = picture(3)
    pixels[0, 0] ^= 1
    Image.fromarray(pixels).save(moved.parent / "003.png")
    assert data.load(f"csv:{moved}").digest() != digest
    table.write_text(table.read_text().replace("004.png,ill", "004.png,well"))
    assert data.load(f"csv:{table}").digest() != digest


def test_the_same_image_under_two_names_in_train_and_test_is_reported(tmp_path: Path) -> None:
    given = ["train", "val", "test"] * 10
    table = cohort(tmp_path, 30, split=given)
    shutil.copy(tmp_path / "000.png", tmp_path / "002.png")
    assert any("byte for byte" in note for note in data.load(f"csv:{table}").notes)


def test_semicolons_a_byte_order_mark_and_other_columns_are_read(tmp_path: Path) -> None:
    table = cohort(tmp_path, 20, diagnosis=["nv", "mel"] * 10)
    table.write_text("\ufeff" + table.read_text().replace(",", ";"), encoding="utf-8")
    found = data.load(f"csv:{table}", label="diagnosis")
    assert found.classes == ("mel", "nv")
    assert found.extra["label"][:2].tolist() == ["ill", "well"]


def test_class_names_that_are_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    found = data.load(f"csv:{cohort(tmp_path, 20, grade=[str(i % 12) for i in range(20)])}", label="grade")
    assert found.classes == tuple(str(i) for i in range(12))


def test_pixels_are_not_read_twice_while_there_is_room(tmp_path: Path) -> None:
    found = data.load(f"csv:{cohort(tmp_path, 20)}")
    images = found.images(range(20))
    (tmp_path / "000.png").unlink()
    assert torch.equal(found.images(range(20)), images)


def test_what_does_not_fit_is_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = cohort(tmp_path, 20)
    whole = data.load(f"csv:{table}").images(range(20))
    monkeypatch.setattr("medrobust.data.source.KEPT_BYTES", 5 * 256)
    found = data.load(f"csv:{table}")
    assert torch.equal(found.images(range(20)), whole)
    assert found.source._kept_bytes <= 5 * 256
    (tmp_path / "019.png").unlink()
    with pytest.raises(InputError, match="readable at first"):
        found.images([19])


def test_large_arrays_are_mapped_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = npz(tmp_path / "pneumoniamnist.npz", colour=True)
    whole = data.load(f"medmnist:{file}")
    monkeypatch.setattr("medrobust.data.npz.KEPT_BYTES", 100)
    mapped = data.load(f"medmnist:{file}")
    assert isinstance(mapped.source.parts[0], np.memmap)
    assert torch.equal(mapped.tensors()[0], whole.tensors()[0])
    assert mapped.digest() == whole.digest()


def rename(table: Path, old: str, new: str) -> str:
    table.write_text(table.read_text().replace(old, new))
    return f"csv:{table}"


def break_all(table: Path) -> str:
    for file in table.parent.glob("*.png"):
        file.write_bytes(b"x")
    return f"csv:{table}"


def mixed_sizes(folder: Path) -> str:
    return two_images(folder, [Image.fromarray(picture(0, 16)), Image.fromarray(picture(0, 18))])


def array_file(folder: Path, **arrays: np.ndarray) -> str:
    np.savez(folder / "a.npz", **arrays)
    return f"medmnist:{folder / 'a.npz'}"


def not_a_zip(folder: Path) -> str:
    (folder / "a.npz").write_bytes(b"oops")
    return f"medmnist:{folder / 'a.npz'}"


FIRST = "file,label"
IMAGES = np.zeros((4, 8, 8), np.uint8)
BAD: dict[str, tuple[Callable[[Path], str], str]] = {
    "unknown kind": (lambda p: "dcm:x", r"unknown data 'dcm:x'.*phantom, csv, folder, dicom, nifti, medmnist"),
    "a bare path": (lambda p: str(cohort(p)), r"did you mean csv:"),
    "no table": (lambda p: f"csv:{p}/no.csv", "there is no table"),
    "no rows": (lambda p: f"csv:{write_table(p, [{'file': 'file', 'label': 'x'}])}", "not there"),
    "no label column": (lambda p: rename(cohort(p), FIRST, "file,dx"), "only 'file', 'dx'.*label='dx'"),
    "no file column": (lambda p: rename(cohort(p), FIRST, "scan,label"), "no column file, only 'scan', 'label'"),
    "missing files": (lambda p: rename(cohort(p), "00", "no"), r"of the 60 files .* are not there: 'no.*;"),
    "two labels": (lambda p: rename(cohort(p), "002.png,ill", "003.png,ill"), "lines 4 and 5 .*'ill' and with 'well'"),
    "one class": (lambda p: rename(cohort(p), "ill", "well"), "at least two classes, found only 'well'"),
    "unknown split": (lambda p: f"csv:{cohort(p, 20, split=['fold1'] * 20)}", r"split column has 'fold1' in 20 rows"),
    "all broken": (lambda p: break_all(cohort(p)), r"60 of the 60 images .* cannot be read, first 000.png"),
    "mixed sizes": (mixed_sizes, "differ in size.*size=224"),
    "no folder": (lambda p: f"folder:{p}/no", "there is no folder"),
    "empty folder": (lambda p: f"folder:{p}", "no images in class folders"),
    "mixed folders": (lambda p: f"folder:{class_folders(class_folders(p), ('train',))}", "split folders"),
    "unknown member": (lambda p: "medmnist:lungmnist", "no member 'lungmnist'; choose one of bloodmnist"),
    "odd size": (lambda p: "medmnist:pathmnist@50", "28, 64, 128, 224"),
    "no npz": (lambda p: f"medmnist:{p}/no.npz", "there is no file"),
    "not a zip": (not_a_zip, "cannot be read as .npz"),
    "other layout": (lambda p: array_file(p, x=IMAGES, y=np.zeros(4)), r"it has 'x', 'y'.*needed are train_images"),
    "labels short": (
        lambda p: array_file(p, test_images=IMAGES, test_labels=np.zeros((3, 1), int)),
        r"labels \(3, 1\)",
    ),
    "float pixels": (lambda p: array_file(p, test_images=IMAGES / 2, test_labels=np.zeros(4, int)), "is float64"),
    "unknown phantom": (lambda p: "phantom:knee", "unknown phantom 'knee'; choose chest, fundus, skin"),
    "tiny phantom": (lambda p: "phantom:chest:n=4", "at least 18"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_line_that_names_the_mend(tmp_path: Path, case: str) -> None:
    make, pattern = BAD[case]
    spec = make(tmp_path)
    with pytest.raises(InputError, match=pattern) as caught:
        data.load(spec)
    assert "\n" not in str(caught.value)


def test_bad_arguments_are_named() -> None:
    for arguments in ({"size": 2}, {"channels": 2}):
        with pytest.raises(InputError, match=next(iter(arguments))):
            data.load("phantom:chest", **arguments)
    with pytest.raises(InputError, match="unknown split 'dev'"):
        data.load("phantom:chest").split("dev")
