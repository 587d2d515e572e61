"""Why does a classifier break? Saliency, Grad-CAM, representation, loss landscape and embedding of its images.

Correctly classified test images, one a patient, before and after an attack. Every shard of every piece is a cell, so
that a killed run goes on; memory holds one shard, and one number an image of each quantity.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from medrobust import code_digest, explain, stats
from medrobust.attacks import Attack
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.detectors import embedding
from medrobust.errors import InputError
from medrobust.experiments import explanation_cells as cells
from medrobust.experiments.adversarial_pairs import PAIRS, AdversarialPairs, Shard, one_a_patient
from medrobust.experiments.clean import CleanExperiment
from medrobust.experiments.config import attack_named
from medrobust.experiments.context import Context, Experiment, ExperimentResult, Step
from medrobust.experiments.explanation_cells import Quantity
from medrobust.experiments.explanation_config import IN_AUDIT, ExplanationConfig, info
from medrobust.experiments.features_cache import FeaturesCache
from medrobust.experiments.finding_sets import SetNetwork
from medrobust.experiments.headline import HeadlineExperiment
from medrobust.experiments.robustness import RobustnessExperiment
from medrobust.naming import image_code
from medrobust.results import INCONCLUSIVE, OK, Kind
from medrobust.stats import Estimate
from medrobust.store import Cell, Result
from medrobust.threat import Ball

KIND = "explain"
"""Of its cells."""
STEPS = (1 / 255, 2 / 255, 4 / 255, 8 / 255)
"""Distances of the landscape's grid that become rows."""
LEAST_GROUP = 5
"""Patients without whom a group is not told from others."""
LEAST_MEDIAN = 6
"""Images below which the order statistics hold no 95 % interval of a median."""
PENULTIMATE = "penultimate"


class Explanation(Experiment):
    """Explanations of one classifier's images before and after one attack at full strength.

    attack: its name, the attack and its ball; those of the config, at the largest eps of the run, if not given. second:
    an independently trained classifier, for the published plane. min_eps: the smallest eps of each of these images,
    NaN where it is not known, for its rank correlation with measures. needs: steps that make what ``attack`` reads.
    required: whether it is an error where nothing can be explained; else a row says so. place: of the classifier among
    those of the run; what it is called in rows of all but the first.
    """

    name = "explanation"

    def __init__(
        self,
        context: Context,
        config: ExplanationConfig,
        *,
        attack: Callable[[], tuple[str, Attack, Ball]] | None = None,
        second: Callable[[], Classifier] | None = None,
        min_eps: Callable[[AdversarialPairs], np.ndarray] | None = None,
        needs: tuple[str, ...] = (),
        required: bool = True,
        place: int = 0,
    ) -> None:
        self.context, self.config, self.needs, self.required, self.place = context, config, needs, required, place
        self.min_eps, self._attack, self._second = min_eps, attack, second
        self.name = "explanation" if not place else f"explanation {place}"
        self.classifier, self.seed, self.progress = context.classifier, context.config.seed, context.progress
        self.notes: list[str] = []
        self.rows = context.rows()
        self.arrays: dict[str, np.ndarray] = {}
        self.pictures: Mapping[str, np.ndarray] = {}

    def steps(self) -> Sequence[Step]:
        attacked = f"{self.name} attacked"
        later = ["maps", "finding_maps", "layers", "gallery", *(["features"] if self.config.embedding else [])]
        alone = [Step(f"{self.name} {n}", partial(self._compute, n), self.needs) for n in ("measures", "landscape")]
        on_attacked = [Step(f"{self.name} {n}", partial(self._compute, n), (attacked,)) for n in later]
        return [*alone, Step(attacked, partial(self._compute, "shards"), self.needs), *on_attacked]

    def _compute(self, piece: str) -> None:
        if self.failure is None:
            getattr(self, f"_{piece}")

    def outcome(self) -> ExperimentResult:
        """Rows of kind explanation, ``conditions["explained"]`` by place, and arrays explain.PLACE.NAME."""
        return self._outcome

    @cached_property
    def _outcome(self) -> ExperimentResult:
        place = str(self.place)
        if self.failure is not None:
            self._add("slope-l1", stats.NOTHING, note=self.failure)
            return ExperimentResult(
                self.rows, conditions={"explained": {place: info(self.context, self.config, self.attack, None)}}
            )
        about = info(self.context, self.config, self.attack, self.second) | self._measured()
        prefix = f"explain.{place}."
        return ExperimentResult(
            self.rows,
            conditions={"explained": {place: about}},
            arrays={prefix + name: values for name, values in self.arrays.items()},
            pictures={f"{prefix}gallery.{name}": values for name, values in self.pictures.items()},
        )

    # -- what it stands on -------------------------------------------------------------------------------

    @cached_property
    def attack(self) -> tuple[str, Attack, Ball]:
        """Its name, the attack and its ball."""
        if self._attack is not None:
            return self._attack()
        return self.config.attack, attack_named(self.config.attack), self.context.ball(self.context.config.eps[-1])

    @cached_property
    def second(self) -> Classifier | None:
        made = None if self._second is None else self._second()
        if made is not None and set(made.classes) != set(self.classifier.classes):
            raise InputError(
                f"the second model knows the classes {', '.join(made.classes[:8])}, "
                f"the first {', '.join(self.classifier.classes[:8])}; give one that was trained on the same data"
            )
        return made

    @cached_property
    def failure(self) -> str | None:
        """Why there is nothing to explain; None where there is. InputError instead where it is required."""
        try:
            self._prepare()
        except InputError as error:
            if self.required:
                raise
            return str(error)
        return None

    def _prepare(self) -> None:
        """The layers, the images, and which of them count: the first of each patient."""
        context, config = self.context, self.config
        part = context.sample if config.sampled else one_a_patient(context.test, self.seed)
        part = part.for_network(self.classifier)
        shape = (1, *part.shape)
        self.layers = explain.stages(self.classifier, shape) if config.layers is None else config.layers
        self.middle = explain.middle(self.classifier, shape) if config.layers != () else None
        self.cam_layer = config.cam_layer or explain.last_spatial(self.classifier, shape)
        # wrong names are answered before any work
        explain.simplicity(self.classifier, part.images([0]), (*self.layers, self.cam_layer))
        self.second  # noqa: B018  # so is one of other classes
        self.pairs = AdversarialPairs(
            context.store,
            self.classifier,
            part,
            limit=config.limit,
            seed=self.seed,
            least=config.least,
            attacked=lambda: context.attacked,
        )
        _, first = np.unique(self.pairs.groups, return_index=True)
        self.counted = np.isin(np.arange(len(self.pairs)), first)

    # -- pieces of work ----------------------------------------------------------------------------------

    def _cell(self, part: Dataset, what: str, compute: Callable[[], Result], **about: Any) -> Cell:
        return self.context.cell(part, {"kind": KIND, "what": what, **about}, compute)

    def _attacked(self, part: Dataset) -> Shard:
        return self.pairs.attacked(part, *self.attack)

    @cached_property
    def _shards(self) -> None:
        """Attacked copies of all images, as cells."""
        self.progress.start(f"Attacking ({self.attack[1].title})", len(self.pairs))
        for part in self.pairs.shards():
            self._attacked(part)
            self.progress.advance(len(part))
        self.progress.stop()

    def _about_attack(self) -> dict[str, object]:
        name, attack, ball = self.attack
        return {"attack": name, "settings": code_digest.described(attack), "ball": [ball.name, float(ball.eps)]}

    def _each(self, title: str, what: str, compute: Callable[[Dataset], Result], **about: Any) -> dict[str, np.ndarray]:
        """All shards of one piece: one number an image of each name."""
        self.progress.start(title, len(self.pairs))
        pieces = []
        try:
            for part in self.pairs.shards():
                pieces.append(self._cell(part, what, partial(compute, part), **about).arrays)
                self.progress.advance(len(part))
        finally:
            self.progress.stop()
        # in one order, whether the cells were read or just made
        return {name: np.concatenate([p[name] for p in pieces]) for name in sorted(pieces[0])}

    @cached_property
    def _measures(self) -> dict[str, np.ndarray]:
        names = self.config.measures

        def compute(part: Dataset) -> Result:
            return cells.measured(self.classifier, part, names, self.middle, self.seed)

        return self._each("Measures on clean images", "measures", compute, names=names, layer=self.middle)

    @cached_property
    def _maps(self) -> dict[str, np.ndarray]:
        ball, saliencies = self.attack[2], self.config.saliencies

        def compute(part: Dataset) -> Result:
            noisy = self.pairs.noisy(part, ball)
            return cells.maps(self.classifier, part, self._attacked(part), noisy, self.cam_layer, saliencies, self.seed)

        about = {**self._about_attack(), "layer": self.cam_layer, "saliencies": saliencies}
        return self._each("Maps", "maps", compute, **about)

    @cached_property
    def _masked_findings(self) -> list[str]:
        """Findings with masks of their own; none where an image has one class."""
        several, part = self.context.system.of_findings, self.pairs.part
        names = () if several is None else several.classifier.classes
        return [name for name in names if part.masks([0], name) is not None]

    @cached_property
    def _finding_maps(self) -> dict[str, np.ndarray]:
        """Maps of single findings beside their own masks."""
        several, network, names = self.context.system.of_findings, self.classifier.net, self._masked_findings
        if several is None or not isinstance(network, SetNetwork) or not names:
            return {}
        layer = explain.last_spatial(several.classifier, (1, *self.pairs.part.shape))

        def compute(part: Dataset) -> Result:
            labels = network.sets[part.labels].long().cpu()
            return cells.finding_maps(several.classifier, part, self._attacked(part), labels, names, layer)

        about = {"layer": layer, "findings": names, **self._about_attack()}
        return self._each("Maps of single findings", "finding maps", compute, **about)

    @cached_property
    def _layers(self) -> dict[str, np.ndarray]:
        if not self.layers:
            return {}

        def compute(part: Dataset) -> Result:
            return cells.layers(self.classifier, part, self._attacked(part), self.layers)

        return self._each("Layers", "layers", compute, layers=list(self.layers), **self._about_attack())

    @cached_property
    def _landscape(self) -> dict[str, np.ndarray]:
        """The planes of ``explain.planes``, (n, a, b) each. One image a cell: it is the largest piece of work."""
        chosen = np.flatnonzero(self.counted)[: self.config.surfaces].tolist()
        grid, second = self.config.grid, None if self.second is None else self.second.digest()

        def compute(image: Dataset) -> Result:
            return cells.surfaces(self.classifier, self.second, image, grid, self.seed)

        self.progress.start("Loss landscapes", len(chosen))
        pieces = []
        try:
            for i in chosen:
                image = self.pairs.part.select([i])
                cell = self._cell(image, "landscape", partial(compute, image), second=second, grid=grid)
                pieces.append(cell.arrays)
                self.progress.advance()
        finally:
            self.progress.stop()
        return {name: np.concatenate([p[name] for p in pieces]) for name in sorted(pieces[0])}

    @cached_property
    def _features(self) -> tuple[Any, Any] | None:
        """Penultimate features of clean and of attacked images; None where the network has none."""
        self.progress.start("Embedding", 2 * len(self.pairs))
        try:
            features = FeaturesCache(self.pairs, (PENULTIMATE,), self.progress.advance)
            return features.clean(), features.attacked(*self.attack)
        except InputError as error:  # a network without a linear layer
            self.notes.append(f"No embedding: {error}.")
            return None
        finally:
            self.progress.stop()

    @cached_property
    def _gallery(self) -> dict[str, object]:
        """Some images of every class in turn, those that the attack turned before those that held, and their maps."""
        first = next(self.pairs.shards())
        pairs = self._attacked(first)
        wanted = [i for i in range(len(first)) if self.counted[i] and (self.config.held or pairs.reached[i])]
        turns: dict[int, int] = {}
        ranked = []
        for i in sorted(wanted, key=lambda i: (not pairs.reached[i], i)):
            turn = turns[int(first.labels[i])] = turns.get(int(first.labels[i]), 0) + 1
            ranked.append((turn, i))
        chosen = [i for _, i in sorted(ranked)[: self.config.shown]]
        if not chosen:
            return {}
        attacked = Shard(pairs.images[chosen], pairs.decision[chosen], pairs.reached[chosen])
        part, saliencies = first.select(chosen), self.config.saliencies

        def compute() -> Result:
            return cells.gallery(self.classifier, part, attacked, self.cam_layer, self.middle, saliencies, self.seed)

        about = {"cam": self.cam_layer, "layer": self.middle, "saliencies": saliencies, **self._about_attack()}
        cell = self._cell(part, "gallery", compute, **about)
        self.pictures = cell.arrays
        return {**cell.facts, "moved": self._moved(part.labels, attacked.decision)}

    def _moved(self, before: np.ndarray, after: np.ndarray) -> list[list[str]]:
        """Of sets of findings, those that came (+) and went (−) with each image; empty where an image has one class."""
        several, network = self.context.system.of_findings, self.classifier.net
        if several is None or not isinstance(network, SetNetwork):
            return []
        known, moved = network.sets.cpu().numpy(), []
        for first, second in zip(before, after, strict=True):
            if max(first, second) >= len(known):  # one of the sets that are a class together
                moved.append([self.classifier.classes[second]])
                continue
            change = known[second] - known[first]
            names = several.classifier.classes
            came, went = ([n for n, c in zip(names, change, strict=True) if c == sign] for sign in (1, -1))
            moved.append([*(f"+{n}" for n in came), *(f"−{n}" for n in went)])
        return moved

    # -- rows --------------------------------------------------------------------------------------------

    def _measured(self) -> dict[str, object]:
        """Rows and arrays of all pieces; what the page says beside them."""
        measures = self._measures
        self.numbers = measures | self._maps | self._layers | self._finding_maps
        """One number an image, float64 (n,), by name."""
        for name in self.config.measures:
            self._row(name, measures[name])
        for quantity in cells.quantities(self.layers, self.config.saliencies):
            if quantity.name not in self.numbers:
                continue
            values = self.numbers[quantity.name]
            if quantity.when != "clean" or quantity.metric not in measures or quantity.layer:
                self._quantity(quantity, values)
            before = quantity._replace(when="clean").name
            if quantity.when == "attacked" and before in self.numbers:
                self._quantity(quantity._replace(when="change"), values - self.numbers[before])
        self._finding_rows()
        self._rank_correlation(measures)
        self.arrays |= {f"image.{name}": values[self.counted] for name, values in self.numbers.items()}
        surfaces = self._landscape_rows()
        if self.config.embedding:
            self._embedding()
        gallery, part, several = self._gallery, self.pairs.part, self.context.system.of_findings
        return {
            "n": int(self.counted.sum()),
            "n_test": self.pairs.n_test,
            "accuracy": self.pairs.accuracy,
            "guesses": self.pairs.guessing.text if several is None else CleanExperiment(self.context).guessing.text,
            "reached": int((self.counted & np.isfinite(self.numbers["saliency-half.attacked"])).sum()),
            "layers": list(self.layers),
            "middle": self.middle or "",
            "cam_layer": self.cam_layer,
            "surfaces": surfaces,
            "lesions": "lesion-area.clean" in self.numbers,
            "findings": self._masked_findings,
            "gallery": gallery,
            "ids": [image_code(part, int(i)) for i in np.flatnonzero(self.counted)],
            "notes": [*part.notes, *self.notes],
        }

    def _quantity(self, quantity: Quantity, values: np.ndarray) -> None:
        self._row(quantity.metric, values, quantity.when, map=quantity.map or None, layer=quantity.layer or None)

    def _finding_rows(self) -> None:
        """Of the images that have a finding, how maps of its logit agree with its own mask."""
        for finding in self._masked_findings if self._finding_maps else ():
            area, *agreements = cells.finding_quantities(finding)
            of = np.isfinite(self._finding_maps[area.name]) & self.counted
            for quantity in (area, *agreements):
                values = self._finding_maps[quantity.name][of]
                self._row(quantity.metric, values, quantity.when, map=quantity.map or None, class_name=finding)

    def _row(self, metric: str, values: np.ndarray, when: str = "clean", **columns: Any) -> None:
        """The median of what is known of the images that count, with its interval; a share for yes and no."""
        counted = values[self.counted] if len(values) == len(self.counted) else values
        known = counted[np.isfinite(counted)]
        yes_or_no = metric == "lesion-point" and when != "change"
        estimate = stats.proportion(known > 0.5) if yes_or_no else stats.median(known)
        self._add(metric, estimate, when, unknown=int(counted.size - known.size), **columns)

    def _add(self, metric: str, e: Estimate, when: str = "clean", note: str = "", **columns: Any) -> None:
        if not note and not np.isfinite(e.low):  # order statistics hold no interval of so few
            note = f"{e.n} image{' is' if e.n == 1 else 's are'} too few"
        status = OK if np.isfinite(e.value) and not note else INCONCLUSIVE
        name, eps = {"clean": ("none", 0.0), "noise": ("noise", self._eps)}.get(when, (self.attack[0], self._eps))
        columns = {"when": when, **columns, "beside": self.place or None}
        self.rows.add(Kind.EXPLANATION, metric, e, attack=name, eps=eps, status=status, note=note, **columns)

    @property
    def _eps(self) -> float:
        return float(self.attack[2].eps)

    def _rank_correlation(self, measures: Mapping[str, np.ndarray]) -> None:
        """Of measures with the smallest eps of each image."""
        if self.min_eps is None:
            return
        smallest = self.min_eps(self.pairs)
        known = self.counted & ~np.isnan(smallest)
        for name in self.config.ranked:
            if name in measures and known.sum() >= LEAST_MEDIAN:
                correlation = stats.spearman(measures[name][known], smallest[known])
                self._add("rank_correlation", correlation, measure=name)

    def _landscape_rows(self) -> int:
        """Loss at the image and at STEPS along each direction; returns of how many images."""
        surfaces = self._landscape
        if self.second is None and not self.config.sampled:
            self.notes.append("No second model was given: the loss is shown along a random direction alone.")
        for name, surface in surfaces.items():
            self.arrays[f"landscape.{name}"] = surface.astype(np.float32)
            along = {name: surface[:, 0, :]}
            if name == "random":  # the first axis is the same in every plane
                self._row("loss", surface[:, 0, 0], at=0.0)
                along["gradient"] = surface[:, :, 0]
            for direction, loss in along.items():
                for k, distance in enumerate(self.config.grid):
                    if any(abs(distance - step) < 1e-9 for step in STEPS):
                        self._row("loss", loss[:, k], direction=direction, at=distance)
        return len(next(iter(surfaces.values())))

    def _embedding(self) -> None:
        """t-SNE in the paper's groups, and how far the groups are apart."""
        found = self._features
        if found is None:
            return
        clean, attacked = found
        features = np.concatenate([clean.features[PENULTIMATE].numpy(), attacked.features[PENULTIMATE].numpy()])
        truth = self.pairs.part.labels
        labels = np.concatenate([truth, truth[attacked.pair_of]])
        is_attacked = np.arange(len(labels)) >= len(truth)
        owners = np.concatenate([self.pairs.groups, self.pairs.groups[attacked.pair_of]])
        self._apart("attacked", features, is_attacked.astype(int), owners)
        self._apart("classes", features[~is_attacked], labels[~is_attacked], owners[~is_attacked])
        self._apart("groups", features, 2 * labels + is_attacked, owners)
        try:
            points = embedding.embed(features, self.seed)
        except InputError as error:  # the numbers above stand, a picture of so few points does not
            self.notes.append(f"No picture of the embedding: {error}.")
            return
        self.arrays |= {"embedding.points": points, "embedding.label": labels, "embedding.attacked": is_attacked}
        many = len(self.classifier.classes) > len(embedding.COLOURS)
        path = embedding.draw(
            self.context.store.run.entry(f"tsne-{self.place}.png"),
            points,
            np.zeros_like(labels) if many else labels,
            is_attacked,
            ("all classes",) if many else self.classifier.classes,
        )
        self.arrays["tsne"] = np.frombuffer(path.read_bytes(), np.uint8)

    def _apart(self, of: str, features: np.ndarray, labels: np.ndarray, owners: np.ndarray) -> None:
        """How far groups lie apart: a linear probe, its AUROC for two groups, and the silhouette."""
        names, place = np.unique(labels, return_inverse=True)
        smallest = min(len(set(owners[place == i].tolist())) for i in range(len(names)))
        when = "clean" if of == "classes" else "attacked"
        if len(names) < 2 or smallest < LEAST_GROUP:
            few = f"a group has {smallest} image{'' if smallest == 1 else 's'}"
            why = few if len(names) > 1 else "there is one group only"
            self._add("probe", stats.NOTHING, when, f"too few: {why}", of=of)
            return
        separated = explain.separability(features, labels, owners, self.seed)
        self._add("probe", separated.probe, when, of=of, chance=separated.chance)
        self._add("silhouette", separated.silhouette, when, of=of)
        if separated.scores is not None:
            self._add("probe-auroc", stats.auroc(separated.scores, labels == names[1], owners), when, of=of)


def in_audit(context: Context, robustness: RobustnessExperiment, headline: HeadlineExperiment) -> Explanation:
    """A few explanations of some attacked images, beside their smallest eps; what cannot be explained is no error."""

    def smallest(pairs: AdversarialPairs) -> np.ndarray:
        by_name = dict(zip(context.sample.ids, headline.worst.tolist(), strict=True))
        return np.array([by_name.get(name, np.nan) for name in pairs.part.ids])

    return Explanation(
        context,
        IN_AUDIT,
        attack=lambda: robustness.shown_attack,
        min_eps=smallest,
        needs=(f"sweep {robustness.main}", PAIRS),
        required=False,
    )
