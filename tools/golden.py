"""Golden files: the outputs of small runs of every command, from one checkout, and two such folders compared.

    python tools/golden.py make /tmp/before                        # with this checkout's code
    python tools/golden.py make /tmp/before --code ../old/src      # with that of another checkout
    python tools/golden.py compare /tmp/before /tmp/after

``compare`` prints, for every command, how many numbers are the same to the digit, and which are missing or
new. A number is a row's (value, low, high, n), wherever the row stands and whatever it is called: names may change,
numbers may not.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHEST = ["--data", "phantom:chest@32"]
SKIN = ["--data", "phantom:skin@32"]

RUNS: dict[str, list[str]] = {
    "train": ["train", "--out", "{out}/train", *CHEST, "--model", "small_cnn", "--epochs", "3"],
    "audit": ["audit", *CHEST, "--model", "small_cnn", "--epochs", "3", "--limit", "24", "--out", "{out}/audit"],
    "audit-skin": [
        "audit",
        *SKIN,
        "--model",
        "small_cnn",
        "--epochs",
        "3",
        "--limit",
        "24",
        "--norm",
        "l2",
        "--eps",
        "0.1,0.25,0.5,1",
        "--attacks",
        "fgsm,pgd:steps=10,fmn",
        "--out",
        "{out}/audit-skin",
    ],
    "audit-right": [
        "audit",
        *CHEST,
        "--model",
        "{out}/train",
        "--limit",
        "70",
        "--attacks",
        "pgd:steps=10",
        "--eps",
        "2/255,8/255",
        "--auto",
        "none",
        "--out",
        "{out}/audit-right",
    ],
    "detect": [
        "detect",
        "--model",
        "{out}/train",
        *CHEST,
        "--detectors",
        "kd,mahalanobis",
        "--attacks",
        "fgsm,pgd",
        "--limit",
        "60",
        "--corrupted",
        "10",
        "--modality",
        "xray",
        "--eps",
        "4/255",
        "--out",
        "{out}/detect",
    ],
    "evade": [
        "evade",
        "--model",
        "{out}/train",
        *CHEST,
        "--detectors",
        "kd,mahalanobis",
        "--evasions",
        "selective,matching",
        "--limit",
        "60",
        "--attacked",
        "12",
        "--eps",
        "2/255,4/255",
        "--out",
        "{out}/evade",
    ],
    "explain": [
        "explain",
        "--model",
        "{out}/train",
        *CHEST,
        "--limit",
        "12",
        "--landscapes",
        "3",
        "--out",
        "{out}/explain",
    ],
    "universal": ["universal", "--model", "{out}/train", *CHEST, "--limit", "80", "--out", "{out}/universal"],
    "universal-targeted": [
        "universal",
        "--model",
        "{out}/train",
        *CHEST,
        "--limit",
        "80",
        "--target",
        "normal",
        "--out",
        "{out}/universal-targeted",
    ],
    "defend": [
        "defend",
        "--model",
        "{out}/train",
        *CHEST,
        "--rounds",
        "1",
        "--epochs",
        "1",
        "--perturbations",
        "2",
        "--limit",
        "80",
        "--out",
        "{out}/defend",
    ],
    "search": [
        "search",
        *CHEST,
        "--features",
        "deep",
        "--model",
        "{out}/train",
        "--methods",
        "pso",
        "--budget",
        "300",
        "--seeds",
        "6",
        "--folds",
        "2",
        "--limit",
        "80",
        "--attacked",
        "10",
        "--out",
        "{out}/search",
    ],
    "study": ["study", "run", "{here}/tools/golden_study.py", "--size", "smoke", "--out", "{out}/study"],
}


def make(out: Path, code: Path, only: list[str]) -> int:
    """Run every command into ``out``; the number of those that failed."""
    here, failed = Path(__file__).resolve().parent.parent, 0
    out.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONPATH": str(code.resolve()), "OMP_NUM_THREADS": "1"}
    for name, command in RUNS.items():
        if only and name not in only:
            continue
        words = [w.format(out=out.resolve(), here=here) for w in command]
        begin = time.perf_counter()
        with (out / f"{name}.txt").open("w") as said:
            ran = subprocess.run(
                [sys.executable, "-m", "medrobust.cli", *words],
                stdout=said,
                stderr=subprocess.STDOUT,
                env=environment,
                check=False,
            )
        print(f"{name}: exit {ran.returncode}, {time.perf_counter() - begin:.0f} s", flush=True)
        failed += ran.returncode != 0
    return failed


def numbers(folder: Path) -> Counter[tuple[Any, ...]]:
    """Every (value, low, high, n) in the JSON files that lie in the folder itself, and how often each is there."""
    found: Counter[tuple[Any, ...]] = collections.Counter()
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith("medrobust-") or path.name in ("spec.json", "run.json", "times.json", "known.json"):
            continue
        for row in walk(json.loads(path.read_text("utf-8"))):
            found[tuple(_short(row.get(k)) for k in ("value", "low", "high", "n"))] += 1
    return found


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """Every object below ``node`` that holds a value, low and high."""
    if isinstance(node, dict):
        if {"value", "low", "high"} <= node.keys():
            yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


def _short(value: Any) -> Any:
    return float(f"{value:.12g}") if isinstance(value, float) else value


def compare(before: Path, after: Path) -> int:
    """Print what is the same and what is not; the number of commands that differ."""
    differ = 0
    for name in RUNS:
        if name == "train" or not (before / name).is_dir():
            continue
        old, new = numbers(before / name), numbers(after / name)
        # a row may stand in several places: what counts is whether the number is there
        missing, more = [k for k in old if k not in new], [k for k in new if k not in old]
        print(f"{name}: {len(old)} different numbers before, {len(missing)} of them missing, {len(more)} new")
        for title, some in (("missing", missing), ("new", more)):
            for number in some[:12]:
                print(f"   {title}: {number}")
        differ += bool(missing)
    return differ


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(required=True, dest="verb")
    maker = verbs.add_parser("make")
    maker.add_argument("out", type=Path)
    maker.add_argument("--code", type=Path, default=Path(__file__).resolve().parent.parent / "src")
    maker.add_argument("--only", default="", help="names of commands, commas between")
    comparer = verbs.add_parser("compare")
    comparer.add_argument("before", type=Path)
    comparer.add_argument("after", type=Path)
    asked = parser.parse_args()
    if asked.verb == "make":
        return make(asked.out, asked.code, [n for n in asked.only.split(",") if n])
    return compare(asked.before, asked.after)


if __name__ == "__main__":
    sys.exit(main())
