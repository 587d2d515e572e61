"""What an experiment with universal perturbations is asked for: the method, the goal and the size."""

from __future__ import annotations

from dataclasses import dataclass

from medrobust import options
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.errors import InputError
from medrobust.grey_scale import EIGHT_BIT, GreyScale
from medrobust.images import Lazy
from medrobust.threat import BALLS, Ball, Goal, GoalKind, Targeted, Untargeted, parse_goal
from medrobust.universal import UNIVERSAL, UniversalMethod

ZETA = 0.04
"""Size as a share of the mean norm of an image: the headline of Hirano et al. 2021."""


@dataclass(frozen=True, kw_only=True)
class PerturbationConfig:
    """method: a name of UNIVERSAL, with options after colons. target: a class by name or number; None: nontargeted.

    zeta: size as a share of the mean norm of ``measured`` training images. eps: absolute size, instead of it.
    unit: of eps: "fraction", "lv" (stored levels) or "hu" (Hounsfield units). InputError where a value is wrong.
    """

    method: str = "sgd"
    target: str | None = None
    norm: str = "l2"
    zeta: float | None = None
    eps: float | None = None
    unit: str = "fraction"
    measured: int = 1000

    def __post_init__(self) -> None:
        _ = self.maker
        if self.norm not in BALLS:
            raise InputError(f"--norm must be {' or '.join(BALLS)}, got {self.norm!r}")
        if self.zeta is not None and self.eps is not None:
            raise InputError("--zeta is relative to the images, --eps absolute: give one of the two")
        if self.zeta is not None and not 0 < self.zeta < 10:
            raise InputError(f"--zeta is a share such as 0.04, got {self.zeta:g}")
        if self.eps is not None:
            if not self.eps > 0:
                raise InputError(f"--eps wants one size above 0 such as 8/255, got {self.eps:g}")
            if self.unit == "fraction":
                BALLS[self.norm](self.eps)

    @property
    def maker(self) -> UniversalMethod:
        """The method, ready to be called."""
        name, values = options.parse(self.method, UNIVERSAL, "method")
        return UNIVERSAL[name](**values)

    @property
    def name(self) -> str:
        """Of the method, without its options: the value of the column ``attack``."""
        return self.method.partition(":")[0]

    @property
    def share(self) -> float | None:
        """The size relative to an image; None where an absolute one was given."""
        return self.zeta if self.eps is not None or self.zeta is not None else ZETA

    def target_index(self, classifier: Classifier) -> int | None:
        """Index of the target among ``head.targets``; None: nontargeted. InputError where it is no class.

        Of several findings it is hide:NAME or invent:NAME.
        """
        target, classes = self.target, classifier.classes
        if target is None:
            return None
        if classifier.head.multilabel:
            if not target.startswith(("hide:", "invent:")):
                raise InputError(
                    f"--target {target!r}: of several findings it is hide:NAME or invent:NAME, of {', '.join(classes)}"
                )
            goal = parse_goal(target, classes)
            assert goal.finding is not None
            return goal.finding + (len(classes) if goal.kind is GoalKind.HIDE else 0)
        if target in classes:
            return classes.index(target)
        if target.isdecimal() and len(target) < 10 and int(target) < len(classes):
            return int(target)
        raise InputError(f"--target {target!r} is not a class; the data has {', '.join(classes)}")

    def ball(self, data: Dataset, decoded: Lazy | None = None) -> Ball:
        """Of the absolute size, or of that size relative to what ``data`` shows; decoded: the same images at hand."""
        ball = BALLS[self.norm]
        if self.eps is not None:
            return ball(data.pixel_size(self.eps, self.unit))
        assert self.share is not None
        shown = ball.relative(self.share, decoded or data.shown())
        return ball(float(shown.eps) / data.span)


def goal_of(target: int | None) -> Goal:
    """Away from the clean answer, or towards a class."""
    return Untargeted() if target is None else Targeted(target)


def size_words(norm: str, eps: float, share: float | None, unit: GreyScale = EIGHT_BIT) -> str:
    """A size, for people. share: of the mean norm of an image, where it was given so. unit: of sizes of pixels."""
    size = f"{unit.text(eps)} a pixel" if norm.lower() == "linf" else f"L2 norm {eps:.3g}"
    return size if share is None else f"{size} = {share:.3g} x the images' mean norm"
