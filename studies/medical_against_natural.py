"""Are medical classifiers fooled by less than natural ones? The accuracy curves of Ma et al. 2020 on real images.

    python studies/medical_against_natural.py DATA OUT [NAME …]

DATA is a folder with chest_xray/, skin/, natural/ (tables labels.csv), pneumoniamnist.npz, cifar10_test3000.npz and
weights/; OUT takes one run folder an audit, so that a killed study goes on. NAME picks some of the audits.
Duration: about 25 minutes on 2 cores. Prints the tables of docs/results.md.

To expect: the fine-tuned MobileNetV2s on chest X-rays and skin images fall below 1 % accuracy at 0.3/255, and are back
at their clean accuracy when the attacked images are saved at 8 bits; the ImageNet MobileNetV2 of the same size is at
15 % at 0.3/255 and at 0 % at 1/255; a ResNet-18 on PneumoniaMNIST keeps 91 % at 1/255.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from names import one_of

MOBILENET = "mobilenetv2_100"
WEIGHTS = "weights/mobilenetv2_100_imagenet.safetensors"
AUDITS = {
    "chest": [
        "--data",
        "csv:{}/chest_xray/labels.csv",
        "--size",
        "160",
        "--model",
        MOBILENET,
        "--pretrained",
        "{}/" + WEIGHTS,
        "--mean",
        "0.5",
        "--std",
        "0.5",
        "--epochs",
        "4",
    ],
    "skin": [
        "--data",
        "csv:{}/skin/labels.csv",
        "--size",
        "160",
        "--model",
        MOBILENET,
        "--pretrained",
        "{}/" + WEIGHTS,
        "--mean",
        "0.5",
        "--std",
        "0.5",
        "--epochs",
        "5",
    ],
    "pneumonia": ["--data", "medmnist:{}/pneumoniamnist.npz", "--epochs", "5"],
    "natural": [
        "--data",
        "csv:{}/natural/labels.csv",
        "--label",
        "index",
        "--size",
        "160",
        "--model",
        MOBILENET,
        "--weights",
        "{}/" + WEIGHTS,
        "--mean",
        "0.5,0.5,0.5",
        "--std",
        "0.5,0.5,0.5",
    ],
    "cifar": [
        "--data",
        "medmnist:{}/cifar10_test3000.npz",
        "--model",
        "cifar_resnet20",
        "--weights",
        "{}/weights/cifar10_resnet20-12fca82f.th",
    ],
}
TITLES = {
    "chest": "chest X-ray, MobileNetV2, 160 px",
    "skin": "skin, MobileNetV2, 160 px",
    "pneumonia": "PneumoniaMNIST, ResNet-18, 28 px",
    "natural": "ImageNet (natural), MobileNetV2, 160 px",
    "cifar": "CIFAR-10 (natural), ResNet-20, 32 px",
}
SHOWN = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 2, 4, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", type=one_of(AUDITS), default=list(AUDITS))
    asked = parser.parse_args()
    runs = {}
    for name in asked.names:
        options = [o.format(asked.data) for o in AUDITS[name]]
        command = [sys.executable, "-m", "medrobust.cli", "audit", *options, "--limit", "150"]
        command += ["--out", str(asked.out / name)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        runs[name] = json.loads((asked.out / name / "results.json").read_text())
    print_clean(runs)
    for name in runs:
        print_curve(name, runs[name])
    print_saving(runs)
    print_checks(runs)


def rows(run: dict, **wanted: object) -> list[dict]:
    return [r for r in run["rows"] if all(r.get(k) == v for k, v in wanted.items())]


def share(row: dict) -> str:
    mark = "" if row["status"] == "ok" else " (inconclusive)"
    return f"{row['value']:.1%} ({row['low']:.1%} to {row['high']:.1%}){mark}"


def print_clean(runs: dict[str, dict]) -> None:
    print("\n| set | classes | test images | clean accuracy | AUROC | attacked | median eps* in /255 (worst case) |")
    print("|---|---|---|---|---|---|---|")
    for name, run in runs.items():
        told, clean = run["conditions"], rows(run, kind="clean", metric="accuracy")[0]
        area = rows(run, kind="clean", metric="auroc", class_name=None)
        half = rows(run, attack="worst", metric="min_eps_median")[0]
        shown = [f"{half[k] * 255:.2g}" if half[k] is not None else "above 10" for k in ("value", "low", "high")]
        print(
            f"| {TITLES[name]} | {len(told['classes'])} | {told['n_test']} | {share(clean)} | "
            f"{format(area[0]['value'], '.3f') if area else '–'} | {told['n_attacked']} | "
            f"{shown[0]} ({shown[1]} to {shown[2]}) |"
        )


def print_curve(name: str, run: dict) -> None:
    told = run["conditions"]
    names = [*told["attacks"], "noise"]
    print(f"\n{TITLES[name]}: accuracy under attack, n = {told['n_attacked']}, 95 % interval of the worst case\n")
    print("| eps | " + " | ".join(told["attacks"].get(a, {"title": "± eps noise"})["title"] for a in names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for level in SHOWN:
        line = []
        for attack in names:
            found = [r for r in rows(run, attack=attack, metric="accuracy") if abs(r["eps"] * 255 - level) < 0.01]
            line.append(share(found[0]) if attack == "worst" else f"{found[0]['value']:.1%}")
        print(f"| {level:g}/255 | " + " | ".join(line) + " |")


def print_saving(runs: dict[str, dict]) -> None:
    print("\n| set | eps | n | accuracy, as computed | saved at 8 bits | at 12 bits | at 16 bits |")
    print("|---|---|---|---|---|---|---|")
    for name, run in runs.items():
        for full in rows(run, metric="accuracy_full"):
            saved = [
                rows(run, attack=full["attack"], eps=full["eps"], metric="accuracy_saved", bits=b)[0]
                for b in (8, 12, 16)
            ]
            cells = " | ".join([share(full), share(saved[0]), *(f"{s['value']:.1%}" for s in saved[1:])])
            print(f"| {TITLES[name]} | {full['eps'] * 255:.2g}/255 | {full['n']} | {cells} |")


def print_checks(runs: dict[str, dict]) -> None:
    print("\n| set | sanity checks passed | failed |")
    print("|---|---|---|")
    for name, run in runs.items():
        failed = [f"{c['name']} ({c['attack']}): {c['detail']}" for c in run["checks"] if c["passed"] is False]
        passed = sum(c["passed"] is True for c in run["checks"])
        print(f"| {TITLES[name]} | {passed} of {len(run['checks'])} | {'; '.join(failed) or '–'} |")


if __name__ == "__main__":
    main()
