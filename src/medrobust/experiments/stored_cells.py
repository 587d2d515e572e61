"""Images as a file holds them: the smallest and the sparsest change of whole levels, and what survives on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from medrobust import guessing, seeds, stats
from medrobust.attacks import Attack, run, sparsest, sweep
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.images import Images, on_grid
from medrobust.judging import judge
from medrobust.results import INCONCLUSIVE, OK, Kind, Rows
from medrobust.store import Result
from medrobust.threat import Ball, Untargeted
from medrobust.transformations import OPTIMISED, TRANSFORMATIONS, after

Advance = Callable[[int], None]
CONTINUOUS = 0
"""Stands for the number of levels of images that are not rounded."""
SHOWN = 3
"""Images whose sparsest change is kept for the page."""
COUNTS = tuple(round(10 ** (k / 4)) for k in range(21))
"""Numbers of pixels at which the share of images turned is reported, as far as an image has so many."""
NONE = "none"
"""Stands for no transformation."""
NOT_BY_ONE = "not by one level"
"""The note of a median number of pixels where most images are not turned."""
MADE = ("plain", "optimised", "noise")
"""How attacked images were made: without the transformation, through it, at random."""


def smallest(
    attack: Attack,
    classifier: Classifier,
    part: Dataset,
    ball: type[Ball],
    eps: tuple[float, ...],
    levels: int,
    seed: int,
    advance: Advance,
) -> Result:
    """min_eps of each image among images of ``levels`` (CONTINUOUS: not rounded), judged by the classifier itself."""
    images, labels = part.tensors()
    goal = Untargeted(labels)
    if levels != CONTINUOUS:
        images = on_grid(images, levels)
        eps = tuple(sorted({float(ball(e).whole(levels).eps) for e in eps} - {0.0}))
    searched = classifier if levels == CONTINUOUS else classifier.stored(levels)
    curve = sweep(attack, searched, images, goal, ball, eps, seed=seed, ids=part.ids, advance=advance)
    outcome = judge(classifier, images, curve.images, goal, ball(1.0 if ball.name == "linf" else torch.inf))
    confirmed = (outcome.reached & (outcome.size <= curve.min_eps + 1e-6)) | outcome.reached_before
    min_eps = torch.where(confirmed, curve.min_eps, torch.inf)
    return {}, {"min_eps": min_eps.numpy(), "no_gradient": curve.inconclusive.numpy()}


def sparse(classifier: Classifier, part: Dataset, levels: int, seed: int, advance: Advance) -> Result:
    """The fewest pixels of each image whose change by one level turns it (inf: not by one level), judged."""
    images, labels = part.tensors()
    images, goal = on_grid(images, levels), Untargeted(labels)
    found = sparsest(classifier, images, goal, levels, seed=seed, ids=part.ids)
    right = found.pixels > 0
    wrong = ~torch.from_numpy(guessing.right(classifier.predict(found.images).numpy(), part.labels))
    pixels = torch.where(wrong | ~right, found.pixels, torch.inf)
    shown = (torch.isfinite(pixels) & right).nonzero()[:SHOWN, 0]
    advance(len(images))
    return {}, {
        "pixels": pixels.numpy(),
        "one_shot": found.one_shot.numpy(),
        "places": np.full(len(images), images.shape[-1] * images.shape[-2]),
        "passes": (found.gradients + found.forwards).numpy(),
        "shown.clean": images[shown].numpy(),
        "shown.attacked": found.images[shown].numpy(),
    }


def survived(
    attack: Attack,
    classifier: Classifier,
    part: Dataset,
    ball: Ball,
    levels: int,
    names: Sequence[str],
    seed: int,
    advance: Advance,
    optimised: Sequence[str] = OPTIMISED,
) -> Result:
    """Which decisions are wrong after each transformation, bool (n,) under "MADE.NAME"; under "clean.NAME" unattacked.

    All images are of whole ``levels``, attacks at full strength at ``ball``. An optimised one is made through that very
    transformation, where it is in ``optimised``. Noise moves every pixel by eps up or down.
    """
    images, labels = part.tensors()
    images, goal = on_grid(images, levels), Untargeted(labels)
    ball, stored = ball.whole(levels), classifier.fast(images.shape).stored(levels)
    signs = seeds.signs(seed, "noise/sign", part.ids, images.shape[1:])
    noise = ball.ascent(signs) if ball.name == "linf" else ball.at_edge(signs)

    def attacked(target: Classifier) -> Images:
        return run(attack, target, images, goal, ball, seed=seed, ids=part.ids, full=True, fast=False).images

    made: Mapping[str, Images] = {
        "clean": images,
        "plain": attacked(stored),
        "noise": on_grid(ball.move(images, images + ball.eps * noise), levels),
    }
    arrays = {}
    for name in (NONE, *names):
        way = TRANSFORMATIONS[name] if name != NONE else _unchanged
        known = {"optimised": attacked(after(stored, way, images))} if name in optimised else {}
        for who, given in {**made, **known}.items():
            sent = torch.cat([way(one) for one in given.split(64)])
            arrays[f"{who}.{name}"] = ~guessing.right(classifier.predict(sent).numpy(), part.labels)
    advance(len(images))
    return {}, arrays


def _unchanged(images: Images) -> Images:
    return images


# -- rows ----------------------------------------------------------------------------------------------------------


def smallest_row(
    rows: Rows, attack: str, levels: int, min_eps: np.ndarray, whose: np.ndarray | None, eps: float, doubt: str = ""
) -> None:
    """Median min_eps of the images that were right before. eps: the largest tried. doubt: why it is not believed."""
    right = min_eps > 0
    middle = stats.median(min_eps[right], None if whose is None else whose[right])
    status = INCONCLUSIVE if doubt else OK
    note = doubt or ("" if np.isfinite(middle.value) else "above the grid")
    rows.add(Kind.STORED, "min_eps_median", middle, attack=attack, eps=eps, levels=levels, status=status, note=note)


def sparse_rows(
    rows: Rows, levels: int, arrays: Mapping[str, np.ndarray], whose: np.ndarray | None, doubt: str = ""
) -> None:
    """How many pixels changed by one level turn an image: medians (of all, and of the images that both ways turned),
    the curve, and the share that none turned."""
    right = arrays["pixels"] > 0
    pixels, one_shot = arrays["pixels"][right], arrays["one_shot"][right]
    owners = None if whose is None else whose[right]
    at: Mapping[str, Any] = {"levels": levels, "note": doubt, "status": INCONCLUSIVE if doubt else OK}
    for name, values in (("sparsest", pixels), ("one shot", one_shot)):
        middle = stats.median(values, owners)
        note = doubt or ("" if np.isfinite(middle.value) else NOT_BY_ONE)
        rows.add(Kind.STORED, "pixels_median", middle, attack=name, **{**at, "note": note})
        rows.add(Kind.STORED, "not_by_one_level", stats.proportion(np.isinf(values), owners), attack=name, **at)
    both = np.isfinite(pixels) & np.isfinite(one_shot)
    for name, values in (("sparsest", pixels), ("one shot", one_shot)):
        middle = stats.median(values[both], None if owners is None else owners[both])
        rows.add(Kind.STORED, "pixels_turned", middle, attack=name, **at)
    for count in (c for c in COUNTS if c <= arrays["places"].max()):
        share = stats.proportion(pixels <= count, owners)
        rows.add(Kind.STORED, "turned_within", share, attack="sparsest", pixels=count, **at)


def survival_rows(
    rows: Rows, attack: str, eps: float, arrays: Mapping[str, np.ndarray], whose: np.ndarray | None, doubt: str = ""
) -> None:
    """Of the images read correctly before and after a transformation, the share read wrongly once attacked."""
    # in an order of our own: a cell that was read again has its arrays in another one
    names = [name for name in (NONE, *TRANSFORMATIONS) if f"clean.{name}" in arrays]
    status = INCONCLUSIVE if doubt else OK
    before = ~arrays[f"clean.{NONE}"]
    for name in names:
        right = before & ~arrays[f"clean.{name}"]
        owners = None if whose is None else whose[right]
        if name != NONE:
            lost = stats.proportion(arrays[f"clean.{name}"][before], None if whose is None else whose[before])
            rows.add(Kind.SURVIVAL, "changed_by_itself", lost, transformation=name)
        for how in (how for how in MADE if f"{how}.{name}" in arrays):
            share = stats.proportion(arrays[f"{how}.{name}"][right], owners)
            by, doubted = ("noise", ("", OK)) if how == "noise" else (attack, (doubt, status))
            at: Mapping[str, Any] = {"attack": by, "eps": eps, "note": doubted[0], "status": doubted[1]}
            rows.add(Kind.SURVIVAL, "success", share, transformation=name, made=how, **at)
