"""One aim at a time: fool the classifier, then evade the detector (Bryniarski et al. 2021, arXiv:2106.15023)."""

from __future__ import annotations

import torch

from medrobust.attacks import Batch, State
from medrobust.errors import InputError
from medrobust.evasion.evasion import Evasion, towards
from medrobust.evasion.joint import JointOutput
from medrobust.images import Images


class SelectivePGD(Evasion):
    """Each step follows the classifier's margin while it is below ``kappa`` logits, else the detector's score."""

    title = "Selective PGD"
    source = "Bryniarski et al. 2021, arXiv:2106.15023"

    def __init__(self, steps: int = 40, step: float = 0.25, kappa: float = 0.1) -> None:
        super().__init__(steps, step)
        if not kappa >= 0:
            raise InputError(f"kappa must not be negative, got {kappa}")
        self.kappa = kappa

    def direction(self, output: JointOutput, batch: Batch, state: State) -> Images:  # noqa: ARG002
        return output.gradient(towards(output, self.kappa, -output.suspicion()))


class OrthogonalPGD(SelectivePGD):
    """The same, but of the gradient followed only the part at a right angle to the other one.

    Calming the detector then does not, to first order, win the classifier back. Costs two gradients a step.
    """

    title = "Orthogonal PGD"

    def direction(self, output: JointOutput, batch: Batch, state: State) -> Images:  # noqa: ARG002
        fool = output.gradient(output.margin)
        evade = output.gradient(-output.suspicion())
        missing = (output.margin.detach() < self.kappa).view(-1, 1, 1, 1)
        return orthogonal(torch.where(missing, fool, evade), torch.where(missing, evade, fool))


def orthogonal(gradient: Images, other: Images) -> Images:
    """The part of each row of ``gradient`` at a right angle to ``other``; all of it where nothing would be left."""
    a, b = gradient.flatten(1).double(), other.flatten(1).double()
    length = (b * b).sum(1, keepdim=True)
    rest = a - b * ((a * b).sum(1, keepdim=True) / torch.where(length > 0, length, torch.ones_like(length)))
    nothing = (rest.norm(dim=1) < 1e-6 * a.norm(dim=1))[:, None]
    return torch.where(nothing, a, rest).to(gradient.dtype).view_as(gradient)
