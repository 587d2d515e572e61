"""Runs of `medrobust input-defences` as one table: a line a defence and size.

    medrobust input-defences --model MODEL --data DATA --eps 2/255,4/255 --hardened HARDENED --out RUN
    python -m benchmarks.input_defences NAME=RUN [NAME=RUN ...] [--out CSV]

NAME is what the data is called in the table. Prints, or writes to CSV, the share that withstands each attacker and the
accuracy on untouched images with 95 % intervals, the verdict, and what the defence costs.
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path

from medrobust.report import defence_advice_words
from medrobust.report import input_defence_words as words
from medrobust.report.comparison import Share
from medrobust.report.run import Run, read
from medrobust.results import Kind

COLUMNS = (
    "set",
    "size",
    "defence",
    *words.ATTACKERS.values(),
    "n",
    "verdict",
    "accuracy, untouched",
    "n, untouched",
    "sensitivity at the same specificity",
    "ECE",
    "referred of 1,000",
)


def lines(name: str, run: Run):
    info = run.conditions.input_defences
    assert info is not None, f"{name} is no run of input-defences"
    for eps in info.eps:
        judged = words.of_run(run, eps)
        for defence, title in {words.NONE: "none", **words.titles(run)}.items():

            def of(metric: str, defence: str = defence) -> Share | None:
                return Share.of(run.find(Kind.DEFENCE, metric, defence=defence))

            under = [words.withstood(run, defence, knows, eps) for knows in words.ATTACKERS]
            accuracy, sensitivity, ece, referred = map(of, ("accuracy", "sensitivity", "ece", "referred"))
            verdict = words.worth(judged[defence]).value if defence in judged else ""
            yield [
                name,
                words.size(run, eps),
                title,
                *(text(share) for share in under),
                under[-1].n if under[-1] else "",
                verdict,
                text(accuracy),
                "" if accuracy is None else accuracy.n,
                text(sensitivity),
                "" if ece is None else f"{ece.value:.3f}",
                "" if referred is None else defence_advice_words.per_thousand(referred).partition(" of")[0],
            ]


def text(share: Share | None) -> str:
    if share is None:
        return ""
    low, high = (100 * end if end is not None else float("nan") for end in (share.low, share.high))
    return f"{100 * share.value:.1f}% ({low:.1f}% to {high:.1f}%)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    every = []
    for pair in given.runs:
        name, _, folder = pair.partition("=")
        every += lines(name, read(Path(folder)))
    with given.out.open("w", newline="") if given.out else sys.stdout as stream:
        csv.writer(stream, lineterminator="\n").writerows([COLUMNS, *every])


if __name__ == "__main__":
    main()
