"""Random perturbations of the same size: what a universal perturbation must be compared with."""

from __future__ import annotations

from medrobust import seeds
from medrobust.classifier import Classifier
from medrobust.images import Images, Lazy, chunks
from medrobust.threat import Ball, Linf, Untargeted
from medrobust.universal.perturbation import Universal


def controls(classifier: Classifier, images: Images | Lazy, ball: Ball, seed: int = 0) -> list[Universal]:
    """Three random perturbations of size eps, in the shape of these images.

    Linf: uniform in the ball (Hirano et al. 2021), +-eps sign noise, which is stronger, and sign noise in blocks of
    4 x 4 pixels, which networks that shrink their input cannot average out. L2: a random direction on the sphere
    (Hirano et al. 2021), sign noise and sign noise in blocks, both scaled to eps.
    """
    _, c, h, w = next(iter(chunks(images, 1))).shape
    blocks = seeds.signs(seed, "universal/control blocks", [0], (c, -(-h // 4), -(-w // 4)))
    coarse = blocks.repeat_interleave(4, 2).repeat_interleave(4, 3)[..., :h, :w]
    fine = seeds.signs(seed, "universal/control signs", [0], (c, h, w))
    if isinstance(ball, Linf):
        first = "uniform", seeds.uniform(seed, "universal/control", [0], (c, h, w))
    else:
        first = "direction", seeds.normal(seed, "universal/control", [0], (c, h, w))
    digest = classifier.digest()
    made = []
    for kind, noise in (first, ("signs", fine), ("blocks", coarse)):
        pattern = noise if kind == "uniform" else ball.at_edge(noise)
        delta = ball.project(float(ball.eps) * pattern)[0]
        provenance = {"method": f"random {kind}", "seed": seed, "classifier": digest, "queries": 0, "gradients": 0}
        made.append(Universal(delta, ball, Untargeted(), provenance))
    return made
