"""`medrobust train`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medrobust.cli.bars import Bars
from medrobust.cli.options import (
    Classes,
    Device,
    Head,
    ImageOptions,
    KeepNames,
    Mean,
    Output,
    Outputs,
    Seed,
    Std,
    ThresholdRule,
    TrainingOptions,
)
from medrobust.cli.text import brief, guessed, numbers, percent, say, table, words

if TYPE_CHECKING:
    from medrobust.classifier import Classifier
    from medrobust.results import Row

METRICS = ("auroc", "sensitivity", "specificity")
"""Of each finding, for the terminal."""


def train(
    *,
    images: ImageOptions,
    model: Annotated[
        str, typer.Option(help="A timm architecture, small_cnn:width=32, or module:function.")
    ] = "resnet18",
    training: TrainingOptions,
    classes: Classes = None,
    mean: Mean = None,
    std: Std = None,
    head: Head = None,
    outputs: Outputs = None,
    threshold_rule: ThresholdRule = None,
    balance: Annotated[
        bool, typer.Option(help="Every class, or presence and absence of every finding, weighs the same.")
    ] = True,
    output: Output = None,
    seed: Seed = 0,
    device: Device = None,
    keep_names: KeepNames = False,
    out: Annotated[
        Path, typer.Option(help="Folder for the trained classifier (model.safetensors, model.json).")
    ] = Path("runs/train"),
) -> None:
    """Train or fine-tune a classifier; killed, the same command goes on."""
    import torch

    from medrobust import data as data_room
    from medrobust import devices, guessing, operating_points, stats
    from medrobust import training as training_room
    from medrobust.experiments import preflight
    from medrobust.experiments.images import announce
    from medrobust.experiments.rows import clean_rows
    from medrobust.experiments.system import groups
    from medrobust.results import Rows
    from medrobust.run_folder import RunFolder

    options = training.recipe
    rule = None if threshold_rule is None else operating_points.ThresholdRule.read(threshold_rule)
    preflight.check(model, **options, head=head, device=device)
    where = str(devices.find(device))
    with Bars() as bars, RunFolder(out, "train") as run:
        data = data_room.load(images.data, **images.read, seed=seed).renamed(*images.renaming)
        data = data if classes is None else data.for_classes(words(classes) or ())
        announce(data, bars)
        classifier = training_room.fit(
            data.shown(),
            model,
            seed=seed,
            mean=numbers(mean, "--mean"),
            std=numbers(std, "--std"),
            head=head,
            outputs=outputs,
            balance=balance,
            output=output,
            device=where,
            progress=bars,
            resume=run.entry("training"),
            keep=run.entry("model.safetensors", "model.json").parent,
            **options,
        )
        run.remove("training")  # only a killed training is resumed
        part = data.split("val").for_network(classifier)
        before = classifier.threshold
        classifier = classifier.at(None)
        if rule is not None:
            classifier, notes = operating_points.chosen(classifier, part, rule)
            for note in notes:
                bars.note(note)
        if keep_names or classifier.threshold != before:
            classifier.save(out, keep_names=keep_names)
        probability, labels = training_room.evaluate(classifier, part)
        decided = torch.cat([classifier.predict(x) for x, _, _ in part.batches(256)]).numpy()
    scores = training_room.score(probability, labels)
    several = labels.ndim == 2
    chance = guessing.of(decided == labels, labels, groups(part))
    guessed(chance.text)
    line = f"validation balanced accuracy {percent(chance.balanced)}, n = {chance.balanced.n}"
    if not several and probability.shape[1] == 2 and math.isfinite(scores.auroc):
        area = stats.auroc(probability[:, 1], labels == 1, groups(part))
        line += f", AUROC {area.value:.3f} ({area.low:.3f} to {area.high:.3f})"
    elif math.isfinite(scores.auroc):
        of = "findings" if several else "classes, each against the others"
        line += f", AUROC {scores.auroc:.3f} (mean over the {of}; no interval)"
    say(line)
    if several:
        rows = Rows()
        clean_rows(rows, probability, labels, decided, classifier.classes, groups(part))
        columns = ["finding", *METRICS, "threshold"]
        table(
            columns, [_line(rows.rows, classifier, name) for name in classifier.classes], "On validation images, in %"
        )
    say(f"model {out}")


def _line(rows: Sequence[Row], classifier: Classifier, name: str) -> list[str]:
    """The table's line of one finding; empty where it is not measured."""
    from medrobust.results import find

    found = [find(rows, metric=metric, class_name=name) for metric in METRICS]
    at = classifier.threshold
    threshold = at[classifier.classes.index(name)] if isinstance(at, tuple) else at or 0.5
    measured = (brief(row.estimate) if row is not None and row.value is not None else "" for row in found)
    return [name, *measured, f"{threshold:.3g}"]
