"""`medrobust train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medrobust.cli.bars import Bars
from medrobust.cli.options import (
    Data,
    Device,
    Epochs,
    Fit,
    Head,
    KeepNames,
    Label,
    LeaveOut,
    Map,
    Mean,
    Patient,
    Pretrained,
    Rate,
    Seed,
    Size,
    Std,
)
from medrobust.cli.text import class_map, guessed, numbers, say, words


def train(
    out: Annotated[Path, typer.Argument(help="Folder for the trained classifier (model.safetensors, model.json).")],
    data: Data = "phantom:chest",
    model: Annotated[
        str, typer.Option(help="A timm architecture, small_cnn:width=32, or module:function.")
    ] = "resnet18",
    pretrained: Pretrained = None,
    label: Label = "label",
    patient: Patient = None,
    fit: Fit = None,
    map_: Map = None,
    leave_out: LeaveOut = None,
    size: Size = None,
    mean: Mean = None,
    std: Std = None,
    head: Head = "softmax",
    epochs: Epochs = None,
    lr: Rate = None,
    seed: Seed = 0,
    device: Device = None,
    keep_names: KeepNames = False,
) -> None:
    """Train or fine-tune a classifier; killed, the same command goes on."""
    from medrobust import data as data_room
    from medrobust import devices, guessing, training
    from medrobust.run_folder import RunFolder
    from medrobust.studies import preflight
    from medrobust.studies.images import announce

    preflight.check(model, pretrained=pretrained, epochs=epochs, lr=lr, head=head, device=device)
    where = str(devices.find(device))

    options: dict[str, Any] = {k: v for k, v in (("epochs", epochs), ("lr", lr)) if v is not None}
    with Bars() as bars, RunFolder(out, "train") as run:
        images = data_room.load(data, size=size, label=label, patient=patient, fit=fit, seed=seed)
        images = images.renamed(class_map(map_) or {}, words(leave_out) or ())
        announce(images, bars)
        classifier = training.fit(
            images, model, seed=seed, pretrained=pretrained, mean=numbers(mean, "--mean"), std=numbers(std, "--std"),
            head=head, device=where, progress=bars, resume=run.entry("training"),
            keep=run.entry("model.safetensors", "model.json").parent, **options,
        )  # fmt: skip
        run.remove("training")  # only a killed training is resumed
        if keep_names:
            classifier.save(out, keep_names=True)
        probability, labels = training.evaluate(classifier, images.split("val"))
    scores = training.score(probability, labels)
    guessed(guessing.of(probability.argmax(1) == labels, labels).text)
    say(f"validation balanced accuracy {scores.balanced_accuracy:.1%}, AUROC {scores.auroc:.3f}\nmodel {out}")
