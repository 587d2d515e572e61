"""`medrobust universal`: one perturbation for every image, made, judged beside random ones, and kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    NetworkOptions,
    Out,
    PrivacyOptions,
    Seed,
    TrainingOptions,
)
from medrobust.cli.perturbations import Eps, Norm, Target, Zeta, one_size
from medrobust.cli.text import at_most, brief, guessed, percent, say, table

if TYPE_CHECKING:
    from medrobust.report.run import Run

SHOWN = 12
"""Rows of classes that a terminal takes."""
TARGETED = ("targeted_success", "targeted_success_new", "targeted_success_saved")
"""Metrics that random changes have for each target too."""


def universal(
    *,
    images: ImageOptions,
    model: Annotated[str, typer.Option(help=f"{MODEL}; a timm architecture without weights is trained.")] = "resnet18",
    network: NetworkOptions,
    training: TrainingOptions,
    compute: ComputeOptions,
    privacy: PrivacyOptions,
    method: Annotated[
        str, typer.Option(help=f"Name, with options after colons (sgd:passes=20), of {UNIVERSAL}.")
    ] = "sgd",
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
    out: Out = None,
) -> Path:
    """One perturbation that fools a classifier on every image: made on training images, judged on test images."""
    from medrobust.experiments import ask
    from medrobust.experiments.universal import UniversalConfig
    from medrobust.store import key

    size, unit = one_size(eps)
    config = UniversalConfig(
        method=method,
        target=target,
        norm=norm,
        zeta=zeta,
        eps=size,
        unit=unit,
        source=None if source == images.data else source,  # its training images: the others are to judge
        vary=vary,
        limit=at_most(limit),
        judged=at_most(judged),
    )
    if config.source is not None:
        check_place(config.source)
    spec = ask(model=model, **images.fields, **network.fields, **training.fields, norm=norm, seed=seed)
    spec = spec.model_copy(update={"limit": config.judged})
    options = dataclasses.asdict(config)
    name = key({"model": spec.model_dump(mode="json"), "options": options})[:8]
    folder = out or Path("runs") / "-".join(["universal", *spec.slug().split("-")[1:-1], name])
    written = measure("universal", spec, options, folder, compute, device, privacy, summary)
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


def summary(run: Run) -> None:
    """The perturbation beside the random ones, then what happens to each class."""
    from medrobust.experiments.perturbation import size_words
    from medrobust.results import Kind, Row, find

    conditions, info, rows = run.conditions, run.conditions.universal, run.rows
    assert info is not None
    own, goal = info.name, info.goals[0]
    several = conditions.head == "multilabel"
    wanted = None if goal.target is None else run.target_name(goal.target)
    warn(run.checks, conditions.class_notes)
    size = size_words(conditions.norm, info.eps, info.zeta, conditions.grey_scale)
    say(f"{info.title} made from {info.n_made} images ({info.made_from}), {size}")

    def row(metric: str, attack: str = own, class_name: str | None = None, saved: bool = False) -> Row | None:
        target = wanted if attack == own or metric in TARGETED else None
        bits = info.bits if saved else None
        kind = Kind.UNIVERSAL if attack == own else Kind.CONTROL
        return find(rows, kind=kind, attack=attack, metric=metric, target=target, class_name=class_name, bits=bits)

    def cell(
        metric: str, attack: str = own, digits: int = 1, class_name: str | None = None, saved: bool = False
    ) -> str:
        return text(row(metric, attack, class_name, saved), digits)

    def text(row: Row | None, digits: int) -> str:
        return "" if row is None else brief(row.estimate, digits)

    lines = []
    for name in (own, *info.controls):
        rate = row("fooling_rate", name)
        title = ("this perturbation" if name == own else name) + MARK * (rate is not None and not rate.ok)
        if wanted is None:
            lines.append([title, cell("fooling_rate", name), cell("fooling_rate_saved", name, saved=True)])
        else:
            aimed = [cell(metric, name) for metric in ("targeted_success", "targeted_success_new")]
            saved = cell("targeted_success_saved", name, saved=True)
            lines.append([title, *aimed, saved, cell("fooling_rate", name)])
    head = ["perturbation", "Rf: decision changed", f"Rf saved at {info.bits} bit"]
    if wanted is not None:
        head = ["perturbation", f"Rs: decided {wanted}", "Rs of others", f"Rs saved at {info.bits} bit", "Rf"]
    table(head, lines, f"On {info.n_judged} test images, in % with the 95 % interval")
    if wanted is not None:
        base = row("targeted_base")
        assert base is not None
        say(f"decided {wanted} without a perturbation (base rate of Rs): {percent(base.estimate)}")

    def before(metric: str, class_name: str | None = None) -> Row | None:
        return find(rows, kind=Kind.UNIVERSAL, metric=metric, class_name=class_name)

    most = before("fooling_cap")
    if wanted is None and most is not None and most.value is not None:
        say(f"Rf when all images go to one class: at most {percent(most.estimate)}")
    by_class = {name: row("decided_after", class_name=name) for name in conditions.classes}
    after = {name: decided for name, decided in by_class.items() if decided is not None}
    lines = []
    for name in sorted(after, key=lambda c: -(after[c].value or 0.0))[:SHOWN]:
        columns = (before("decided_before", name), after[name], before("recall_before", name))
        cells = [text(column, 0) for column in columns]
        fooled, right = (cell(metric, digits=0, class_name=name) for metric in ("fooling_rate", "recall_after"))
        lines.append([name, fooled, *cells, right])
    head = ["class", "Rf among them", "decided so before", "and after", "right before", "and after"]
    if several:
        head[:3] = ["finding", "changes in", "reported before"]
    table(head, lines, f"By {head[0]}, in %")
    first, last = before("accuracy_before"), row("accuracy_after")
    if first is not None and last is not None:
        say(f"accuracy {percent(first.estimate)} before, {percent(last.estimate)} after")
    guessed(guesses(rows))
    if goal.why:
        say(f"{'note' if goal.nonzero else 'inconclusive'}: {goal.why}")
