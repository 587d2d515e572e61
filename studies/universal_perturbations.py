"""Does one change fool a classifier on every image? Hirano et al. 2021, Minagi et al. 2022, Koga & Takemoto 2022.

    python studies/universal_perturbations.py DATA OUT [PART …]

DATA is a folder with chest_xray/, skin/, fundus/, natural/ (tables labels.csv), pneumoniamnist.npz and weights/; OUT
takes the classifiers (OUT/NAME/model, trained where missing) and one cell a piece of work, so that a killed study goes
on. PART picks some of PARTS below, in that order by default. Prints the tables of docs/results-universal.md.
Duration: about 60 minutes on one core at 128 px, and 15 more where the classifiers are to be trained.

To expect at zeta = 4 %, p = 2, on held-out images: targeted to any class of any set 98 % and more; nontargeted 79 % on
chest and 73 % on skin (one class for all would give 70 % and 61 %), 91 % on fundus, 99 % on seven skin diagnoses. At
zeta = 1 % still 80 % of chest images are read as normal (30 % before). Saving at 8 bits changes nothing. Random changes
of the same size change 22 to 47 % of the answers. From natural images alone: 64 % (chest) and 66 % (fundus) on the
fine-tuned networks, 30 % and 49 % on those from scratch; across architectures no better than chance.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from names import one_of
from universal_pieces import CRAFT, JUDGED, Study

import medrobust as mr
from medrobust import stats
from medrobust.experiments.config import digest
from medrobust.stats import Estimate
from medrobust.universal import SGA, UNIVERSAL, UniversalOutcome

NAMES = {"l2": "p = 2", "linf": "p = inf"}
PUBLISHED = """
Published, at 299 px with Inception V3 (figures of the papers' texts and logs; other images, other splits):

| paper | set | perturbation | held-out success | random |
|---|---|---|---|---|
| Hirano 2021 | skin, OCT, chest | nontargeted p = 2 and inf, 4 %; targeted, 2 % | Rf, Rs above 80 % | – |
| Hirano 2021 | chest | target PNEUMONIA, p = 2, 2 % | Rs 93.7 % | – |
| Hirano 2020 (COVID-Net) | chest, 3 classes | nontargeted / targeted, 2 % | Rf above 85 % / Rs above 90 % | – |
| Minagi 2022 | skin | nontargeted p = 2, 4 %, from 100,000 ImageNet images (from 1,000) | Rf 83.6 % (6.0 %) | 14.7 % |
| Koga 2022 | skin | nontargeted p = 2, 4 %, 1.0 M queries | Rf 47 % | 12 % |
"""


# -- what is printed -----------------------------------------------------------------------------------------


def share(e: Estimate | None) -> str:
    return "–" if e is None or not e.n else f"{e.value:.1%} ({e.low:.1%} to {e.high:.1%})"


def success(o: UniversalOutcome) -> Estimate:
    """Rf of a nontargeted perturbation, Rs of a targeted one."""
    return o.fooling_rate if o.targeted_success is None else o.targeted_success


def saved(o: UniversalOutcome) -> Estimate:
    return o.fooling_rate_saved if o.targeted_success_saved is None else o.targeted_success_saved


def by_chance(controls: Sequence[UniversalOutcome], target: int | None) -> str:
    """Of the random perturbations the one that comes nearest to the goal."""
    rates = [o.fooling_rate.value if target is None else float(np.mean(o.after == target)) for o in controls]
    return f"{max(rates):.1%}"


def goals(classes: Sequence[str], only: str = "") -> Iterable[tuple[int | None, str]]:
    """Nontargeted, then to every class or to ``only`` one."""
    return [(None, "nontargeted"), *((k, f"to {name}") for k, name in enumerate(classes) if only in ("", name))]


def table(title: str, head: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for line in lines:
        print(f"| {' | '.join(line)} |", flush=True)


def main_table(study: Study, norm: str, zeta: float) -> None:
    """Every set, nontargeted and to every class."""

    def lines() -> Iterable[list[str]]:
        for name in ("chest", "skin", "fundus", "skin7"):
            controls = study.random(name, norm, zeta)
            for target, goal in goals(study.network(name).classes):
                v = study.made(name, target, norm, zeta)
                o = study.judged(name, v)
                yield [
                    name,
                    goal,
                    share(success(o)),
                    share(o.targeted_base),
                    share(o.targeted_success_new),
                    share(saved(o)),
                    by_chance(controls, target),
                    share(o.cap) if target is None else "–",
                    str(v.provenance["gradients"]),
                ]

    head = (
        "set",
        "goal",
        "Rf or Rs",
        "there before",
        "of the others",
        "saved at 8 bits",
        "best of 3 random",
        "cap of one class",
        "gradients",
    )
    sizes = ", ".join(f"{name} {size_of(study, name, norm, zeta)}" for name in ("chest", "skin", "fundus", "skin7"))
    table(f"**{NAMES[norm]}, zeta = {zeta:.0%}** ({sizes} grey levels), n = {JUDGED} held-out images", head, lines())


def size_of(study: Study, name: str, norm: str, zeta: float) -> str:
    """eps in grey levels: of the pixel that changes most, or the root mean square."""
    data, eps = study.loaded(name), float(study.eps(name, norm, zeta).eps) * 255
    return f"{eps if norm == 'linf' else eps / (data.channels * data.size**2) ** 0.5:.1f}"


def main_4(study: Study) -> None:
    print(PUBLISHED)
    for norm in ("l2", "linf"):
        main_table(study, norm, 0.04)


def again(study: Study) -> None:
    """Sets of several classes once more: another split and network, nothing chosen after looking at these images."""

    def lines() -> Iterable[list[str]]:
        for name in ("skin7", "fundus"):
            other = f"{name}_again"
            held, seen = study.held(other), set(study.held(name).ids)
            new = np.array([i not in seen for i in held.ids])
            for norm in NAMES:
                o = study.tried(other, None, norm)
                chance = by_chance(study.random(other, norm, 0.04), None)
                fresh = stats.proportion(o.fooled[new])
                yield [
                    name,
                    NAMES[norm],
                    share(o.fooling_rate),
                    f"{share(fresh)}, n = {fresh.n}",
                    share(saved(o)),
                    chance,
                    share(o.cap),
                    share(o.accuracy_before),
                ]

    head = (
        "set",
        "norm",
        "Rf",
        "of images not judged on before",
        "saved at 8 bits",
        "best of 3 random",
        "cap of one class",
        "accuracy on clean images",
    )
    table(f"**On another split** (nontargeted, zeta = 4 %), n = {JUDGED} held-out images", head, lines())


def zeta(study: Study) -> None:
    levels = (0.01, 0.02, 0.03, 0.04, 0.06, 0.08)

    def line(name: str, target: int | None, goal: str) -> list[str]:
        return [name, goal, *(share(success(study.tried(name, target, "l2", z))) for z in levels)]

    cases = [(name, *goal) for name in ("chest", "fundus") for goal in goals(study.network(name).classes, "normal")]
    table(
        "**Rf and Rs against zeta** (p = 2)",
        ["set", "goal", *(f"{z:.0%}" for z in levels)],
        (line(*case) for case in cases),
    )


def number(study: Study) -> None:
    """The same number of gradients at most, spread over fewer or more images."""
    counts = (25, 50, 100, 200, CRAFT)

    def line(name: str, target: int | None, goal: str) -> list[str]:
        seen = (study.tried(name, target, n=n, method=SGA(passes=3 * CRAFT // n)) for n in counts)
        return [name, goal, *(share(success(o)) for o in seen)]

    cases = [(name, *goal) for name in ("chest", "fundus") for goal in goals(study.network(name).classes, "normal")]
    table(
        "**Rf and Rs against the number of images** (p = 2, zeta = 4 %)",
        ["set", "goal", *(f"{n} images" for n in counts)],
        (line(*case) for case in cases),
    )


def sources(study: Study) -> None:
    kinds = ("training", "natural", "phantom", "noise")

    def lines() -> Iterable[list[str]]:
        for network in ("chest", "chest_scratch", "fundus", "fundus_scratch"):
            for target, goal in goals(study.network(network).classes, "normal"):
                base = study.tried(network, target).targeted_base
                found = [share(success(study.tried(network, target, kind=kind))) for kind in kinds]
                controls = study.random(network, "l2", 0.04)
                yield [network, goal, share(base), *found, by_chance(controls, target)]

    head = ["classifier", "goal", "there before", *kinds, "best of 3 random"]
    table(f"**Made from other images** (p = 2, zeta = 4 %, {CRAFT} images each)", head, lines())


NATURAL = 1000
"""Natural images in all."""
STEP = 0.00025
"""A pixel's inner step of Minagi et al. 2022, in [0, 1]: their 0.0005 on [-1, 1]; one pass over each 1000 images."""


def natural(study: Study) -> None:
    """Natural images as they are and varied, beside training images, and the sequential method as published on all."""
    ways: dict[str, dict[str, Any]] = {
        f"{CRAFT} training images": {},
        f"{CRAFT} natural, varied": {"kind": "varied"},
        f"{CRAFT} natural": {"kind": "natural"},
        f"{NATURAL} natural, varied, one pass": {"kind": "varied", "n": NATURAL, "method": SGA(passes=1)},
        f"{NATURAL} natural, sequential": {
            "kind": "natural",
            "n": NATURAL,
            "method": mr.universal.Sequential(step=STEP, passes=1),
        },
    }

    def lines() -> Iterable[list[str]]:
        wanted = (
            ("fundus", None),
            ("chest", None),
            ("skin", None),
            ("skin7", None),
            ("fundus", "normal"),
            ("chest", "normal"),
            ("skin", "benign"),
            ("skin7", "nv"),
        )
        for name, target in wanted:
            index = None if target is None else study.network(name).classes.index(target)
            found = [share(success(study.tried(name, index, **way))) for way in ways.values()]
            goal = "nontargeted" if target is None else f"to {target}"
            yield [name, goal, *found, by_chance(study.random(name, "l2", 0.04), index)]

    head = ["set", "goal", *ways, "best of 3 random"]
    table("**From natural images alone** (p = 2, zeta = 4 %)", head, lines())


def transfer(study: Study) -> None:
    names = ("chest", "chest_scratch", "chest_small")

    def lines() -> Iterable[list[str]]:
        for target, goal in goals(study.network("chest").classes):
            for made_on in names:
                v = study.made(made_on, target)
                yield [goal, made_on, *(share(success(study.judged(other, v))) for other in names)]
            chance = [by_chance(study.random(other, "l2", 0.04), target) for other in names]
            yield [goal, "best of 3 random", *chance]

    head = ["goal", "made on", *(f"tried on {name}" for name in names)]
    table("**From one architecture to another** (chest, p = 2, zeta = 4 %)", head, lines())


def sequential(study: Study) -> None:
    """The published method beside SGA, from the same images."""
    methods = (mr.universal.Sequential(), SGA(passes=3))

    def lines() -> Iterable[list[str]]:
        cases = [(name, *goal) for name in ("chest", "fundus") for goal in goals(study.network(name).classes, "normal")]
        for name, target, goal in cases:
            for method in methods:
                v = study.made(name, target, method=method)
                told, eps = v.provenance, float(v.ball.eps)
                yield [
                    name,
                    goal,
                    method.title,
                    share(success(study.judged(name, v))),
                    f"{v.size / eps:.0%}",
                    str(told["gradients"]),
                    f"{told['seconds']:.0f}",
                    v.why or "–",
                ]

    head = ("set", "goal", "method", "Rf or Rs", "norm of v / eps", "gradients", "seconds", "remark")
    table("**The published sequential method beside SGA** (p = 2, zeta = 4 %)", head, lines())


WHITE_BOX = ("sim", "sgd", "sga", "df")
BUDGETS = (1_000, 2_000, 5_000, 10_000, 20_000)
"""Image queries: forward passes of one image each."""


def black_box(study: Study) -> None:
    """Queries alone, from 100 images as Koga & Takemoto 2022; what is drawn against queries is counted on those."""

    def lines() -> Iterable[list[str]]:
        for name in ("chest", "fundus"):
            chance = by_chance(study.random(name, "l2", 0.04), None)
            for key in [k for k in UNIVERSAL if k not in WHITE_BOX]:
                method = UNIVERSAL[key](queries=BUDGETS[-1])  # type: ignore[call-arg]
                v = study.made(name, None, method=method, n=100)
                seen = [[h["rate"] for h in v.history if h["queries"] <= budget] for budget in BUDGETS]
                yield [
                    name,
                    method.title,
                    *(f"{rates[-1]:.0%}" if rates else "–" for rates in seen),
                    share(study.judged(name, v).fooling_rate),
                    chance,
                    str(v.provenance["queries"]),
                ]

    head = ["set", "method", *(f"{b:,} queries" for b in BUDGETS), "held out", "best of 3 random", "queries in all"]
    table(
        "**Black box: Rf against image queries** (nontargeted, p = 2, zeta = 4 %, made from 100 images)", head, lines()
    )


def defence(study: Study) -> None:
    """Does a fresh perturbation work again? PneumoniaMNIST, ResNet-18."""
    name = "pneumonia"
    classifier, data = study.network(name), study.loaded(name)
    ways = (
        mr.universal.Retraining(rounds=3, epochs=3, perturbations=5, limit=200),
        mr.universal.UniversalTraining(rounds=2, epochs=3, perturbations=3, limit=200),
    )
    for way in ways:
        ball = study.eps(name, "l2", 0.04)
        place = study.out / name / f"{type(way).__name__.lower()}-{digest([repr(way), repr(SGA())])[:8]}"
        found = way(classifier, data, mr.Untargeted(), ball, method=SGA(), folder=place)
        lines = [
            [
                str(r.number),
                share(r.accuracy),
                share(r.fresh.fooling),
                share(r.fresh.strongest),
                "–" if r.old is None else share(r.old.fooling),
                "–" if r.first is None else share(r.first.fooling),
                share(r.control.fooling),
            ]
            for r in found.rounds
        ]
        head = (
            "round",
            "accuracy, untouched",
            "Rf of fresh ones",
            "strongest of them",
            "of the round before",
            "of the start",
            "random",
        )
        table(f"**{way.title}** (PneumoniaMNIST, p = 2, zeta = 4 %, {way!r})", head, lines)
        print(f"\n{found.verdict}")


PARTS: dict[str, Callable[[Study], None]] = {
    "main-4": main_4,
    "main-2": partial(main_table, norm="l2", zeta=0.02),
    "again": again,
    "zeta": zeta,
    "number": number,
    "natural": natural,
    "sources": sources,
    "transfer": transfer,
    "sequential": sequential,
    "black-box": black_box,
    "defence": defence,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("parts", nargs="*", type=one_of(PARTS), default=list(PARTS))
    asked = parser.parse_args()
    study = Study(asked.data, asked.out)
    for part in asked.parts:
        PARTS[part](study)


if __name__ == "__main__":
    main()
