"""Why does a classifier break? Saliency, Grad-CAM, representation, loss landscape and embedding of one classifier.

Correctly classified test images, one a patient, and their attacked twins. Every shard of every piece is a cell in
DIR/cells, so that a killed run goes on; memory holds one shard, and one number an image of each measure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medrobust import code_digest, explain, stats
from medrobust.classifier import Classifier
from medrobust.data import Dataset, splits
from medrobust.detectors import embedding
from medrobust.errors import InputError
from medrobust.experiments import explanation_cells as cells
from medrobust.experiments.adversarial_pairs import Shard, Twins
from medrobust.experiments.config import attack_named
from medrobust.experiments.features_cache import Bench
from medrobust.experiments.system import groups
from medrobust.naming import image_code
from medrobust.progress import NoProgress, Progress
from medrobust.stats import Estimate
from medrobust.store import Store
from medrobust.threat import Ball, Linf
from medrobust.versions import versions

SHOWN = 6
"""Images in the gallery."""

STEPS = (2, 4, 8, 16)
"""Points of the landscape's grid that become rows: 1, 2, 4 and 8/255."""

FEW = 5
"""Patients without whom a group is not told from others."""

PENULTIMATE = "penultimate"


@dataclass(frozen=True)
class ExplainAsk:
    """What is asked. layers: for the measures of simplicity; the last block of every resolution when not given."""

    measures: tuple[str, ...] = tuple(explain.MEASURES)
    attack: str = "pgd"
    ball: Ball = field(default_factory=lambda: Linf(1 / 255))
    layers: tuple[str, ...] = ()
    cam_layer: str | None = None
    limit: int | None = 60
    surfaces: int = 16
    """Images whose loss landscape is drawn."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.measures:
            if name not in explain.MEASURES:
                raise InputError(f"measure {name!r} is not known; choose from {', '.join(explain.MEASURES)}")
        if self.surfaces < 1:
            raise InputError(f"at least 1 image needs a landscape, got {self.surfaces}")
        attack_named(self.attack)


class Explaining:
    """One classifier and its test images under one ExplainAsk. second: an independently trained one, for the plane."""

    def __init__(
        self,
        ask: ExplainAsk,
        folder: Path,
        classifier: Classifier,
        test: Dataset,
        second: Classifier | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.ask, self.folder, self.progress = ask, Path(folder), progress or NoProgress()
        self.classifier, self.second = classifier, second
        test = test.for_classes(classifier.classes)
        if second is not None and set(second.classes) != set(classifier.classes):
            raise InputError(
                f"the second model knows the classes {', '.join(second.classes[:8])}, "
                f"the first {', '.join(classifier.classes[:8])}; give one that was trained on the same data"
            )
        shape = (1, test.channels, test.size, test.size)
        self.layers = ask.layers or explain.stages(classifier, shape)
        self.middle = explain.middle(classifier, shape)
        self.cam_layer = ask.cam_layer or explain.last_spatial(classifier, shape)
        # wrong names are answered before any work
        explain.simplicity(classifier, test.images([0]), (*self.layers, self.cam_layer))
        self.patients = test.patients is not None
        self.twins = Twins(
            Store(self.folder), classifier, one_a_patient(test, ask.seed), limit=ask.limit, seed=ask.seed, least=1
        )
        self.attack = attack_named(ask.attack)
        self.image: dict[str, np.ndarray] = {}
        """One number an image, float64 (n,), of everything."""
        self.rows: list[dict[str, Any]] = []
        self.arrays: dict[str, np.ndarray] = {}
        self.notes: list[str] = []

    def run(self) -> dict[str, Any]:
        """Facts, rows and the gallery's words; arrays are then in ``self.arrays``. Writes cells and tsne.png only."""
        n = len(self.twins)
        self._work(
            "Measures on clean images", n, "measures", self._measured, names=list(self.ask.measures), layer=self.middle
        )
        self._work(f"Attacking ({self.attack.title})", n, "maps", self._maps, layer=self.cam_layer)
        self._work("Layers", n, "layers", self._layers, layers=list(self.layers))
        self._image_rows()
        self._landscape()
        self._embedding()
        gallery = self._gallery()
        self.arrays |= {f"image.{name}": values for name, values in self.image.items()}
        part = self.twins.part
        ids = [image_code(part, i) for i in range(len(part))]
        return {"facts": self._facts(), "rows": self.rows, "gallery": gallery, "ids": ids}

    # -- one number an image -----------------------------------------------------------------------------

    def _work(
        self, title: str, total: int, kind: str, compute: Callable[[Dataset], cells.Result], **about: Any
    ) -> None:
        """All shards of one piece; its numbers join ``self.image``."""
        self.progress.start(title, total)
        pieces = []
        for part in self.twins.shards():
            pieces.append(self._cell(part, kind, lambda part=part: compute(part), **about).arrays)  # type: ignore[misc]
            self.progress.advance(len(part) if kind != "measures" else 0)
        self.progress.stop()
        # in one order, whether the cells were read or just made
        self.image |= {name: np.concatenate([p[name] for p in pieces]) for name in sorted(pieces[0])}

    def _cell(self, part: Dataset, kind: str, compute: Callable[[], cells.Result], **about: Any) -> Any:
        spec = self.twins.key(
            part,
            kind=f"explain {kind}",
            attack=code_digest.described(self.attack),
            ball=[self.ask.ball.name, float(self.ask.ball.eps)],
            **about,
        )
        return self.twins.store.once(spec, compute)

    def _attacked(self, part: Dataset) -> Shard:
        return self.twins.attacked(part, self.ask.attack, self.attack, self.ask.ball)

    def _measured(self, part: Dataset) -> cells.Result:
        ask = self.ask
        return cells.measured(self.classifier, part, ask.measures, self.middle, ask.seed, self.progress.advance)

    def _maps(self, part: Dataset) -> cells.Result:
        return cells.maps(self.classifier, part, self._attacked(part), self.cam_layer, self.ask.seed)

    def _layers(self, part: Dataset) -> cells.Result:
        return cells.layers(self.classifier, part, self._attacked(part), self.layers)

    def _image_rows(self) -> None:
        """A row for every name; and for what is known before and after the attack, one for the change of each image."""
        for name in self.ask.measures:
            self._row("measure", name, self.image[name])
        for name in [n for n in self.image if n not in self.ask.measures]:
            metric, _, when = name.rpartition(".")  # a layer's name may hold dots
            kind, _, layer = metric.partition("@")
            section = "layer" if layer else metric.partition("-")[0]
            self._row(section, kind, self.image[name], when=when, layer=layer)
            if when == "attacked":
                change = self.image[name] - self.image[f"{metric}.clean"]
                self._row(section, kind, change, when="change", layer=layer)

    # -- the other pieces --------------------------------------------------------------------------------

    def _landscape(self) -> None:
        part = self.twins.part.select(range(min(self.ask.surfaces, len(self.twins))))
        second = None if self.second is None else self.second.digest()
        self.progress.start("Loss landscapes", len(part))
        # one image a cell: 289 points each are the largest piece of work
        pieces = []
        for i in range(len(part)):
            one = part.select([i])
            pieces.append(
                self._cell(
                    one,
                    "landscape",
                    lambda one=one: cells.surfaces(self.classifier, self.second, one, self.ask.seed),  # type: ignore[misc]
                    second=second,
                    grid=list(explain.GRID),
                ).arrays
            )
            self.progress.advance()
        self.progress.stop()
        if self.second is None:
            self.notes.append("No second model was given: the loss is shown along a random direction alone.")
        for name in sorted(pieces[0]):
            surface = np.concatenate([p[name] for p in pieces])
            self.arrays[f"landscape.{name}"] = surface.astype(np.float32)
            along = {name: surface[:, 0, :]}
            if name == "random":  # the first axis is the same in every plane
                self._row("landscape", "loss", surface[:, 0, 0], at=0.0)
                along["gradient"] = surface[:, :, 0]
            for direction, loss in along.items():
                for k in STEPS:
                    self._row("landscape", f"loss-{direction}", loss[:, k], at=explain.GRID[k])

    def _embedding(self) -> None:
        """t-SNE in the paper's groups, and how far the groups are apart."""
        self.progress.start("Embedding", 2 * len(self.twins))
        bench = Bench(self.twins, (PENULTIMATE,), self.progress.advance)
        try:
            clean = bench.clean()
            attacked = bench.attacked(self.ask.attack, self.attack, self.ask.ball)
        except InputError as error:  # a network without a linear layer has no such features
            self.notes.append(f"No embedding: {error}.")
            return
        finally:
            self.progress.stop()
        features = np.concatenate([clean.features[PENULTIMATE].numpy(), attacked.features[PENULTIMATE].numpy()])
        truth = self.twins.part.labels
        labels = np.concatenate([truth, truth[attacked.twin]])
        is_attacked = np.arange(len(labels)) >= len(truth)
        owners = np.concatenate([self.twins.groups, self.twins.groups[attacked.twin]])
        self._apart("attacked", features, is_attacked.astype(int), owners)
        self._apart("classes", features[~is_attacked], labels[~is_attacked], owners[~is_attacked])
        self._apart("groups", features, 2 * labels + is_attacked, owners)
        try:
            points = embedding.embed(features, self.ask.seed)
        except InputError as error:  # the numbers above stand, a picture of so few points does not
            self.notes.append(f"No picture of the embedding: {error}.")
            return
        self.arrays |= {"embedding.points": points, "embedding.label": labels, "embedding.attacked": is_attacked}
        many = len(self.classifier.classes) > len(embedding.COLOURS)
        embedding.draw(
            self.twins.store.run.entry("tsne.png"),
            points,
            np.zeros_like(labels) if many else labels,
            is_attacked,
            ("all classes",) if many else self.classifier.classes,
        )

    def _apart(self, what: str, features: np.ndarray, labels: np.ndarray, owners: np.ndarray) -> None:
        names, place = np.unique(labels, return_inverse=True)
        smallest = min(len(set(owners[place == i].tolist())) for i in range(len(names)))
        if len(names) < 2 or smallest < FEW:
            few = f"a group has {smallest} image{'' if smallest == 1 else 's'}"
            why = few if len(names) > 1 else "there is one group only"
            self._add("embedding", f"probe-{what}", stats.NOTHING, note=f"too few: {why}")
            return
        found = explain.separability(features, labels, owners, self.ask.seed)
        self._add("embedding", f"probe-{what}", found.probe, chance=found.chance)
        self._add("embedding", f"silhouette-{what}", found.silhouette)
        if found.scores is not None:
            self._add("embedding", f"probe-auroc-{what}", stats.auroc(found.scores, labels == names[1], owners))

    def _gallery(self) -> dict[str, Any]:
        """Some images of every class in turn, those that the attack turned before those that held."""
        first = next(self.twins.shards())
        twins = self._attacked(first)
        seen: dict[int, int] = {}
        ranked = []
        for i in sorted(range(len(first)), key=lambda i: (not twins.reached[i], i)):
            turn = seen[int(first.labels[i])] = seen.get(int(first.labels[i]), 0) + 1
            ranked.append((turn, i))
        chosen = [i for _, i in sorted(ranked)[:SHOWN]]
        few = Shard(twins.images[chosen], twins.decision[chosen], twins.reached[chosen])
        part = first.select(chosen)
        cell = self._cell(
            part,
            "gallery",
            lambda: cells.gallery(self.classifier, part, few, self.cam_layer, self.middle, self.ask.seed),
            cam=self.cam_layer,
            layer=self.middle,
        )
        self.arrays |= {f"gallery.{name}": values for name, values in cell.arrays.items()}
        return dict(cell.facts)

    # -- rows --------------------------------------------------------------------------------------------

    def _row(self, section: str, metric: str, values: np.ndarray, **about: Any) -> None:
        """The median of what could be said, with its interval; a share for what is yes or no."""
        known = values[np.isfinite(values)]
        yes_or_no = metric.startswith("lesion-point") and about.get("when") != "change"
        estimate = stats.proportion(known) if yes_or_no else stats.median(known)
        self._add(section, metric, estimate, unknown=int(values.size - known.size), **about)

    def _add(self, section: str, metric: str, e: Estimate, note: str = "", **about: Any) -> None:
        value, low, high = (float(v) if np.isfinite(v) else None for v in e[:3])
        shared = {"when": "clean", "layer": "", "at": None, "chance": None, "unknown": 0}
        self.rows.append(
            {
                "section": section,
                "metric": metric,
                **shared,
                **about,
                "value": value,
                "low": low,
                "high": high,
                "n": e.n,
                "note": note,
            }
        )

    def _facts(self) -> dict[str, Any]:
        part, clf = self.twins.part, self.classifier
        return {
            "data": part.name,
            "classes": list(clf.classes),
            "size": part.size,
            "channels": part.channels,
            "architecture": clf.provenance.get("architecture"),
            "parameters": clf.parameters,
            "model": self.twins.model_digest,
            "accuracy": self.twins.accuracy,
            "n_test": self.twins.n_test,
            "n": len(part),
            "guesses": self.twins.guessing.text,
            "one_a_patient": self.patients,
            "attack": self.ask.attack,
            "attack_title": self.attack.title,
            "eps": float(self.ask.ball.eps),
            "norm": self.ask.ball.name,
            "reached": self._reached(),
            "layers": list(self.layers),
            "middle": self.middle,
            "cam_layer": self.cam_layer,
            "surfaces": min(self.ask.surfaces, len(part)),
            "second": None if self.second is None else self.second.digest(),
            "grid": list(explain.GRID),
            "seed": self.ask.seed,
            "lesions": "lesion-area.clean" in self.image,
            "measures": {n: _told(explain.MEASURES[n]) for n in self.ask.measures},
            "notes": [*part.notes, *self.notes],
            "versions": versions(),
        }

    def _reached(self) -> int:
        """Images that the attack turned."""
        return int(np.isfinite(self.image["saliency-half.attacked"]).sum())


def _told(measure: explain.Measure) -> dict[str, Any]:
    return {f.name: getattr(measure, f.name) for f in dataclasses.fields(measure) if f.name != "part"}


def one_a_patient(part: Dataset, seed: int) -> Dataset:
    """One image of each patient, which one keyed by the seed: images of one patient are no independent witnesses."""
    whose = groups(part)
    if whose is None:
        return part
    order = sorted(range(len(part)), key=lambda i: splits.key(seed, "one a patient", part.ids[i]))
    first: dict[str, int] = {}
    for i in order:
        first.setdefault(str(whose[i]), i)
    return part.select(sorted(first.values()))
