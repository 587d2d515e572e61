"""Stay where the features of clean images are: the hierarchical feature constraint (Yao et al. 2021, MICCAI)."""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.attacks import Batch, State
from medrobust.detectors import Detector
from medrobust.detectors.features import LOGITS, LayerFeatures
from medrobust.errors import InputError
from medrobust.evasion.evasion import Evasion
from medrobust.evasion.joint import JointOutput, aim
from medrobust.images import Images
from medrobust.threat import Targeted


class HFC(Evasion):
    """Cross-entropy of the class aimed at plus ``weight`` x the squared whitened distances to that class's features.

    components: of the Gaussian mixture (diagonal covariance) fitted to each class and layer of the reference images;
    the nearest component counts, chosen without a gradient. weight: lambda, 1 as published. The published code skips
    layers of more than 512 channels, which leaves the features that most detectors read unconstrained: here exactly
    the layers that the detector reads are constrained. No random start, as published.
    """

    title = "Hierarchical feature constraint"
    source = "Yao et al. 2021, arXiv:2012.09501"
    needs_reference = True
    random_start = False

    def __init__(self, steps: int = 40, step: float = 0.25, weight: float = 1.0, components: int = 4) -> None:
        super().__init__(steps, step)
        if not weight >= 0 or components < 1:
            raise InputError(f"weight must not be negative and components at least 1, got {weight} and {components}")
        self.weight, self.components = weight, components

    def learn(self, detector: Detector, reference: LayerFeatures, classes: Tensor, threshold: float) -> None:  # noqa: ARG002
        self._layers = tuple(name for name in detector.layers_ if name in reference) or (LOGITS,)
        self._mixtures = {
            (name, c): mixture(reference[name][classes == c].double(), self.components)
            for name in self._layers
            for c in sorted(set(classes.tolist()))
        }

    def direction(self, output: JointOutput, batch: Batch, state: State) -> Images:  # noqa: ARG002
        n = len(output.images)
        logits = output.table[LOGITS][:n]
        aimed = output.aimed
        if not isinstance(output.goal, Targeted):  # the nearest other class that reference images are decided as
            known = torch.tensor([(self._layers[0], c) in self._mixtures for c in range(logits.shape[1])])
            aimed = aim(output.goal, logits.detach().masked_fill(~known.to(logits.device), -torch.inf))
        loss = -torch.nn.functional.cross_entropy(logits, aimed, reduction="none")
        for name in self._layers:
            loss = loss - self.weight * self._constraint(output.table[name][:n], aimed, name)
        return output.gradient(loss)

    def _constraint(self, x: Tensor, aimed: Tensor, name: str) -> Tensor:
        parts = []
        for row, c in zip(x, aimed.tolist(), strict=True):
            mixture = self._mixtures.get((name, c))
            if mixture is None:
                raise InputError(f"no reference image is decided as class {c}; give reference images of every class")
            means, precision = (v.to(x.device) for v in mixture)
            parts.append((((row - means) ** 2) * precision).sum(1).amin())
        return torch.stack(parts)


def mixture(points: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Means (k, d) and precisions (k, d) of a Gaussian mixture with diagonal covariance, fitted to ``points`` (n, d).

    Fewer components where there are fewer than 10 images for each.
    """
    from sklearn.mixture import GaussianMixture

    count = max(1, min(components, len(points) // 10))
    floor = 1e-2 * float(points.var(0, correction=0).mean()) + 1e-9
    model = GaussianMixture(count, covariance_type="diag", reg_covar=floor, random_state=0, max_iter=50, tol=1e-2)
    if len(points) < 2:
        return points.clone(), torch.full_like(points, 1 / floor)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged: any mixture that covers the class serves
        model.fit(points.numpy())
    return torch.from_numpy(model.means_.copy()), torch.from_numpy(1 / model.covariances_)
