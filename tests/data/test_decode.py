"""Pixels of every kind of file come out as they were meant; whatever is reinterpreted is counted; bombs stay shut."""

from __future__ import annotations

import base64
import io
import struct
import subprocess
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medrobust import data, formats
from medrobust.data.decode import CHANGES, decode, luminance, resize, upright_size
from medrobust.data.fit import FITS, square
from medrobust.errors import InputError
from tests.data_files import class_folders, picture, write_table

tifffile = pytest.importorskip("tifffile")  # Pillow cannot write most of these

GREY, COLOUR = picture(1), picture(2, colour=True)
DEEP = np.random.default_rng(3).integers(0, 65536, (16, 16), np.uint16)


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def turned(kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(Image.fromarray(GREY).rotate(90), kind, exif=exif)


def palette(transparent: bool) -> bytes:
    image = Image.fromarray(np.repeat(np.repeat(picture(3, 2, colour=True), 8, 0), 8, 1))
    image = image.convert("P", palette=Image.Palette.ADAPTIVE)
    return saved(image, transparency=0) if transparent else saved(image)


BILEVEL = np.where(GREY > 127, 255, 0).astype(np.uint8)
CMYK = Image.fromarray(COLOUR).convert("CMYK")
FLAT = np.asarray(Image.open(io.BytesIO(palette(False))).convert("RGB"))
POSITIVE = (DEEP // 2).astype(np.int16)

MEANT: dict[str, tuple[bytes, np.ndarray, set[str]]] = {
    "white is 0, 16 bit": (tiff(65535 - DEEP, photometric="miniswhite"), DEEP, {"inverted"}),
    "white is 0, 16 bit, compressed": (
        tiff(65535 - DEEP, photometric="miniswhite", compression="zlib", predictor=True),
        DEEP,
        {"inverted"},
    ),
    "white is 0, 8 bit": (tiff(255 - GREY, photometric="miniswhite"), GREY, {"inverted"}),
    "white is 0, 8 bit, compressed": (
        tiff(255 - GREY, photometric="miniswhite", compression="zlib"),
        GREY,
        {"inverted"},
    ),
    "white is 0, 8 bit, big-endian": (tiff(255 - GREY, photometric="miniswhite", byteorder=">"), GREY, {"inverted"}),
    "white is 0, 1 bit": (tiff(BILEVEL == 0, photometric="miniswhite"), BILEVEL, {"inverted", "bilevel"}),
    "black is 0, 1 bit": (tiff(BILEVEL > 0, photometric="minisblack"), BILEVEL, {"bilevel"}),
    "black is 0, 16 bit": (tiff(DEEP), DEEP, set()),
    "black is 0, 16 bit, big-endian": (tiff(DEEP, byteorder=">"), DEEP, set()),
    "1 bit PNG": (saved(Image.fromarray(BILEVEL).convert("1")), BILEVEL, {"bilevel"}),
    "signed, none negative": (tiff(POSITIVE), POSITIVE.astype(np.uint16), {"signed"}),
    "signed 8 bit, none negative": (tiff((GREY // 2).astype(np.int8)), GREY // 2, {"signed"}),
    "32 bit, small": (tiff(DEEP.astype(np.uint32)), DEEP, set()),
    "several pages": (tiff(np.stack([GREY, 255 - GREY]), photometric="minisblack"), GREY, {"frames"}),
    "moving GIF": (
        saved(Image.fromarray(GREY), "GIF", save_all=True, append_images=[Image.fromarray(255 - GREY)]),
        GREY,
        {"frames"},
    ),
    "CMYK": (saved(CMYK, "TIFF"), np.asarray(CMYK.convert("RGB")), {"cmyk"}),
    "alpha that hides": (saved(Image.fromarray(np.dstack([COLOUR, GREY]))), COLOUR, {"transparent"}),
    "alpha that hides nothing": (saved(Image.fromarray(np.dstack([COLOUR, GREY * 0 + 255]))), COLOUR, set()),
    "grey with alpha": (saved(Image.fromarray(np.dstack([GREY, GREY]), "LA")), GREY, {"transparent"}),
    "palette": (palette(False), FLAT, set()),
    "palette with transparency": (palette(True), FLAT, {"transparent"}),
    "turned PNG": (turned("PNG"), GREY, {"turned"}),
    "turned TIFF": (turned("TIFF"), GREY, {"turned"}),
    "WebP": (saved(Image.fromarray(GREY), "WEBP", lossless=True), GREY, set()),
    "JPEG 2000": (saved(Image.fromarray(GREY), "JPEG2000", irreversible=False), GREY, set()),
    "JPEG 2000, 16 bit": (saved(Image.fromarray(DEEP), "JPEG2000", irreversible=False), DEEP, set()),
    "JPEG 2000, colour": (saved(Image.fromarray(COLOUR), "JPEG2000", irreversible=False), COLOUR, set()),
    "PGM": (saved(Image.fromarray(GREY), "PPM"), GREY, set()),
    "PGM, 16 bit": (b"P5 16 16 65535\n" + DEEP.astype(">u2").tobytes(), DEEP, set()),
    "PPM, 16 bit": (b"P6 16 16 65535\n" + (COLOUR.astype(">u2") * 257).tobytes(), COLOUR, {"reduced"}),
    "16-bit colour TIFF with alpha": (
        tiff(np.dstack([DEEP, DEEP // 2, DEEP // 3, DEEP * 0 + 65535]), photometric="rgb", extrasamples=["unassalpha"]),
        np.dstack([DEEP, DEEP // 2, DEEP // 3]),
        set(),
    ),
}


@pytest.mark.parametrize("case", MEANT)
def test_pixels_are_those_that_were_meant_and_changes_are_named(case: str) -> None:
    content, pixels, changes = MEANT[case]
    found = decode(content)
    assert found.pixels.dtype == pixels.dtype
    assert np.array_equal(found.pixels, pixels)
    assert set(found.changes) == changes


REFUSED = {
    "signed": (tiff(DEEP.astype(np.int16)), r"signed values from -\d+ to"),
    "signed 8 bit": (tiff(GREY.astype(np.int8)), "signed 8-bit"),
    "float": (tiff(GREY.astype(np.float32)), "floating-point"),
    "32 bit": (tiff(DEEP.astype(np.uint32) * 60_000), "32-bit"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n", "cannot identify"),
    "PDF": (b"%PDF-1.4\n", "cannot identify"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_pixels_whose_meaning_is_unknown_are_refused(case: str) -> None:
    content, pattern = REFUSED[case]
    with pytest.raises((ValueError, OSError), match=pattern):
        decode(content)


def test_an_eps_under_any_name_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    class_folders(tmp_path)
    (tmp_path / "ill" / "x.png").write_bytes(REFUSED["EPS"][0] + b"%%EOF\n" * 10)
    found = data.load(f"folder:{tmp_path}")
    assert [left.file for left in found.left_out] == ["ill/x.png"]
    assert formats.TITLES in found.left_out[0].reason
    assert "EPS" not in formats.FORMATS


def test_every_change_is_counted_in_a_note(tmp_path: Path) -> None:
    contents = [content for content, pixels, _ in MEANT.values() if pixels.shape[:2] == (16, 16)]
    kinds = [changes for _, pixels, changes in MEANT.values() if pixels.shape[:2] == (16, 16)]
    rows = []
    for i, content in enumerate(contents):
        (tmp_path / f"{i}.png").write_bytes(content)  # the ending does not matter: the content is recognised
        rows.append({"file": f"{i}.png", "label": "ab"[i % 2]})
    found = data.load(f"csv:{write_table(tmp_path, rows)}")
    for change, text in CHANGES.items():
        count = sum(change in changes for changes in kinds)
        assert (f"{count} of {len(rows)} images {text}." in found.notes) == (count > 0)


# -- bombs ---------------------------------------------------------------------------------------------------


def png_header(width: int, height: int) -> bytes:
    """A PNG that states that size, with 1 kB of compressed zeros."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 2**20)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def resized_header(content: bytes, old: bytes, new: bytes) -> bytes:
    assert old in content
    return content.replace(old, new, 1)


BOMBS = {
    "PNG": png_header(13_300, 13_300),
    "PNG, largest": png_header(2**31 - 1, 2**31 - 1),
    "JPEG": resized_header(
        saved(Image.fromarray(GREY), "JPEG"), struct.pack(">BHH", 8, 16, 16), struct.pack(">BHH", 8, 65_500, 65_500)
    ),
    "BMP": resized_header(
        saved(Image.fromarray(GREY), "BMP"), struct.pack("<ii", 16, 16), struct.pack("<ii", 40_000, 40_000)
    ),
    "GIF": resized_header(
        saved(Image.fromarray(GREY), "GIF"), struct.pack("<HH", 16, 16), struct.pack("<HH", 65_535, 65_535)
    ),
    "JPEG 2000": resized_header(
        saved(Image.fromarray(GREY), "JPEG2000", no_jp2=True),
        struct.pack(">II", 16, 16),
        struct.pack(">II", 2**20, 2**20),
    ),
    "WebP": b"RIFF\x1e\0\0\0WEBPVP8L\x11\0\0\0\x2f\xff\xff\xff\x0f" + b"\0" * 12,
    "PGM": b"P5 100000 100000 255\n" + b"\0" * 100,
}


@pytest.mark.parametrize("case", BOMBS)
def test_a_small_file_that_states_a_huge_image_takes_no_memory(case: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, OSError), match=r"pixels|WebP|decoder|identify"):
            decode(BOMBS[case])
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_a_tiff_that_states_a_huge_image_takes_no_memory() -> None:
    content = bytearray(tiff(np.zeros((1, 1), np.uint8), metadata=None))
    for tag in (256, 257, 278):  # width, length, rows a strip
        place = content.find(struct.pack("<H", tag))
        content[place + 8 : place + 12] = struct.pack("<I", 30_000)
        content[place + 2 : place + 4] = struct.pack("<H", 4)
    with pytest.raises(ValueError, match="900,000,000 pixels, more than the limit of 100,000,000"):
        decode(bytes(content))


def test_the_limit_moves_with_its_variable_and_pillow_s_own_stays_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Image.MAX_IMAGE_PIXELS
    monkeypatch.setenv("MEDROBUST_MAX_IMAGE_PIXELS", "200")
    with pytest.raises(InputError, match=r"256 pixels, more than the limit of 200.*MEDROBUST_MAX_IMAGE_PIXELS=256"):
        decode(saved(Image.fromarray(GREY)))
    monkeypatch.setenv("MEDROBUST_MAX_IMAGE_PIXELS", "256")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert np.array_equal(decode(saved(Image.fromarray(GREY))).pixels, GREY)
    assert Image.MAX_IMAGE_PIXELS == 10
    monkeypatch.undo()
    assert own == Image.MAX_IMAGE_PIXELS


def test_a_large_image_is_made_grey_in_strips() -> None:
    large = np.random.default_rng(0).integers(0, 256, (3000, 1500, 3), np.uint8)
    expected = np.rint(large[-50:] @ np.array([0.299, 0.587, 0.114]))
    tracemalloc.start()
    try:
        grey = luminance(large)
        assert tracemalloc.get_traced_memory()[1] < 5 * large.nbytes
    finally:
        tracemalloc.stop()
    assert np.array_equal(grey[-50:], expected)


def test_a_large_file_is_left_out_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path)
    with (tmp_path / "ill" / "big.png").open("wb") as stream:
        stream.truncate(3 * 2**30)  # takes no room on the disk
    found = data.load(f"folder:{tmp_path}")
    assert "3,221,225,472 bytes, more than the limit" in found.left_out[0].reason


def test_the_size_in_the_header_is_that_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    wide = Image.fromarray(picture(0)[:10])
    for kind in ("PNG", "JPEG", "TIFF"):
        file = tmp_path / f"x.{kind}"
        wide.save(file, kind, exif=exif)
        assert upright_size(file) == decode(file.read_bytes()).native == (10, 16)


# -- images that are not square ------------------------------------------------------------------------------


def test_each_fit_keeps_what_it_promises() -> None:
    wide = np.arange(3 * 8, dtype=np.uint8).reshape(3, 8)
    assert square(wide, "stretch") is wide
    assert np.array_equal(square(wide, "crop"), wide[:, 2:5])
    padded = square(wide, "pad")
    assert padded.shape == (8, 8)
    assert np.array_equal(padded[2:5], wide)
    assert padded.sum() == wide.sum()
    for fit in FITS:
        assert np.array_equal(square(wide.T, fit), square(wide, fit).T)
        assert np.array_equal(square(GREY, fit), GREY)


def oblong(folder: Path, height: int = 10, width: int = 20) -> str:
    folder.mkdir()
    rows = []
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (height, width), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append({"file": f"{i}.png", "label": "ab"[i % 2]})
    return f"csv:{write_table(folder, rows)}"


def test_the_fit_is_noted_and_part_of_the_digest_where_images_are_not_square(tmp_path: Path) -> None:
    spec = oblong(tmp_path / "a")
    square = [fit for fit in FITS if fit != "none"]
    found = {fit: data.load(spec, size=20, fit=fit) for fit in (None, *square)}
    assert [d.fit for d in found.values()] == ["stretch", *square]
    assert found[None].digest() == found["stretch"].digest()
    assert len({d.digest() for d in found.values()}) == 3
    for fit in square:
        assert any(f"4 of 4 images are not square and were {fit}" in n and f"fit {fit}" in n for n in found[fit].notes)
    assert data.load(spec, fit="crop").size == 10
    assert data.load(spec, fit="pad").size == 20
    with pytest.raises(InputError, match="not square"):
        data.load(spec)
    with pytest.raises(InputError, match="fit must be one of stretch, crop, pad"):
        data.load(spec, fit="squash")
    same = oblong(tmp_path / "b", 16, 16)
    assert {data.load(same, fit=fit).fit for fit in square} == {None}
    assert len({data.load(same, fit=fit).digest() for fit in square}) == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I;16", "RGB", "RGBA"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TIFF tiff_lzw", "TIFF tiff_adobe_deflate", "TIFF packbits"])
def test_an_image_that_is_black_to_its_last_row_is_complete(kind, mode):
    kind, _, compression = kind.partition(" ")
    stream = io.BytesIO()
    Image.new(mode, (37, 21)).save(stream, kind, **({"compression": compression} if compression else {}))
    assert not decode(stream.getvalue()).pixels.any()


def test_a_png_whose_data_turn_to_rubbish_is_a_value_error():
    # found by fuzz/readers.py
    text = (
        "iVBORw0KGgoAAAANSUhEUgAAAAcAAAAJCAIAAABxOqH0PwAADElEQVR4nGNgGA4AAQAAAAAAAIBgGA4AAADGAAHAAMfmAAAAAElFTkSBgYGBgYGBga"
        "7H5gAAAABJRU5EgYGBgYGBgYGuQmCC"
    )
    with pytest.raises(ValueError, match="cannot be unpacked"):
        decode(base64.b64decode(text))


def test_tiles_and_planes_are_counted_as_tiff_counts_them():
    for options in ({"tile": (16, 16)}, {"rowsperstrip": 7}, {"tile": (32, 16)}):
        wide = np.random.default_rng(0).integers(0, 256, (37, 50), np.uint8)
        assert (decode(tiff(wide, **options)).pixels == wide).all()
        colour = np.stack([wide, wide // 2, wide // 3])
        file = tiff(colour, photometric="rgb", planarconfig="separate", **options)
        assert (decode(file).pixels == colour.transpose(1, 2, 0)).all()


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("shape", [(400, 360), (403, 361), (90, 80)])
@pytest.mark.parametrize("colour", [False, True])
def test_a_large_jpeg_is_decoded_at_a_fraction_and_reads_as_the_whole_does(colour, shape, fit):
    y, x = np.mgrid[: shape[0], : shape[1]]
    pixels = (120 + 80 * np.sin(x / 17) * np.cos(y / 23)).astype(np.uint8)
    if colour:
        pixels = np.stack([pixels, pixels // 2, 255 - pixels], 2)
    data = saved(Image.fromarray(pixels), "JPEG", quality=95)
    whole = decode(data)
    expected = resize(square(whole.pixels, fit), 40)
    given = decode(data, 40, fit=fit)
    assert given.native == whole.native == shape[::-1]
    assert given.pixels.shape == expected.shape
    difference = np.abs(given.pixels.astype(int) - expected)
    large = min(shape) > 80 and (fit == "stretch" or shape == (400, 360))
    assert given.changes == ({"scaled"} if large else set())
    assert difference.mean() < (1 if large else 1e-9)
    if not large:
        assert not difference.any()


def test_colour_that_averages_to_grey_is_still_colour():
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[::2, ::2], pixels[1::2, 1::2] = (90, 0, 0), (0, 90, 90)
    data = saved(Image.fromarray(pixels), "PNG")
    assert decode(data, 16).pixels.shape == (16, 16, 3)
