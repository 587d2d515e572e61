"""`medrobust attack`: a quick curve of a saved classifier."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medrobust.cli.bars import Bars
from medrobust.cli.choices import ATTACKS
from medrobust.cli.doubts import MARK, warn, warn_of_gradient
from medrobust.cli.options import MODEL, SIZES, Device, ImageOptions, NetworkOptions, Seed
from medrobust.cli.text import at_most, eps_fields, guessed, listed, percent, say, table, words
from medrobust.errors import InputError

if TYPE_CHECKING:
    from medrobust.attacks import Curve
    from medrobust.classifier import Classifier
    from medrobust.threat import Goal


FEW = "1,2,5,10,20,50,100"
"""Sizes in l1 and l0, where none are given."""


def attack(
    *,
    model: Annotated[str | None, typer.Option(help=f"{MODEL}.")] = None,
    images: ImageOptions,
    network: NetworkOptions,
    attacks: Annotated[
        str, typer.Option(help=f"Names, with options after colons (pgd:steps=40,fmn), of {ATTACKS}.")
    ] = "pgd",
    goal: Annotated[
        str | None,
        typer.Option(
            help="Of several findings: any, hide:NAME, invent:NAME, only:NAME (and no other changes), hide-all, "
            "occurring (a set of the training labels); any answer that is wrong if not given."
        ),
    ] = None,
    eps: Annotated[str | None, typer.Option(help=SIZES)] = None,
    norm: Annotated[
        str, typer.Option(help="linf, l2, l1 (sum of changes; fab, ead) or l0 (changed values; sigma-zero).")
    ] = "linf",
    limit: Annotated[int, typer.Option(help="How many test images are attacked, 0 for all.")] = 200,
    seed: Seed = 0,
    device: Device = None,
    save: Annotated[
        Path | None,
        typer.Option(help="New folder for the attacked images as files, with a table of what was done to each."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Name all attacks, their options and sources.")] = False,
) -> None:
    """Accuracy against epsilon of a classifier, printed; nothing is written but what --save asks for."""
    if list_:
        listing()
        return
    if model is None:
        raise InputError("--model is missing: the folder of a saved classifier, for one; --list names the attacks")
    from medrobust import guessing, stats
    from medrobust.attacks import Composed, sweep
    from medrobust.attacks.drawn import drawn, followed, held
    from medrobust.experiments import ask, attack_named, saved_attacks
    from medrobust.experiments.findings import goal_on
    from medrobust.experiments.gradient_check import attacked, examined, gradient_check
    from medrobust.experiments.system import assemble, averaged, groups
    from medrobust.grey_scale import grey_scale
    from medrobust.threat import SPARSE, Untargeted

    if save is not None:
        saved_attacks.check_folder(save)
    spec = ask(
        model=model,
        **images.fields,
        **network.fields,
        train=False,
        attacks=words(attacks),
        **eps_fields(eps or (FEW if norm in SPARSE else None)),
        norm=norm,
        auto="",
        seed=seed,
    ).model_copy(update={"limit": at_most(limit)})
    with Bars() as bars:
        system = averaged(assemble(spec, None, bars, device, stored=True), bars)
    if save is not None:
        saved_attacks.check_images(system.sample)
    if save is not None and (levels := system.sample.common_levels) is not None:
        system = dataclasses.replace(system, classifier=system.classifier.stored(levels))  # files hold whole levels
    spec, unit = system.with_sizes(spec), grey_scale(system.sample.common_levels, system.sample.span)
    size = "{:g}".format if norm in SPARSE else unit.text
    sample, aim = (system.sample, None) if goal is None else goal_on(system, goal)
    pixels, labels = sample.tensors()
    aim = Untargeted(labels) if aim is None else aim
    patients = groups(sample)
    aim = aim.prepare(system.classifier.head, len(system.classifier.classes), len(pixels), pixels.device)
    if system.classifier.draws is None:
        open_ = (~aim.reached(system.classifier.head, system.classifier.logits(pixels))).numpy()
    else:
        open_ = held(system.classifier, pixels, aim, sample.ids).numpy()
    warn([system.admitted.order], system.class_notes)
    curves, check, through = {}, None, system.classifier
    with Bars() as bars:
        for name in spec.attacks:
            chosen, mark = attack_named(name), ""
            if system.classifier.black_box and chosen.uses_gradient and not isinstance(chosen, Composed):
                raise InputError(
                    f"{name} follows gradients, and {model} only answers: try rays (linf), cgba (l2) or auto"
                )
            if chosen.uses_gradient and not system.classifier.black_box:
                if check is None:
                    found = examined(system.classifier, sample, seed, seek=True)
                    check, through = gradient_check(found), attacked(system.classifier, found)
                mark = MARK if check.passed is False else ""
            bars.start(name, len(pixels))
            given: dict[str, Any] = {"seed": seed, "ids": sample.ids, "groups": listed(patients)}
            given["advance"] = bars.advance
            if system.classifier.draws is None:
                curve = sweep(chosen, through, pixels, aim, spec.ball, spec.eps, **given)
            else:
                followed_ = through if chosen.uses_gradient else followed(system.classifier)
                curve = drawn(chosen, followed_, system.classifier, pixels, aim, spec.ball, spec.eps, **given)
            bars.stop()
            curve, refused = confirmed(curve, system.classifier, aim)
            curves[name + mark] = curve
            if save is not None:
                place = save if len(spec.attacks) == 1 else save / re.sub(r"[^\w.=-]+", "-", name)
                saved = saved_attacks.save(place, system, curve, name, spec)
                again = f"read again, {saved.same} of them get the same decision"
                say(f"{saved.images} images attacked by {name} are in {place}; {again}")
            if refused:
                say(f"{name}: {refused} successes are not confirmed by the network as delivered and do not count")
    if check is not None:
        warn_of_gradient(check)
    clean = stats.proportion(open_, patients)
    rows = [["0 (no attack)", *(percent(clean) for _ in curves)]]
    rows += [[size(e), *(percent(c.accuracy[i]) for c in curves.values())] for i, e in enumerate(spec.eps)]
    what = "Accuracy" if goal is None else f"Share of the images that hold against {goal}"
    table(["eps", *curves], rows, f"{what} under attack, n = {len(pixels)}, 95 % interval")
    every, labels = system.sample.tensors()
    right = (system.classifier.predict(every) == labels).numpy()
    guessed(guessing.of(right, system.sample.labels, groups(system.sample)).text)


def confirmed(curve: Curve, classifier: Classifier, goal: Goal) -> tuple[Curve, int]:
    """The curve without successes that a converted network's original does not confirm, and how many those are."""
    import dataclasses

    import torch

    if (original := classifier.original) is None:
        return curve, 0
    claimed = torch.isfinite(curve.min_eps) & (curve.min_eps > 0)
    refused = claimed & ~goal.reached(original.head, original.logits(curve.images))
    return dataclasses.replace(curve, min_eps=curve.min_eps.masked_fill(refused, torch.inf)), int(refused.sum())


def listing() -> None:
    """Every attack that can be named."""
    import inspect

    from medrobust.attacks import ATTACKS

    rows = []
    for name, make in ATTACKS.items():
        attack, takes = make(), inspect.signature(make).parameters.values()
        settable = [p for p in takes if (p.name != "loss" and p.default != 0) or p.name == "frequencies"]
        options = ":".join(p.name if p.default is None else f"{p.name}={p.default}" for p in settable)
        rows.append(
            [name, attack.title, "gradients" if attack.uses_gradient else "answers only", options, attack.source]
        )
    table(["name", "attack", "sees", "options", "source"], rows, "Attacks for --attacks, as name:option=value")
