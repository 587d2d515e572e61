"""Options that several commands share: each is declared, and explained, once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medrobust.formats import TITLES

Data = Annotated[
    str,
    typer.Option(
        help="phantom:chest|fundus|skin[@SIZE], csv:FILE, folder:DIR, or medmnist:FILE.npz|NAME[@SIZE]. "
        f"Files may be {TITLES}."
    ),
]
Patient = Annotated[
    str | None,
    typer.Option(help="Column of a csv table that names the patients, or none; found by its usual names."),
]
Fit = Annotated[
    str | None,
    typer.Option(help="How images that are not square become square: stretch (by default), crop or pad (black)."),
]
Label = Annotated[str, typer.Option(help="Column of a csv table that holds the label.")]
Map = Annotated[
    str | None,
    typer.Option("--map", help="Class names of the data as the network calls them: neg=normal,pos=pneumonia."),
]
LeaveOut = Annotated[
    str | None, typer.Option("--leave-out", help="Classes of the data whose images are not used: a,b.")
]
Classes = Annotated[str | None, typer.Option(help="Names of the network's outputs, in order: a,b,c.")]
Size = Annotated[int | None, typer.Option(help="Side in pixels to which images are resized.")]
Seed = Annotated[int, typer.Option(help="Everything random follows from it.")]
TrustCode = Annotated[
    bool, typer.Option("--trust-code", help="Import and run code that a saved model names as its network.")
]
Device = Annotated[str | None, typer.Option(help="cpu or cuda; the GPU where there is one.")]
Pretrained = Annotated[str | None, typer.Option(help="Weights to train further from: a file, or hub.")]
Mean = Annotated[str | None, typer.Option(help="Input mean of the weights, [0, 1] scale, e.g. 0.5,0.5,0.5.")]
Std = Annotated[str | None, typer.Option(help="Input standard deviation of the weights.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training images.")]
Rate = Annotated[float | None, typer.Option("--lr", help="Learning rate.")]
Head = Annotated[str, typer.Option(help="softmax (an output a class) or logit (one output, two classes).")]
Healthy = Annotated[
    str | None,
    typer.Option(help="Classes that stand for no disease, commas between: normal,benign; by their names if not given."),
]
KeepNames = Annotated[
    bool,
    typer.Option(
        "--keep-names", help="Write names of images, patients and files as they are, not codes (medrobust names)."
    ),
]
Out = Annotated[Path | None, typer.Option(help="Run folder; the same command on it goes on where it was.")]
