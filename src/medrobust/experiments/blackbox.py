"""What an attacker reaches who sees only answers, as part of an audit: success against queries at one size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from medrobust import code_digest, seeds, stats
from medrobust.attacks import Attack, SimBA, Square, queried
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.experiments import checks
from medrobust.experiments.system import groups
from medrobust.judging import judge
from medrobust.results import Check, Kind, Rows
from medrobust.store import Cell
from medrobust.threat import Ball, Untargeted

Advance = Callable[[int], None]
Result = tuple[dict[str, Any], dict[str, np.ndarray]]

QUERIES = 80
COUNTS = (10, 40, QUERIES)
"""Queries an image at which the success is told."""
CHANCE = 10
"""Random changes of the same size that the control may try."""
NOISE = "noise"


def attacks() -> dict[str, Attack]:
    """Two that are good with few queries; docs/results/black-box.md has the others beside them."""
    return {"square": Square(QUERIES), "simba-dct": SimBA(QUERIES, frequencies=28)}


def probed(attack: Attack, classifier: Classifier, part: Dataset, ball: Ball, seed: int, advance: Advance) -> Result:
    """At which query each image fell (0: wrong before, inf: never), judged."""
    images, labels = part.tensors()
    goal = Untargeted(labels)
    found = queried(attack, classifier, images, goal, ball, seed=seed, ids=part.ids, advance=advance)
    outcome = judge(classifier, images, found.images, goal, ball)
    spent = torch.where(outcome.reached, found.spent, torch.inf)
    return {}, {"spent": spent.numpy(), "blind": found.inconclusive.numpy()}


def by_chance(classifier: Classifier, part: Dataset, ball: Ball, seed: int, advance: Advance) -> Result:
    """The control: random changes of exactly the ball's size, one a query."""
    images, labels = part.tensors()
    spent = torch.where(classifier.predict(images) != labels, 0.0, torch.inf)
    for k in range(1, CHANCE + 1):
        ids = [f"{i}/{k}" for i in part.ids]
        if ball.name == "linf":
            change = seeds.signs(seed, "chance", ids, images.shape[1:])
        else:
            change = ball.at_edge(seeds.normal(seed, "chance", ids, images.shape[1:]))
        shown = ball.move(images, images + ball.eps * change)
        wrong = classifier.predict(shown) != labels
        spent = torch.where(wrong, spent.minimum(torch.tensor(float(k))), spent)
    advance(len(images))
    return {}, {"spent": spent.numpy()}


def without_gradients(
    few: Dataset,
    classifier: Classifier,
    ball: Ball,
    seed: int,
    sharded: Callable[..., Cell],
    rows: Rows,
    main: str,
    white: np.ndarray,
) -> list[Check]:
    """Runs the probes on a few images, writes their rows, and compares them with an attack that sees gradients.

    sharded(part, name, about, compute) gives a finished cell. main, white: that attack, and what it reached (n,).
    """
    eps, owners, made = float(ball.eps), groups(few), []
    for name, attack in attacks().items():
        cell = sharded(
            few,
            f"Without gradients: {attack.title}, {QUERIES} queries",
            {"kind": "probe", "attack": code_digest.described(attack), "eps": eps},
            lambda shard, a, attack=attack: probed(attack, classifier, shard, ball, seed, a),
        )
        spent, blind = cell.arrays["spent"], cell.arrays["blind"]
        lost = int(blind.sum())
        note = f"{QUERIES} queries" + (f"; on {lost} of {spent.size} images no answer ever differed" if lost else "")
        status = "inconclusive" if lost >= max(1, checks.TOLERATED * spent.size) else "ok"
        held = stats.proportion(~np.isfinite(spent), owners)
        rows.add(Kind.BLACK_BOX, "accuracy", held, attack=name, eps=eps, status=status, note=note)
        _success(rows, Kind.BLACK_BOX, name, eps, spent, owners, COUNTS, status, note)
        asked = spent > 0  # images that were wrong before fell to nothing
        found = np.isfinite(spent)[asked]
        made.append(checks.black_box_is_weaker(main, eps, found, white[asked], QUERIES, attack.title))
    about = {"kind": "probe", "attack": "chance", "tries": CHANCE, "eps": eps}
    chance = sharded(few, "Random noise, as often", about, lambda shard, a: by_chance(classifier, shard, ball, seed, a))
    _success(
        rows, Kind.CONTROL, NOISE, eps, chance.arrays["spent"], owners, (CHANCE,), "ok", "random changes, one a query"
    )
    right = chance.arrays["spent"] > 0
    found = stats.proportion(white[right], None if owners is None else owners[right])
    rows.add(Kind.ATTACK, "success_probed", found, attack=main, eps=eps)
    return made


def _success(
    rows: Rows,
    kind: Kind,
    name: str,
    eps: float,
    spent: np.ndarray,
    owners: np.ndarray | None,
    counts: tuple[int, ...],
    status: str,
    note: str,
) -> None:
    right = spent > 0
    who = None if owners is None else owners[right]
    for count in counts:
        share = stats.proportion(spent[right] <= count, who)
        rows.add(kind, "success_at", share, attack=name, eps=eps, status=status, note=note, queries=count)
