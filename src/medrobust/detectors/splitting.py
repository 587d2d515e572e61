"""Train/test splits that keep images together: an image and its adversarial copy, a patient, copies of one image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medrobust import seeds
from medrobust.errors import InputError


def named(count: int, groups: Sequence[object] | None) -> np.ndarray:
    """str (n,): a group for each image; "" and None stand for unknown, such an image is a group of its own."""
    if groups is None:
        return np.asarray([f"image {i}" for i in range(count)])
    if len(groups) != count:
        raise InputError(f"{count} images have {len(groups)} groups; give one an image")
    return np.asarray([f"image {i}" if g is None or str(g) == "" else f"group {g}" for i, g in enumerate(groups)])


def with_copies(groups: np.ndarray, *features: Tensor) -> np.ndarray:
    """Groups joined where two images are the same to the bit in every one of ``features`` (n, d)."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    first_group: dict[bytes, str] = {}
    for i, group in enumerate(groups):
        content = b"".join(np.ascontiguousarray(f[i].numpy()).tobytes() for f in features)
        parent[root(str(group))] = root(first_group.setdefault(content, str(group)))
    return np.asarray([root(str(g)) for g in groups])


def aside(groups: np.ndarray, share: float, seed: int, purpose: str) -> np.ndarray:
    """bool (n,): whole groups, drawn by (seed, purpose, group), until they hold ``share`` of the images."""
    names, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise InputError(f"{len(groups)} images form {len(names)} group(s); two or more are needed to part them")
    order = sorted(range(len(names)), key=lambda i: float(seeds.generator(seed, purpose, str(names[i])).random()))
    wanted, held, taken = share * len(groups), 0, np.zeros(len(names), dtype=bool)
    for i in order[:-1]:  # one group at least stays
        if held and held + counts[i] / 2 > wanted:
            break
        taken[i] = True
        held += int(counts[i])
    return taken[index]


def halves(
    clean: int,
    attacked: int | None,
    groups: Sequence[object] | None,
    attacked_groups: Sequence[object] | None,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Masks: clean images for the bank, clean images to fit on, attacked images to fit on (no copy of the bank's).

    Where attacked images are as many as clean ones and have no groups of their own, they are copies in order.
    """
    clean_groups = named(clean, groups)
    bank = aside(clean_groups, 0.5, seed, "detector bank")
    if attacked is None:
        fit_attacked = np.zeros(0, dtype=bool)
    elif attacked_groups is not None:
        fit_attacked = ~np.isin(named(attacked, attacked_groups), clean_groups[bank])
    elif attacked == clean:
        fit_attacked = ~bank
    else:
        raise InputError(
            f"{attacked} attacked and {clean} clean images: which belong together? Give reference= images, "
            "or groups= and adversarial_groups="
        )
    if attacked is not None and not fit_attacked.any():
        raise InputError("no attacked image is left beside the detector's bank; give reference= or more images")
    return torch.from_numpy(bank), torch.from_numpy(~bank), torch.from_numpy(fit_attacked)
