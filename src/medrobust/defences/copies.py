"""Several copies of an image, and the mean of their answers or their votes."""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.defences.input_defence import InputDefence
from medrobust.errors import InputError
from medrobust.images import Images


class NoisyVotes(InputDefence):
    """Copies with normal noise of standard deviation ``sigma``, each drawn anew; hard: each has one vote."""

    title = "Votes of noisy copies"
    source = "Cohen et al. 2019, arXiv:1902.02918"
    random = True

    def __init__(self, sigma: float = 0.1, copies: int = 8, hard: bool = False) -> None:
        if not sigma > 0 or copies < 1:
            raise InputError(f"sigma must be positive and copies at least 1, got {sigma} and {copies}")
        self.sigma, self.count, self.hard = sigma, copies, hard

    @property
    def settings(self) -> dict[str, object]:
        return {"sigma": self.sigma, "copies": self.count, "hard": self.hard}

    def copies(self, images: Images, draw: torch.Generator | None = None) -> Tensor:
        shape = (self.count, 1, *images.shape[1:])
        return (images + self.sigma * torch.randn(shape, generator=draw, device=images.device)).clamp(0, 1)


class Flips(InputDefence):
    """The image, and its mirror image left to right: test-time augmentation as papers on images of medicine use it."""

    title = "Test-time augmentation by flips"
    source = "Krizhevsky et al. 2012"

    @property
    def settings(self) -> dict[str, object]:
        return {}

    def copies(self, images: Images, draw: torch.Generator | None = None) -> Tensor:  # noqa: ARG002
        return torch.stack([images, images.flip(-1)])
