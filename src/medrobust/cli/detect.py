"""`medrobust detect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from medrobust.cli.bars import Bars
from medrobust.cli.options import Data, Device, Label, Seed
from medrobust.cli.text import at_most, eps_list, say, table, words
from medrobust.errors import InputError


def detect(
    model: Annotated[Path, typer.Option(help="Folder saved by medrobust.")],
    data: Data = "phantom:chest",
    detectors: Annotated[str, typer.Option(help="Names: kd,lid,dfeat,qfeat,mahalanobis,softmax.")] = "kd,lid,dfeat",
    attacks: Annotated[str, typer.Option(help="Names, with options after colons; guards are fitted on pgd.")] = "pgd",
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
    prevalence: Annotated[float, typer.Option(help="Share of images taken to be attacked.")] = 0.001,
    label: Label = "label",
    seed: Seed = 0,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="Run folder; the same command on it goes on where it was.")] = Path(
        "runs/detect"
    ),
) -> None:
    """Fit detectors of attacks and test them: areas, rates, false alarms, a picture, and guards to use."""
    from medrobust.data.corruptions import suited
    from medrobust.studies import ask
    from medrobust.studies.detection import FPRS, PROTOCOLS, Ask, Detection
    from medrobust.studies.store import write_whole
    from medrobust.studies.subject import assemble
    from medrobust.threat import Linf

    if not model.is_dir():
        raise InputError(f"{model} is not a folder; give one that medrobust train or audit saved")
    if not 0 < fpr < 1:
        raise InputError(f"--fpr is a share between 0 and 1, got {fpr:g}")
    if corrupted < 0:
        raise InputError(f"--corrupted must not be negative, got {corrupted}; 0 corrupts none")
    balls = [Linf(e) for e in eps_list(eps) or ()]
    spec = ask(data=data, model=str(model), attacks=words(attacks), label=label, seed=seed)
    asked: dict[str, Any] = {
        "detectors": words(detectors), "attacks": spec.attacks, "layers": words(layers), "limit": at_most(limit),
        "protocols": PROTOCOLS if protocol == "both" else (protocol,), "corrupted": corrupted,
        "fprs": tuple(sorted({*FPRS, fpr})), "prevalence": prevalence, "seed": seed,
    }  # fmt: skip
    Ask(**asked)  # what is wrong with it is said before anything is loaded
    found: dict[str, Any] = {"format": 1, "runs": []}
    with Bars() as bars:
        subject = assemble(spec, out, bars, device)
        names = suited(modality, subject.data.channels) if corrupted else ()
        study = None
        for ball in balls:
            wanted = Ask(**asked, ball=ball, corruptions=tuple((n, 3) for n in names) if study is None else ())
            study = Detection(wanted, out, subject.classifier, subject.data, subject.test, bars)
            found["runs"].append(study.run())
        assert study is not None
        picture = study.picture(out / "tsne.png")
        guards = study.guards(out / "guards", fpr)
    found["asked"] = {**asked, "data": data, "model": str(model), "eps": [float(b.eps) for b in balls], "fpr": fpr}
    write_whole(out / "detect.json", json.dumps(found, indent=1).encode())
    for run in found["runs"]:
        summary(run, fpr)
    say(f"\nnumbers {out / 'detect.json'}\npicture {picture}")
    say("\n".join(f"guard   {path}" for path in guards.values()))


def summary(run: dict[str, Any], fpr: float) -> None:
    """Detection and false alarms, each number with its interval."""
    facts, rows = run["facts"], run["rows"]
    at = f"alarms@{fpr:g}"

    def cell(**wanted: Any) -> str:
        found = [r for r in rows if not r["layer"] and all(r[k] == v for k, v in wanted.items())]
        return _shown(found[0]) if found else ""

    lines = []
    pairs = dict.fromkeys((r["detector"], r["fitted_on"]) for r in rows)
    for name, attack in pairs:
        same = {"detector": name, "fitted_on": attack, "tested_on": attack}
        lines.append(
            [
                name,
                attack,
                str(facts["n_attacked"][attack]),
                cell(**same, metric="auroc", protocol="clean"),
                cell(**same, metric=f"seen@{fpr:g}", protocol="clean"),
                cell(**same, metric="auroc", protocol="paper"),
            ]
        )
    title = f"Attacks of {facts['eps'] * 255:.3g}/255 told from {facts['n_clean']} clean images, 95 % interval"
    head = ["detector", "attack", "n", "AUROC", f"seen at {fpr:.0%} false alarms", "AUROC as published (leaks)"]
    table(head, lines, title)
    alarms = []
    for name in dict.fromkeys(r["detector"] for r in rows):
        for tested in dict.fromkeys(r["tested_on"] for r in rows if r["tested_on"] not in facts["n_attacked"]):
            share = cell(detector=name, tested_on=tested, metric=at, protocol="clean")
            if share:
                worth = cell(detector=name, tested_on=tested, metric=f"predictive_value@{fpr:g}")
                alarms.append([name, tested, share, worth])
    if alarms:
        head = ["detector", "images without an attack", "false alarms", "an alarm is an attack"]
        table(head, alarms, f"False alarms where {fpr:.0%} were allowed; images still classified right, 95 % interval")


def _shown(row: dict[str, Any]) -> str:
    if row["value"] is None:
        return "too few" if row["note"] else ""
    number = "{:.3f}" if row["metric"] == "auroc" else "{:.1%}"
    value, low, high = (number.format(row[k]) for k in ("value", "low", "high"))
    return f"{value} ({low} to {high})"
