"""Are a classifier's decisions those of the user's own pipeline? Compared with a table of its predictions."""

from __future__ import annotations

from pathlib import Path

import torch

import medrobust.data.csv_rows as csv_rows
import medrobust.data.words as words
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.data.class_names import listed
from medrobust.data.table import FILE_COLUMNS
from medrobust.errors import InputError

PREDICTIONS = ("prediction", "predicted", "decision", "predictedclass", "predictedlabel", "label", "class")
"""Names of the column of decisions, the first before the others, as ``words.bare`` writes them."""


def check(table: str, classifier: Classifier, part: Dataset) -> str:
    """A sentence on how many decisions were compared, all of them equal.

    table: a CSV file with a column of image files (as in the data) and a column ``prediction`` of class names.
    part: the images that are compared, those of them that the table names. InputError where a decision differs, which
    names the first, and where the table has none of the images or another class.
    """
    path = Path(table).expanduser()
    if not path.is_file():
        raise InputError(f"--reference {table} is not a file; give a CSV table with columns file and prediction")
    if classifier.head.name == "multilabel":
        raise InputError("--reference compares one class an image; several findings are not covered")
    stated = _decisions(path, classifier.classes)
    here = [i for i, image in enumerate(part.ids) if image in stated]
    by_name = {Path(image).name: decision for image, decision in stated.items()}
    if not here and len(by_name) == len(stated):
        stated = by_name
        here = [i for i, image in enumerate(part.ids) if Path(image).name in stated]
    else:
        by_name = {}
    if not here:
        raise InputError(
            f"--reference {path.name} names none of the {len(part)} test images; its files must be written as in the "
            f"data, for example {part.ids[0]}"
        )
    compared = part.select(here).by_id()
    wrong = []
    batch_size = classifier.batch_size((1, compared.channels, *compared.shapes[0]))
    begin = 0
    for run in compared.runs_of_one_shape():
        for images, _, ids in compared.select(range(begin, begin + run)).batches(batch_size):
            probability = classifier.probabilities(images)
            decided = classifier.predict(images)
            for row, image in enumerate(ids):
                expected = stated[Path(image).name if by_name else image]
                if classifier.classes[int(decided[row])] != expected:
                    wrong.append((image, expected, int(decided[row]), probability[row]))
        begin += run
    if wrong:
        image, expected, label, share = min(wrong, key=lambda w: words.natural(w[0]))
        raise InputError(
            f"{len(wrong)} of {len(here)} decisions are not those of {path.name}, first {image}: {expected!r} there, "
            f"{classifier.classes[label]!r} ({_percent(share, label)}) here; check --preprocessing, --mean, --std, "
            "--classes and --threshold, or whether the table comes from these weights"
        )
    missing = len(part) - len(here)
    rest = f"; the other {missing} test images are not in it" if missing else ""
    return f"The decisions equal those of {path.name} on {len(here)} of {len(here)} images{rest}."


def _decisions(path: Path, classes: tuple[str, ...]) -> dict[str, str]:
    """Image -> class name, as the table has them."""
    cells = csv_rows.read(path, path.name)
    files = [c for bare in FILE_COLUMNS for c in cells.columns if words.bare(c) == bare]
    decisions = [c for bare in PREDICTIONS for c in cells.columns if words.bare(c) == bare]
    if not files or not decisions:
        raise InputError(
            f"--reference {path.name} needs the columns file and prediction, it has {listed(tuple(cells.columns))}"
        )
    stated = dict(zip(cells.column(files[0]), map(words.tidy, cells.column(decisions[0])), strict=True))
    for line, name in zip(cells.lines, cells.column(decisions[0]), strict=True):
        if words.tidy(name) not in classes:
            raise InputError(
                f"line {line} of {path.name} predicts {name!r}, which is no class of the classifier: {listed(classes)}"
            )
    return stated


def _percent(probability: torch.Tensor, label: int) -> str:
    return f"{100 * float(probability[label]):.0f} %"
