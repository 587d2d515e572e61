"""Does any detector survive an attacker who knows it? Evasion of every detector on six sets.

    python studies/evasion.py DATA OUT [NAME …]

DATA is a folder with chest_xray/, skin/, fundus/, natural/ (tables labels.csv), pneumoniamnist.npz,
cifar10_test3000.npz and weights/; OUT takes one run folder a set: OUT/NAME/model is used where it is there, else
trained first. The folder of studies/detection.py serves: attacked images and features are then not made again.
Everything finished is kept, so that a killed study goes on. NAME picks some of the sets.
Duration: about 30 minutes on one thread, training apart. Prints the tables of docs/results.md.

Detectors are fitted on clean images and PGD twins (clean protocol, five folds); each image is attacked past the
detector of its fold, at thresholds fixed on other clean images.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from detection import SETS, network
from names import one_of

import medrobust as mr
from medrobust import atomic
from medrobust.detectors.crossfit import FPRS
from medrobust.evasion import EVASIONS
from medrobust.experiments import ask
from medrobust.experiments.context import Context
from medrobust.experiments.detection import DetectionConfig
from medrobust.experiments.detector_data import DetectorData
from medrobust.experiments.evasion import NO_DETECTOR, EvasionExperiment
from medrobust.experiments.evasion_config import EvasionConfig
from medrobust.experiments.system import given
from medrobust.progress import NoProgress
from medrobust.store import Store

SMALL = (0.5, 1)
EPS = {"chest": SMALL, "skin": SMALL, "fundus": SMALL, "pneumonia": (4, 8, 16), "cifar": (1, 4, 8), "natural": SMALL}
AT = {"pneumonia": 8, "cifar": 8}
"""In /255, what detectors are shown and evaded at; 1 where nothing is said."""
DETECTORS = ("kd", "mahalanobis", "lid", "dfeat", "qfeat-scale", "softmax", "qfeat")
FITTED_ON, ATTACKED = {128: 150}, {128: 48}
"""Images by their size: a pass of the larger networks takes eight times as long. Else 200 and 40.
With 48, none seen means at most 7 %."""
QUICK = ("selective", "matching")
"""At 128 px; else all six, and whether more steps and larger eps do better is checked."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", type=one_of(EPS), default=list(EPS))
    parser.add_argument("--tables", action="store_true", help="only print the tables of what is finished")
    asked = parser.parse_args()
    runs = {}
    for name in asked.names:
        file = asked.out / name / "evade.json"
        if not asked.tables:
            study(name, asked.data, asked.out / name, file)
        if file.is_file():
            runs[name] = json.loads(file.read_text())
    print_main(runs)
    print_reach(runs)
    print_saved(runs)
    print_checks(runs)


def study(name: str, data: Path, out: Path, file: Path) -> None:
    print(name, file=sys.stderr, flush=True)
    classifier, images = network(name, data, out)
    eps = tuple(e / 255 for e in EPS[name])
    context = Context(given(images, classifier), ask(eps=eps), Store(out), Told(), study="evasion")
    detectors = DetectionConfig(
        detectors=DETECTORS,
        attacks=("pgd",),
        layers=SETS[name]["layers"],
        limit=FITTED_ON.get(images.size, 200),
        fprs=(*FPRS, EvasionConfig.goal),
    )
    config = EvasionConfig(
        eps=eps,
        attacked=ATTACKED.get(images.size, 40),
        evasions=QUICK if images.size == 128 else tuple(EVASIONS),
        pressed=images.size != 128,
    )
    evasion = EvasionExperiment(
        context, config, DetectorData(context, detectors, lambda: mr.Linf(AT.get(name, 1) / 255)), FPRS
    )
    outcome = evasion.outcome()
    found = {"rows": outcome.rows.plain(), "facts": outcome.conditions["evasion"], "title": SETS[name]["title"]}
    found["checks"] = [check.plain() for check in outcome.checks]
    atomic.write_bytes(file, json.dumps(found, indent=1).encode())


class Told(NoProgress):
    """A line for every piece of work."""

    def start(self, name: str, total: int) -> None:
        print(f"  {name} ({total})", file=sys.stderr, flush=True)


# -- tables ----------------------------------------------------------------------------------------------

Runs = dict[str, dict[str, Any]]


def cell(run: dict[str, Any], detector: str, metric: str, eps: float | None = None, interval: bool = True) -> str:
    """metric: "detected@0.05" for the metric detected at that rate; "plain …" for the attack that knows no detector."""
    plain, (metric, _, rate) = metric.startswith("plain "), metric.removeprefix("plain ").partition("@")
    attack, fpr = run["facts"]["attack" if plain else "name"], float(rate) if rate else None
    wanted = {"detector": detector, "metric": metric, "attack": attack, "at_fpr": fpr}
    for row in run["rows"]:
        if all(row.get(k) == v for k, v in wanted.items()) and (eps is None or abs(row["eps"] - eps) < 1e-9):
            if row["value"] is None:
                return "–"
            form = "{:.2f}" if "auroc" in metric else "{:.0f}" if metric == "steps" else "{:.0%}"
            text = form.format(row["value"])
            return f"{text} ({form.format(row['low'])}–{form.format(row['high'])})" if interval else text
    return "–"


def detectors(run: dict[str, Any]) -> list[str]:
    """NO_DETECTOR first: the same search where no detector looks."""
    return list(dict.fromkeys(row["detector"] for row in run["rows"]))


def print_main(runs: Runs) -> None:
    """Before and after the attacker knew the detector."""
    print(
        "\nThe same images before and after the attacker knew the detector; seen: of those that fool, 95 % interval\n"
    )
    head = (
        "set and eps",
        "n",
        "detector",
        "PGD fools",
        "PGD seen at 5 %",
        "AUROC",
        "evasion fools",
        "seen at 5 %",
        "seen at 1 %",
        "AUROC",
        "steps",
    )
    print("| " + " | ".join(head) + " |")
    print("|---" * len(head) + "|")
    metrics = (
        "plain fooled",
        "plain detected@0.05",
        "plain auroc",
        "fooled",
        "detected@0.05",
        "detected@0.01",
        "auroc",
        "steps",
    )
    for run in runs.values():
        facts = run["facts"]
        for detector in detectors(run)[1:]:
            shown = [cell(run, detector, m, interval=m != "steps") for m in metrics]
            start = f"{run['title']}, {facts['eps'] * 255:g}/255 | {facts['n']} | {detector}"
            print(f"| {start} | " + " | ".join(shown) + " |")


def print_reach(runs: Runs) -> None:
    for run in runs.values():
        grid = sorted({row["eps"] for row in run["rows"]})
        print(f"\n{run['title']}: images that fool the classifier unseen at 5 % false alarms, by eps\n")
        print("| detector | " + " | ".join(f"{e * 255:g}/255" for e in grid) + " |")
        print("|---" * (len(grid) + 1) + "|")
        for detector in detectors(run):
            name = "no detector" if detector == NO_DETECTOR else detector
            print(f"| {name} | " + " | ".join(cell(run, detector, "reach@0.05", e) for e in grid) + " |")


def print_saved(runs: Runs) -> None:
    print("\nImages that fool the classifier unseen at 5 % false alarms, as computed and after saving at 8 bits\n")
    print("| set | detector | as computed | saved | evasions that found them |")
    print("|---|---|---|---|---|")
    for run in runs.values():
        for detector in detectors(run)[1:]:
            note = next((r["note"] for r in run["rows"] if (r["detector"], r["metric"]) == (detector, "steps")), "")
            pair = [cell(run, detector, m) for m in ("success@0.05", "success_saved@0.05")]
            print(f"| {run['title']} | {detector} | " + " | ".join(pair) + f" | {note} |")


def print_checks(runs: Runs) -> None:
    print("\n| set | check | passed | detail |")
    print("|---|---|---|---|")
    for run in runs.values():
        for check in run["checks"]:
            passed = {True: "yes", False: "NO", None: "–"}[check["passed"]]
            print(f"| {run['title']} | {check['name']} ({check['attack']}) | {passed} | {check['detail']} |")


if __name__ == "__main__":
    main()
