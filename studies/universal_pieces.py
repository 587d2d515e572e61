"""Classifiers, perturbations and judgements of studies/universal_perturbations.py: each computed once and kept."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import medrobust as mr
from medrobust.experiments.config import digest
from medrobust.experiments.system import groups
from medrobust.images import Lazy
from medrobust.progress import NoProgress
from medrobust.run_folder import RunFolder
from medrobust.store import Store
from medrobust.threat import BALLS, Ball, Goal
from medrobust.training import Pixels
from medrobust.universal import SGA, Universal, UniversalMethod, UniversalOutcome, Varied

VERSION = 1
CRAFT, JUDGED = 400, 300
"""Images a perturbation is made from, and held-out test images it is judged on."""
WEIGHTS = ("--pretrained", "{}/weights/mobilenetv2_100_imagenet.safetensors", "--mean", "0.5", "--std", "0.5")
SETS = {
    "chest": ("--data", "csv:{}/chest_xray/labels.csv", "--size", "128"),
    "skin": ("--data", "csv:{}/skin/labels.csv", "--size", "128"),
    "fundus": ("--data", "csv:{}/fundus/labels.csv", "--size", "128"),
    "skin7": ("--data", "csv:{}/skin/labels.csv", "--label", "diagnosis", "--size", "128"),
    "skin7_again": ("--data", "csv:{}/skin/labels.csv", "--label", "diagnosis", "--size", "128", "--seed", "1"),
    "fundus_again": ("--data", "csv:{}/fundus/labels.csv", "--size", "128", "--seed", "1"),
    "pneumonia": ("--data", "medmnist:{}/pneumoniamnist.npz"),
}
NETWORKS = {
    "chest": ("chest", "--model", "mobilenetv2_100", *WEIGHTS, "--epochs", "4"),
    "skin": ("skin", "--model", "mobilenetv2_100", *WEIGHTS, "--epochs", "5"),
    "fundus": ("fundus", "--model", "mobilenetv2_100", *WEIGHTS, "--epochs", "5"),
    "skin7": ("skin7", "--model", "mobilenetv2_100", *WEIGHTS, "--epochs", "8"),
    "skin7_again": ("skin7_again", "--model", "mobilenetv2_100", *WEIGHTS, "--epochs", "8"),
    "fundus_again": ("fundus_again", "--model", "mobilenetv2_100", *WEIGHTS, "--epochs", "5"),
    "chest_scratch": ("chest", "--model", "mobilenetv2_100", "--epochs", "10"),
    "fundus_scratch": ("fundus", "--model", "mobilenetv2_100", "--epochs", "12"),
    "chest_small": ("chest", "--model", "small_cnn", "--epochs", "10"),
    "pneumonia": ("pneumonia", "--model", "resnet18", "--epochs", "5"),
}
PHANTOMS = {"chest": "phantom:chest@128", "fundus": "phantom:fundus@128"}


class Study:
    """Classifiers, images and finished pieces of work of one OUT folder."""

    def __init__(self, data: Path, out: Path) -> None:
        self.data, self.out, self.store = data, out, Store(out)
        self.network, self.held, self.training = cache(self._network), cache(self._held), cache(self._training)
        self.loaded, self.named, self.eps = cache(self._loaded), cache(self._named), cache(self._eps)
        self.source, self.pixels = cache(self._source), cache(self._pixels)

    # -- classifiers and images ---------------------------------------------------------------------------

    def _network(self, name: str) -> mr.Classifier:
        folder = self.out / name / "model"
        options = [o.format(self.data) for o in (*SETS[NETWORKS[name][0]], *NETWORKS[name][1:])]
        command = [sys.executable, "-m", "medrobust.cli", "train", str(folder), *options]
        subprocess.run(command, check=True, stdout=sys.stderr)
        with RunFolder(folder, "train") as run:
            run.remove("training")
        return mr.Classifier.load(folder)

    def _loaded(self, name: str) -> mr.data.Dataset:
        asked = dict(zip(SETS[name][::2], SETS[name][1::2], strict=True))
        size = int(asked["--size"]) if "--size" in asked else None
        spec, seed = asked["--data"].format(self.data), int(asked.get("--seed", 0))
        return mr.data.load(spec, size=size, label=asked.get("--label", "label"), seed=seed)

    def _training(self, name: str) -> mr.data.Dataset:
        return self.loaded(name).split("train").sample(CRAFT, 0)

    def _held(self, name: str) -> mr.data.Dataset:
        return self.loaded(name).split("test").sample(JUDGED, 0)

    def _source(self, kind: str, name: str, n: int) -> Lazy:
        """n images to make a perturbation from: of the set's training part, or of none of it."""
        home = self.loaded(name)
        if kind == "training":
            return home.split("train").sample(n, 0)
        if kind == "noise":
            return mr.universal.Noise(n, (home.channels, home.size, home.size))
        if kind == "phantom":
            return mr.data.load(PHANTOMS[name], size=home.size, channels=home.channels).sample(n, 0)
        natural = f"csv:{self.data}/natural/labels.csv"
        found = mr.data.load(natural, size=home.size, channels=home.channels, label="index")
        return Varied(found, n) if kind == "varied" else found.sample(n, 0)

    def _pixels(self, source: Any) -> Lazy:
        """The same images, decoded once."""
        if isinstance(source, mr.universal.Noise):
            return source
        if isinstance(source, Varied):
            return Varied(Pixels(source.source, NoProgress(), "images"), source.n, source.seed)
        return Pixels(source, NoProgress(), "images")

    def _named(self, source: Any) -> str:
        """A name of exactly these images, for a cell's key."""
        if isinstance(source, mr.universal.Noise):
            return f"noise {source.n} {source.shape} {source.seed}"
        if isinstance(source, Varied):
            return f"varied {source.n} {source.seed} {self.named(source.source)}"
        return digest([source.digest(), *source.ids])

    def _eps(self, name: str, norm: str, zeta: float) -> Ball:
        """zeta is a share of the mean norm of the set's training images, whatever the perturbation is made from."""
        return BALLS[norm].relative(zeta, self.training(name))

    # -- pieces of work -----------------------------------------------------------------------------------

    def made(
        self,
        network: str,
        target: int | None,
        norm: str = "l2",
        zeta: float = 0.04,
        *,
        method: UniversalMethod | None = None,
        kind: str = "training",
        n: int = CRAFT,
        seed: int = 0,
    ) -> Universal:
        """A perturbation against this classifier."""
        method = method or SGA(passes=3)
        classifier, name = self.network(network), NETWORKS[network][0]
        ball, source = self.eps(name, norm, zeta), self.source(kind, name, n)
        goal: Goal = mr.Untargeted() if target is None else mr.Targeted(target)
        about = {
            "version": VERSION,
            "kind": "made",
            "classifier": classifier.digest(),
            "source": self.named(source),
            "method": repr(method),
            "target": target,
            "norm": norm,
            "eps": float(ball.eps),
            "seed": seed,
        }

        def compute() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
            print(f"making {network} {target} {norm} {zeta} {kind} {n} {method.title}", file=sys.stderr, flush=True)
            v = method(classifier, self.pixels(source), goal, ball, seed=seed, checkpoint=checkpoint)
            return {"provenance": v.provenance, "history": v.history, "why": v.why}, {"delta": v.delta.numpy()}

        with self.store.unfinished(about) as checkpoint:
            cell = self.store.once(about, compute)
        provenance, delta = cell.facts["provenance"] | {"seconds": cell.seconds}, torch.from_numpy(cell.arrays["delta"])
        return Universal(delta, ball, goal, provenance, cell.facts["history"], cell.facts["why"])

    def judged(self, network: str, v: Universal) -> UniversalOutcome:
        """What it does to held-out test images, with this classifier."""
        classifier, held = self.network(network), self.held(NETWORKS[network][0])
        about = {
            "version": VERSION,
            "kind": "judged",
            "classifier": classifier.digest(),
            "images": self.named(held),
            "delta": digest([v.delta.numpy().tobytes().hex()]),
        }

        def compute() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
            o = mr.universal.judge(classifier, self.pixels(held), v, bits=8)
            return {"legal": bool(o.legal)}, {"clean": o.clean, "after": o.after, "saved": o.after_saving}

        cell = self.store.once(about, compute)
        clean, after, saved = (cell.arrays[k] for k in ("clean", "after", "saved"))
        return UniversalOutcome(
            clean,
            after,
            saved,
            classifier.classes,
            v.target,
            cell.facts["legal"],
            8,
            labels=held.labels,
            groups=None if (who := groups(held)) is None else tuple(who),
        )

    def tried(self, network: str, *rest: Any, **options: Any) -> UniversalOutcome:
        return self.judged(network, self.made(network, *rest, **options))

    def random(self, network: str, norm: str, zeta: float) -> list[UniversalOutcome]:
        """Three random perturbations of the same size."""
        name = NETWORKS[network][0]
        ball = self.eps(name, norm, zeta)
        return [self.judged(network, v) for v in mr.universal.controls(self.network(network), self.held(name), ball)]
