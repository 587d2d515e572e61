"""Why medical models break: saliency, representation, loss landscape, Ma et al. 2020, as measured claims.

    python studies/explanations.py DATA OUT [NAME …] [--figures DIR]

DATA is a folder with chest_xray/, skin/, fundus/, natural/ (tables labels.csv), pneumoniamnist.npz,
cifar10_test3000.npz and weights/; OUT takes one run folder a set: OUT/NAME/model is used where it is there, else
trained first. Everything finished is kept, so that a killed study goes on. NAME picks some of the sets. Medical sets of
128 px are held against natural images of 128 px in the same architecture, PneumoniaMNIST against CIFAR-10. All images
are ones that the classifier gets right, one a patient.
Duration: about 3 minutes of one undisturbed core for each set of 128 px and 2 for each small one, training not
included. Prints docs/results-explain.md.

To expect on chest X-rays, n = 100: median eps* 0.142/255; a grey level in the worst direction raises the loss by
1.7 nats, at random by 0.001; the slope of the loss foretells eps* (Spearman -0.96), how widely it is spread does not
(0.10); the attack moves the centre of Grad-CAM by 4.5 % of the diagonal, noise of its size by 1.5 %.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from names import one_of

import medrobust as mr
from medrobust import atomic, explain, stats
from medrobust.attacks import PGD
from medrobust.data import Dataset
from medrobust.experiments import ask
from medrobust.experiments.claims import CLAIMS, MIN_EPS, foretells, measured_min_eps, more_often, verdict
from medrobust.experiments.context import Context
from medrobust.experiments.explanation import Explanation
from medrobust.experiments.explanation_config import ExplanationConfig
from medrobust.experiments.system import assemble, given
from medrobust.explain import MEASURES
from medrobust.progress import NoProgress
from medrobust.run_folder import RunFolder
from medrobust.stats import Estimate
from medrobust.store import Store

MOBILENET = [
    "--size",
    "128",
    "--model",
    "mobilenetv2_100",
    "--pretrained",
    "{}/weights/mobilenetv2_100_imagenet.safetensors",
    "--mean",
    "0.5",
    "--std",
    "0.5",
]
CIFAR = "{}/weights/cifar10_resnet%s.th"
SETS: dict[str, dict[str, Any]] = {
    "chest": {
        "title": "chest X-ray, 128 px",
        "data": "csv:{}/chest_xray/labels.csv",
        "size": 128,
        "train": [*MOBILENET, "--epochs", "4"],
        "against": "natural",
        "second": "chest_scratch",
    },
    "skin": {
        "title": "skin, 128 px",
        "data": "csv:{}/skin/labels.csv",
        "size": 128,
        "train": [*MOBILENET, "--epochs", "5"],
        "against": "natural",
    },
    "fundus": {
        "title": "fundus, 128 px",
        "data": "csv:{}/fundus/labels.csv",
        "size": 128,
        "train": [*MOBILENET, "--epochs", "5"],
        "against": "natural",
    },
    "natural": {
        "title": "ImageNet (natural), 128 px",
        "data": "csv:{}/natural/labels.csv",
        "size": 128,
        "label": "index",
        "model": "mobilenetv2_100",
        "mean": (0.5,) * 3,
        "std": (0.5,) * 3,
        "weights": "{}/weights/mobilenetv2_100_imagenet.safetensors",
    },
    "pneumonia": {
        "title": "PneumoniaMNIST, 28 px",
        "data": "medmnist:{}/pneumoniamnist.npz",
        "train": ["--epochs", "5"],
        "against": "cifar",
    },
    "cifar": {
        "title": "CIFAR-10 (natural), 32 px",
        "data": "medmnist:{}/cifar10_test3000.npz",
        "model": "cifar_resnet20",
        "weights": CIFAR % "20-12fca82f",
        "second": ("cifar_resnet56", CIFAR % "56-4bfd9763"),
    },
    "phantom": {
        "title": "phantom chest X-ray, 64 px (masks)",
        "data": "phantom:chest@64",
        "size": 64,
        "train": ["--epochs", "6"],
    },
}
SCRATCH = {"chest_scratch": ("chest", 10)}
IMAGES, SURFACES, SEED = 100, 8, 0
STEPS = 10
"""Of the sweep for eps*."""
DEAR = ("curvature", "integrated-gini", "integrated-half", "smooth-gini", "smooth-half")
"""Dozens of gradients an image: at 128 px on the first DEAR_IMAGES only."""
DEAR_IMAGES = 24
LAYERS = ("relative-rank", "spectral-entropy", "spatial-entropy")


@dataclass
class Told:
    """What was found on one set. numbers: see ``study``."""

    about: dict[str, Any]
    facts: dict[str, Any]
    rows: list[dict[str, Any]]
    numbers: dict[str, np.ndarray]

    @property
    def image(self) -> dict[str, np.ndarray]:
        """One number an image of everything (see ``Explanation``)."""
        return {k.removeprefix("image."): v for k, v in self.numbers.items() if k.startswith("image.")}

    @property
    def min_eps(self) -> np.ndarray:
        return self.numbers[MIN_EPS]

    @property
    def noise(self) -> np.ndarray:
        """Shift of Grad-CAM under noise of the attack's size."""
        return self.image["cam-shift.noise"]

    @property
    def whose(self) -> np.ndarray:
        """One image a patient: each stands for itself."""
        return np.arange(len(self.min_eps))

    @property
    def name(self) -> str:
        return str(self.about["title"])

    @property
    def surface(self) -> np.ndarray:
        """Loss (n, 17, 17) over the plane of the gradient's sign and a random one."""
        return self.numbers["landscape.random"]

    def row(self, metric: str) -> Estimate:
        """Of attacked images beside clean ones, in the last features."""
        found = next((r for r in self.rows if (r["metric"], r.get("of")) == (metric, "attacked")), None)
        if found is None or found["value"] is None:
            return stats.NOTHING
        return Estimate(found["value"], found["low"], found["high"], found["n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("names", nargs="*", type=one_of(SETS), default=list(SETS))
    parser.add_argument("--tables", action="store_true", help="only print those of what is finished")
    parser.add_argument("--figures", type=Path, help="folder for saliency.png and landscape.png")
    asked = parser.parse_args()
    told = {}
    for name in asked.names:
        if not asked.tables:
            print(name, file=sys.stderr, flush=True)
            study(name, asked.data, asked.out)
        found = read(name, asked.out)
        if found is not None:
            told[name] = found
    print_sets(told)
    print_statistics(told)
    print_layers(told)
    print_attack(told)
    print_lesions(told)
    print_foretelling(told)
    print_claims(told)
    if asked.figures:
        draw_saliency(told, asked.figures / "explain-saliency.png")
        draw_landscape(told, asked.figures / "explain-landscape.png")


def subject(name: str, data: Path, out: Path) -> tuple[mr.Classifier, Dataset]:
    """A classifier and its test images."""
    about = SETS[name]
    where = about["data"].format(data)
    if "weights" in about:
        options = {k: about[k] for k in ("label", "size", "mean", "std") if k in about}
        spec = ask(data=where, model=about["model"], weights=about["weights"].format(data), **options)
        found = assemble(spec, None, NoProgress())
        return found.classifier, found.test
    train(out / name, where, about["train"], data)
    return mr.Classifier.load(out / name / "model"), mr.data.load(where, size=about.get("size")).split("test")


def train(folder: Path, where: str, options: list[str], data: Path) -> None:
    RunFolder.join(folder).entry("model")
    options = [o.format(data) for o in options]
    command = [sys.executable, "-m", "medrobust.cli", "train", str(folder / "model"), "--data", where, *options]
    subprocess.run(command, check=True, stdout=sys.stderr)


def second(name: str, data: Path, out: Path) -> mr.Classifier | None:
    """The independently trained classifier of the published plane, where there is one."""
    about = SETS[name]
    other = about.get("second")
    if other in SCRATCH:
        whose, epochs = SCRATCH[other]
        options = ["--size", "128", "--model", "mobilenetv2_100", "--epochs", str(epochs)]
        train(out / other, SETS[whose]["data"].format(data), options, data)
        return mr.Classifier.load(out / other / "model")
    if other:
        spec = ask(data=about["data"].format(data), model=other[0], weights=other[1].format(data))
        return assemble(spec, None, NoProgress()).classifier
    return None


def study(name: str, data: Path, out: Path) -> None:
    """One set, to OUT/NAME/told.json and told.safetensors."""
    from safetensors.numpy import save

    classifier, test = subject(name, data, out)
    small = SETS[name].get("size") is None
    names = tuple(m for m in MEASURES if small or m not in DEAR)
    config = ExplanationConfig(measures=names, limit=SETS[name].get("images", IMAGES), surfaces=SURFACES)
    other = second(name, data, out)
    context = Context(given(test, classifier), ask(data=test.name, eps=(1 / 255,), seed=SEED), Store(out / name))
    made = Explanation(context, config, second=None if other is None else lambda: other)
    outcome = made.outcome()
    arrays = {f"image.{k}": v for k, v in made.numbers.items()} | made.arrays
    if not small:
        arrays |= {f"image.{k}": values for k, values in dear(made).items()}
    numbers = arrays | {MIN_EPS: measured_min_eps(made.twins, PGD(steps=STEPS), mr.threat.Linf)}
    atomic.write_bytes(out / name / "told.safetensors", save({k: np.ascontiguousarray(v) for k, v in numbers.items()}))
    told = {"facts": outcome.conditions["explained"]["0"], "rows": outcome.rows.plain()}
    atomic.write_bytes(out / name / "told.json", json.dumps(told).encode())


def dear(made: Explanation) -> dict[str, np.ndarray]:
    """DEAR of the first images; NaN for the others."""
    twins, classifier = made.twins, made.classifier

    def measured(part: Dataset) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        found = explain.measure(classifier, part, torch.from_numpy(part.labels), DEAR, ids=part.ids, seed=SEED)
        return {}, {name: values.numpy() for name, values in found.items()}

    parts = list(twins.shards(DEAR_IMAGES))
    found = [twins.store.once(twins.key(p, kind="dear", names=DEAR), lambda p=p: measured(p)).arrays for p in parts]
    rest = np.full(len(twins) - sum(map(len, parts)), np.nan)
    return {name: np.concatenate([*(f[name] for f in found), rest]) for name in DEAR}


def read(name: str, out: Path) -> Told | None:
    from safetensors.numpy import load_file

    file = out / name / "told.json"
    if not file.is_file():
        return None
    found = json.loads(file.read_text())
    return Told(SETS[name], found["facts"], found["rows"], load_file(file.with_suffix(".safetensors")))


# -- tables ----------------------------------------------------------------------------------------------

Tolds = dict[str, Told]


def line(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |")


def head(*cells: str) -> None:
    line(*cells)
    print("|---" * len(cells) + "|")


def number(e: Estimate, form: str = ".3g") -> str:
    if np.isnan(e.value):
        return "–"
    return f"{e.value:{form}} ({e.low:{form}} to {e.high:{form}})"


def middle(values: np.ndarray) -> str:
    """Median with its interval, and n where some are missing."""
    text, n = number(stats.median(known(values))), len(known(values))
    return text if n == len(values) else f"{text}, n = {n}"


def print_sets(told: Tolds) -> None:
    print("\nImages that are classified right, one a patient; the attack is PGD with 20 steps at 1/255\n")
    head("set", "network", "clean accuracy", "images", "attacked with success", "median eps* (/255)")
    for t in told.values():
        line(
            t.name,
            t.facts["architecture"],
            f"{t.facts['accuracy']:.1%}",
            str(t.facts["n"]),
            str(t.facts["reached"]),
            number(stats.median(t.min_eps * 255)),
        )


def print_statistics(told: Tolds) -> None:
    print("\nMedian over images with its 95 % interval\n")
    head("measure", "unit", *(t.name for t in told.values()))
    for name, about in measured_somewhere(told).items():
        line(about.title, about.unit, *(middle(t.image[name]) if name in t.image else "–" for t in told.values()))
    for along, at in (("gradient", (-1, 0)), ("random", (0, -1))):
        cells = []
        for t in told.values():
            rise = t.surface[:, at[0], at[1]] - t.surface[:, 0, 0]
            cells.append(f"{middle(rise)}, n = {len(rise)}")
        line(f"Rise of the loss along {along} signs, 8/255", "nats", *cells)


def measured_somewhere(told: Tolds) -> dict[str, explain.Measure]:
    return {k: m for k, m in MEASURES.items() if any(k in t.image for t in told.values())}


def print_layers(told: Tolds) -> None:
    print("\nHow simple each layer's view is: median over images, before and after the attack; from the pixels on\n")
    head("set", "layer", *(f"{k}, {when}" for k in LAYERS for when in ("clean", "attacked")))
    for t in told.values():
        for layer in t.facts["layers"]:
            cells = [t.image[f"{k}@{layer}.{when}"] for k in LAYERS for when in ("clean", "attacked")]
            line(t.name, layer, *map(middle, cells))


def print_attack(told: Tolds) -> None:
    print(
        "\nUnder the attack: how far the centre of Grad-CAM moves (share of the diagonal, median), and whether attacked"
    )
    print("images lie apart from clean ones in the last features (linear probe, 0.5 is chance; silhouette)\n")
    head(
        "set",
        "attacked",
        "noise of the same size",
        "an attacked one moves further than a noisy one",
        "probe: clean or attacked",
        "silhouette",
    )
    for t in told.values():
        shift = t.image["cam-shift.change"]
        further = more_often(shift, t.noise, t.whose, t.whose)
        line(
            t.name, middle(shift), middle(t.noise), number(further), number(t.row("probe")), number(t.row("silhouette"))
        )


MAPS = {"gradient": "input gradient", "integrated": "integrated gradients", "smooth": "SmoothGrad", "cam": "Grad-CAM"}


def print_lesions(told: Tolds) -> None:
    for t in told.values():
        if "lesion-area.clean" not in t.image:
            continue
        area = t.image["lesion-area.clean"]
        size = number(stats.mean(area[area > 0]))
        print(f"\n{t.name}: agreement with the true lesion, means; area of the lesion: {size}\n")
        head("map", "when", "largest value in the lesion", "AUROC of the pixels", "share of the mass", "n")
        for name, title in MAPS.items():
            for when in ("clean", "attacked"):
                point, under, share = (known(t.image[f"lesion-{k}-{name}.{when}"]) for k in ("point", "auroc", "share"))
                cells = [stats.proportion(point > 0.5), stats.mean(under), stats.mean(share)]
                line(title, when, *map(number, cells), str(len(point)))


def known(values: np.ndarray) -> np.ndarray:
    return values[~np.isnan(values)]


def print_foretelling(told: Tolds) -> None:
    print("\nWhich explanation foretells fragility: Spearman with eps*, bootstrap over images (one a patient)\n")
    head("measure", *(f"{t.name} (n = {len(t.min_eps)})" for t in told.values()))
    found = [foretells({k: t.image[k] for k in MEASURES if k in t.image}, t.min_eps, t.whose) for t in told.values()]
    for name in sorted(measured_somewhere(told), key=lambda k: -abs(np.nanmean([f[k].value for f in found if k in f]))):
        line(MEASURES[name].title, *(number(f.get(name, stats.NOTHING), ".2f") for f in found))


def print_claims(told: Tolds) -> None:
    print("\nClaims: how often a medical image has the larger number, against a natural one (0.5: no difference)\n")
    pairs = [(t, told[t.about["against"]]) for t in told.values() if t.about.get("against") in told]
    names = [f"{t.name} (n = {len(t.min_eps)} + {len(o.min_eps)})" for t, o in pairs]
    head("claim", "measured by", "claimed", *names, "verdict")
    before = ""
    for claim in CLAIMS:
        found = []
        for t, o in pairs:
            x, y = (who.min_eps if claim.name == MIN_EPS else who.image.get(claim.name) for who in (t, o))
            found.append(stats.NOTHING if x is None or y is None else more_often(x, y, t.whose, o.whose))
        told_of = [f"{number(e, '.2f')} {verdict([e], claim.more)}" for e in found]
        cells = ["not measured" if np.isnan(e.value) else t for e, t in zip(found, told_of, strict=True)]
        some = [e for e in found if not np.isnan(e.value)]
        text = "the same" if claim.text == before else claim.text
        line(text, claim.by, claim.words, *cells, f"**{verdict(some, claim.more)}**")
        before = claim.text


# -- figures ---------------------------------------------------------------------------------------------


def draw_saliency(told: Tolds, path: Path) -> None:
    """The gradient of the loss at six images a set: one scale of colours for all.

    The images are not drawn: the figure is committed, and their licences do not all allow that.
    """
    from matplotlib.figure import Figure
    from PIL import Image

    some = list(told.values())
    figure = Figure(figsize=(8.4, 1.3 * len(some) + 0.3), dpi=75, layout="constrained")
    axes = figure.subplots(len(some), 6, squeeze=False)
    # log10 of nats per grey level of a pixel
    maps = [
        (np.log(t.numbers["gallery.gradient"][:6]) + t.numbers["gallery.log-scale"][:6, None, None] - np.log(255))
        / np.log(10)
        for t in some
    ]
    high = float(np.quantile(np.concatenate([m.ravel() for m in maps]), 0.999))
    for row, t, found in zip(axes, some, maps, strict=True):
        for a in row:
            a.set(xticks=[], yticks=[])
        for a, one in zip(row, found, strict=False):
            shown = a.imshow(one, cmap="cividis", vmin=high - DECADES, vmax=high)
        row[0].set_ylabel(t.name.partition(",")[0].replace(" (natural)", ""), fontsize=9)
    bar = figure.colorbar(shown, ax=axes, shrink=0.8, label="gradient of the loss, log10 (nats per 1/255)")
    bar.ax.tick_params(labelsize=8)
    figure.savefig(path, metadata={"Software": None})
    Image.open(path).convert("RGB").quantize(32).save(path, optimize=True)  # noise does not compress


DECADES = 3


def draw_landscape(told: Tolds, path: Path) -> None:
    """Median loss over the plane of the gradient's sign and a random one; one scale for all."""
    from matplotlib.figure import Figure

    some = list(told.values())
    planes = [np.median(t.surface, 0) for t in some]
    columns = -(-len(some) // 2)
    figure = Figure(figsize=(2.5 * columns + 0.6, 5.0), dpi=110, layout="constrained")
    axes = figure.subplots(2, columns, sharex=True, sharey=True).ravel()
    levels = [-4, -3, -2, -1, 0, 1, 2]
    for a, t, z in zip(axes, some, planes, strict=False):
        grid = np.array(explain.GRID) * 255
        logs = np.log10(np.maximum(z, 1e-6))
        shown = a.contourf(grid, grid, logs.T, levels=levels, cmap="cividis", extend="both")
        a.contour(grid, grid, logs.T, levels=[np.log10(np.log(2))], colors="white", linewidths=1.2)
        a.set_title(f"{t.name} (n = {len(t.surface)})", fontsize=8)
    for a in axes[len(some) :]:
        a.set_visible(False)
    figure.supxlabel("along the sign of the gradient (/255)", fontsize=9)
    figure.supylabel("along random signs (/255)", fontsize=9)
    figure.colorbar(shown, ax=axes.tolist(), label="median cross-entropy, log10 (nats); white line: ln 2", shrink=0.8)
    figure.savefig(path, metadata={"Software": None})


if __name__ == "__main__":
    main()
