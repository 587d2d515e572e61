"""`medrobust explain`: why a classifier breaks, in numbers, maps and one page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medrobust.cli.choices import ATTACKS, MEASURES
from medrobust.cli.doubts import warn
from medrobust.cli.measure import measure
from medrobust.cli.options import (
    MODEL,
    ComputeOptions,
    Device,
    ImageOptions,
    NetworkOptions,
    PrivacyOptions,
    RunOut,
    Seed,
)
from medrobust.cli.text import at_most, eps_list, guessed, say, table, words
from medrobust.errors import InputError

if TYPE_CHECKING:
    from medrobust.report.run import Run

SHOWN = ("slope-l1", "curvature", "saliency-half", "saliency-gini", "effective-rank", "linear-eps")
"""Measures of the short table; the page and results.csv hold all."""


def explain(
    *,
    model: Annotated[str, typer.Option(help=f"{MODEL}.")],
    images: ImageOptions,
    network: NetworkOptions,
    second: Annotated[
        Path | None, typer.Option(help="An independently trained classifier of the same data, for the published plane.")
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Another saved classifier, or a run folder of this command, shown beside; may be repeated."),
    ] = None,
    beside_data: Annotated[
        list[str] | None, typer.Option(help="Data of the classifier beside, in the same order; else the same data.")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Modules whose simplicity is measured; the last block of every resolution.")
    ] = None,
    cam_layer: Annotated[str | None, typer.Option(help="Module that Grad-CAM reads; the last that has a map.")] = None,
    measures: Annotated[
        str | None, typer.Option(help=f"Names, commas between, of {MEASURES}; all if none is given.")
    ] = None,
    attacks: Annotated[str, typer.Option(help=f"One name, with options after colons, of {ATTACKS}.")] = "pgd",
    eps: Annotated[str, typer.Option(help="Size of the attack, a fraction of the pixel range.")] = "1/255",
    compute: ComputeOptions,
    privacy: PrivacyOptions,
    limit: Annotated[int, typer.Option(help="How many correctly classified test images, 0 for all.")] = 60,
    landscapes: Annotated[int, typer.Option(help="Of how many of them the loss landscape is computed.")] = 16,
    seed: Seed = 0,
    device: Device = None,
    out: RunOut = Path("runs/explain"),
) -> Path:
    """Saliency, Grad-CAM, layers, loss landscape and embedding, before and after an attack, with numbers and a page."""
    from medrobust import explain as room
    from medrobust.experiments import ask
    from medrobust.experiments.explanation_config import ExplanationConfig
    from medrobust.experiments.explanations import options

    others, data = list(beside or ()), list(beside_data or ())
    if len(data) > len(others):
        raise InputError(f"{len(data)} times --beside-data but {len(others)} times --beside; give a classifier each")
    for place in others:
        if not any((place / name).is_file() for name in ("results.json", "model.json")):
            raise InputError(
                f"--beside {place}: neither a classifier saved by medrobust nor a run of medrobust explain"
            )
    if second is not None and not second.is_dir():
        raise InputError(f"--second {second} is not a folder; give one that medrobust train or audit saved")
    sizes = eps_list(eps) or ()
    if len(sizes) != 1:
        raise InputError(f"--eps takes one size, got {eps}")
    config = ExplanationConfig(
        measures=words(measures) or tuple(room.MEASURES),
        attack=attacks,
        layers=words(layers) or None,
        cam_layer=cam_layer,
        limit=at_most(limit),
        surfaces=landscapes,
    )
    spec = ask(model=model, **images.fields, **network.fields, train=False, eps=sizes, seed=seed)
    beside_options = []
    for k, place in enumerate(others):
        where = data[k] if k < len(data) else images.data
        # names of classes and patients, and how images become square, are those of one data set
        shared = images.fields if where == images.data else {"data": where, "label": images.label}
        beside_options.append({"model": str(place), **shared, "size": None, "outputs": network.outputs})
    chosen = options(config, None if second is None else str(second), beside_options)
    return measure("explain", spec, chosen, out, compute, device, privacy, summary)


def summary(run: Run) -> None:
    """A few measures, a classifier a column; then what the attack moves."""
    from medrobust.report.explained import explained
    from medrobust.report.explanation_tables import estimate_text

    classifiers = explained(run)
    first = classifiers[0].info
    warn(run.checks, run.conditions.class_notes)

    head = ["median of the images, 95 % interval", *(f"{e.name}, n = {e.info.n}" for e in classifiers)]
    lines = [
        [f"{first.measures[m].title}, {first.measures[m].unit}", *(estimate_text(e.find(m)) for e in classifiers)]
        for m in SHOWN
        if m in first.measures
    ]
    table(head, lines, "Images without an attack")
    for e in classifiers:
        guessed(e.info.guesses)
    head[1:] = [f"{e.name}, turned {e.info.reached}" for e in classifiers]
    shift = "Grad-CAM's centre moves, share of the diagonal"
    lines = [[shift, *(estimate_text(e.find("cam-shift", "change")) for e in classifiers)]]
    lines += [
        ["the same under noise of that size", *(estimate_text(e.find("cam-shift", "noise")) for e in classifiers)]
    ]
    for how, name in (("share", "mass in the lesion"), ("auroc", "AUROC against the lesion")):
        for when in ("clean", "attacked"):
            rows = [e.find(f"lesion-{how}", when, map="cam") for e in classifiers]
            if any(r is not None and r.value is not None for r in rows):
                lines.append([f"Grad-CAM's {name}, {when}", *map(estimate_text, rows)])
    probe = [estimate_text(e.find("probe-auroc", "attacked", of="attacked")) for e in classifiers]
    lines.append(["Clean images apart from attacked ones by a linear probe, AUROC", *probe])
    table(head, lines, f"Under {first.attack_title} at {first.eps * 255:.3g}/255, of the images that it turned")
    if first.second is None:
        say("no --second model: the loss landscape is shown along a random direction alone")
    say("one line an image: images.csv beside results.csv")
