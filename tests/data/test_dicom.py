"""DICOM in: equal to pydicom's own pipeline, for every way of storing a picture; hostile files get a line each."""

from __future__ import annotations

import struct
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from PIL import ImageFile
from pydicom import dcmread
from pydicom.dataset import Dataset as Elements
from pydicom.pixels import pixel_array
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from medrobust import data
from medrobust.classifier import Classifier
from medrobust.data import dicom_decoders
from medrobust.data.dicom_file import DicomError, quiet
from medrobust.data.dicom_pixels import decode_dicom
from medrobust.errors import InputError
from tests.data_files import write_table
from tests.dicom_files import NATIVE, elements, folders, save

SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"
SYNTAXES = (NATIVE, ExplicitVRBigEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless)
DEPTHS = [(np.uint8, 8), (np.uint16, 10), (np.int16, 12), (np.uint16, 12), (np.uint16, 16), (np.int16, 16)]


def ramp(kind: type, bits: int, size: int = 32) -> np.ndarray:
    """Every part of the range that can be stored, both ends included."""
    low = -(1 << (bits - 1)) if np.issubdtype(kind, np.signedinteger) else 0
    return np.linspace(low, low + (1 << bits) - 1, size * size).round().astype(kind).reshape(size, size)


def shown_by_pydicom(file: Path) -> np.ndarray:
    """What pydicom's own functions give, as a share of their output range; white is 1."""
    with quiet():
        ds = dcmread(file)
        stored = pixel_array(ds, index=0)
        if ds.PhotometricInterpretation == "PALETTE COLOR":
            colours = apply_color_lut(stored, ds)[..., :3]
            return colours / np.iinfo(colours.dtype).max
        if stored.ndim == 3:
            return stored / (2**ds.BitsStored - 1)
        values = apply_voi_lut(apply_modality_lut(stored, ds), ds).astype(np.float64)
    ends = [0.0, 2.0**ds.BitsStored - 1]
    if ds.PixelRepresentation:
        ends = [-(2.0 ** (ds.BitsStored - 1)), 2.0 ** (ds.BitsStored - 1) - 1]
    if "VOILUTSequence" in ds:
        ends = [0.0, 2.0 ** ds.VOILUTSequence[0].LUTDescriptor[2] - 1]
    elif "RescaleSlope" in ds:
        ends = [end * float(ds.RescaleSlope) + float(ds.RescaleIntercept) for end in ends]
    shown = (values - ends[0]) / (ends[1] - ends[0])
    return 1 - shown if ds.PhotometricInterpretation == "MONOCHROME1" else shown


def shown(file: Path, window: str = "auto") -> np.ndarray:
    made = decode_dicom(file.read_bytes(), 0, window)
    return (made.pixels / made.levels).clip(0, 1)


DECODABLE = [
    *("693_J2KI", "CT_small", "ExplVR_BigEnd", "J2K_pixelrep_mismatch", "JPEG2000", "JPEGLSNearLossless_08"),
    *("JPEGLSNearLossless_16", "JPGExtended", "MR_small", "MR_small_RLE", "MR_small_bigendian", "MR_small_implicit"),
    *("MR_small_jp2klossless", "MR_small_jpeg_ls_lossless", "MR_small_padded", "SC_rgb_dcmtk_+eb+cr"),
    *("SC_rgb_dcmtk_+eb+cy+np", "SC_rgb_jls_lossy_line", "SC_rgb_jpeg_dcmtk", "SC_rgb_rle_16bit", "SC_rgb_rle_2frame"),
    *("SC_rgb_small_odd_big_endian", "SC_rgb_small_odd_jpeg", "SC_ybr_full_422_uncompressed", "examples_palette"),
    *("examples_overlay", "image_dfl", "liver_1frame", "examples_ybr_color", "GDCMJ2K_TextGBR"),
]
"""Of the files that pydicom ships; every one that it decodes and that stores 16 bits or fewer is equal (29 more)."""


@pytest.mark.parametrize(
    ("name", "filled_up"), [*((name, False) for name in DECODABLE), ("GDCMJ2K_TextGBR", True), ("JPEG2000", True)]
)
def test_files_that_pydicom_ships_are_shown_as_pydicom_shows_them(
    name: str, filled_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", filled_up)  # as WeasyPrint leaves it behind
    file = SHIPPED / f"{name}.dcm"
    want, made = shown_by_pydicom(file), decode_dicom(file.read_bytes(), 0, "auto")
    got = (made.pixels / made.levels).clip(0, 1)
    if want.ndim == 3 and got.ndim == 2:
        want = want[..., 0]
    seen = np.ones(got.shape, bool) if "padding" not in made.changes else made.pixels != -made.levels
    assert np.abs(want - got)[seen].max() < 1e-12


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.name[:14])
@pytest.mark.parametrize(("kind", "bits"), DEPTHS)
def test_every_way_of_storing_is_shown_as_pydicom_shows_it(tmp_path: Path, syntax: Any, kind: type, bits: int) -> None:
    pixels, n = ramp(kind, bits), 1 << bits
    centre = 0 if np.issubdtype(kind, np.signedinteger) else n // 2
    for k, window in enumerate([None, (centre, n // 2), (centre - 1024.0, n // 4)]):
        for photometric in ("MONOCHROME1", "MONOCHROME2"):
            rescale = (1.0, -1024.0) if k == 2 else None
            made = elements(pixels, bits, photometric=photometric, window=window, rescale=rescale)
            file = save(made, tmp_path / f"{k}{photometric}", syntax)
            assert np.abs(shown(file) - shown_by_pydicom(file)).max() < 1e-12
            # the stored values themselves, to the bit
            whole = decode_dicom(file.read_bytes(), 0, "none")
            low = int(pixels.min())
            inverted = photometric == "MONOCHROME1"
            assert np.array_equal(whole.levels - whole.pixels if inverted else whole.pixels, pixels.astype(int) - low)


def test_a_window_whose_ends_lie_between_two_stored_values_moves_by_half_a_level_at_most(tmp_path: Path) -> None:
    made = elements(ramp(np.uint16, 12), window=(1000.3, 801.7), rescale=(0.5, -20.0))
    file = save(made, tmp_path / "x")
    assert np.abs(shown(file) - shown_by_pydicom(file)).max() < 1 / decode_dicom(file.read_bytes(), 0, "auto").levels


def test_a_window_beyond_what_the_bits_can_store_is_noted(tmp_path: Path) -> None:
    for window, wide in (((2048, 4096), False), ((2048, 4098), True), ((0, 400), True)):
        file = save(elements(ramp(np.uint16, 12), window=window), tmp_path / "x")
        assert ("wide" in decode_dicom(file.read_bytes(), 0, "auto").changes) is wide


def test_a_picture_stored_the_other_way_round_is_the_same_picture(tmp_path: Path) -> None:
    pixels = ramp(np.uint16, 12)
    one = save(elements(pixels, window=(1000, 600)), tmp_path / "one")
    two = save(elements(4095 - pixels, photometric="MONOCHROME1", window=(4095 - 1000 + 1, 600)), tmp_path / "two")
    a, b = (decode_dicom(file.read_bytes(), 0, "auto") for file in (one, two))
    assert np.array_equal(a.pixels, b.pixels)
    assert a.levels == b.levels == 599


def lookup(kind: str, made: Elements) -> None:
    item = Elements()
    item.LUTDescriptor = [4096, 0, 12 if kind == "VOILUTSequence" else 16]
    item.LUTData = (4095 * (np.arange(4096) / 4095) ** 2).round().astype(int).tolist()
    setattr(made, kind, Sequence([item]))
    item["LUTData"].VR = item["LUTDescriptor"].VR = "US"


def test_a_voi_table_is_applied_as_pydicom_does(tmp_path: Path) -> None:
    made = elements(ramp(np.uint16, 12))
    lookup("VOILUTSequence", made)
    file = save(made, tmp_path / "x")
    assert np.array_equal(shown(file), shown_by_pydicom(file))
    assert "voi" in decode_dicom(file.read_bytes(), 0, "auto").changes
    assert not decode_dicom(file.read_bytes(), 0, "none").changes & {"voi"}


def test_a_sigmoid_window_is_applied_as_pydicom_does(tmp_path: Path) -> None:
    made = elements(ramp(np.uint16, 12), window=(2000, 500), VOILUTFunction="SIGMOID")
    file = save(made, tmp_path / "x")
    assert np.abs(shown(file) - shown_by_pydicom(file)).max() <= 0.5001 / 4095


# -- data sets -------------------------------------------------------------------------------------------


def test_a_folder_a_class_of_files_without_endings(tmp_path: Path) -> None:
    found = data.load(f"dicom:{folders(tmp_path)}")
    assert (found.bits, found.channels, len(found)) == (12, 1, 24)
    assert set(found.levels) == {4095}
    assert np.unique(found.patients).size == 12
    assert not any("ill" in p or "well" in p for p in found.patients.tolist())
    images = found.images(range(3))
    assert torch.equal((images.double() * 4095).round().div(4095).float(), images)


def test_a_table_of_dicom_and_png_files_keeps_each_grid(tmp_path: Path) -> None:
    from PIL import Image

    rows = []
    for i in range(4):
        save(elements(ramp(np.uint16, 12)), tmp_path / f"{i}.dcm")
        Image.fromarray(np.full((32, 32), i, np.uint8)).save(tmp_path / f"{i}.png")
        rows += [{"file": f"{i}.{end}", "label": f"{i % 2}"} for end in ("dcm", "png")]
    found = data.load(f"csv:{write_table(tmp_path, rows)}")
    assert sorted(found.levels.tolist()) == [255] * 4 + [4095] * 4
    assert any("differ in depth" in note for note in found.notes)


@pytest.mark.parametrize(("frames", "count", "first"), [("one", 4, 0), ("middle", 4, 2), ("all", 12, 0)])
def test_frames(tmp_path: Path, frames: str, count: int, first: int) -> None:
    for i in range(4):
        pixels = np.stack([np.full((16, 16), 100 * i + f, np.uint16) for f in range(3)])
        pixels[:, 0, 0] = 4095
        save(elements(pixels, BodyPartExamined="AB"[i % 2], patient=f"p{i}"), tmp_path / f"{i}")
    found = data.load(f"dicom:{tmp_path}", frames=frames, label="BodyPartExamined").by_id()
    assert (len(found), found.classes) == (count, ("A", "B"))
    assert float(found.images([0])[0, 0, 5, 5]) == pytest.approx((first if frames != "middle" else 1) / 4095)


def test_pixels_outside_the_window_are_seen_only_after_they_reached_it(tmp_path: Path) -> None:
    for name in ("ill", "well"):
        for i in range(2):
            pixels = ramp(np.uint16, 12)
            pixels[0, :] = 7
            save(elements(pixels, window=(2048, 1024), PixelPaddingValue=7), tmp_path / name / f"{i}")
    found = data.load(f"dicom:{tmp_path}")
    images = found.images([0])
    assert found.surround
    assert found.levels.tolist() == [3 * 1023] * 4
    assert torch.equal(images[0, 0, 0], torch.zeros(32))  # padding is as far away as can be

    def mean(images: torch.Tensor) -> torch.Tensor:
        return images.mean((1, 2, 3))[:, None].repeat(1, 2)

    net = torch.nn.Module()
    net.forward = mean  # type: ignore[assignment]
    sees = Classifier(net, ("a", "b"), outputs="logits").seeing(True)
    assert sees.preprocessing is not None
    assert torch.allclose(sees.preprocessing(images), found.shown().images([0]), atol=1e-6, rtol=0)
    pixels = images.clone().requires_grad_()
    sees.preprocessing(pixels).sum().backward()
    inside = (images * 3 * 1023).round()
    inside = (inside >= 1023) & (inside <= 2046)
    assert torch.equal(pixels.grad != 0, inside)


def test_the_files_that_no_decoder_reads_are_left_out_with_a_line_each(tmp_path: Path) -> None:
    folders(tmp_path)
    made = elements(np.zeros((16, 16), np.uint32), 32)
    save(made, tmp_path / "ill" / "deep")
    found = data.load(f"dicom:{tmp_path}")
    assert [(left.file, left.reason) for left in found.left_out] == [
        ("ill/deep", "pixels of 32 bits in 32 are not read; save it with 8 to 16 bits")
    ]


@pytest.mark.parametrize("tag", [b"\x28\x00\x10\x00US", b"\x10\x00\x20\x00LO"], ids=["Rows", "PatientID"])
def test_a_file_of_a_set_with_an_element_of_an_unknown_kind_stops_nothing(tmp_path: Path, tag: bytes) -> None:
    folders(tmp_path)
    file = save(elements(ramp(np.uint16, 12), patient="p"), tmp_path / "ill" / "odd")
    file.write_bytes(file.read_bytes().replace(tag, tag[:5] + b"\x13"))
    found = data.load(f"dicom:{tmp_path}")
    assert len(found) == (24 if b"US" in tag else 25)
    assert [left.file for left in found.left_out] == ["ill/odd"] * (b"US" in tag)


def test_pixels_that_may_show_names_are_pointed_out(tmp_path: Path) -> None:
    folders(tmp_path / "no", n=2)
    assert not any("Pixels may show" in note for note in data.load(f"dicom:{tmp_path / 'no'}").notes)
    folders(tmp_path / "yes", n=2, BurnedInAnnotation="YES")
    assert any("YES in 4 files" in note for note in data.load(f"dicom:{tmp_path / 'yes'}").notes)


def test_no_header_value_is_in_what_is_said(tmp_path: Path) -> None:
    secret = "SECRET77"
    folders(tmp_path, n=2, BurnedInAnnotation="YES", StudyDescription=secret, AccessionNumber=secret)
    for i in range(3):
        made = elements(np.zeros((16, 16), np.uint16), patient=secret, WindowCenter=5, WindowWidth=5)
        made.PixelData = made.PixelData[:20]
        save(made, tmp_path / "ill" / f"bad{i}")
    found = data.load(f"dicom:{tmp_path}")
    said = " ".join([*found.notes, *(left.reason for left in found.left_out), *found.patients.tolist()])
    assert secret not in said
    assert "well0" not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window": "40"}, "CENTRE,WIDTH"),
        ({"window": "40,0"}, "CENTRE,WIDTH"),
        ({"frames": "last"}, "one, middle, all"),
        ({"label": "NoSuchElement"}, "no element of DICOM"),
    ],
)
def test_what_cannot_be_asked_for(tmp_path: Path, options: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        data.load(f"dicom:{tmp_path}", **options)


# -- hostile files ---------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    """Elements of sequences of undefined length, one inside the other."""
    begin = b"\x40\x00\x75\x02SQ\x00\x00\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return begin * depth


def bytes_of(made: Elements, tmp_path: Path) -> bytes:
    return save(made, tmp_path / "file").read_bytes()


def with_claim(rows: int, columns: int) -> Elements:
    made = elements(ramp(np.uint16, 12))
    made.Rows, made.Columns = rows, columns
    return made


def with_element(name: str, value: object, modality: str = "OT", intercept: int | None = 0) -> Elements:
    made = elements(ramp(np.uint16, 12))
    made.Modality = modality
    if intercept is not None:
        made.RescaleIntercept = intercept
    setattr(made, name, value)
    return made


def in_boxes(tmp_path: Path) -> bytes:
    """JPEG 2000 behind a box of length 0, which pydicom follows for ever."""
    from pydicom.encaps import encapsulate

    made = dcmread(save(elements(ramp(np.uint16, 12)), tmp_path / "boxes", JPEG2000Lossless))
    made.PixelData = encapsulate([b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(4) + b"ftyp" + bytes(64)])
    made.save_as(tmp_path / "boxes", enforce_file_format=True)
    return (tmp_path / "boxes").read_bytes()


def deflated(made: Elements, tmp_path: Path) -> bytes:
    made.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    made.save_as(tmp_path / "deflated", enforce_file_format=True)
    whole = (tmp_path / "deflated").read_bytes()
    end = 144 + struct.unpack("<I", whole[140:144])[0]
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    return whole[:end] + pack.compress(bytes(2**22)) + pack.flush()


HOSTILE = {
    "truncated": (lambda t: bytes_of(elements(ramp(np.uint16, 12)), t)[:-100], "incomplete"),
    "ten gigabytes": (lambda t: bytes_of(with_claim(60000, 60000), t), "more than the limit"),
    "wrong size": (lambda t: bytes_of(with_claim(33, 32), t), "incomplete"),
    "no size": (lambda t: bytes_of(with_claim(0, 16), t), "are not read"),
    "program": (lambda t: b"MZ" + bytes_of(elements(ramp(np.uint16, 12)), t)[2:], "beginning of a program"),
    "nested": (
        lambda t: (
            (b := bytes_of(elements(ramp(np.uint16, 12)), t))[: b.index(b"\xe0\x7f\x10\x00")]
            + nested(10_000)
            + b[b.index(b"\xe0\x7f\x10\x00") :]
        ),
        "nested too deeply|cannot be read",
    ),
    "deflated bomb": (lambda t: deflated(elements(ramp(np.uint16, 12)), t), "more than the limit"),
    "unknown representation": (
        lambda t: bytes_of(elements(ramp(np.uint16, 12)), t).replace(b"\x28\x00\x10\x00US", b"\x28\x00\x10\x00U\x13"),
        "cannot be read",
    ),
    "unknown representation beside the pixels": (
        lambda t: bytes_of(elements(ramp(np.uint16, 12)), t).replace(b"\x28\x00\x03\x01US", b"\x28\x00\x03\x01U\x13"),
        "cannot be read",
    ),
    "pixels of another kind, and of a part of one": (
        lambda t: (
            (b := bytes_of(elements(ramp(np.uint16, 12)), t))[: b.index(b"\xe0\x7f\x10\x00")]
            + b"\xe0\x7f\x10\x00UL\x9a\x03"
            + bytes(922)
        ),
        "cannot be read",
    ),
    "boxes without an end": (lambda t: in_boxes(t), "boxes around its JPEG 2000 picture are damaged"),
    "pixels without a value": (lambda t: bytes_of(with_element("PixelData", None), t), "holds no pixels|incomplete"),
    "a slope that is two numbers": (lambda t: bytes_of(with_element("RescaleSlope", [1, 2]), t), "rescale slope"),
    "a CT with a slope that is two numbers": (
        lambda t: bytes_of(with_element("RescaleSlope", [1, 2], modality="CT", intercept=None), t),
        "values that they cannot have",
    ),
    "no pixels": (lambda t: bytes(128) + b"DICM", "holds no pixels|cannot be read"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_get_one_line(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, said = HOSTILE[kind]
    content = make(tmp_path)
    monkeypatch.setenv("MEDROBUST_MAX_IMAGE_BYTES", "1000000")
    start = time.monotonic()
    with pytest.raises((DicomError, InputError), match=said) as error:
        decode_dicom(content, 0, "auto")
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < 10


def test_a_compressed_picture_of_another_size_than_its_header_states_is_not_decoded(tmp_path: Path) -> None:
    for syntax in (JPEGLSLossless, JPEG2000Lossless):
        file = save(elements(ramp(np.uint16, 12)), tmp_path / "x", syntax)
        made = dcmread(file)
        made.Rows = 31
        made.save_as(file)
        with pytest.raises(DicomError, match="32 x 32, its header states 32 x 31"):
            decode_dicom(file.read_bytes(), 0, "auto")


@pytest.mark.parametrize("name", ["JPEG2000", "SC_rgb_jpeg_gdcm", "SC_rgb_jpeg_dcmtk", "MR_small_jpeg_ls_lossless"])
def test_a_decoder_in_a_process_of_its_own_gives_the_same_pixels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = dcmread(SHIPPED / f"{name}.dcm")
    here = dicom_decoders.decoded(made, 0)
    monkeypatch.setattr(dicom_decoders, "IN_PROCESS", ())
    assert np.array_equal(dicom_decoders.decoded(made, 0), here)


def test_a_decoder_that_ends_its_process_costs_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """GDCM 3.2 does so on a JPEG stream with a damaged Huffman table."""
    monkeypatch.setattr(dicom_decoders, "IN_PROCESS", ())
    monkeypatch.setattr(dicom_decoders, "CHILD", "import os; os.abort()")
    with pytest.raises(DicomError, match="no decoder reads its pixels"):
        decode_dicom((SHIPPED / "JPEG2000.dcm").read_bytes(), 0, "auto")


def test_a_missing_library_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders(tmp_path, n=2)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(InputError, match=r"need pydicom: pip install 'medrobust\[dicom\]'"):
        data.load(f"dicom:{tmp_path}")
