"""Attacked images as files: read again by medrobust, pydicom and GDCM they are the same, and say what they are."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import gdcm
import numpy as np
import pytest
import torch
from PIL import Image
from pydicom import Dataset as PydicomDataset
from pydicom import dcmread
from pydicom.pixels import pixel_array

from medrobust.attacks import PGD, sweep
from medrobust.data import files_out
from medrobust.data.dicom_out import Series, derived
from medrobust.data.dicom_pixels import decode_dicom
from medrobust.errors import InputError
from medrobust.experiments import ask, saved_attacks
from medrobust.experiments.system import System, assemble
from medrobust.images import on_grid
from medrobust.progress import NoProgress
from medrobust.threat import Linf, Untargeted
from tests.data_files import class_folders
from tests.dicom_files import elements, folders

NET = "tests.door_nets:swapped"
SECRET = "SECRET77"


def attacked(spec: str, folder: Path, **more: object) -> tuple[System, saved_attacks.Saved]:
    config = ask(data=spec, model=NET, train=False, outputs="logits", eps=(0.1, 0.3, 0.6), **more)
    system = assemble(config, None, NoProgress(), "cpu", stored=True)
    config = system.with_sizes(config)
    images, labels = system.sample.tensors()
    curve = sweep(PGD(steps=3), system.classifier, images, Untargeted(labels), Linf, config.eps)
    return system, saved_attacks.save(folder, system, curve, "pgd", config)


WAYS = {
    "plain": {},
    "inverted": {"photometric": "MONOCHROME1", "window": (2048, 3000)},
    "window and padding": {"window": (2048, 3000), "PixelPaddingValue": 1024},
    "CT": {"window": (1000, 4000), "rescale": (1.0, -1024.0), "Modality": "CT"},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_derived_dicom_file_is_decided_as_the_attacked_image(tmp_path: Path, way: str) -> None:
    root = folders(tmp_path / "in", n=5, StudyDescription=SECRET, **WAYS[way])
    _, saved = attacked(f"dicom:{root}", tmp_path / "out")
    assert saved.images == saved.same > 4
    with (tmp_path / "out" / saved_attacks.TABLE).open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["reached"] for row in rows} >= {"yes"}
    assert all(row["after"] == row["read again"] for row in rows)
    original = {p.SOPInstanceUID: p for p in (dcmread(f) for f in root.rglob("*") if f.is_file())}
    for row in rows:
        file = tmp_path / "out" / row["file"]
        made = dcmread(file)
        assert list(made.ImageType) == ["DERIVED", "SECONDARY"]
        assert "not for diagnosis" in made.DerivationDescription
        assert row["size"] in made.DerivationDescription
        assert made.SOPInstanceUID not in original
        assert SECRET.encode() not in file.read_bytes()
        assert b"Name^" not in file.read_bytes()
        second = gdcm.ImageReader()
        second.SetFileName(str(file))
        assert second.Read()
        raw = second.GetImage().GetBuffer().encode("utf-8", errors="surrogateescape")
        assert raw == pixel_array(made).tobytes()


def table() -> dict[str, object]:
    """A modality table from 12 to 16 bits, and a window on what it gives."""
    item = PydicomDataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 16], (np.arange(4096) ** 2 // 256).astype(np.uint16).tobytes()
    item["LUTData"].VR = "OW"
    return {"ModalityLUTSequence": [item], "window": (30000, 50000)}


def groups() -> dict[str, object]:
    """As enhanced CT states its rescale and its window: in functional groups, the frame's before the shared ones."""
    shared, frame = PydicomDataset(), PydicomDataset()
    window, rescale, other = PydicomDataset(), PydicomDataset(), PydicomDataset()
    window.WindowCenter, window.WindowWidth = 0, 9000
    rescale.RescaleSlope, rescale.RescaleIntercept = 1, -1024
    other.WindowCenter, other.WindowWidth = 1000, 3000
    shared.FrameVOILUTSequence, shared.PixelValueTransformationSequence = [window], [rescale]
    frame.FrameVOILUTSequence = [other]
    return {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": [frame]}


@pytest.mark.parametrize(("way", "levels"), [(table, 49999), (groups, 2999)])
def test_a_derived_file_is_shown_as_its_original(way: Callable[[], dict[str, object]], levels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (8, 8)).astype(np.uint16)
    stream = io.BytesIO()
    elements(pixels, **way()).save_as(stream, enforce_file_format=True)
    original = decode_dicom(stream.getvalue(), 0, "auto")
    assert original.levels == levels
    made = derived(stream.getvalue(), 0, "auto", original.pixels[None], Series.new(), 1, "", "")
    again = decode_dicom(made, 0, "auto")
    assert again.levels == levels
    assert np.array_equal(again.pixels.clip(0, levels), original.pixels.clip(0, levels))


def test_padding_is_never_changed(tmp_path: Path) -> None:
    root = folders(tmp_path / "in", n=4, size=32, window=(2048, 1600), PixelPaddingValue=1024)
    for file in [f for f in root.rglob("*") if f.is_file()]:
        made = dcmread(file)
        pixels = pixel_array(made).copy()
        pixels[:4] = 1024
        made.PixelData = pixels.tobytes()
        made.save_as(file)
    attacked(f"dicom:{root}", tmp_path / "out")
    (first, *_) = sorted((tmp_path / "out").glob("*.dcm"))
    values = pixel_array(dcmread(first))
    assert (values[:4] == 1024).all()
    assert (values[4:] != 1024).any()


@pytest.mark.parametrize("ending", ["png", "tif", "deep"])
def test_a_png_or_tiff_holds_exactly_the_attacked_image(tmp_path: Path, ending: str) -> None:
    root = class_folders(tmp_path / "in", n=4)
    for file in list(root.rglob("*.png")):
        with Image.open(file) as image:
            pixels = np.asarray(image)
        if ending == "tif":
            Image.fromarray(pixels).save(file.with_suffix(".tif"))
            file.unlink()
        elif ending == "deep":
            Image.fromarray(pixels.astype(np.uint16) * 257).save(file)
    config = ask(data=f"folder:{root}", model=NET, train=False, outputs="logits")
    part = assemble(config, None, NoProgress(), "cpu").sample
    images = part.images(range(len(part)))
    assert part.common_levels is not None
    images = on_grid(images + 3 / part.common_levels, part.common_levels).clamp(0, 1)
    (tmp_path / "out").mkdir()
    names = files_out.write(part, images, tmp_path / "out", [""] * len(part), [""] * len(part), "auto")
    again = torch.cat(files_out.read(tmp_path / "out", names, 1))
    assert {Path(name).suffix for name in names} == {".tif" if ending == "tif" else ".png"}
    assert torch.equal(again, images)


def test_colour_of_sixteen_bits_survives_a_png(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (8, 9, 3)).astype(np.uint16)
    (tmp_path / "x.png").write_bytes(files_out._png(pixels))
    (again,) = files_out.read(tmp_path, ["x.png"], 3)
    assert np.array_equal((again[0] * 65535).round().numpy().astype(np.uint16), pixels.transpose(2, 0, 1))


def test_a_folder_with_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(InputError, match="nothing is overwritten"):
        saved_attacks.check_folder(tmp_path)


@pytest.mark.skipif(shutil.which("dcm2pnm") is None, reason="needs dcmtk (dcm2pnm)")
def test_dcmtk_opens_a_derived_file(tmp_path: Path) -> None:
    root = folders(tmp_path / "in", n=4, window=(2048, 3000))
    attacked(f"dicom:{root}", tmp_path / "out")
    (first, *_) = sorted((tmp_path / "out").glob("*.dcm"))
    picture = tmp_path / "x.pgm"
    subprocess.run(["dcm2pnm", "+Wi", "1", str(first), str(picture)], check=True, timeout=60)
    shown = files_out.read(first.parent, [first.name], 1)[0][0, 0]
    with Image.open(picture) as image:
        assert np.abs(np.asarray(image) / 255 - shown.numpy()).max() < 1.01 / 255
