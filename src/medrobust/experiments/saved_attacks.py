"""``attack --save``: attacked images as files, with a table of what was done to each, and read again."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import NamedTuple

import torch

from medrobust import atomic
from medrobust.attacks import Curve
from medrobust.classifier import Classifier
from medrobust.data import Dataset, files_out
from medrobust.data.files import FileSource
from medrobust.data.nifti_file import is_nifti
from medrobust.errors import InputError
from medrobust.experiments.config import AuditSpec
from medrobust.experiments.system import System
from medrobust.grey_scale import grey_scale
from medrobust.images import Images, Labels
from medrobust.naming import image_code, patient_code
from medrobust.versions import versions

TABLE = "attacked.csv"


class Saved(NamedTuple):
    """How many images were written, and of how many files, read again, the decision is the same."""

    images: int
    same: int


def check_folder(folder: Path) -> None:
    """InputError where files are there already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} holds files; --save wants a new folder, for nothing is overwritten")


def check_images(part: Dataset) -> None:
    """InputError where images cannot be written as they are."""
    volumes = isinstance(part.source, FileSource) and any(is_nifti(row.file) for row in part.source.files)
    if volumes:
        raise InputError("slices of NIfTI volumes are not written: convert them to DICOM or PNG, or leave --save out")


def save(folder: Path, system: System, curve: Curve, name: str, spec: AuditSpec) -> Saved:
    """Write every attacked image that was read correctly before, successes and last attempts, into ``folder``.

    The table has a row an image: its file and label as ``csv:`` reads them, code, patient's code, the decisions before
    and after, whether the attack reached its goal, and the size of the change.
    """
    check_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    part, classifier = system.sample, system.classifier
    index = (curve.min_eps > 0).nonzero()[:, 0].tolist()
    part, attacked = part.select(index), curve.images[index]
    clean, classes = part.images(range(len(part))), classifier.classes
    size = spec.ball(0.0).size(attacked - clean)
    unit = grey_scale(system.sample.common_levels, part.span)
    sizes = [unit.text(float(s)) if spec.norm == "linf" else f"{float(s):.4g}" for s in size]
    title = f"medrobust {versions()['medrobust']}"
    done = [
        f"Adversarial example, not for diagnosis: pixels changed by {curve.attack} with {title}, {spec.norm} size {s}"
        for s in sizes
    ]
    codes = [patient_code(part, i) or image_code(part, i) for i in range(len(part))]
    names = files_out.write(part, attacked, folder, codes, done, spec.window)
    before, after = classifier.predict(clean), classifier.predict(attacked)
    again = _decided(classifier.of_pictures(), files_out.read(folder, names, part.channels))
    reached = torch.isfinite(curve.min_eps[index]).tolist()
    changed = (attacked != clean).flatten(1).sum(1).tolist()

    def text(label: torch.Tensor) -> str:
        if label.ndim:
            return "|".join(c for c, there in zip(classes, label.tolist(), strict=True) if there)
        return classes[int(label)]

    rows = [
        {
            "file": names[i],
            "label": part.label_text(i),
            "image": image_code(part, i),
            "patient": codes[i],
            "attack": name,
            "norm": spec.norm,
            "size": sizes[i],
            "values changed": changed[i],
            "before": text(before[i]),
            "after": text(after[i]),
            "reached": "yes" if reached[i] else "no",
            "read again": text(again[i]),
        }
        for i in range(len(part))
    ]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else ["file", "label"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic.write_text(folder / TABLE, stream.getvalue())
    same = sum(bool((one == other).all()) for one, other in zip(after, again, strict=True))
    return Saved(len(rows), same)


def _decided(classifier: Classifier, images: list[Images]) -> Labels:
    if len({image.shape for image in images}) == 1:
        return classifier.predict(torch.cat(images))
    return torch.cat([classifier.predict(image) for image in images]) if images else torch.empty(0, dtype=torch.long)
