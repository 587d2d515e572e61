"""Are a classifier's decisions those of the user's own pipeline? Compared with a table of its predictions."""

from __future__ import annotations

from pathlib import Path

import medrobust.data.csv_rows as csv_rows
import medrobust.data.words as words
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.data.class_names import listed
from medrobust.data.table import FILE_COLUMNS
from medrobust.errors import InputError
from medrobust.experiments import robustness_cells

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
    names = list(part.ids)
    if stated.keys().isdisjoint(names):  # written from another folder than the data's table
        names = [Path(image).name for image in names]
        stated = {Path(image).name: decision for image, decision in stated.items()}
    here = [i for i, name in enumerate(names) if name in stated]
    if not here:
        raise InputError(
            f"--reference {path.name} names none of the {len(part)} test images; its files must be written as in the "
            f"data, for example {part.ids[0]}"
        )
    _, arrays = robustness_cells.clean(classifier, part.select(here), lambda _: None)
    wrong = []
    for i, decision, probability in zip(here, arrays["decision"].tolist(), arrays["probability"], strict=True):
        if classifier.classes[decision] != stated[names[i]]:
            wrong.append((words.natural(part.ids[i]), i, decision, float(probability[decision])))
    if wrong:
        _, i, decision, share = min(wrong)
        raise InputError(
            f"{len(wrong)} of {len(here)} decisions are not those of {path.name}, first {part.ids[i]}: "
            f"{stated[names[i]]!r} there, {classifier.classes[decision]!r} ({100 * share:.0f} %) here; check "
            "--preprocessing, --mean, --std, --classes and --threshold, or whether the table comes from these weights"
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
