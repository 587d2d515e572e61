"""`medrobust detect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from medrobust.cli.bars import Bars
from medrobust.cli.choices import ATTACKS, DETECTORS
from medrobust.cli.command_line import command_line
from medrobust.cli.doubts import warn
from medrobust.cli.options import MODEL, Device, ImageOptions, KeepNames, NetworkOptions, RunOut, Seed
from medrobust.cli.text import at_most, eps_list, guessed, say, say_left_out, table, words
from medrobust.errors import InputError

OPEN = 0.5
"""Width of the interval of a predictive value from which its middle says nothing."""
TOO_FEW = "too few"


def detect(
    *,
    model: Annotated[str, typer.Option(help=f"{MODEL}.")],
    images: ImageOptions,
    network: NetworkOptions,
    detectors: Annotated[str, typer.Option(help=f"Names, commas between, of {DETECTORS}.")] = "kd,lid,dfeat",
    attacks: Annotated[
        str, typer.Option(help=f"Names, with options after colons, of {ATTACKS}; guards are fitted on pgd.")
    ] = "pgd",
    eps: Annotated[str, typer.Option(help="Fraction of the pixel range, or several: 1/255,4/255.")] = "1/255",
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
    keep_names: KeepNames = False,
    out: RunOut = Path("runs/detect"),
) -> Path:
    """Fit detectors of attacks and test them: areas, rates, false alarms, a picture, and guards to use."""
    from medrobust.data.corruptions import SEVERITIES, suited
    from medrobust.experiments import ask, attack_named
    from medrobust.experiments.detection import FPRS, PROTOCOLS, Ask, Detection
    from medrobust.experiments.gradient_check import checked, mark
    from medrobust.experiments.system import assemble
    from medrobust.run_folder import RunFolder
    from medrobust.run_info import write
    from medrobust.store import counting
    from medrobust.threat import Linf

    if not 0 < fpr < 1:
        raise InputError(f"--fpr is a share between 0 and 1, got {fpr:g}")
    if corrupted < 0:
        raise InputError(f"--corrupted must not be negative, got {corrupted}; 0 corrupts none")
    severe = words(severities) or ()
    if not severe or not {*severe} <= {str(s) for s in SEVERITIES}:
        raise InputError(f"--severities are of {', '.join(map(str, SEVERITIES))}, got {severities!r}")
    balls = [Linf(e) for e in eps_list(eps) or ()]
    spec = ask(model=model, **images.asked, **network.asked, train=False, attacks=words(attacks), seed=seed)
    asked: dict[str, Any] = {
        "detectors": words(detectors),
        "attacks": spec.attacks,
        "layers": words(layers),
        "limit": at_most(limit),
        "protocols": PROTOCOLS if protocol == "both" else (protocol,),
        "corrupted": corrupted,
        "fprs": tuple(sorted({*FPRS, fpr})),
        "prevalence": prevalence,
        "seed": seed,
    }
    Ask(**asked)  # what is wrong with it is said before anything is loaded
    found: dict[str, Any] = {"format": 1, "runs": []}
    with Bars() as bars, counting() as tally, RunFolder(out, "detect") as run_folder:
        subject = assemble(spec, run_folder, bars, device)
        names = suited(modality, subject.data.channels) if corrupted else ()
        pairs = tuple((name, int(s)) for name in names for s in dict.fromkeys(severe))
        study = None
        for ball in balls:
            wanted = Ask(**asked, ball=ball, corruptions=pairs if study is None else ())
            run_folder.begin()
            study = Detection(wanted, out, subject.classifier, subject.data, subject.test, bars)
            found["runs"].append(study.run())
        assert study is not None
        follow = any(attack_named(name).uses_gradient for name in spec.attacks)
        check = checked(subject.classifier, subject.test, seed) if follow else None
        found |= {**subject.findings, "checks": subject.checks(check)}
        if check is not None:
            for part in found["runs"]:
                mark(part["rows"], check)
        picture = study.picture(run_folder.entry("tsne.png"))
        guards = study.guards(run_folder.entry("guards"), fpr)
        for name, made in (("tsne.png", picture), ("guards", guards)):
            if not made:
                run_folder.remove(name)
        found["asked"] = {**asked, **spec.subject, "eps": [float(b.eps) for b in balls], "fpr": fpr}
        device_used = str(subject.classifier.device)
        write(run_folder, "detect.json", found, command_line(), device_used, keep_names=keep_names)
    warn(found["checks"], subject.class_notes)
    for run in found["runs"]:
        summary(run, fpr, prevalence)
    guessed(found["runs"][0]["facts"]["guesses"])
    say_left_out([part for run in found["runs"] for part in run["left_out"]])
    say(tally.words())
    say(f"\nnumbers {out / 'detect.json'}")
    if picture is not None:
        say(f"picture {picture}")
    for path in guards.values():
        say(f"guard   {path}")
    return out / "detect.json"


def summary(run: dict[str, Any], fpr: float, prevalence: float) -> None:
    """What is seen, what it costs in false alarms; from one attack to another, layer by layer. With 95 % intervals."""
    from medrobust.experiments.detection import NO_ATTACK

    facts, rows = run["facts"], run["rows"]
    names = list(dict.fromkeys(r["detector"] for r in rows))

    def cell(layer: str = "", **wanted: Any) -> str:
        return next((_shown(r) for r in rows if r["layer"] == layer and all(r[k] == v for k, v in wanted.items())), "")

    lines = []
    fits = dict.fromkeys((r["detector"], r["fitted_on"], r["tested_on"]) for r in rows)
    for name, fitted_on, attack in fits:
        if attack not in facts["n_attacked"] or fitted_on not in (attack, NO_ATTACK):
            continue
        same = {"detector": name, "fitted_on": fitted_on, "tested_on": attack}
        area, leaky = (cell(**same, metric="auroc", protocol=p) for p in ("clean", "paper"))
        seen = cell(**same, metric=f"seen@{fpr:g}", protocol="clean")
        if fitted_on == NO_ATTACK:
            name = f"{name}, fitted without attacks"
        if {area, seen, leaky} - {"", TOO_FEW}:
            lines.append([name, attack, str(facts["n_attacked"][attack]), area, seen, leaky])
    title = f"Attacks of {facts['eps'] * 255:.3g}/255 told from {facts['n_clean']} clean images, 95 % interval"
    if facts["pooled"]:
        title += "; too few reference images a class: all classes serve as one"
    head = ["detector", "attack", "n", "AUROC", f"seen at {fpr:.0%} false alarms", "AUROC as published (leaks)"]
    if lines:
        table(head, lines, title)
    attacks, layers = list(facts["n_attacked"]), facts["layers"]
    fitted = any(r["protocol"] == "clean" and r["value"] is not None and r["fitted_on"] in attacks for r in rows)
    if len(attacks) > 1 and fitted:
        lines = [
            [n, a, *(cell(detector=n, fitted_on=a, tested_on=b, metric="auroc", protocol="clean") for b in attacks)]
            for n in names
            for a in attacks
        ]
        table(
            ["detector", "fitted on", *(f"tested on {a}" for a in attacks)], lines, "AUROC from one attack to another"
        )
    if any(r["layer"] for r in rows):
        lines = [[n, *(cell(layer=y, detector=n, metric="auroc") for y in layers)] for n in names]
        table(["detector", *layers], lines, "AUROC of each layer by itself")
    _false_alarms(rows, facts, names, fpr, prevalence)


def _false_alarms(
    rows: list[dict[str, Any]], facts: dict[str, Any], names: list[str], fpr: float, share: float
) -> None:
    """On clean images that set no threshold, on noise of the attack's size, on natural corruptions."""

    def found(name: str, tested: str, metric: str) -> dict[str, Any] | None:
        same = (r for r in rows if not r["layer"] and r["protocol"] == "clean" and r["metric"] == f"{metric}@{fpr:g}")
        return next((r for r in same if r["detector"] == name and r["tested_on"] == tested), None)

    tested = dict.fromkeys(r["tested_on"] for r in rows if r["tested_on"] not in facts["n_attacked"])
    lines = []
    for what in tested:
        alarms = [found(name, what, "alarms") for name in names]
        n = next((r["n"] for r in alarms if r is not None), 0)
        lines.append([what, str(n), *("" if r is None else _shown(r) for r in alarms)])
    if not lines:
        return
    title = f"False alarms where {fpr:.0%} were allowed; images still classified right, 95 % interval"
    table(["images without an attack", "n", *names], lines, title)
    lines = []
    for name in names:
        often, worth = found(name, "clean", "alarms_per_1000"), found(name, "clean", "predictive_value")
        lines.append([name, *("" if r is None else _shown(r) for r in (often, worth))])
    head = ["detector", "false alarms in 1,000 studies", "an alarm is an attack"]
    table(head, lines, f"In use, if {100 * share:g} % of all studies are attacked (a guess: see --prevalence)")


def _shown(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return TOO_FEW if row["note"] else ""
    kind = row["metric"].partition("@")[0]
    number = {"auroc": "{:.3f}", "alarms_per_1000": "{:.0f}"}.get(kind, "{:.1%}")
    if row["low"] is None or row["high"] is None:
        return f"{number.format(row['value'])} (no interval)"
    value, low, high = (number.format(row[k]) for k in ("value", "low", "high"))
    if kind == "predictive_value" and row["high"] - row["low"] > OPEN:
        return f"cannot say ({low} to {high})"  # one more or less false alarm would turn it round
    return f"{value} ({low} to {high})"
