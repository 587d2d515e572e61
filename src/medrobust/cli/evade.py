"""`medrobust evade`: attacks that know the detector."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from medrobust.cli.choices import ATTACKS, DETECTORS, EVASIONS
from medrobust.cli.detect import summary
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
from medrobust.cli.text import at_most, eps_list, words
from medrobust.errors import InputError


def evade(
    *,
    model: Annotated[str, typer.Option(help=f"{MODEL}.")],
    images: ImageOptions,
    network: NetworkOptions,
    compute: ComputeOptions,
    privacy: PrivacyOptions,
    detectors: Annotated[
        str, typer.Option(help=f"Names, commas between, of {DETECTORS}.")
    ] = "kd,lid,dfeat,mahalanobis",
    eps: Annotated[str, typer.Option(help="Ascending fractions of the pixel range.")] = "0.5/255,1/255,2/255,4/255",
    at: Annotated[
        str | None, typer.Option(help="Which of them the detectors are fitted at: 1/255, else the middle one.")
    ] = None,
    attacks: Annotated[str, typer.Option(help=f"The attack that detectors are fitted on, one of {ATTACKS}.")] = "pgd",
    evasions: Annotated[
        str, typer.Option(help=f"Names of {EVASIONS}, the quickest first; all are tried on images that resist.")
    ] = "selective,orthogonal,penalised,matching,hfc,confident",
    norm: Annotated[str, typer.Option(help="linf or l2.")] = "linf",
    layers: Annotated[str, typer.Option(help="Modules of the network that are read, and penultimate.")] = "penultimate",
    limit: Annotated[int, typer.Option(help="Correctly classified images that detectors are fitted on, 0: all.")] = 200,
    attacked: Annotated[int, typer.Option(help="How many of them are attacked past the detectors.")] = 60,
    seed: Seed = 0,
    device: Device = None,
    out: RunOut = Path("runs/evade"),
) -> Path:
    """Fit detectors, then attack past them: how many images fool the classifier and raise no alarm."""
    from medrobust.experiments import ask
    from medrobust.experiments.detection import DetectionConfig
    from medrobust.experiments.evasion_config import EvasionConfig

    if attacked < 1:
        raise InputError(f"--attacked must be at least 1, got {attacked}")
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
    if len(spec.attacks) != 1:
        raise InputError(f"detectors are fitted on one attack, got --attacks {attacks}")
    detectors_config = DetectionConfig(
        detectors=words(detectors) or (),
        attacks=spec.attacks,
        layers=words(layers) or (),
        limit=at_most(limit),
        protocols=("clean",),
    )
    config = EvasionConfig(evasions=words(evasions) or (), attacked=attacked, eps=spec.eps)
    options = {"detection": asdict(detectors_config), "evasion": asdict(config), "eps": _fitted_at(spec.eps, at)}
    return measure("evade", spec, options, out, compute, device, privacy, partial(summary, out))


def _fitted_at(grid: tuple[float, ...], at: str | None) -> float:
    if at is None:
        grey = [e for e in grid if abs(e * 255 - 1) < 1e-9]
        return grey[0] if grey else grid[len(grid) // 2]
    chosen = eps_list(at) or ()
    if len(chosen) != 1 or chosen[0] not in grid:
        raise InputError(f"--at must be one of --eps, got {at}")
    return chosen[0]
