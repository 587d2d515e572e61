"""`medrobust detect`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medrobust.cli.choices import ATTACKS, DETECTORS
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
from medrobust.cli.text import at_most, eps_list, guessed, say, say_left_out, table, words
from medrobust.errors import InputError

if TYPE_CHECKING:
    from medrobust.report.run import Run


def detect(
    *,
    model: Annotated[str, typer.Option(help=f"{MODEL}.")],
    images: ImageOptions,
    network: NetworkOptions,
    compute: ComputeOptions,
    privacy: PrivacyOptions,
    detectors: Annotated[str, typer.Option(help=f"Names, commas between, of {DETECTORS}.")] = "kd,lid,dfeat",
    attacks: Annotated[
        str, typer.Option(help=f"Names, with options after colons, of {ATTACKS}; guards are fitted on pgd.")
    ] = "pgd",
    eps: Annotated[
        str, typer.Option(help="Fraction of the pixel range, or several, ascending: 1/255,4/255.")
    ] = "1/255",
    norm: Annotated[str, typer.Option(help="linf or l2.")] = "linf",
    protocol: Annotated[
        str, typer.Option(help="clean, paper (as published, with its leaks, for comparison), or both.")
    ] = "both",
    fpr: Annotated[float, typer.Option(help="Share of clean images on which a guard may raise an alarm.")] = 0.05,
    layers: Annotated[str, typer.Option(help="Modules of the network that are read, and penultimate.")] = "penultimate",
    limit: Annotated[int, typer.Option(help="How many correctly classified test images, 0 for all.")] = 200,
    modality: Annotated[
        str | None, typer.Option(help="xray, fundus, dermoscopy or natural: corruptions seen there.")
    ] = None,
    corrupted: Annotated[int, typer.Option(help="How many images are corrupted, for false alarms; 0: none.")] = 60,
    severities: Annotated[str, typer.Option(help="How severely, several of 1 (slight) to 5.")] = "3",
    prevalence: Annotated[float, typer.Option(help="Share of images taken to be attacked.")] = 0.001,
    seed: Seed = 0,
    device: Device = None,
    out: RunOut = Path("runs/detect"),
) -> Path:
    """Fit detectors of attacks and test them: areas, rates, false alarms, a picture, and guards to use."""
    from medrobust.data.corruptions import SEVERITIES, suited
    from medrobust.detectors.crossfit import FPRS
    from medrobust.experiments import ask, detection
    from medrobust.experiments.detection import PROTOCOLS, DetectionConfig

    if not 0 < fpr < 1:
        raise InputError(f"--fpr is a share between 0 and 1, got {fpr:g}")
    if corrupted < 0:
        raise InputError(f"--corrupted must not be negative, got {corrupted}; 0 corrupts none")
    severe = words(severities) or ()
    if not severe or not {*severe} <= {str(s) for s in SEVERITIES}:
        raise InputError(f"--severities are of {', '.join(map(str, SEVERITIES))}, got {severities!r}")
    spec = ask(
        model=model,
        **images.fields,
        **network.fields,
        train=False,
        attacks=words(attacks),
        eps=eps_list(eps),
        norm=norm,
        seed=seed,
    ).model_copy(update={"limit": None})
    config = DetectionConfig(
        detectors=words(detectors) or (),
        attacks=spec.attacks,
        layers=words(layers) or (),
        limit=at_most(limit),
        protocols=PROTOCOLS if protocol == "both" else (protocol,),
        corrupted=corrupted,
        fprs=tuple(sorted({*FPRS, fpr})),
        prevalence=prevalence,
    )
    chosen = {"modality": modality, "severities": [int(s) for s in dict.fromkeys(severe)]}
    if modality is not None:
        suited(modality, 1)  # a wrong one is said before anything is loaded
    options = {**detection.options(config, fpr), **chosen}
    return measure("detect", spec, options, out, compute, device, privacy, partial(summary, out))


def summary(out: Path, run: Run) -> None:
    """What was found about the classifier, the tables of the page, what was left out, and what else was written."""
    from medrobust.cli.audit import guesses
    from medrobust.report.detection_tables import tables
    from medrobust.report.findings import find

    warn(run.checks, run.conditions.class_notes)
    info = run.conditions.detection
    for one in [] if info is None else tables(find(run), info):
        table([c.text for c in one.head], [[c.text for c in row] for row in one.rows], one.caption)
    guessed(guesses(run.rows))
    say_left_out(run.left_out)
    for check in run.checks:
        if check.passed is False and not check.decisive and check.attack != "none":
            say(f"check failed: {check.name} ({check.attack}): {check.detail}; {check.consequence}")
    for name, path in (("picture", out / "tsne.png"), *(("guard  ", p) for p in sorted((out / "guards").glob("*")))):
        if path.exists():
            say(f"{name} {path}")
