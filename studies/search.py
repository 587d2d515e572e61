"""Are networks trained by nature-inspired search better than gradient-trained ones? Jindal & Kumar 2022, fairly.

    python studies/search.py DATA OUT [NAME …]

DATA is a folder with chest_xray/, skin/, fundus/ (tables labels.csv), pneumoniamnist.npz and weights/; OUT takes one
run folder a set and kind of features. Everything finished is kept, so that a killed study goes on. NAME picks some
of the runs. --tables prints the tables of docs/results-search.md of what is finished, and writes its figures to OUT;
--robust NAME … attacks evolved and gradient-trained networks instead.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from medrobust.progress import NoProgress
from medrobust.studies import search_networks, search_subject
from medrobust.studies.searching import Ask, Searching
from medrobust.studies.store import Store, write_whole
from medrobust.training import evolved

IMAGENET = {"features": "deep", "model": "mobilenetv2_100", "size": 128, "mean": (0.5,) * 3, "std": (0.5,) * 3,
            "pretrained": "{}/weights/mobilenetv2_100_imagenet.safetensors"}  # fmt: skip
SETS = {
    "chest": ("chest X-ray", "csv:{}/chest_xray/labels.csv"),
    "skin": ("skin", "csv:{}/skin/labels.csv"),
    "fundus": ("fundus, 4 classes", "csv:{}/fundus/labels.csv"),
    "pneumonia": ("PneumoniaMNIST", "medmnist:{}/pneumoniamnist.npz"),
}
RUNS: dict[str, dict[str, Any]] = {
    "breast-cancer": {"title": "breast cancer (30 measured)"},
    **{name: {"title": f"{title}, ImageNet features", "data": data, **IMAGENET}
       for name, (title, data) in SETS.items()},
    **{f"{n}-handmade": {"title": f"{title}, hand-made features", "data": data, "features": "handmade",
                         "size": None if n == "pneumonia" else 128} for n, (title, data) in SETS.items()},
}  # fmt: skip
LIMIT, SEEDS, FOLDS, BUDGET = 300, 20, 2, 3000
SOME = ("random", "ga", "pso", "de", "shade", "cma-es", "gwo", "woa", "abc")
"""Searches of what is not the weights."""
ASKS = {
    "weights": Ask(questions=("weights",), methods=("all",), budget=BUDGET, seeds=SEEDS, folds=FOLDS),
    "others": Ask(questions=("masks", "hyper", "threshold"), methods=SOME, budget=BUDGET, seeds=SEEDS, folds=FOLDS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", default=list(RUNS))
    parser.add_argument("--ask", choices=list(ASKS), default="weights")
    asked = parser.parse_args()
    for name in asked.names:
        print(f"{name}: {asked.ask}", file=sys.stderr, flush=True)
        study(name, asked.ask, asked.data, asked.out / name)


def study(name: str, ask: str, data: Path, out: Path) -> None:
    """One table of features under one ask: OUT/NAME/ASK.json and -times.json."""
    store = Store(out)
    if "data" not in RUNS[name]:
        table, about = evolved.breast_cancer(), {"data": name, "features_kind": "as measured", "left": "", "notes": []}
    else:
        images = subject(name, data)
        table, about = search_subject.table(images, images.compared, store, NoProgress()), images.about
    results, times = Searching(ASKS[ask], out, table, about, Said()).run()
    write_whole(out / f"{ask}.json", json.dumps(results, indent=1, sort_keys=True, allow_nan=False).encode())
    write_whole(out / f"{ask}-times.json", json.dumps(times, indent=1, sort_keys=True).encode())


def subject(name: str, data: Path) -> search_subject.Images:
    told = {k: v for k, v in RUNS[name].items() if k not in ("title", "data", "features")}
    told = {k: v.format(data) if isinstance(v, str) else v for k, v in told.items()}
    return search_subject.assemble(RUNS[name]["data"].format(data), RUNS[name]["features"], limit=LIMIT, **told)


class Said(NoProgress):
    """Each method, as it is done."""

    def advance(self, n: int = 1, **shown: object) -> None:  # noqa: ARG002 - one method at a time
        print(*shown.values(), file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
    _ = search_networks
