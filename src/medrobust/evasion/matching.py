"""Look like a clean image of the wrong class (Sabour et al. 2016, arXiv:1511.05122; advised by Tramer et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.attacks import Batch, State
from medrobust.detectors import Detector
from medrobust.detectors.features import LOGITS, LayerFeatures
from medrobust.errors import InputError
from medrobust.evasion.evasion import Evasion
from medrobust.evasion.joint import JointOutput
from medrobust.images import Images, PerImage
from medrobust.threat import Targeted


class FeatureMatching(Evasion):
    """Draws every layer that the detector reads, and the logits, to those of one clean image: the nearest that is
    decided as the goal wants and that the detector does not suspect. Needs no gradient of the detector.
    """

    title = "Feature matching"
    source = "Sabour et al. 2016, arXiv:1511.05122; Tramer et al. 2020, arXiv:2002.08347"
    needs_reference = True

    def learn(self, detector: Detector, reference: LayerFeatures, classes: Tensor, threshold: float) -> None:
        unflagged = detector.score_features(reference) <= threshold
        self._guides = {name: value.double() for name, value in reference.items()}
        self._classes, self._unflagged = classes, unflagged
        self._spread = {
            name: v.std(0, correction=0).clamp_min(1e-3 * float(v.std()) + 1e-12) for name, v in self._guides.items()
        }

    def begin(self, output: JointOutput, batch: Batch) -> State:
        assert batch.goal.labels is not None
        wanted = self._classes[None] == batch.goal.labels.cpu()[:, None]
        wanted = wanted if isinstance(batch.goal, Targeted) else ~wanted
        if not bool(wanted.any(1).all()):
            raise InputError("a wanted class has no reference image; give reference images of every class")
        unflagged = wanted & self._unflagged
        wanted = torch.where(unflagged.any(1, keepdim=True), unflagged, wanted)
        features = {name: value.detach()[: len(output.images)].cpu() for name, value in output.table.items()}
        far = torch.stack([self._far(features[name], guides, name) for name, guides in self._guides.items()])
        nearest = far.sum(0).masked_fill(~wanted, torch.inf).argmin(1)
        return {f"guide/{name}": g[nearest].to(batch.origin.device) for name, g in self._guides.items()}

    def _far(self, features: Tensor, guides: Tensor, name: str) -> Tensor:
        spread = self._spread[name]
        # row by row: the rounding of a matrix product may depend on the number of rows
        return torch.stack([(((row - guides) / spread) ** 2).mean(1) for row in features])

    def direction(self, output: JointOutput, batch: Batch, state: State) -> Images:  # noqa: ARG002
        loss: PerImage = output.margin.clamp_max(0)
        for name, value in output.table.items():
            n = len(output.images)
            apart = (value[:n] - state[f"guide/{name}"]) / self._spread[name].to(value.device)
            loss = loss - (apart**2).mean(1) * (1.0 if name != LOGITS else 0.1)
        return output.gradient(loss)
