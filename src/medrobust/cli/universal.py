"""`medrobust universal`: one perturbation for every image, made, judged beside random ones, and kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from medrobust.cli.audit import guesses
from medrobust.cli.choices import UNIVERSAL
from medrobust.cli.doubts import MARK, warn
from medrobust.cli.measure import measure
from medrobust.cli.options import (
    MODEL,
    ComputeOptions,
    Device,
    ImageOptions,
    KeepNames,
    NetworkOptions,
    Out,
    Seed,
    TrainingOptions,
)
from medrobust.cli.perturbations import Eps, Norm, Target, Zeta, one_eps
from medrobust.cli.text import at_most, brief, guessed, percent, say, table

SHOWN = 12
"""Rows of classes that a terminal takes."""


def universal(
    *,
    images: ImageOptions,
    model: Annotated[str, typer.Option(help=f"{MODEL}; a timm architecture without weights is trained.")] = "resnet18",
    network: NetworkOptions,
    training: TrainingOptions,
    compute: ComputeOptions,
    method: Annotated[
        str, typer.Option(help=f"Name, with options after colons (sgd:passes=10), of {UNIVERSAL}.")
    ] = "sga",
    target: Target = None,
    norm: Norm = "l2",
    zeta: Zeta = None,
    eps: Eps = None,
    source: Annotated[
        str | None,
        typer.Option(help="Other images to make it from: noise, phantom:…, csv:…, folder:…; training images if none."),
    ] = None,
    vary: Annotated[
        bool, typer.Option("--vary", help="Crop, recolour, smooth and frame the other images: they get more answers.")
    ] = False,
    limit: Annotated[int, typer.Option(help="How many images it is made from, 0 for all.")] = 300,
    judged: Annotated[int, typer.Option(help="How many test images it is judged on, 0 for all.")] = 0,
    seed: Seed = 0,
    device: Device = None,
    keep_names: KeepNames = False,
    out: Out = None,
) -> Path:
    """One perturbation that fools a classifier on every image: made on training images, judged on test images."""
    from medrobust.experiments import ask
    from medrobust.experiments.universal import UniversalConfig
    from medrobust.store import key

    config = UniversalConfig(
        method=method,
        target=target,
        norm=norm,
        zeta=zeta,
        eps=one_eps(eps),
        source=None if source == images.data else source,  # its training images: the others are to judge
        vary=vary,
        limit=at_most(limit),
        judged=at_most(judged),
    )
    if config.source is not None:
        check_place(config.source)
    spec = ask(model=model, **images.asked, **network.asked, **training.asked, norm=norm, seed=seed)
    spec = spec.model_copy(update={"limit": config.judged})
    options = dataclasses.asdict(config)
    name = key({"model": spec.model_dump(mode="json"), "options": options})[:8]
    folder = out or Path("runs") / "-".join(["universal", *spec.slug().split("-")[1:-1], name])
    written = measure("universal", spec, options, folder, compute, device, keep_names, summary)
    say(f"perturbation {folder / 'v.safetensors'}\npicture {folder / 'v.png'}")
    return written


def check_place(source: str) -> None:
    """InputError where no such images can be there, before a run folder is made; they are read later."""
    from medrobust import data as data_room
    from medrobust.errors import InputError

    kind, _, where = source.partition(":")
    if source != "noise" and (
        kind not in data_room.SOURCES or (kind in ("csv", "folder") and not Path(where).exists())
    ):
        try:
            data_room.load(source)
        except InputError as error:
            raise InputError(f"--source {source}: {error}") from None


def summary(results: dict[str, Any]) -> None:
    """The perturbation beside the random ones, then what happens to each class."""
    from medrobust.experiments.perturbation import size_words
    from medrobust.results import Kind, Row, find

    about, rows = results["conditions"], [Row.read(row) for row in results["rows"]]
    info = about["universal"]
    goal = info["goals"][0]
    wanted = None if goal["target"] is None else about["classes"][goal["target"]]
    warn(results["checks"], about["class_notes"])
    size = size_words(about["norm"], info["eps"], info["zeta"])
    say(f"{info['title']} made from {info['n_made']} images ({info['made_from']}), {size}")

    def row(metric: str, attack: str = info["name"], class_name: str | None = None, saved: bool = False) -> Row | None:
        own = attack == info["name"]
        aim = wanted if own or metric.startswith("targeted") else None
        bits = info["bits"] if saved else None
        kind = Kind.UNIVERSAL if own else Kind.CONTROL
        return find(rows, kind=kind, attack=attack, metric=metric, target=aim, class_name=class_name, bits=bits)

    def cell(metric: str, attack: str = info["name"], digits: int = 1, **more: Any) -> str:
        found = row(metric, attack, **more)
        return "" if found is None else brief(found.estimate, digits)

    lines = []
    for name in (info["name"], *info["controls"]):
        rate = row("fooling_rate", name)
        shown = ("this perturbation" if name == info["name"] else name) + MARK * (rate is not None and not rate.ok)
        if wanted is None:
            lines.append([shown, cell("fooling_rate", name), cell("fooling_rate_saved", name, saved=True)])
        else:
            aimed = [cell(metric, name) for metric in ("targeted_success", "targeted_success_new")]
            saved = cell("targeted_success_saved", name, saved=True)
            lines.append([shown, *aimed, saved, cell("fooling_rate", name)])
    head = ["perturbation", "Rf: decision changed", f"Rf saved at {info['bits']} bit"]
    if wanted is not None:
        head = ["perturbation", f"Rs: decided {wanted}", "Rs of others", f"Rs saved at {info['bits']} bit", "Rf"]
    table(head, lines, f"On {info['n_judged']} test images, in % with the 95 % interval")
    if wanted is not None:
        base = row("targeted_base")
        assert base is not None
        say(f"decided {wanted} without a perturbation (base rate of Rs): {percent(base.estimate)}")

    def before(metric: str, class_name: str | None = None) -> Row | None:
        return find(rows, kind=Kind.UNIVERSAL, metric=metric, class_name=class_name)

    most = before("fooling_cap")
    if wanted is None and most is not None and most.value is not None:
        say(f"Rf when all images go to one class: at most {percent(most.estimate)}")
    after = {name: found for name in about["classes"] if (found := row("decided_after", class_name=name)) is not None}
    lines = []
    for name in sorted(after, key=lambda c: -(after[c].value or 0.0))[:SHOWN]:
        pairs = (before("decided_before", name), after[name], before("recall_before", name))
        cells = ["" if found is None else brief(found.estimate, 0) for found in pairs]
        fooled, right = (cell(metric, digits=0, class_name=name) for metric in ("fooling_rate", "recall_after"))
        lines.append([name, fooled, *cells, right])
    head = ["class", "Rf among them", "decided so before", "and after", "right before", "and after"]
    table(head, lines, "By class, in %")
    first, last = before("accuracy_before"), row("accuracy_after")
    if first is not None and last is not None:
        say(f"accuracy {percent(first.estimate)} before, {percent(last.estimate)} after")
    guessed(guesses(rows))
    if goal["why"]:
        say(f"{'note' if goal['moved'] else 'inconclusive'}: {goal['why']}")
