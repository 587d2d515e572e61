"""`medrobust explain`: why a classifier breaks, in numbers, maps and one page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from medrobust.cli.bars import Bars
from medrobust.cli.choices import ATTACKS, MEASURES
from medrobust.cli.command_line import command_line
from medrobust.cli.doubts import say_classes, warn
from medrobust.cli.options import MODEL, Device, ImageOptions, KeepNames, NetworkOptions, RunOut, Seed
from medrobust.cli.text import at_most, eps_list, guessed, say, table, words
from medrobust.errors import InputError

if TYPE_CHECKING:
    from medrobust.classifier import Classifier
    from medrobust.experiments.explanation import ExplainAsk
    from medrobust.experiments.explanation_files import Explained
    from medrobust.experiments.system import System

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
    limit: Annotated[int, typer.Option(help="How many correctly classified test images, 0 for all.")] = 60,
    landscapes: Annotated[int, typer.Option(help="Of how many of them the loss landscape is computed.")] = 16,
    seed: Seed = 0,
    device: Device = None,
    keep_names: KeepNames = False,
    out: RunOut = Path("runs/explain"),
) -> Path:
    """Saliency, Grad-CAM, layers, loss landscape and embedding, before and after an attack, with numbers and a page."""
    from medrobust import explain as room
    from medrobust import private_names
    from medrobust.experiments import ask
    from medrobust.experiments.explanation import ExplainAsk
    from medrobust.experiments.explanation_files import save
    from medrobust.experiments.system import assemble
    from medrobust.naming import Naming
    from medrobust.report import explanation
    from medrobust.run_folder import RunFolder
    from medrobust.store import counting
    from medrobust.threat import Linf

    others = list(beside or ())
    theirs = list(beside_data or ())
    if len(theirs) > len(others):
        raise InputError(f"{len(theirs)} times --beside-data but {len(others)} times --beside; give a classifier each")
    for place in others:
        if not any((place / name).is_file() for name in ("results.json", "model.json")):
            raise InputError(
                f"--beside {place}: neither a classifier saved by medrobust nor a run of medrobust explain"
            )
    balls = [Linf(e) for e in eps_list(eps) or ()]
    if len(balls) != 1:
        raise InputError(f"--eps takes one size, got {eps}")
    wanted = ExplainAsk(
        measures=words(measures) or tuple(room.MEASURES),
        attack=attacks,
        ball=balls[0],
        layers=words(layers) or (),
        cam_layer=cam_layer,
        limit=at_most(limit),
        surfaces=landscapes,
        seed=seed,
    )
    spec = ask(model=model, **images.asked, **network.asked, train=False, seed=seed)
    with Bars() as bars, counting() as tally, RunFolder(out, "explain") as run_folder:
        subject = assemble(spec, run_folder, bars, device)
        run_folder.begin()
        twin = None if second is None else _classifier(second, device, network, subject, bars)
        runs = [_one(wanted, out, subject, twin, bars)]
        for k, place in enumerate(others, start=1):
            where = theirs[k - 1] if k <= len(theirs) else images.data
            # names of classes and patients, and how images become square, are those of one data set
            shared = images.asked if where == images.data else {"data": where, "label": images.label}
            shared |= {"size": None, "outputs": network.outputs, "trust_code": network.trust_code, "seed": seed}
            runs.append(_beside(wanted, place, run_folder.entry(f"beside-{k}"), device, bars, shared))
        asked = {
            **spec.subject,
            "second": None if second is None else str(second),
            "attack": attacks,
            "eps": float(balls[0].eps),
            "limit": limit,
            "beside": [str(b) for b in others],
        }
        if keep_names:
            decoded = Naming(subject.data, keep=True).decoded
            save(run_folder, _told_apart([_decoded(run, decoded) for run in runs]), asked, command_line())
        else:
            save(run_folder, _told_apart([_hidden(run) for run in runs]), private_names.asked(asked), command_line())
    page = explanation.write(out)
    for run in runs:
        warn(run.found.get("checks", []))
    say_classes(subject.class_notes)
    summary(_told_apart(runs))
    if second is None:
        say("no --second model: the loss landscape is shown along a random direction alone")
    say(tally.words())
    say(f"\npage    {page}\nnumbers {out / 'results.csv'}, one line an image in {out / 'images.csv'}")
    return out / "results.json"


def _one(wanted: ExplainAsk, out: Path, subject: System, second: Classifier | None, bars: Bars) -> Explained:
    from medrobust.experiments.explanation import Explaining
    from medrobust.experiments.explanation_files import Explained
    from medrobust.experiments.gradient_check import checked, mark

    study = Explaining(wanted, out, subject.classifier, subject.test, second, bars)
    found = study.run()
    facts = found["facts"]
    check = checked(subject.classifier, subject.test, wanted.seed)
    mark(found["rows"], check)
    found |= {**subject.findings, "checks": subject.checks(check)}
    facts["doubts"] = subject.admitted.doubts
    facts["notes"] += subject.admitted.inspection.notes
    if check.passed is False:
        facts["doubt"] = f"the check “{check.name}” failed: {check.detail}"
    picture = out / "tsne.png"
    return Explained(_name(facts), found, study.arrays, picture if picture.is_file() else None)


def _beside(
    wanted: ExplainAsk, place: Path, out: Path, device: str | None, bars: Bars, asked: dict[str, Any]
) -> Explained:
    """Another classifier, with layers of its own; or what an earlier run of this command found."""
    import dataclasses

    from medrobust.experiments import ask
    from medrobust.experiments.explanation_files import load
    from medrobust.experiments.system import assemble
    from medrobust.run_folder import RunFolder

    if (place / "results.json").is_file():
        return load(place)
    with RunFolder(out, "explain") as run_folder:
        subject = assemble(ask(model=str(place), **asked), run_folder, bars, device)
        run_folder.begin()
        own = dataclasses.replace(wanted, layers=(), cam_layer=None)
        return _one(own, out, subject, None, bars)


def _classifier(place: Path, device: str | None, network: NetworkOptions, subject: System, bars: Bars) -> Classifier:
    from medrobust import devices
    from medrobust.classifier import Classifier
    from medrobust.experiments.admission import admit

    if not place.is_dir():
        raise InputError(f"--second {place} is not a folder; give one that medrobust train or audit saved")
    loaded = Classifier.load(place, trust_code=network.trust_code)
    loaded.outputs = network.outputs or loaded.outputs
    loaded.net.to(devices.find(device))
    admit(loaded, subject.test, bars)
    return loaded


def _told_apart(runs: list[Explained]) -> list[Explained]:
    """Two of one name get a number."""
    import dataclasses

    names = [run.name for run in runs]
    return [
        run if names.count(run.name) == 1 else dataclasses.replace(run, name=f"{run.name} ({i})")
        for i, run in enumerate(runs, start=1)
    ]


def _name(facts: dict[str, Any]) -> str:
    return f"{_short(facts['data'])}, {facts['architecture'] or 'network'}"


def _hidden(run: Explained) -> Explained:
    """Without the name of the data; its images have codes already."""
    import dataclasses

    from medrobust import private_names

    found = private_names.found(run.found)
    return dataclasses.replace(run, name=_name(found["facts"]), found=found)


def _decoded(run: Explained, names: dict[str, str]) -> Explained:
    """With the names of its images; those of other data keep their codes."""
    import dataclasses

    found = {**run.found, "ids": [names.get(i, i) for i in run.found["ids"]]}
    gallery = dict(run.found["gallery"])
    if "ids" in gallery:
        gallery["ids"] = [names.get(i, i) for i in gallery["ids"]]
    return dataclasses.replace(run, found=found | {"gallery": gallery})


def _short(data: str) -> str:
    """ "chest_xray/labels.csv" to "chest_xray", "pneumoniamnist.npz" to "pneumoniamnist"."""
    return re.sub(r"(/labels)?\.(csv|npz)$", "", data)


def summary(runs: list[Explained]) -> None:
    """A few measures, a classifier a column; then what the attack moves."""
    told = runs[0].found["facts"]["measures"]

    def cell(run: Explained, section: str, metric: str, when: str) -> str:
        found = [r for r in run.found["rows"] if (r["section"], r["metric"], r["when"]) == (section, metric, when)]
        if not found or found[0]["value"] is None:
            return "–"
        row = found[0]
        if row["low"] is None or row["high"] is None:
            return f"{row['value']:.3g} (no interval)"
        return f"{row['value']:.3g} ({row['low']:.3g} to {row['high']:.3g})"

    head = ["median of the images, 95 % interval", *(f"{run.name}, n = {run.found['facts']['n']}" for run in runs)]
    lines = [
        [f"{told[m]['title']}, {told[m]['unit']}", *(cell(run, "measure", m, "clean") for run in runs)]
        for m in SHOWN
        if m in told
    ]
    table(head, lines, "Images without an attack")
    for run in runs:
        guessed(run.found["facts"].get("guesses", ""))
    facts = runs[0].found["facts"]
    head[1:] = [f"{run.name}, turned {run.found['facts']['reached']}" for run in runs]
    shift = [["Grad-CAM's centre moves, share of the diagonal", *(cell(r, "cam", "cam-shift", "change") for r in runs)]]
    for how, name in (("share", "mass in the lesion"), ("auroc", "AUROC against the lesion")):
        for when in ("clean", "attacked"):
            values = [cell(r, "lesion", f"lesion-{how}-cam", when) for r in runs]
            if any(v != "–" for v in values):
                shift.append([f"Grad-CAM's {name}, {when}", *values])
    probe = [cell(r, "embedding", "probe-auroc-attacked", "clean") for r in runs]
    shift.append(["Clean told from attacked by a linear probe, AUROC", *probe])
    title = f"Under {facts['attack_title']} at {facts['eps'] * 255:.3g}/255, of the images that it turned"
    table(head, shift, title)
