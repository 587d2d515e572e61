"""`medrobust attack`: a quick curve of a saved classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from medrobust.cli.bars import Bars
from medrobust.cli.gradient import MARK, gradient_warning
from medrobust.cli.options import Data, Device, Fit, Label, LeaveOut, Map, Patient, Seed, TrustCode
from medrobust.cli.text import at_most, class_map, eps_list, guessed, listed, percent, say_classes, table, words
from medrobust.errors import InputError


def attack(
    model: Annotated[Path | None, typer.Argument(help="Folder saved by medrobust.")] = None,
    data: Data = "phantom:chest",
    attacks: Annotated[str, typer.Option(help="Names, with options after colons: pgd:steps=40,fmn.")] = "pgd",
    eps: Annotated[str | None, typer.Option(help="Ascending fractions of the pixel range: 0.5/255,1/255.")] = None,
    norm: Annotated[str, typer.Option(help="linf or l2.")] = "linf",
    limit: Annotated[int, typer.Option(help="How many test images are attacked, 0 for all.")] = 200,
    label: Label = "label",
    patient: Patient = None,
    fit: Fit = None,
    map_: Map = None,
    leave_out: LeaveOut = None,
    seed: Seed = 0,
    trust_code: TrustCode = False,
    device: Device = None,
    list_: Annotated[bool, typer.Option("--list", help="Name all attacks, their options and sources.")] = False,
) -> None:
    """Accuracy against epsilon of a saved classifier, printed; nothing is written."""
    if list_:
        listing()
        return
    if model is None:
        raise InputError("name the folder of a saved classifier, or ask for the attacks with --list")
    from medrobust import guessing, stats
    from medrobust.attacks import sweep
    from medrobust.cli.audit import warn_of_order
    from medrobust.studies import ask, attack_named
    from medrobust.studies.gradients import checked
    from medrobust.studies.output_order import outputs_in_order
    from medrobust.studies.subject import assemble, groups
    from medrobust.threat import Untargeted

    spec = ask(
        data=data, model=str(model), attacks=words(attacks), eps=eps_list(eps), norm=norm, label=label, seed=seed,
        patient=patient, fit=fit,
        class_map=class_map(map_), leave_out=words(leave_out), trust_code=trust_code,
    )  # fmt: skip
    spec = spec.model_copy(update={"limit": at_most(limit)})
    if not model.is_dir():
        raise InputError(f"{model} is not a folder; give one that medrobust train or audit saved")
    with Bars() as bars:
        subject = assemble(spec, None, bars, device)
    images, labels = subject.sample.tensors()
    whose = groups(subject.sample)
    answers = subject.classifier.logits(images)
    probability, decision = subject.classifier.to_probabilities(answers), subject.classifier.head.decide(answers)
    right = (decision == labels).numpy()
    order = outputs_in_order(probability.numpy(), labels.numpy(), decision.numpy(), subject.classifier.classes, whose)
    warn_of_order([order.plain()])
    say_classes(subject.class_notes)
    curves, check = {}, None
    with Bars() as bars:
        for name in spec.attacks:
            made, mark = attack_named(name), ""
            if made.uses_gradient:
                check = check or checked(subject.classifier, subject.sample, seed)
                mark = MARK if check.passed is False else ""
            bars.start(name, len(images))
            curves[name + mark] = sweep(
                made, subject.classifier, images, Untargeted(labels), spec.ball, spec.eps, seed=seed,
                ids=subject.sample.ids, groups=listed(whose), advance=bars.advance,
            )  # fmt: skip
            bars.stop()
    if check is not None:
        gradient_warning(check)
    clean = stats.proportion(right, whose)
    rows = [["0 (no attack)", *(percent(clean) for _ in curves)]]
    rows += [[f"{e * 255:.3g}/255", *(percent(c.accuracy[i]) for c in curves.values())] for i, e in enumerate(spec.eps)]
    table(["eps", *curves], rows, f"Accuracy under attack, n = {len(images)}, 95 % interval")
    guessed(guessing.of(right, subject.sample.labels, whose).text)


def listing() -> None:
    """Every attack that can be named."""
    import inspect

    from medrobust.attacks import ATTACKS

    rows = []
    for name, make in ATTACKS.items():
        attack, takes = make(), inspect.signature(make).parameters.values()
        mine = [p for p in takes if (p.name != "loss" and p.default != 0) or p.name == "frequencies"]
        options = ":".join(p.name if p.default is None else f"{p.name}={p.default}" for p in mine)
        rows.append(
            [name, attack.title, "gradients" if attack.uses_gradient else "answers only", options, attack.source]
        )
    table(["name", "attack", "sees", "options", "source"], rows, "Attacks for --attacks, as name:option=value")
