"""A universal perturbation: one change for every image (Moosavi-Dezfooli et al. 2017, arXiv:1610.08401)."""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from medrobust import atomic, own_files
from medrobust.errors import InputError
from medrobust.images import Images, check_images, save_at
from medrobust.threat import BALLS, Ball, Goal, Linf, Targeted, Untargeted

FORMAT = "medrobust universal perturbation 1"
KIND = "universal perturbation"
"""The kind that the metadata of its file states."""


@dataclass(frozen=True, eq=False)
class Universal:
    """One perturbation for every image, how it was made, and within which size.

    delta: float32 (c, h, w) on the CPU, in pixels of [0, 1].
    ball: what ``delta`` had to stay in. goal: ``Untargeted()`` or ``Targeted(k)``.
    provenance: method, settings, images, classifier, seed, gradients, queries; plain JSON.
    history: numbers of the making, one entry a pass (or so many queries): at least ``rate``, the share of the
        images it was made from that reached the goal; the last one under this perturbation, as ``judge`` measures it.
    why: empty, or why the perturbation is not what was hoped for (it stayed zero, the gradient was zero).
    """

    delta: Tensor
    ball: Ball
    goal: Goal
    provenance: Mapping[str, Any] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    why: str = ""

    def __post_init__(self) -> None:
        if self.delta.ndim != 3 or not bool(torch.isfinite(self.delta).all()):
            raise InputError(f"a perturbation must be finite and (c, h, w), got shape {tuple(self.delta.shape)}")
        object.__setattr__(self, "delta", self.delta.detach().float().cpu().contiguous())

    @property
    def nonzero(self) -> bool:
        """False where the perturbation is zero everywhere; ``why`` then says why."""
        return bool(self.delta.any())

    @property
    def size(self) -> float:
        """Norm of ``delta`` in the ball's norm, before any clipping at black and white."""
        return float(self.ball.size(self.delta[None]))

    @property
    def target(self) -> int | None:
        """The class that is wanted, or None."""
        return int(self.goal.labels) if isinstance(self.goal, Targeted) else None

    def apply(self, images: Images, *, resize: bool = False) -> Images:
        """``images`` (n, c, h, w) with the perturbation, clipped to [0, 1].

        resize: fit the perturbation to images of another size (see ``resized``). InputError otherwise.
        """
        images = check_images(images)
        fitted = self
        if tuple(images.shape[1:]) != tuple(self.delta.shape):
            have, want = ("{} x {} x {}".format(*shape) for shape in (self.delta.shape, images.shape[1:]))
            if self.delta.shape[0] != images.shape[1]:
                raise InputError(
                    f"the perturbation is {have} (channels first), the images are {want}; "
                    f"load the data with channels={self.delta.shape[0]}, as it was made"
                )
            if not resize:
                raise InputError(
                    f"the perturbation is {have}, the images are {want}; "
                    f"load the data with size={self.delta.shape[-1]}, or give resize=True"
                )
            fitted = self.resized(images.shape[-2], images.shape[-1])
        return (images + fitted.delta.to(images.device)).clamp(0, 1)

    def resized(self, height: int, width: int) -> Universal:
        """The same pattern at another size, bilinear, scaled back to the norm it had relative to an image.

        An image's Linf norm does not depend on its size and its L2 norm grows with the root of the number of pixels:
        so does eps here. ``provenance["resized"]`` says what was done.
        """
        old = tuple(self.delta.shape[-2:])
        if old == (height, width):
            return self
        factor = 1.0 if isinstance(self.ball, Linf) else (height * width / (old[0] * old[1])) ** 0.5
        ball = type(self.ball)(float(self.ball.eps) * factor)
        wanted = self.size * factor
        delta = F.interpolate(self.delta[None], (height, width), mode="bilinear", antialias=True, align_corners=False)
        delta = ball.project(ball.at_edge(delta) * wanted)[0]
        note = {
            "from": list(old),
            "to": [height, width],
            "how": f"bilinear, then scaled to {self.ball.name} norm {wanted:.6g} ({factor:.4g} x the norm before)",
        }
        return dataclasses.replace(self, delta=delta, ball=ball, provenance={**self.provenance, "resized": note})

    # -- keeping -----------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file: ``delta``, and all the rest as JSON in its header.

        InputError where something else than a perturbation is there: it is not overwritten.
        """
        from safetensors.torch import save

        info = {
            "format": FORMAT,
            "ball": {"norm": self.ball.name, "eps": float(self.ball.eps)},
            "target": self.target,
            "provenance": self.provenance,
            "history": self.history,
            "why": self.why,
        }
        path = Path(path)
        try:
            content = save({"delta": self.delta}, own_files.metadata(KIND, **info))
        except TypeError as error:
            raise InputError(f"the provenance of a perturbation must be plain JSON: {error}") from error
        own_files.check_safetensors(path, KIND)
        atomic.write_bytes(path, content)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Universal:
        """The perturbation that ``save`` wrote; InputError where the file is missing or is something else."""
        from safetensors import SafetensorError, safe_open

        path = Path(path)
        if not path.is_file():
            raise InputError(f"no perturbation at {path}: give the safetensors file that Universal.save wrote")
        try:
            with safe_open(path, "pt") as opened:
                info = own_files.stated(opened.metadata(), KIND, str(path))
                if info is None or "delta" not in opened.keys():  # noqa: SIM118 - safe_open is no dict
                    raise InputError(f"{path} holds no universal perturbation; give the file that Universal.save wrote")
                delta = opened.get_tensor("delta")
        except SafetensorError as error:
            raise InputError(f"{path} is no readable safetensors file: {error}") from error
        info = _checked(info, path)
        ball = BALLS[info["ball"]["norm"]](info["ball"]["eps"])
        goal = Untargeted() if info["target"] is None else Targeted(info["target"])
        return cls(delta, ball, goal, info["provenance"], info["history"], info["why"])

    def picture(self, path: str | Path) -> float:
        """Write a PNG: mid-grey where nothing changes, the largest change black or white. Returns the magnification."""
        from PIL import Image

        largest = float(self.delta.abs().max())
        gain = 0.5 / largest if largest else 1.0
        pixels = (save_at((0.5 + gain * self.delta).clamp(0, 1), 8) * 255).round().to(torch.uint8)
        array = pixels[0].numpy() if pixels.shape[0] == 1 else pixels.permute(1, 2, 0).numpy()
        content = io.BytesIO()
        Image.fromarray(array).save(content, "PNG")
        atomic.write_bytes(Path(path), content.getvalue())
        return gain

    def __repr__(self) -> str:
        wanted = "nontargeted" if self.target is None else f"target {self.target}"
        shape = "x".join(map(str, self.delta.shape))
        return f"Universal({shape}, {wanted}, {self.ball!r}, {self.provenance.get('method', 'unknown method')})"


def _checked(header: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """The header of a perturbation's file, with every field of its type; InputError where one is missing or wrong."""
    if header.get("format") != FORMAT:
        raise InputError(f"{path} holds no universal perturbation of this version; make it again")
    ball = header.get("ball")
    right = {
        "ball": isinstance(ball, dict) and ball.get("norm") in tuple(BALLS) and _is_number(ball.get("eps")),
        "target": header.get("target", "") is None or type(header["target"]) is int,
        "provenance": isinstance(header.get("provenance"), dict),
        "history": isinstance(header.get("history"), list) and all(isinstance(h, dict) for h in header["history"]),
        "why": isinstance(header.get("why"), str),
    }
    wrong = [name for name, is_right in right.items() if not is_right]
    if wrong:
        raise InputError(f"the header of {path} has no valid {wrong[0]}; make the perturbation again")
    return header


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
