"""`medrobust search`: networks trained by meta-heuristic search, beside gradient baselines."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medrobust.cli.choices import OPTIMISERS
from medrobust.cli.doubts import warn
from medrobust.cli.measure import measure
from medrobust.cli.options import (
    ComputeOptions,
    Device,
    Healthy,
    ImageOptions,
    Mean,
    Outputs,
    PrivacyOptions,
    RunOut,
    Seed,
    Std,
    TrustCode,
)
from medrobust.cli.text import numbers, say, table, words
from medrobust.errors import InputError

if TYPE_CHECKING:
    from medrobust.report.run import Run


def search(
    *,
    images: ImageOptions,
    compute: ComputeOptions,
    privacy: PrivacyOptions,
    features: Annotated[
        str, typer.Option(help="deep (of --model), wavelet, texture, hu, or handmade (these three).")
    ] = "wavelet",
    model: Annotated[
        str | None, typer.Option(help="For deep features: a folder saved by medrobust, or an architecture.")
    ] = None,
    pretrained: Annotated[str | None, typer.Option(help="Weights of that architecture: a file.")] = None,
    mean: Mean = None,
    std: Std = None,
    outputs: Outputs = None,
    what: Annotated[str, typer.Option(help="Names: weights,masks,hyper,threshold; or all.")] = "weights",
    methods: Annotated[
        str,
        typer.Option(
            help=f"Names of {OPTIMISERS}; NAME+adam for gradient descent after it, or all; baselines are added."
        ),
    ] = "random,ga,pso,de,cma-es,gwo,woa,gwo+adam",
    budget: Annotated[
        int,
        typer.Option(
            help="Evaluations of each method, a gradient counted as three; masks get a tenth of it, "
            "hyper-parameters 1/150, thresholds 1/30."
        ),
    ] = 6000,
    seeds: Annotated[int, typer.Option(help="How often folds and searches are drawn anew.")] = 20,
    folds: Annotated[int, typer.Option(help="Of the outer cross-validation.")] = 3,
    limit: Annotated[int, typer.Option(help="How many images are compared on, 0 for all.")] = 400,
    healthy: Healthy = None,
    attacked: Annotated[
        int, typer.Option(help="Attack evolved and gradient-trained networks on so many test images; 0: none.")
    ] = 0,
    trust_code: TrustCode = False,
    seed: Seed = 0,
    device: Device = None,
    out: RunOut = Path("runs/search"),
) -> Path:
    """Train networks by meta-heuristic search and by gradients under one protocol, and say which are better.

    With --data breast-cancer on scikit-learn's table of 30 features, without images.
    """
    from medrobust.experiments import ask
    from medrobust.experiments.accuracy_matched import AccuracyMatchedConfig
    from medrobust.experiments.search_config import SearchConfig
    from medrobust.experiments.search_system import BREAST_CANCER
    from medrobust.training.evolved import QUESTIONS, check_features

    for name, value, least in (("--budget", budget, 1), ("--limit", limit, 0), ("--attacked", attacked, 0)):
        if value < least:
            raise InputError(f"{name} must be {least} or more, got {value}")
    config = SearchConfig(
        questions=tuple(QUESTIONS) if what == "all" else words(what) or (),
        methods=words(methods) or (),
        budget=budget,
        seeds=seeds,
        folds=folds,
    )
    if images.data == BREAST_CANCER:
        features = source = "features as measured"
        if attacked:
            raise InputError(f"{BREAST_CANCER} is a table without images: there is nothing to attack")
    else:
        check_features(features, model, pretrained)
        source = str(model) if features == "deep" else features
    spec = ask(
        **images.fields,
        model=source,
        train=False,
        pretrained=pretrained,
        mean=numbers(mean, "--mean"),
        std=numbers(std, "--std"),
        outputs=outputs,
        healthy=healthy,
        trust_code=trust_code,
        seed=seed,
    ).model_copy(update={"limit": limit or None})
    under_attack = asdict(AccuracyMatchedConfig(images=attacked, budget=budget)) if attacked else None
    options = {"features": features, "search": asdict(config), "attacked": under_attack}
    return measure("search", spec, options, out, compute, device, privacy, partial(summary, out, images.data))


def summary(out: Path, data: str, run: Run) -> None:
    """Methods of every question, best first, with the verdict; robustness; what was kept."""
    from medrobust.report import search_words
    from medrobust.report.run import read
    from medrobust.report.searched import MAIN, Searched, attacked, searched
    from medrobust.report.words import NOTHING, number

    warn(run.checks)
    run = read(out)  # with the seconds, which lie beside results.json

    def cells(result: Searched, name: str) -> list[str]:
        row, apart, spent = (result.find(metric, name) for metric in (MAIN, "difference", "evaluations"))
        if row is None or row.value is None:
            text = NOTHING
        elif row.low is None or row.high is None:
            text = f"{100 * row.value:.1f} (no interval)"
        else:
            text = f"{100 * row.value:.1f} ({100 * row.low:.1f}-{100 * row.high:.1f})"
        less = "reference"
        if apart is not None and apart.value is not None:
            less = f"{100 * apart.value:+.1f} (p {apart.get('p'):.2g})"
        count = "" if spent is None or spent.value is None else f"{spent.value:.0f}"
        return [name, text, less, count, number(result.seconds(name))]

    for result in searched(run):
        head = ["method", "balanced accuracy, % (95 %)", f"less {result.info.reference}, points", "evaluations"]
        title = (
            f"{result.title}: median of {result.table.seeds} seeds, {result.table.n} images of {run.conditions.data}"
        )
        table([*head, "s a network"], [cells(result, name) for name in result.ordered], title)
        say(search_words.verdict(result))
    for sentence in search_words.robustness(attacked(run)):
        say(sentence)
    kept = [(result, out / "models" / result.question) for result in searched(run)]
    kept = [(result, folder) for result, folder in kept if folder.is_dir()]
    for result, folder in kept:
        say(f"networks {folder}/ ({', '.join(result.methods)})")
    if kept:
        first, folder = kept[0]
        name = next((n for n, m in first.methods.items() if m.kind == "search"), next(iter(first.methods)))
        say(f"audit one of them: medrobust audit --data {data} --model {folder / name}")
