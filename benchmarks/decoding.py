"""Reading image files of 2,000 x 2,500 pixels to 224 x 224: medrobust beside torchvision, in turn, two workers each.

    python benchmarks/decoding.py [--files 60] [--rounds 5] [--kinds jpeg-grey jpeg-colour png-grey png-colour dicom]
        [--out CSV]

The peer is torchvision's ImageFolder with Resize and ToTensor behind a DataLoader of two worker processes; of DICOM,
which ImageFolder cannot read, a Dataset of ten lines with pydicom and Pillow. medrobust opens the same folder
(`folder:DIR` or `dicom:DIR`, size 224), which also checks, hashes and keeps every image. Files hold chest phantoms with
noise, JPEG at quality 90. Prints, and appends to CSV, milliseconds an image (wall; median of the rounds), the ratio
with its least and most, and the largest memory of a process that reads all files and one that reads half of them.
"""

from __future__ import annotations

import argparse
import csv
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import medrobust as mr

WIDTH, HEIGHT, SIDE, WORKERS = 2000, 2500, 224, 2
KINDS = ("jpeg-grey", "jpeg-colour", "png-grey", "png-colour", "dicom")
COLUMNS = (
    "files",
    "n",
    "peer",
    "peer: ms an image",
    "medrobust: ms an image",
    "ratio (least to most)",
    "MiB, half of the files",
    "MiB, all",
)


def write(folder: Path, kind: str, count: int) -> None:
    """Two folders of images, a class each."""
    base = mr.data.load("phantom:chest@64:n=18").images(range(18))[:, 0].numpy()
    for i in range(count):
        picture = Image.fromarray((base[i % 18] * 255).astype(np.uint8)).resize(
            (WIDTH, HEIGHT), Image.Resampling.BICUBIC
        )
        noise = np.random.default_rng(i).normal(0, 3, (HEIGHT, WIDTH))
        pixels = (np.asarray(picture) + noise).clip(0, 255).astype(np.uint8)
        if kind.endswith("colour"):
            pixels = np.stack([pixels, pixels // 2, 255 - pixels], 2)
        place = folder / f"class{i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        if kind == "dicom":
            dicom(place / f"{i}.dcm", pixels)
        else:
            options = {"quality": 90} if kind.startswith("jpeg") else {}
            Image.fromarray(pixels).save(place / f"{i}.{kind.partition('-')[0]}", **options)


def dicom(file: Path, pixels: np.ndarray) -> None:
    from pydicom import Dataset, dcmwrite
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    data, meta = Dataset(), FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientID, data.Rows, data.Columns = file.stem, *pixels.shape
    data.BodyPartExamined = file.parent.name.upper()
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    data.WindowCenter, data.WindowWidth = 2048, 4096
    data.PixelData = (pixels.astype(np.uint16) * 16).tobytes()
    data.file_meta = meta
    dcmwrite(file, data, enforce_file_format=True)


class DicomFolder(torch.utils.data.Dataset[torch.Tensor]):
    """What one writes with pydicom."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(folder.rglob("*.dcm"))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> torch.Tensor:
        import pydicom

        element = pydicom.dcmread(self.files[row])
        low = element.WindowCenter - element.WindowWidth / 2
        shown = ((element.pixel_array - low) / element.WindowWidth).clip(0, 1).astype(np.float32)
        return torch.from_numpy(np.array(Image.fromarray(shown).resize((SIDE, SIDE), Image.Resampling.BILINEAR)))[None]


def peer(folder: Path, kind: str) -> int:
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    steps = transforms.Compose([transforms.Resize((SIDE, SIDE)), transforms.ToTensor()])
    data = DicomFolder(folder) if kind == "dicom" else ImageFolder(str(folder), steps)
    batches = torch.utils.data.DataLoader(data, batch_size=32, num_workers=WORKERS)
    return sum(len(batch if kind == "dicom" else batch[0]) for batch in batches)


def ours(folder: Path, kind: str) -> int:
    spec = f"dicom:{folder}" if kind == "dicom" else f"folder:{folder}"
    more = {"label": "BodyPartExamined"} if kind == "dicom" else {}
    data = mr.data.load(spec, size=SIDE, **more)
    return sum(len(data.images(range(i, min(i + 32, len(data))))) for i in range(0, len(data), 32))


def seconds(read: Callable[[Path, str], int], folder: Path, kind: str, count: int) -> float:
    begin = time.perf_counter()
    assert read(folder, kind) == count
    return time.perf_counter() - begin


def memory(folder: Path, kind: str, count: int) -> int:
    """MiB at most of a process that reads so many of the files."""
    with tempfile.TemporaryDirectory() as part:
        for file in sorted(folder.rglob("*.*"), key=lambda f: int(f.stem))[:count]:
            place = Path(part) / file.parent.name
            place.mkdir(exist_ok=True)
            shutil.copy(file, place)
        command = [sys.executable, __file__, "--one", part, "--kinds", kind]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        ours(options.one, options.kinds[0])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        return
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    for kind in options.kinds:
        with tempfile.TemporaryDirectory() as place:
            folder, n = Path(place), options.files
            write(folder, kind, n)
            pairs = [(seconds(peer, folder, kind, n), seconds(ours, folder, kind, n)) for _ in range(options.rounds)]
            of_peer, of_medrobust = np.array(pairs).T
            ratio = of_peer / of_medrobust
            row = [
                kind,
                str(n),
                "pydicom, DataLoader" if kind == "dicom" else "ImageFolder, DataLoader",
                *(f"{np.median(side) / n * 1e3:.1f}" for side in (of_peer, of_medrobust)),
                f"{np.median(ratio):.1f} ({ratio.min():.1f} to {ratio.max():.1f})",
                *(str(memory(folder, kind, count)) for count in (n // 2, n)),
            ]
        print("| " + " | ".join(row) + " |", flush=True)
        if options.out:
            new = not options.out.exists()
            with options.out.open("a", newline="", encoding="utf-8") as stream:
                csv.writer(stream, lineterminator="\n").writerows([COLUMNS, row] if new else [row])


if __name__ == "__main__":
    main()
