"""Why does it break? A few cheap explanations of some images, as part of an audit.

Cells: the measures, the maps before and after the attack, the loss landscape. Attacked twins are those of the part that
looks for detectors, where it ran.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from medrobust import code_digest, explain, stats
from medrobust.attacks import Attack
from medrobust.errors import InputError
from medrobust.experiments.adversarial_pairs import PAIRS, SHARD, Shard, Twins
from medrobust.experiments.context import Context, Experiment, Outcome, Result, Step
from medrobust.experiments.headline import Headline
from medrobust.experiments.robustness import Robustness
from medrobust.explain import MEASURES
from medrobust.naming import image_code
from medrobust.results import INCONCLUSIVE, OK, Kind
from medrobust.stats import Estimate
from medrobust.threat import Ball

KIND = "explain"
"""Of its cells."""
NAMES = (
    "saliency-half",
    "slope-l1",
    "margin",
    "margin-slope",
    "linear-eps",
    "curvature",
    "rise-gradient",
    "rise-random",
)
"""Of explain.MEASURES: those that cost a few gradients an image."""
SURFACES, GRID = 8, explain.GRID[::2]
"""Images with a landscape, and its points along each direction: 0 to 8/255 in whole grey levels."""
SHOWN = 3
LESION = {"points": explain.pointing_game, "auroc": explain.lesion_auroc}
MAPS = (
    ("cam-shift", "attacked", ""),
    ("cam-shift", "noise", ""),
    ("lesion-area", "clean", ""),
    *((f"lesion-{k}", when, kind) for k in LESION for when in ("clean", "attacked") for kind in ("cam", "gradient")),
)
"""Metric, images and map of what is measured on maps."""
FEW = 6
"""Images below which the order statistics hold no 95 % interval of a median."""


class ExplanationExperiment(Experiment):
    """Why does it break? A few explanations of some images, before and after the shown attack at full strength."""

    name = "explanation"

    def __init__(self, context: Context, robustness: Robustness, headline: Headline) -> None:
        self.context, self.robustness, self.headline = context, robustness, headline
        self.seed, self.progress, self.classifier = context.config.seed, context.progress, context.classifier
        self.rows = context.rows()
        self._failure: InputError | None = None
        self._ready = False

    def steps(self) -> Sequence[Step]:
        needs = (f"sweep {self.robustness.main}", PAIRS)
        work = {"measures": self._measured, "maps": self._mapped, "landscape": self._landscape}
        return [Step(f"explanation {name}", partial(self._if_prepared, do), needs) for name, do in work.items()]

    def outcome(self) -> Outcome:
        """What cannot be explained (too few right images, a network without places) is no error: a row says so."""
        self.rows = self.context.rows()
        info = self._info()
        if not self._prepared():
            self._add("slope-l1", stats.NOTHING, str(self._failure))
            return Outcome(self.rows, conditions={"explain": info})
        self.progress.start("Why it breaks", 2 * len(self.part) + SURFACES)
        try:
            self._measures()
            moved = self._maps()
            surface = self._landscape()
        finally:
            self.progress.stop()
        info |= {
            "layer": self.layer,
            "n": int(self.first.sum()),
            "n_turned": int((self.first & self.twins.reached).sum()),
            "n_surfaces": len(surface),
            "examples": moved["examples"],
        }
        arrays = moved["arrays"] | {"explain.landscape": surface.astype(np.float32)}
        return Outcome(self.rows, conditions={"explain": info}, arrays=arrays)

    @property
    def attack(self) -> Attack:
        return self.robustness.shown_attack[1]

    @property
    def ball(self) -> Ball:
        return self.robustness.shown_attack[2]

    def _prepared(self) -> bool:
        """Whether there is something to explain; ``_failure`` says why not."""
        if not self._ready:
            try:
                self._look()
            except InputError as error:
                self._failure = error
            self._ready = True
        return self._failure is None

    def _if_prepared(self, work: Callable[[], object]) -> None:
        if self._prepared():
            work()

    def _info(self) -> dict[str, Any]:
        return {
            "attack": self.attack.title,
            "attack_name": self.robustness.shown_attack[0],
            "eps": float(self.ball.eps),
            "layer": "",
            "n": 0,
            "n_turned": 0,
            "n_surfaces": 0,
            "grid": list(GRID),
            "examples": [],
            "measures": [{"name": n, "title": MEASURES[n].title, "unit": MEASURES[n].unit} for n in NAMES],
        }

    def _look(self) -> None:
        """The images, their attacked twins, and the first image of each patient: the others are no new witnesses."""
        name = self.robustness.shown_attack[0]
        twins = Twins(self.context.store, self.classifier, self.context.sample, limit=SHARD, seed=self.seed)
        self.part = twins.part
        self.layer = explain.last_spatial(self.classifier, (1, self.part.channels, self.part.size, self.part.size))
        self.twins: Shard = twins.attacked(self.part, name, self.attack, self.ball)
        self.noisy: Shard = twins.noisy(self.part, self.ball)
        _, first = np.unique(twins.groups, return_index=True)
        self.first = np.isin(np.arange(len(self.part)), first)

    # -- pieces of work ----------------------------------------------------------------------------------

    def _measured(self) -> dict[str, np.ndarray]:
        part = self.part

        def compute() -> Result:
            labels = torch.from_numpy(part.labels)
            found = explain.measure(
                self.classifier, part, labels, NAMES, ids=part.ids, seed=self.seed, advance=self.progress.advance
            )
            return {}, {name: values.numpy() for name, values in found.items()}

        return self.context.cell(part, self._about("measures", names=NAMES), compute).arrays

    def _measures(self) -> None:
        part, found = self.part, self._measured()
        for name in NAMES:
            self._add(name, self._median(found[name]))
        worst = dict(zip(self.context.sample.ids, self.headline.worst.tolist(), strict=True))
        star = np.array([worst.get(i, math.nan) for i in part.ids])
        told = self.first & ~np.isnan(star)
        if told.sum() >= FEW:
            self._add("rank_correlation", stats.spearman(found["linear-eps"][told], star[told]))

    def _mapped(self) -> dict[str, np.ndarray]:
        """What the attack, and noise of its size, do to saliency and Grad-CAM."""

        def compute() -> Result:
            images, labels = self.part.tensors()
            masks = self.part.masks(range(len(self.part)))
            cams, maps = {}, {}
            out: dict[str, torch.Tensor] = {}
            for when, some in self._seen(images).items():
                cams[when] = explain.grad_cam(self.classifier, some.images, _decided(some), layer=self.layer)
                maps[when], _ = explain.gradient_map(self.classifier, some.images, labels)
                if masks is not None and when != "noise":
                    for kind, shown in (("gradient", maps[when]), ("cam", cams[when])):
                        out |= {_array(f"lesion-{k}", when, kind): told(shown, masks) for k, told in LESION.items()}
            for when in ("attacked", "noise"):
                moved = explain.shift(cams["clean"], cams[when])
                out[_array("cam-shift", when)] = moved / explain.diagonal(cams["clean"])
            if masks is not None:
                area = explain.lesion_area(masks)
                out[_array("lesion-area", "clean")] = area.masked_fill(~masks.flatten(1).any(1), math.nan)
            self.progress.advance(len(self.part))
            return {}, {k: v.double().numpy() for k, v in out.items()}

        about = self._about(
            "maps", attack=code_digest.described(self.attack), eps=float(self.ball.eps), layer=self.layer
        )
        return self.context.cell(self.part, about, compute).arrays

    def _maps(self) -> dict[str, Any]:
        """Rows of the maps, and some examples."""
        arrays = self._mapped()
        attacks = {"clean": "none", "attacked": self.robustness.shown_attack[0], "noise": "noise"}
        for metric, when, kind in MAPS:
            values = arrays.get(_array(metric, when, kind))
            if values is None:
                continue
            held = ~self.twins.reached & (when == "attacked")
            e = self._median(np.where(held, math.nan, values))
            if metric == "lesion-points":
                known = self.first & ~np.isnan(values) & ~held
                e = stats.proportion(values[known] > 0.5)
            self._add(metric, e, attack=attacks[when], map=kind or None)
        return self._examples()

    def _seen(self, images: torch.Tensor) -> dict[str, Shard]:
        clean = Shard(images, self.part.labels, np.zeros(len(images), bool))
        return {"clean": clean, "attacked": self.twins, "noise": self.noisy}

    def _examples(self) -> dict[str, Any]:
        """A few images that the attack turned, of every class in turn, and their maps; made again, it takes no time."""
        turn: dict[int, int] = {}
        ranked = []
        for i in np.flatnonzero(self.twins.reached & self.first).tolist():
            label = int(self.part.labels[i])
            turn[label] = turn.get(label, 0) + 1
            ranked.append((turn[label], label, i))
        chosen = [i for *_, i in sorted(ranked)[:SHOWN]]
        if not chosen:
            return {"examples": [], "arrays": {}}
        images, labels = self.part.select(chosen).tensors()
        arrays: dict[str, torch.Tensor] = {}
        pairs = {"clean": (images, labels), "attacked": (self.twins.images[chosen], _decided(self.twins)[chosen])}
        for when, (some, decided) in pairs.items():
            maps, log_scale = explain.gradient_map(self.classifier, some, labels)
            # log10 of nats per grey level of one pixel: float32 would lose what a sure network leaves
            level = (maps.double().log() + log_scale.view(-1, 1, 1) - math.log(255)) / math.log(10)
            cam = explain.grad_cam(self.classifier, some, decided, layer=self.layer)
            arrays |= {f"{when}.image": some, f"{when}.gradient": level, f"{when}.cam": cam}
        masks = self.part.masks(chosen)
        if masks is not None:
            arrays["mask"] = masks[:, 0]
        examples = [
            {"id": image_code(self.part, i), "label": int(self.part.labels[i]), "after": int(self.twins.decision[i])}
            for i in chosen
        ]
        return {"examples": examples, "arrays": {f"explain.{k}": v.float().numpy() for k, v in arrays.items()}}

    def _landscape(self) -> np.ndarray:
        """Loss over the plane of the gradient's sign and a random direction, (n, a, b)."""
        few = self.part.select(np.flatnonzero(self.first)[:SURFACES])

        def compute() -> Result:
            images, labels = few.tensors()
            found = explain.planes(self.classifier, images, labels, grid=GRID, seed=self.seed, ids=few.ids)
            self.progress.advance(SURFACES)
            return {}, {"random": found["random"].numpy()}

        return self.context.cell(few, self._about("landscape", grid=GRID), compute).arrays["random"]

    # -- rows --------------------------------------------------------------------------------------------

    def _about(self, what: str, **about: Any) -> dict[str, Any]:
        return {"kind": KIND, "what": what, **about}

    def _median(self, values: np.ndarray) -> Estimate:
        """Over one image a patient, those of which something can be said."""
        return stats.median(values[self.first & ~np.isnan(values)])

    def _add(self, metric: str, e: Estimate, note: str = "", attack: str = "none", **more: str | None) -> None:
        known = math.isfinite(e.value) and e.n >= FEW
        note = note or ("" if known else f"{e.n} images are too few")
        status = OK if known else INCONCLUSIVE
        eps = float(self.ball.eps)
        self.rows.add(Kind.EXPLANATION, metric, e, attack=attack, eps=eps, status=status, note=note, **more)


def _array(metric: str, when: str, kind: str = "") -> str:
    """Name of its values in the cell. kind: of the map."""
    return ".".join(filter(None, (metric, kind, when)))


def _decided(some: Shard) -> torch.Tensor:
    return torch.from_numpy(some.decision)
