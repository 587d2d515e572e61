"""`medrobust train`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from medrobust.cli.bars import Bars
from medrobust.cli.options import (
    Classes,
    Device,
    Head,
    ImageOptions,
    KeepNames,
    Mean,
    Outputs,
    Seed,
    Std,
    TrainingOptions,
)
from medrobust.cli.text import guessed, numbers, percent, say, words


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
    seed: Seed = 0,
    device: Device = None,
    keep_names: KeepNames = False,
    out: Annotated[
        Path, typer.Option(help="Folder for the trained classifier (model.safetensors, model.json).")
    ] = Path("runs/train"),
) -> None:
    """Train or fine-tune a classifier; killed, the same command goes on."""
    from medrobust import data as data_room
    from medrobust import devices, guessing, stats
    from medrobust import training as training_room
    from medrobust.experiments import preflight
    from medrobust.experiments.images import announce
    from medrobust.experiments.system import groups
    from medrobust.run_folder import RunFolder

    options = training.recipe
    preflight.check(model, **options, head=head, device=device)
    where = str(devices.find(device))
    with Bars() as bars, RunFolder(out, "train") as run:
        data = data_room.load(images.data, **images.read, seed=seed).renamed(*images.renaming)
        data = data if classes is None else data.for_classes(words(classes) or ())
        announce(data, bars)
        classifier = training_room.fit(
            data,
            model,
            seed=seed,
            mean=numbers(mean, "--mean"),
            std=numbers(std, "--std"),
            head=head,
            outputs=outputs,
            device=where,
            progress=bars,
            resume=run.entry("training"),
            keep=run.entry("model.safetensors", "model.json").parent,
            **options,
        )
        run.remove("training")  # only a killed training is resumed
        if keep_names:
            classifier.save(out, keep_names=True)
        part = data.split("val").for_network(classifier)
        probability, labels = training_room.evaluate(classifier, part)
    scores = training_room.score(probability, labels)
    several = labels.ndim == 2
    decided = (probability > 0.5).astype(labels.dtype) if several else probability.argmax(1)
    chance = guessing.of(decided == labels, labels, groups(part))
    guessed(chance.text)
    line = f"validation balanced accuracy {percent(chance.balanced)}, n = {chance.balanced.n}"
    if not several and probability.shape[1] == 2 and math.isfinite(scores.auroc):
        area = stats.auroc(probability[:, 1], labels == 1, groups(part))
        line += f", AUROC {area.value:.3f} ({area.low:.3f} to {area.high:.3f})"
    elif math.isfinite(scores.auroc):
        of = "findings" if several else "classes, each against the others"
        line += f", AUROC {scores.auroc:.3f} (mean over the {of}; no interval)"
    say(f"{line}\nmodel {out}")
