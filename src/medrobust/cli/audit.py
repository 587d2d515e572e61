"""`medrobust audit`: the main job."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medrobust.cli.bars import Bars
from medrobust.cli.choices import ATTACKS, BOUNDS, CHANGES
from medrobust.cli.command_line import command_line
from medrobust.cli.criteria import CriteriaOptions, say_criteria
from medrobust.cli.doubts import say_classes, warn_of_order
from medrobust.cli.measure import execute, page_writer
from medrobust.cli.options import (
    MODEL,
    SIZES,
    ComputeOptions,
    Device,
    Finished,
    Healthy,
    ImageOptions,
    NetworkOptions,
    Out,
    PrivacyOptions,
    Seed,
    TrainingOptions,
)
from medrobust.cli.text import at_most, eps_fields, guessed, say, table, words
from medrobust.prevalence import HELP

if TYPE_CHECKING:
    from medrobust.grey_scale import GreyScale
    from medrobust.report.run import Run
    from medrobust.report.schema import HeadlineInfo, UniversalInfo
    from medrobust.results import Check, Row


def audit(
    *,
    images: ImageOptions,
    model: Annotated[str, typer.Option(help=f"{MODEL}; a timm architecture without weights is trained.")] = "resnet18",
    network: NetworkOptions,
    training: TrainingOptions,
    compute: ComputeOptions,
    privacy: PrivacyOptions,
    criteria: CriteriaOptions,
    train: Annotated[bool | None, typer.Option("--train/--no-train", help="Train module:function, or do not.")] = None,
    healthy: Healthy = None,
    attacks: Annotated[
        str, typer.Option(help=f"Names, with options after colons (fgsm,pgd:steps=40:restarts=3), of {ATTACKS}.")
    ] = "fgsm,bim,pgd,cw",
    eps: Annotated[str | None, typer.Option(help=f"{SIZES} 0.1 to 10 grey levels by default.")] = None,
    norm: Annotated[str, typer.Option(help="linf or l2.")] = "linf",
    limit: Annotated[int, typer.Option(help="How many test images are attacked, 0 for all; drawn by class.")] = 80,
    auto: Annotated[
        str, typer.Option(help="The ensemble of the headline number; auto for its full length, none for no ensemble.")
    ] = "auto:steps=15:queries=50",
    universal: Annotated[
        bool, typer.Option("--universal/--no-universal", help="Also look for one change that fools on every image.")
    ] = True,
    detect: Annotated[
        bool, typer.Option("--detect/--no-detect", help="Also ask whether the attack can be seen, and evaded.")
    ] = True,
    explain: Annotated[
        bool, typer.Option("--explain/--no-explain", help="Also look for the reasons inside the network.")
    ] = True,
    stored: Annotated[
        bool, typer.Option("--stored/--no-stored", help="Also ask what a file can hold, and what survives saving it.")
    ] = True,
    corruptions: Annotated[
        str,
        typer.Option(
            help="Natural corruptions of half of the attacked images: any, xray, fundus, dermoscopy, natural, "
            "medmnist-c:DATASET or none."
        ),
    ] = "any",
    changes: Annotated[
        str,
        typer.Option(help=f"Larger changes of half of the attacked images, options after colons: {CHANGES}; or none."),
    ] = "patch-anywhere,spatial,exposure",
    certify: Annotated[
        str, typer.Option(help=f"Also prove, for a small network, what no change can turn: {BOUNDS}; none.")
    ] = "none",
    smoothing: Annotated[
        float | None,
        typer.Option(help="Also smooth it with noise of that standard deviation (0.1), and prove what holds then."),
    ] = None,
    risk: Annotated[
        str | None,
        typer.Option(help="A table of several findings (columns finding, missed, invented): weights for one number."),
    ] = None,
    ordinal: Annotated[
        bool, typer.Option("--ordinal", help="Classes are grades in their order: also measure how far they move.")
    ] = False,
    prevalence: Annotated[str | None, typer.Option(help=HELP)] = None,
    seed: Seed = 0,
    device: Device = None,
    out: Out = None,
) -> Finished:
    """Attack a classifier, judge, check, and leave a report that a doctor, an engineer and a reviewer can read."""
    from medrobust.experiments import ask
    from medrobust.experiments.auditing import audit as run_audit
    from medrobust.prevalence import read as shares
    from medrobust.report.run import parsed
    from medrobust.store import counting

    compute.prepare()
    required = criteria.read()
    spec = ask(
        model=model,
        **images.fields,
        **network.fields,
        **training.fields,
        train=train,
        healthy=healthy,
        attacks=words(attacks),
        **eps_fields(eps),
        norm=norm,
        seed=seed,
        auto=auto,
        universal=universal,
        detect=detect,
        explain=explain,
        stored=stored,
        corruptions=corruptions,
        changes=() if changes == "none" else words(changes),
        certify="" if certify == "none" else certify,
        smoothing=smoothing,
        risk=risk,
        prevalence=None if prevalence is None else shares(prevalence),
        ordinal=ordinal,
    ).model_copy(update={"limit": at_most(limit)})
    folder = out or Path("runs") / spec.slug()
    with Bars() as bars, counting() as tally:
        results = run_audit(
            spec,
            folder,
            progress=bars,
            device=device,
            keep_names=privacy.keep_names,
            pictures=privacy.pictures,
            command=command_line(),
            operator=privacy.operator,
            execute=execute(compute, bars),
            written=page_writer(folder, bars),
            criteria=required,
        )
    page, run = folder / "report.html", parsed(results)
    code = say_criteria(run.criteria)
    summary(run)
    say(tally.words())
    say(f"\nreport  {page}\nnumbers {folder / 'results.csv'}")
    return folder / "results.json", code


def summary(run: Run) -> None:
    """The few numbers that a person at a terminal wants first."""
    from medrobust.results import Kind, among, find

    rows, checks, info = run.rows, run.checks, run.conditions
    warn_of_order(checks)
    if unbelieved := [c for c in checks if c.decisive and c.passed is False]:
        names = " and ".join(f"“{name}”" for name in dict.fromkeys(c.name for c in unbelieved))
        say(f"INCONCLUSIVE: failed: {names}. What attacks that follow gradients leave is no sign of strength.")
    say_classes(info.class_notes)
    clean = find(rows, kind=Kind.CLEAN, metric="accuracy")
    assert clean is not None
    kinds = (Kind.WORST, Kind.ATTACK)
    held = [r for k in kinds for r in among(rows, kind=k, metric="accuracy") if r.attack in info.attacks]
    levels = sorted({r.eps for r in held})
    unit = info.grey_scale
    near = [e for e in levels if any(abs(e * unit.greys - g) < 0.02 for g in (0.1, 0.3, 0.5, 1, 2, 4, 8))]
    if len(levels) <= 8 or not near:
        near = levels[:8]
    lines = []
    for name, attack in info.attacks.items():
        by_eps = {r.eps: r for r in held if r.attack == name}
        lines.append([attack.title, *(_cell(by_eps.get(e)) for e in near)])
    noise = {r.eps: r for r in among(rows, kind=Kind.CONTROL, metric="accuracy", attack="noise")}
    lines.append(["Random ± eps noise", *(_cell(noise.get(e)) for e in near)])
    proofs = {} if info.certified is None else {info.certified.method: f"Proved ({info.certified.title})"}
    proofs |= {} if info.smoothed is None else {"smoothing": "Smoothed, proved"}
    for bound, name in proofs.items():
        of_all = among(rows, kind=Kind.CERTIFIED, bound=bound, metric="accuracy", class_name=None)
        by_eps = {r.eps: r for r in of_all}
        lines.append([name, *(_cell(by_eps.get(e)) for e in near)])
    title = (
        f"{'Exact match' if info.head == 'multilabel' else 'Accuracy'} on {info.n_attacked} test images under attack "
        f"(clean, all {info.n_test}: {clean.value:.1%}, {clean.low:.1%} to {clean.high:.1%})"
    )
    guessed(guesses(rows))
    table(["attack \\ eps", *(unit.size_text(e, info.norm) for e in near)], lines, title)
    if info.headline is not None:
        say(headline(rows, info.headline, info.norm, unit))
    if info.findings is not None:
        each_finding(run, levels[-1] if info.headline is None else info.headline.eps)
    if info.universal is not None:
        say(one_change(rows, info.universal, info.norm, unit))
    checked(checks)
    if info.left_out:
        say(f"{len(info.left_out)} images were left out: see the report")


def checked(checks: list[Check]) -> None:
    """How many checks passed of those that could have failed, and each that did not pass."""
    from medrobust.report.check_lines import counted
    from medrobust.results import GRADIENT

    say(counted(checks).text)
    for check in [c for c in checks if c.passed is False]:
        who = "every attack that follows gradients" if check.attack == GRADIENT else check.attack
        say(f"failed: {check.name} ({who}): {check.detail}; {check.consequence}")
    for check in [c for c in checks if c.passed is None]:
        if check.attack == GRADIENT:
            say(f"inconclusive: {check.name}: {check.detail}")


def guesses(rows: list[Row]) -> str:
    """Why the classifier is not better than guessing; empty where it is."""
    from medrobust.guessing import Guessing
    from medrobust.results import Kind, find

    row, level = (find(rows, kind=Kind.CLEAN, metric=m) for m in ("balanced_accuracy", "guessing"))
    if row is None or row.value is None or level is None or level.value is None:
        return ""
    return Guessing(row.estimate, level.value).text


def headline(rows: list[Row], info: HeadlineInfo, norm: str, unit: GreyScale) -> str:
    """What is left at one size under everything that was tried, and what it took without gradients, in a line."""
    from medrobust.results import Kind, among, find

    at = {"metric": "accuracy", "eps": info.eps}
    row = find(rows, kind=Kind.WORST, **at) or find(rows, kind=Kind.ATTACK, attack=info.attack, **at)
    assert row is not None
    doubt = "" if row.ok else " (inconclusive)"
    size = unit.size_text(info.eps, norm)
    line = f"headline{doubt}: at {size}, {info.title} and the other attacks leave {_cell(row)} "
    line += f"accuracy ({row.low:.0%} to {row.high:.0%}, n = {row.n})"
    if (noise := find(rows, kind=Kind.CONTROL, attack="noise", **at)) is not None:
        line += f", random noise of that size {_cell(noise)}"
    turned = list(among(rows, kind=Kind.BLACK_BOX, metric="success_at", eps=info.eps))
    if turned and (best := max(turned, key=lambda r: r.value or 0.0)).value is not None:
        line += f"; without gradients, {best.get('queries')} queries an image turn {_cell(best)} "
        line += f"of {best.n} ({best.low:.0%} to {best.high:.0%})"
    return line


def each_finding(run: Run, eps: float) -> None:
    """A finding a line: in how many images it is hidden and invented, and in how many nothing else changes."""
    from medrobust.results import Kind, find

    lines = []
    for name in run.conditions.classes:
        at = {"kind": Kind.FINDING, "metric": "success", "class_name": name, "eps": eps}
        every = [find(run.rows, **at, goal=goal, alone=alone) for goal in ("hide", "invent") for alone in (None, True)]
        lines.append([name, *(_cell(row) for row in every), *(str(row.n if row else 0) for row in every[::2])])
    head = ["finding", "hidden", "alone", "invented", "alone", "n with it", "n without"]
    size = run.conditions.grey_scale.size_text(eps, run.conditions.norm)
    table(head, lines, f"At {size}, of the images in which a finding is read correctly")


def one_change(rows: list[Row], info: UniversalInfo, norm: str, unit: GreyScale) -> str:
    """What one change for every image does, in a line."""
    from medrobust.results import Kind, among, find

    every: Mapping[str, None] = {"class_name": None}  # of all images, not of those of one class

    def chance(metric: str, target: str | None) -> float | None:
        rates = [
            r for name in info.controls for r in among(rows, **every, kind=Kind.CONTROL, attack=name, metric=metric)
        ]
        return max((r.value or 0.0 for r in rates if r.get("target") == target), default=None)

    rate = find(rows, **every, kind=Kind.UNIVERSAL, metric="fooling_rate")
    assert rate is not None
    size = unit.size_text(info.eps, norm)
    line = f"one change for every image ({info.title}, {size}): {_cell(rate)} of {rate.n} test "
    line += f"images get another answer ({rate.low:.0%} to {rate.high:.0%}), {chance('fooling_rate', None) or 0.0:.0%} "
    line += "under random changes of that size"
    for row in among(rows, **every, kind=Kind.UNIVERSAL, metric="targeted_success"):
        target = str(row.get("target"))
        before, random = (
            find(rows, kind=Kind.UNIVERSAL, metric="targeted_base", target=target),
            chance(row.metric, target),
        )
        line += f"; to {target} {_cell(row)} ({_cell(before)} before"
        line += f", {random:.0%} under random changes)" if random is not None else ")"
    return line


def _cell(row: Row | None) -> str:
    if row is None or row.value is None:
        return ""
    return f"{row.value:.0%}" + ("" if row.ok else " (inconclusive)")
