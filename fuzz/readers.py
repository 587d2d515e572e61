"""Coverage-guided fuzzing of what reads a file from elsewhere: each input is read, or refused with InputError.

    uv pip install atheris
    python fuzz/readers.py TARGET [SEED_FOLDER] -max_total_time=720

TARGET: csv, npz, image, dicom, checkpoint or run. Anything but a result or InputError stops the fuzzer, which then
writes the input to crash-SHA. docs/fuzzing.md has what an hour of it found.
"""

from __future__ import annotations

import copy
import hashlib
import io
import itertools
import json
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["medrobust", "numpy.lib", "csv", "zipfile", "PIL.TiffImagePlugin", "pydicom"]):
    import numpy as np
    import pydicom.pixels
    import timm  # noqa: F401  # its first import takes seconds, which would count against one input
    import torch
    from PIL import Image

    from medrobust import Classifier, data, models, report
    from medrobust.data.decode import decode
    from medrobust.data.dicom_file import DicomError, header
    from medrobust.data.dicom_headers import TAGS
    from medrobust.data.dicom_pixels import decode_dicom
    from medrobust.errors import InputError
    from medrobust.report import charts

PICTURES = 4
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
SIZE = 12


def read_table(content: bytes) -> None:
    """The bytes are a table beside four images."""
    (FOLDER / "labels.csv").write_bytes(content)
    found = data.load(f"csv:{FOLDER / 'labels.csv'}", size=SIZE)
    assert len(found) == len(set(found.ids)) == len(found.labels)
    assert 2 <= len(found.classes) <= len(found)
    assert found.images(range(len(found))).shape[1:] == (found.channels, SIZE, SIZE)


def read_npz(content: bytes) -> None:
    """The bytes are an archive, or the entries of one (so that no checksum stands in the way)."""
    source = atheris.FuzzedDataProvider(content)
    if source.ConsumeBool():
        entries = {
            "train_images.npy": npy(np.zeros((4, 8, 8), np.uint8)),
            "train_labels.npy": npy(np.arange(4)[:, None]),
        }
        for key, good in entries.items():
            start = source.ConsumeIntInRange(0, len(good))
            end = start + source.ConsumeIntInRange(0, 40)
            entries[key] = good[:start] + source.ConsumeBytes(source.ConsumeIntInRange(0, 60)) + good[end:]
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            for key, entry in entries.items():
                archive.writestr(key, entry)
        content = stream.getvalue()
    (FOLDER / "x.npz").write_bytes(content)
    found = data.load(f"medmnist:{FOLDER / 'x.npz'}", size=SIZE)
    assert found.labels.min() >= 0
    assert found.labels.max() < len(found.classes)
    found.images(range(len(found)))


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def read_image(content: bytes) -> None:
    """The bytes are an image file."""
    try:
        pixels = decode(content, SIZE, False).pixels
    except (OSError, ValueError, SyntaxError, EOFError, KeyError, TypeError, IndexError, OverflowError, RuntimeError):
        return  # the data room counts whatever a decoder raises as a damaged image; only memory and time are at stake
    assert pixels.shape[:2] == (SIZE, SIZE)
    assert pixels.dtype in (np.uint8, np.uint16)


def read_dicom(content: bytes) -> None:
    """The bytes are a DICOM file: its header is read, and two frames as they are shown in three windows."""
    file = FOLDER / "file.dcm"
    file.write_bytes(content)
    header(file, TAGS)
    for frame, window in ((0, "auto"), (0, "none"), (1, "40,400")):
        try:
            read = decode_dicom(content, frame, window, SIZE)
        except DicomError:
            continue
        assert read.pixels.shape[:2] == (SIZE, SIZE)
        assert np.abs(read.pixels).max() <= 2 * read.levels


def read_checkpoint(content: bytes) -> None:
    """Fields of a good model.json are replaced, or the bytes are the file; the weights likewise."""
    source = atheris.FuzzedDataProvider(content)
    folder = FOLDER / "model"
    weights = (FOLDER / "good" / "model.safetensors").read_bytes()
    if source.ConsumeBool():
        weights = source.ConsumeBytes(source.ConsumeIntInRange(0, 400)) + weights[source.ConsumeIntInRange(0, 400) :]
    if source.ConsumeBool():
        card = json.loads((FOLDER / "good" / "model.json").read_text())
        changed(card, source)
        if source.ConsumeBool() and isinstance(card, dict):
            card["sha256"] = hashlib.sha256(weights).hexdigest()
        text = json.dumps(card).encode()
    else:
        text = source.ConsumeBytes(source.remaining_bytes())
    folder.mkdir(exist_ok=True)
    (folder / "model.json").write_bytes(text)
    (folder / "model.safetensors").write_bytes(weights)
    Classifier.load(folder)


def read_run(content: bytes) -> None:
    """Some values anywhere in a good results.json are replaced; then the page is written."""
    source = atheris.FuzzedDataProvider(content)
    results = json.loads((FOLDER / "results.json").read_text())
    results["run"].pop("digest", None)  # it would refuse every change
    for _ in range(source.ConsumeIntInRange(1, 4)):
        changed(results, source)
    (FOLDER / "run" / "results.json").write_text(json.dumps(results))
    report.write(FOLDER / "run")


VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    3,
    2**70,
    0.5,
    -0.5,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "[/nope]",
    "<script>",
    "\x1b[2J",
    "none",
    [],
    {},
    [[]],
    [None],
    ["a", "a"],
    {"a": 1},
    "9" * 5000,
)


def changed(value: Any, source: atheris.FuzzedDataProvider) -> None:
    """Walk into ``value`` and replace, remove or double one entry."""
    while True:
        if isinstance(value, dict) and value:
            place: Any = source.PickValueInList(sorted(value))
        elif isinstance(value, list) and value:
            place = source.ConsumeIntInRange(0, len(value) - 1)
        else:
            return
        if isinstance(value[place], dict | list) and value[place] and source.ConsumeIntInRange(0, 3):
            value = value[place]
            continue
        action = source.ConsumeIntInRange(0, 9)
        if action == 0:
            del value[place]
        elif action == 1 and isinstance(value, list):
            value.append(copy.deepcopy(value[place]))
        elif action == 2:
            value[place] = source.ConsumeUnicodeNoSurrogates(12)
        elif action == 3:
            value[place] = source.ConsumeFloat()
        else:
            value[place] = copy.deepcopy(source.PickValueInList(list(VALUES)))
        return


def draw_seldom() -> None:
    """Of 20 charts 19 are built and not written as SVG, which takes most of the time of a page."""
    draw, wanted = charts.svg, itertools.count()

    def svg(figure: object, name: str, alt: str) -> str:
        return "<svg></svg>" if next(wanted) % 20 else draw(figure, name, alt)

    for module in [m for name, m in sys.modules.items() if name.startswith("medrobust.report")]:
        if hasattr(module, "svg"):
            module.svg = svg  # type: ignore[attr-defined]


def prepare() -> None:
    """The good files beside which the bad ones are read."""
    generator = np.random.default_rng(0)
    for i in range(PICTURES):
        Image.fromarray(generator.integers(0, 256, (SIZE, SIZE), np.uint8)).save(FOLDER / f"{i}.png")
    torch.manual_seed(0)
    net = models.build("small_cnn:width=2", classes=2, channels=1, size=SIZE)
    made = Classifier(net, ("a", "b"), size=SIZE, provenance={"architecture": "small_cnn:width=2"})
    made.save(FOLDER / "good")


def seeds(target: str, folder: Path) -> None:
    """Good inputs to start from."""
    folder.mkdir(parents=True, exist_ok=True)
    if target == "csv":
        tables = [
            "file,label\n0.png,a\n1.png,b\n2.png,a\n3.png,b\n",
            "\ufefffile;label;patient_id;split\n0.png;a;7;train\n1.png;b;8;train\n2.png;a;9;test\n3.png;b;10;val\n",
            'sep=,\nfile,label\n"0.png","Grade 1"\n./1.png,Grade 10\n2.png,nan\n3.png,\n',
            "file\tlabel\n0.png\t1\n1.png\t0\n\n2.png\t2.0\n3.png\t1e300\n",
        ]
        for i, text in enumerate(tables):
            (folder / f"{i}.csv").write_text(text)
    if target == "npz":
        stream = io.BytesIO()
        np.savez(stream, train_images=np.zeros((4, 8, 8), np.uint8), train_labels=np.array([[0], [1], [0], [1]]))
        (folder / "whole.npz").write_bytes(stream.getvalue() + b"\x00")  # numbers are taken from the end
    if target == "image":
        grey, colour = np.zeros((9, 7), np.uint8), np.zeros((9, 7, 3), np.uint8)
        for kind in ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "JPEG2000"):
            Image.fromarray(colour).save(folder / f"colour.{kind}", kind)
            Image.fromarray(grey).save(folder / f"grey.{kind}", kind)
        Image.fromarray(grey.astype(np.uint16)).save(folder / "deep.tiff", "TIFF")
        Image.fromarray(grey).save(folder / "white.tiff", "TIFF", tiffinfo={262: 0})
    if target == "dicom":
        for file in (Path(pydicom.data.__file__).parent / "test_files").glob("*.dcm"):
            if file.stat().st_size < 50_000:
                shutil.copy(file, folder)


READERS: dict[str, Callable[[bytes], None]] = {
    "csv": read_table,
    "npz": read_npz,
    "image": read_image,
    "dicom": read_dicom,
    "checkpoint": read_checkpoint,
    "run": read_run,
}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in READERS:
        raise SystemExit(__doc__)
    target = sys.argv.pop(1)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    prepare()
    if target == "run":
        whole = Path(sys.argv.pop(1))  # a finished run folder, whose results.json is changed again and again
        draw_seldom()
        shutil.copytree(whole, FOLDER / "run")
        shutil.copy(whole / "results.json", FOLDER / "results.json")
    elif len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        seeds(target, Path(sys.argv[1]))
    reader = READERS[target]

    def one(content: bytes) -> None:
        try:
            reader(content)
        except InputError as error:
            if "\n" in str(error):
                raise AssertionError(f"more than one line: {error}") from error

    atheris.Setup([*sys.argv, "-rss_limit_mb=6000", "-timeout=60"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
