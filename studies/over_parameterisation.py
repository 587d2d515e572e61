"""Are large networks, fine-tuned ones and those of many classes more fragile? Ma et al. 2020, on many networks.

    python studies/over_parameterisation.py DATA OUT [PART …] [--tables] [--figure FILE.png]

DATA is a folder with chest_xray/, fundus/, skin/ (tables labels.csv), pneumoniamnist.npz and weights/; OUT takes one
folder a network and the cells, so that a killed study goes on. PART: size, start, matched, classes; all by default.
--tables prints those of the networks that are there.
Within a part all networks of a set learn from the same training images with the same recipe. "matched" networks are
those of the epoch whose validation balanced accuracy is nearest to the set's target, "best" ones those of the best.
Duration: about 10 s of one undisturbed core a network in part size (180 of them), 30 s in start (4, trained elsewhere)
and 20 s in classes (35); matched: 6 from scratch with 100 s, and 6 fine-tuned with up to 100 s.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from names import one_of

import medrobust as mr
from medrobust import stats
from medrobust.attacks import PGD
from medrobust.data import Dataset
from medrobust.experiments.claims import more_often
from medrobust.experiments.fragility import MEASURES, Fragility, FragilityConfig, fragility, trained
from medrobust.stats import Estimate
from medrobust.store import Store
from medrobust.training.recipe import MATCHED

SIZES = {
    **{f"small_cnn:width={w}": 5 for w in (2, 4, 8, 16, 32, 64)},
    **{f"small_cnn:width={w}:depth={d}": 5 for w, d in ((8, 4), (16, 2), (16, 4))},
}
"""Architecture to the number of seeds."""
MOBILENET = {"mean": (0.5,), "std": (0.5,)}
WEIGHTS = "{}/weights/mobilenetv2_100_imagenet.safetensors"
TARGETS = {"pneumonia": 0.87, "chest32": 0.85}
FUNDUS = ("normal", "diabetic_retinopathy", "cataract", "glaucoma")
SKIN = ("nv", "mel", "bcc", "akiec", "bkl")
RARE = ("df", "vasc")


@dataclass(frozen=True)
class Network:
    """One training. data: a name of ``images``; classes: those it is to tell apart, all of them by default."""

    part: str
    data: str
    model: str
    seed: int
    variant: str
    each: int
    """Training images a class."""
    classes: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        words = (self.part, self.data, self.model.replace(":", "_"), "-".join(self.classes), self.variant, self.seed)
        return "/".join(str(w) for w in words if w != "")


def networks(part: str) -> Iterator[Network]:
    """Seed by seed, so that a study that is cut short has all kinds of networks."""
    if part == "size":
        yield from (n for data in ("pneumonia", "chest32") for seed in range(5) for n in sizes(data, seed))
    else:
        yield from (
            n for seed in range(5) for n in {"start": starts, "matched": matched, "classes": classes}[part](seed)
        )


def sizes(data: str, seed: int) -> Iterator[Network]:
    for model, seeds in SIZES.items():
        for variant, target in (("matched", TARGETS[data]), ("best", None)):
            if seed < seeds:
                options = {"epochs": 12, "patience": None, "target": target}
                yield Network("size", data, model, seed, variant, 400, (), options)


def starts(seed: int) -> Iterator[Network]:
    """One network each, trained until it is good: those of the other studies. Their accuracies differ."""
    for data, tuned, scratch in (("chest128", 4, 10), ("fundus128", 5, 12)):
        for variant, epochs in (("fine-tuned", tuned), (SCRATCH, scratch)):
            if seed == 0:
                yield Network("start", data, "mobilenetv2_100", seed, variant, 10**6, (), {"epochs": epochs})


SCRATCH, MATCHED_TUNED = "from scratch", "fine-tuned, matched"


def matched(seed: int) -> Iterator[Network]:
    """Pairs: the fine-tuned one learns slowly, until its validation accuracy is that of the one from scratch."""
    for data in ("chest64", "fundus64") if seed < 3 else ():
        for variant, options in ((SCRATCH, {}), (MATCHED_TUNED, {"lr": 5e-5})):
            yield Network(
                "matched",
                data,
                "mobilenetv2_100",
                seed,
                variant,
                10**6,
                (),
                {"epochs": 10, "patience": None, **options},
            )


def classes(seed: int) -> Iterator[Network]:
    """Sets of classes with one seed each, the full ones with three; every number of classes in turn."""
    fundus = [itertools.combinations(FUNDUS, k) for k in (4, 3, 2)]
    for some in filter(None, itertools.chain(*itertools.zip_longest(*fundus))):
        if seed < (3 if len(some) == 4 else 1):
            options = {"epochs": 3, "patience": None}
            yield Network("classes", "fundus64", "mobilenetv2_100", seed, "fine-tuned", 150, some, options)
    # every second set of two or three, so that each class is in as many of them
    skin = [list(itertools.combinations(SKIN, k))[:: 2 if k < 4 else 1] for k in (4, 3, 2, 5)]
    for some in [*filter(None, itertools.chain(*itertools.zip_longest(*skin))), (*SKIN, *RARE)]:
        if seed < (3 if len(some) > 4 else 1):
            options = {"epochs": 4, "patience": None}
            yield Network("classes", "skin64", "mobilenetv2_100", seed, "fine-tuned", 70, some, options)


@cache
def images(name: str, root: Path) -> Dataset:
    if name == "pneumonia":
        return mr.data.load(f"medmnist:{root}/pneumoniamnist.npz")
    kind = name.rstrip("0123456789")
    folder, size = {"chest": "chest_xray"}.get(kind, kind), int(name.removeprefix(kind))
    label = "diagnosis" if folder == "skin" else "label"
    return mr.data.load(f"csv:{root}/{folder}/labels.csv", size=size, label=label)


def seen(network: Network, root: Path) -> Dataset:
    """What it learns from and is tested on."""
    data = images(network.data, root)
    if network.classes:
        data = data.of_classes(network.classes)
    return data.train_on(network.each, 0)


def make(network: Network, root: Path, out: Path) -> mr.Classifier:
    options = dict(network.options)
    if network.variant.startswith("fine-tuned"):
        options |= MOBILENET | {"pretrained": WEIGHTS.format(root)}
    if network.variant == MATCHED_TUNED:
        options["target"] = reached(
            make(replace(network, variant=SCRATCH, options={"epochs": 10, "patience": None}), root, out)
        )
    data = seen(network, root)
    return trained(out / network.name, data, network.model, seed=network.seed, device="cpu", **options)


ASKS = {
    "size": FragilityConfig(attack=PGD(steps=10), ball=mr.Linf(8 / 255), limit=120),
    "start": FragilityConfig(attack=PGD(steps=10), ball=mr.Linf(1 / 255), limit=60),
    "matched": FragilityConfig(attack=PGD(steps=10), detector=None, limit=100),
    "classes": FragilityConfig(attack=PGD(steps=10), detector=None, limit=60),
}
"""The detector's attack succeeds on nearly every image at these eps."""


def reached(classifier: mr.Classifier) -> float:
    """Validation balanced accuracy of the epoch that was kept."""
    return float(classifier.provenance["validation"]["balanced_accuracy"])


@dataclass(frozen=True)
class Made:
    """A network and what was measured of it."""

    network: Network
    validation: float
    """Balanced accuracy of the epoch that was kept."""
    told: Fragility

    @property
    def min_eps(self) -> float:
        """Median eps*, in /255."""
        return self.told.median.value * 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("parts", nargs="*", type=one_of(ASKS), default=list(ASKS))
    parser.add_argument("--tables", action="store_true", help="leave out networks that are not trained yet")
    parser.add_argument("--figure", type=Path, help="where the figure of part size goes (.png)")
    asked = parser.parse_args()
    store = Store(asked.out)
    for part in asked.parts:
        made = []
        for network in networks(part):
            if asked.tables and not (asked.out / network.name / "model" / "model.json").is_file():
                continue
            print(network.name, file=sys.stderr, flush=True)
            classifier = make(network, asked.data, asked.out)
            told = fragility(store, classifier, seen(network, asked.data), ASKS[part])
            made.append(Made(network, reached(classifier), told))
        {"size": print_size, "start": print_start, "matched": print_matched, "classes": print_classes}[part](made)
        if part == "size" and asked.figure:
            draw_size(made, asked.figure)


# -- tables ----------------------------------------------------------------------------------------------


def line(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |")


def head(*cells: str) -> None:
    line(*cells)
    print("|---" * len(cells) + "|")


def number(e: Estimate, form: str = ".2f") -> str:
    if not np.isfinite(e.value):
        return "–" if np.isnan(e.value) else "above the grid"
    if np.isnan(e.low):
        return f"{e.value:{form}}"
    return f"{e.value:{form}} ({e.low:{form}} to {e.high:{form}})"


def grouped(made: Iterable[Made], by: Callable[[Made], Any]) -> dict[Any, list[Made]]:
    out: dict[Any, list[Made]] = {}
    for m in made:
        out.setdefault(by(m), []).append(m)
    return out


def over(made: list[Made], value: Callable[[Made], float]) -> Estimate:
    """Mean over networks with Student's interval, which two networks are too few for; n networks."""
    e = stats.mean([v for v in map(value, made) if np.isfinite(v)])
    return e if e.n > 2 else Estimate(e.value, np.nan, np.nan, e.n)


def unmatched(made: list[Made], target: float) -> list[Made]:
    return [m for m in made if abs(m.validation - target) > MATCHED]


def print_missed(made: list[Made], target: float) -> list[Made]:
    left = unmatched(made, target)
    names = [f"{m.network.model} {m.network.variant} seed {m.network.seed} ({m.validation:.1%})" for m in left]
    print(f"\nMore than {MATCHED:.0%} from the target {target:.0%}: {len(left)} of {len(made)}: {'; '.join(names)}")
    return left


QUANTITIES: dict[str, Callable[[Made], float]] = {
    "median eps* (/255)": lambda m: m.min_eps,
    "slope of the lead (logits per 1/255)": lambda m: m.told.measures["margin-slope"].value,
    "lead (logits)": lambda m: m.told.measures["margin"].value,
    "lead over slope (/255)": lambda m: m.told.measures["linear-eps"].value,
    "slope of the loss (nats per 1/255)": lambda m: m.told.measures["slope-l1"].value,
    "AUROC of the detector": lambda m: m.told.auroc.value,
    "test accuracy": lambda m: m.told.accuracy.value,
}


def print_size(made: list[Made]) -> None:
    for (data, variant), those in grouped(made, lambda m: (m.network.data, m.network.variant)).items():
        target = TARGETS[data] if variant == "matched" else None
        print(f"\n{data}, {variant}: means over seeds with Student's 95 % interval\n")
        head("network", "weights", "seeds", "validation, balanced", *QUANTITIES)
        for model, same in grouped(those, lambda m: m.network.model).items():
            cells = [number(over(same, value), ".3f") for value in QUANTITIES.values()]
            reached = f"{np.mean([m.validation for m in same]):.1%}"
            line(model, f"{same[0].told.parameters:,}", str(len(same)), reached, *cells)
        if target is not None:
            print_correlations("all", those)
            left = print_missed(those, target)
            print_correlations("matched", [m for m in those if m not in left])
        else:
            print_correlations("all", those)


def print_correlations(which: str, made: list[Made]) -> None:
    size = [m.told.parameters for m in made]
    whose = [m.network.model for m in made]
    accuracy = [m.told.accuracy.value for m in made]
    print(f"\nSpearman with the number of weights, {which} networks (n = {len(made)}), bootstrap over architectures\n")
    head("quantity", "rho", "rho, test accuracy taken out")
    for name, value in QUANTITIES.items():
        values = [value(m) for m in made]
        plain, partial = (stats.spearman(size, values, whose, given=g) for g in (None, accuracy))
        line(name, number(plain), "–" if name == "test accuracy" else number(partial))


def print_start(made: list[Made]) -> None:
    print("\nMobileNetV2, 128 px, fine-tuned from ImageNet and from scratch, one network each; intervals over images\n")
    head("set", "network", "test accuracy", "median eps* (/255)", *MEASURES, "AUROC of the detector")
    for m in made:
        t = m.told
        min_eps = Estimate(*(255 * v for v in t.median[:3]), t.median.n)
        cells = [number(e, ".3g") for e in (t.accuracy, min_eps, *(t.measures[k] for k in MEASURES), t.auroc)]
        line(m.network.data, m.network.variant, *cells)
    for data, pair in grouped(made, lambda m: m.network.data).items():
        if len(pair) == 2:
            tuned, scratch = (np.where(m.told.min_eps > 0, m.told.min_eps, np.nan) for m in pair)
            more = more_often(tuned, scratch, pair[0].told.whose, pair[1].told.whose)
            print(f"\n{data}: an image of the fine-tuned network has the larger eps*: {number(more)}, n = {more.n}")


def print_matched(made: list[Made]) -> None:
    print("\nMobileNetV2, 64 px, from scratch and fine-tuned until it is as accurate on validation images\n")
    head(
        "set",
        "seed",
        "network",
        "validation accuracy",
        "test accuracy",
        "median eps* (/255)",
        *MEASURES,
        "larger eps* in so many pairs",
    )
    shares: dict[str, list[float]] = {}
    for (data, seed), pair in grouped(made, lambda m: (m.network.data, m.network.seed)).items():
        by = {m.network.variant: m for m in pair}
        if len(by) < 2:
            continue
        tuned, scratch = by[MATCHED_TUNED], by[SCRATCH]
        stars = [np.where(m.told.min_eps > 0, m.told.min_eps, np.nan) for m in (tuned, scratch)]
        more = more_often(*stars, tuned.told.whose, scratch.told.whose)
        shares.setdefault(data, []).append(more.value)
        for m in (scratch, tuned):
            t = m.told
            min_eps = Estimate(*(255 * v for v in t.median[:3]), t.median.n)
            cells = [number(e, ".3g") for e in (t.accuracy, min_eps, *(t.measures[k] for k in MEASURES))]
            line(data, str(seed), m.network.variant, f"{m.validation:.3f}", *cells, number(more) if m is tuned else "")
    for data, values in shares.items():
        print(
            f"\n{data}: the fine-tuned one's image has the larger eps* in {np.mean(values):.2f} of the pairs, mean of"
        )
        print(f"{len(values)} seeds ({min(values):.2f} to {max(values):.2f}).")


def print_classes(made: list[Made]) -> None:
    for data, those in grouped(made, lambda m: m.network.data).items():
        print(f"\n{data}, MobileNetV2 fine-tuned: means over networks with Student's 95 % interval\n")
        head(
            "classes",
            "networks",
            "training images a class",
            "clean accuracy",
            "median eps* (/255)",
            "lead over slope (/255)",
            *(f"accuracy kept at {e:g}/255" for e in KEPT),
        )
        for k, same in grouped(those, lambda m: len(m.network.classes)).items():
            each = "70, of the two rare ones all there are" if k == 7 else str(same[0].network.each)
            cells = [
                number(over(same, v), ".3f")
                for v in (lambda m: m.told.accuracy.value, lambda m: m.min_eps, QUANTITIES["lead over slope (/255)"])
            ]
            kept = [number(over(same, lambda m, e=e: m.told.kept(e / 255).value), ".3f") for e in KEPT]
            line(str(k), str(len(same)), each, *cells, *kept)
        even = [m for m in those if len(m.network.classes) < 7]
        k, whose = [len(m.network.classes) for m in even], ["-".join(m.network.classes) for m in even]
        min_eps = stats.spearman(k, [m.min_eps for m in even], whose)
        print(
            f"\nSpearman of the number of classes (not 7) with median eps*: {number(min_eps)}, "
            f"n = {min_eps.n} networks,"
        )
        print("bootstrap over sets of classes; with the accuracy kept:")
        for e in KEPT:
            print(f"  at {e:g}/255 {number(stats.spearman(k, [m.told.kept(e / 255).value for m in even], whose))}")


KEPT = (0.1, 0.2, 0.3, 0.5)


PICTURED = {"pneumonia": "PneumoniaMNIST, 28 px", "chest32": "chest X-ray, 32 px"}
LOOKS = {"matched": ("#0072b2", "o", "matched accuracy"), "best": ("#d55e00", "^", "best epoch")}
"""Okabe & Ito 2008."""


def draw_size(made: list[Made], path: Path) -> None:
    """Median eps* against the number of weights; a mark a network, hollow where the target was missed."""
    import matplotlib
    from matplotlib.figure import Figure

    titles = {d: t for d, t in PICTURED.items() if any(m.network.data == d for m in made)}
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4.2 * len(titles), 3.4), dpi=130, layout="constrained")
        columns = figure.subplots(1, len(titles), squeeze=False)[0]
        for axes, (data, title) in zip(columns, titles.items(), strict=True):
            for variant, (colour, marker, label) in LOOKS.items():
                those = [m for m in made if (m.network.data, m.network.variant) == (data, variant)]
                left = unmatched(those, TARGETS[data]) if variant == "matched" else []
                for some, fill, word in (
                    ([m for m in those if m not in left], colour, label),
                    (left, "none", "target missed"),
                ):
                    if some:
                        x, y = [m.told.parameters for m in some], [m.min_eps for m in some]
                        axes.scatter(
                            x,
                            y,
                            s=20,
                            marker=marker,
                            edgecolors=colour,
                            facecolors=fill,
                            linewidths=1,
                            alpha=0.75,
                            label=f"{word} (n = {len(some)})",
                        )
            axes.set(xscale="log", title=title, xlabel="weights", ylabel="median eps* of PGD (/255)", ylim=(0, None))
            axes.legend(frameon=False, fontsize=8)
        figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main()
