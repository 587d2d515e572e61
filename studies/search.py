"""Are networks trained by nature-inspired search better than gradient-trained ones? Jindal & Kumar 2022, fairly.

    python studies/search.py DATA OUT [NAME …]

DATA is a folder with chest_xray/, skin/, fundus/ (tables labels.csv), pneumoniamnist.npz and weights/; OUT takes one
run folder a set and kind of features. Everything finished is kept, so that a killed study goes on. NAME picks some
of the runs; --ask others compares feature masks, hyper-parameters and thresholds, --ask robust attacks evolved and
gradient-trained networks. Prints the tables of docs/results-search.md and draws its figures into OUT; --tables does
that with what is finished.
Duration: two minutes for the weights on two threads with nothing else running (44 s a set), budget 1,200.

To expect: none of 23 nature-inspired searches beats Adam on any of five sets at equal evaluations; taking seeds for
independent, 20 to 23 of them are worse, with the test that knows that they share patients 0 to 15. Grey wolf is the
best of them (87.5 % on chest X-rays, Adam 90.0 %, logistic regression 92.2 %), random search reaches 65.5 %, and a
search that Adam follows does as well as Adam alone. Evolved networks are as fragile as gradient-trained ones of the
same accuracy (--ask robust, names pneumonia-own chest-64 skin-64: 1.06 times the change over 27 pairs, 0.93 to 1.21).
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from names import one_of

from medrobust import atomic, ranks, stats
from medrobust.attacks import DeepFool
from medrobust.experiments import accuracy_matched, search_rows, search_system
from medrobust.experiments.search import Ask, Searching
from medrobust.progress import NoProgress
from medrobust.report import search as report_search
from medrobust.report import search_charts as charts
from medrobust.report import search_words as words
from medrobust.report.search_tables import robust_table
from medrobust.store import Store
from medrobust.training import evolved
from medrobust.training.evolved import scores

IMAGENET = {
    "features": "deep",
    "model": "mobilenetv2_100",
    "size": 128,
    "mean": (0.5,) * 3,
    "std": (0.5,) * 3,
    "pretrained": "{data}/weights/mobilenetv2_100_imagenet.safetensors",
}
SETS = {
    "chest": ("chest X-ray", "csv:{data}/chest_xray/labels.csv"),
    "skin": ("skin", "csv:{data}/skin/labels.csv"),
    "fundus": ("fundus, 4 classes", "csv:{data}/fundus/labels.csv"),
    "pneumonia": ("PneumoniaMNIST", "medmnist:{data}/pneumoniamnist.npz"),
}
RUNS: dict[str, dict[str, Any]] = {
    "breast-cancer": {"title": "breast cancer (30 measured)"},
    **{
        name: {"title": f"{title}, ImageNet features", "data": data, **IMAGENET} for name, (title, data) in SETS.items()
    },
    # attacks cost a quarter of what they cost at 128 px
    **{
        f"{name}-64": {"title": f"{title}, ImageNet features, 64 px", "data": data, **IMAGENET, "size": 64}
        for name, (title, data) in SETS.items()
    },
    **{
        f"{n}-handmade": {
            "title": f"{title}, hand-made features",
            "data": data,
            "features": "handmade",
            "size": None if n == "pneumonia" else 128,
        }
        for n, (title, data) in SETS.items()
    },
    "pneumonia-own": {
        "title": "PneumoniaMNIST, features of a ResNet-18 trained on it",
        "data": SETS["pneumonia"][1],
        "features": "deep",
        "model": "{models}/pneumonia/model",
    },
}
LIMIT, SEEDS, FOLDS, BUDGET = 300, 20, 2, 1200
SOME = ("random", "ga", "pso", "gwo")
"""Searches of what is not the weights."""
ASKS = {
    "weights": Ask(questions=("weights",), methods=("all",), budget=BUDGET, seeds=SEEDS, folds=FOLDS),
    "others": Ask(questions=("masks", "hyper", "threshold"), methods=SOME, budget=3000, seeds=SEEDS, folds=FOLDS),
}
MAIN = ["breast-cancer", *SETS]
"""What is compared unless others are named: features that have not seen a label."""
Places = dict[str, Path | None]
ATTACKED = accuracy_matched.AccuracyMatchedConfig(methods=("pso", "ga", "gwo"), seeds=3, images=100, attack=DeepFool())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", type=one_of(RUNS), default=MAIN)
    parser.add_argument("--models", type=Path, help="folder with pneumonia/model, as the other studies leave it")
    parser.add_argument("--ask", choices=[*ASKS, "robust"], default="weights")
    parser.add_argument("--tables", action="store_true", help="only print the tables of what is finished")
    asked = parser.parse_args()
    if not asked.tables:
        for name in asked.names:
            print(f"{name}: {asked.ask}", file=sys.stderr, flush=True)
            places = {"data": asked.data, "models": asked.models}
            (attack if asked.ask == "robust" else study)(name, asked.ask, places, asked.out / name)
    found = {ask: read(asked.out, asked.names, ask) for ask in (*ASKS, "robust")}
    if found["weights"]:
        times = read(asked.out, asked.names, "weights-times")
        print_sets(found["weights"])
        print_verdicts(found["weights"], "weights")
        print_counts(found["weights"])
        print_scores(found["weights"])
        print_metrics(found["weights"])
        print_ranks(found["weights"], asked.out)
        print_times(found["weights"], times)
        draw_convergence(found["weights"], times, asked.out)
    for question in ASKS["others"].questions:
        if found["others"]:
            print_verdicts(found["others"], question)
            print_scores(found["others"], question)
    print_robustness(found["robust"])


def study(name: str, ask: str, places: Places, out: Path) -> None:
    """One table of features under one ask: OUT/NAME/ASK.json and -times.json."""
    store = Store(out)
    if "data" not in RUNS[name]:
        table, about = evolved.breast_cancer(), {"data": name, "features_kind": "as measured", "left": "", "notes": []}
    else:
        images = subject(name, places)
        table, about = search_system.table(images, images.compared, store, NoProgress()), images.about
    results, times = Searching(ASKS[ask], out, table, about, Said()).run()
    atomic.write_bytes(out / f"{ask}.json", json.dumps(results, indent=1, sort_keys=True, allow_nan=False).encode())
    atomic.write_bytes(out / f"{ask}-times.json", json.dumps(times, indent=1, sort_keys=True).encode())


def subject(name: str, places: Places) -> search_system.Images:
    told = {k: v for k, v in RUNS[name].items() if k not in ("title", "data", "features")}
    told = {k: v.format(**places) if isinstance(v, str) else v for k, v in told.items()}
    return search_system.assemble(RUNS[name]["data"].format(**places), RUNS[name]["features"], limit=LIMIT, **told)


def attack(name: str, _: str, places: Places, out: Path) -> None:
    """Evolved networks, their twins, Adam and logistic regression, attacked: OUT/NAME/robust.json."""
    found = accuracy_matched.attacked(ATTACKED, subject(name, places), Store(out), NoProgress())
    atomic.write_bytes(out / "robust.json", json.dumps(found, indent=1, sort_keys=True, allow_nan=False).encode())


class Said(NoProgress):
    """Each method, as it is done."""

    def advance(self, n: int = 1, **shown: object) -> None:  # noqa: ARG002 - one method at a time
        print(*shown.values(), file=sys.stderr, flush=True)


# -- tables ----------------------------------------------------------------------------------------------

Runs = dict[str, dict[str, Any]]
METRIC = "balanced_accuracy"


def read(out: Path, names: list[str], kind: str) -> Runs:
    files = {name: out / name / f"{kind}.json" for name in names}
    return {name: json.loads(file.read_text()) for name, file in files.items() if file.is_file()}


def line(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |")


def head(*cells: str) -> None:
    line(*cells)
    print("|---" * len(cells) + "|")


def shown(row: dict[str, Any] | None, spread: bool = True) -> str:
    """Median with its interval, and the quartiles."""
    if row is None or row["value"] is None:
        return "–"
    scale, form = (1, "{:.3f}") if row["metric"] == "auroc" else (100, "{:.1f}")
    value, low, high, q1, q3 = (form.format(scale * row[k]) for k in ("value", "low", "high", "q1", "q3"))
    return f"{value} ({low}–{high}; {q1}–{q3})" if spread else f"{value} ({low}–{high})"


def found_in(run: dict[str, Any], question: str) -> dict[tuple[str, str], dict[str, Any]]:
    return {(r["method"], r["metric"]): r for r in run["rows"] if r["question"] == question}


def order(runs: Runs, question: str) -> list[str]:
    """Methods by their mean rank over the sets."""
    names = list(next(iter(runs.values()))["questions"][question]["methods"])
    values = np.array([[found_in(r, question)[n, METRIC]["value"] for n in names] for r in runs.values()])
    return [names[i] for i in np.argsort(ranks.ranks(values).mean(0), kind="stable")]


def titles(runs: Runs, question: str) -> dict[str, str]:
    return {n: m["title"] for n, m in next(iter(runs.values()))["questions"][question]["methods"].items()}


def print_sets(runs: Runs) -> None:
    print("\nSets\n")
    head("set", "images", "patients or groups", "classes", "features", "trained on, a fold")
    for name, run in runs.items():
        f = run["facts"]
        classes = ", ".join(f"{c} {n}" for c, n in zip(f["classes"], f["counts"], strict=True))
        line(
            RUNS[name]["title"],
            str(f["n"]),
            str(f["groups"]),
            classes,
            str(f["features"]),
            f"{f['n'] * (f['folds'] - 1) / f['folds']:.0f}",
        )


def print_verdicts(runs: Runs, question: str) -> None:
    print(f"\n{words.TITLES[question]}\n")
    for name, run in runs.items():
        if question in run["questions"]:
            print(f"- **{RUNS[name]['title']}**: {words.verdict(run, question)}")


def print_counts(runs: Runs) -> None:
    """Two tests: one that knows that draws share patients, and one that does not."""
    print("\nSearches better / worse than Adam, p < 0.05 after Holm over all methods\n")
    kinds = {"search": "nature-inspired", "both": "followed by Adam"}
    tests = {"p": "corrected", "p_wilcoxon": "signed ranks over seeds"}
    head(
        "set",
        *(f"{kind}, {test}" for kind in kinds.values() for test in tests.values()),
        "logistic regression less Adam, points",
    )
    for name, run in runs.items():
        told = run["questions"]["weights"]
        cells = []
        for kind in kinds:
            mine = [told["against"][n] for n, m in told["methods"].items() if m["kind"] == kind]
            for test in tests:
                apart = [a["difference"] > 0 for a in mine if a[test] < words.ALPHA]
                cells.append(f"{sum(apart)} / {len(apart) - sum(apart)} of {len(mine)}")
        d = told["against"]["logistic"]
        ends = "no interval" if d["low"] is None else f"{100 * d['low']:.1f} to {100 * d['high']:.1f}"
        cells.append(f"{100 * d['difference']:+.1f} ({ends})")
        line(RUNS[name]["title"], *cells)


def print_scores(runs: Runs, question: str = "weights") -> None:
    print(
        f"\n{words.TITLES[question]}: balanced accuracy in %, median of {SEEDS} seeds (95 % interval; quartiles), best"
    )
    reference = next(iter(runs.values()))["questions"][question]["reference"]
    print(f"mean rank first; - and + where worse and better than {reference} (corrected test, p < 0.05 after Holm)\n")
    name_of = titles(runs, question)
    head("method", *(RUNS[name]["title"] for name in runs))
    for method in order(runs, question):
        cells = []
        for run in runs.values():
            against = run["questions"][question]["against"].get(method)
            apart = against is not None and against["p"] < words.ALPHA
            sign = "" if not apart else " -" if against["difference"] < 0 else " +"
            cells.append(shown(found_in(run, question)[method, METRIC]) + sign)
        line(name_of[method], *cells)


def print_metrics(runs: Runs) -> None:
    print("\nAll metrics of some methods, in % (AUROC apart): median (95 % interval)\n")
    head("set", "method", *(scores.TITLES[m] for m in evolved.METRICS))
    for name, run in runs.items():
        rows, methods = found_in(run, "weights"), run["questions"]["weights"]["methods"]
        best = max((n for n in methods if methods[n]["kind"] == "search"), key=lambda n: rows[n, METRIC]["value"])
        for method in ("logistic", "adam", "multi-start-adam", best, "random"):
            cells = [shown(rows[method, metric], spread=False) for metric in evolved.METRICS]
            line(RUNS[name]["title"], methods[method]["title"] + (" (best search)" if method == best else ""), *cells)


def print_ranks(runs: Runs, out: Path) -> None:
    """Over the sets, which share no patient: Friedman, Nemenyi, and Wilcoxon with Holm against Adam."""
    if len(runs) < 2:
        return
    name_of, names = titles(runs, "weights"), order(runs, "weights")
    values = np.array([[found_in(r, "weights")[n, METRIC]["value"] for n in names] for r in runs.values()])
    told = search_rows.friedman(values, [name_of[n] for n in names])
    p = ranks.holm(np.array([ranks.wilcoxon(values[:, names.index("adam")], values[:, i]) for i in range(len(names))]))
    print(
        f"\nOver {len(runs)} sets: Friedman's chi2 {told['chi2']:.1f}, p {told['p']:.2g}; Iman and Davenport's F "
        f"{told['f']:.2f}, p {told['p_f']:.2g}; critical difference (Nemenyi, 0.05) {told['critical_difference']:.2f}\n"
    )
    head("method", "mean rank", "apart from Adam by Nemenyi", "p against Adam, Wilcoxon and Holm")
    mine = told["ranks"][name_of["adam"]]
    for i, name in enumerate(names):
        rank = told["ranks"][name_of[name]]
        apart = "yes" if abs(rank - mine) > told["critical_difference"] else "no"
        line(name_of[name], f"{rank:.1f}", apart if name != "adam" else "", f"{p[i]:.2g}" if name != "adam" else "")
    kinds = {name_of[n]: m["kind"] for n, m in next(iter(runs.values()))["questions"]["weights"]["methods"].items()}
    draw = partial(charts.critical_difference, ranks=told["ranks"], kinds=kinds, difference=told["critical_difference"])
    atomic.write_bytes(out / "search-ranks.png", charts.as_png(draw, *charts.cd_size(len(names), 2)))


def print_times(runs: Runs, times: Runs) -> None:
    print("\nSeconds of one processor a network (all evaluations, fitting included)\n")
    head("method", *(RUNS[name]["title"] for name in runs))
    for method, title in titles(runs, "weights").items():
        line(title, *(f"{times[name]['weights'][method]['seconds']:.3f}" for name in runs))


def draw_convergence(runs: Runs, times: Runs, out: Path) -> None:
    """Against evaluations and against time, on each set."""
    for name, run in runs.items():
        for kind, svg_label in (
            ("evaluations", "evaluations (a gradient counts as three)"),
            ("seconds", "seconds of one processor a network"),
        ):
            curves = report_search.curves(run, times[name], "weights", "at" if kind == "evaluations" else "clock")
            draw = partial(charts.convergence, curves=curves, label=svg_label)
            atomic.write_bytes(out / f"search-{kind}-{name}.png", charts.as_png(draw, 6.4, 4.2))


def print_robustness(runs: Runs) -> None:
    for name, run in runs.items():
        print(f"\n{RUNS[name]['title']}: {run['n']} test images, {run['seeds']} seeds, {run['attack']}\n")
        made = robust_table(run)
        head(*(c.text for c in made.head))
        for row in made.rows:
            line(*(c.text.replace("\u00a0", " ") for c in row))
        print()
        for sentence in words.robustness(run):
            print(f"- {sentence}")
    each = [r for run in runs.values() for row in run["rows"] if "ratio" in row for r in row["ratio"]["seeds"] if r]
    if each:
        value, low, high = np.exp(stats.mean(np.log(each))[:3])
        more = sum(r > 1 for r in each)
        print(f"\nAll {len(each)} pairs of networks: the evolved one takes {value:.2f} times its twin's change")
        print(f"({low:.2f}-{high:.2f}, an interval over pairs), in {more} of them more.")


if __name__ == "__main__":
    main()
