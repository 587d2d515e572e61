"""Effect of a universal perturbation on a set of images: every number with its n and its 95 % interval."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from medrobust import stats
from medrobust.heads import HEADS
from medrobust.images import UNKNOWN
from medrobust.stats import Estimate


@dataclass(frozen=True, eq=False)
class UniversalOutcome:
    """Graded per image (n); built by ``judge``.

    clean, after, after_saving: decisions without it, with it, and with it saved at ``bits``: int64 (n,), or (n, k)
        of 0 and 1 for a multi-label head. labels: the truth, int64 (n,), or None. groups: a patient for each image.
    target: the wanted class, or None for a nontargeted perturbation. legal: its size is at most eps.
    """

    clean: np.ndarray
    after: np.ndarray
    after_saving: np.ndarray
    classes: tuple[str, ...]
    target: int | None
    legal: bool
    bits: int
    labels: np.ndarray | None = None
    groups: tuple[object, ...] | None = None

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.clean)

    @property
    def multilabel(self) -> bool:
        """A decision is a set of findings; then there is no confusion matrix and no cap, and "per class" means for
        each finding by itself."""
        return self.clean.ndim > 1

    # -- fooling: against the clean prediction, so that an error that was there before is no success -------

    @cached_property
    def fooled(self) -> np.ndarray:
        """bool (n,): the decision differs from the clean one."""
        return _differ(self.clean, self.after)

    @property
    def fooling_rate(self) -> Estimate:
        """Rf: share of the images whose decision changes (Hirano et al. 2021)."""
        return self._share(self.fooled)

    @property
    def fooling_rate_saved(self) -> Estimate:
        """The same when the perturbed images were saved at ``bits``."""
        return self._share(_differ(self.clean, self.after_saving))

    @property
    def cap(self) -> Estimate:
        """The largest Rf of a perturbation that sends every image into one class: the other classes' share.

        On two classes nothing gets beyond it but by changing decisions both ways.
        """
        if self.multilabel:
            return stats.NOTHING
        rarest = int(np.bincount(self.clean, minlength=len(self.classes)).argmin())
        return self._share(self.clean != rarest)

    @property
    def fooling_rate_per_class(self) -> dict[str, Estimate]:
        """Rf among the images that were decided as this class; of a finding: share of images in which it changes."""
        if self.multilabel:
            return self._per_finding(self.clean != self.after)
        return self._per_class(self.fooled, self.clean)

    # -- the target ----------------------------------------------------------------------------------------

    @property
    def targeted_success(self) -> Estimate | None:
        """Rs: share of the images decided as the target, those that were before included (Hirano et al. 2021)."""
        return None if self.target is None else self._share(self.at_target(self.after))

    @property
    def targeted_success_saved(self) -> Estimate | None:
        """The same when the perturbed images were saved at ``bits``."""
        return None if self.target is None else self._share(self.at_target(self.after_saving))

    @property
    def targeted_base(self) -> Estimate | None:
        """Share of the images that were decided as the target without any perturbation."""
        return None if self.target is None else self._share(self.at_target(self.clean))

    @property
    def targeted_success_new(self) -> Estimate | None:
        """Rs among the images that were not decided as the target before."""
        if self.target is None:
            return None
        return self._share(self.at_target(self.after), ~self.at_target(self.clean))

    @property
    def targeted_success_per_class(self) -> dict[str, Estimate]:
        """Rs among the images that were decided as this class."""
        if self.target is None or self.multilabel:
            return {}
        return self._per_class(self.at_target(self.after), self.clean)

    # -- where the images go -------------------------------------------------------------------------------

    @property
    def confusion(self) -> np.ndarray:
        """int64 (k, k): row, the clean decision; column, the decision under the perturbation."""
        k = len(self.classes)
        if self.multilabel:
            return np.zeros((0, 0), np.int64)
        return np.bincount(self.clean * k + self.after, minlength=k * k).reshape(k, k)

    @property
    def dominant(self) -> list[tuple[str, Estimate, Estimate]]:
        """(class, share of the images decided so before, and under the perturbation), the largest share first."""
        if self.multilabel:
            before, after = (self._per_finding(decisions == 1) for decisions in (self.clean, self.after))
            return [(name, before[name], after[name]) for name in self.classes]
        order = sorted(range(len(self.classes)), key=lambda c: -int((self.after == c).sum()))
        return [(self.classes[c], self._share(self.clean == c), self._share(self.after == c)) for c in order]

    # -- against the labels --------------------------------------------------------------------------------

    @property
    def accuracy_before(self) -> Estimate | None:
        """Share of the clean images that are decided rightly; None without labels, as all below."""
        return self._right(self.clean)

    @property
    def accuracy_after(self) -> Estimate | None:
        """Share of the perturbed images that are decided rightly."""
        return self._right(self.after)

    @property
    def accuracy_saved(self) -> Estimate | None:
        """The same when they were saved at ``bits``."""
        return self._right(self.after_saving)

    @property
    def recall_before(self) -> dict[str, Estimate]:
        """Of the images of each class, the share that is decided rightly. Of two classes the second one's is the
        sensitivity and the first one's the specificity."""
        return self._recall(self.clean)

    @property
    def recall_after(self) -> dict[str, Estimate]:
        """The same under the perturbation."""
        return self._recall(self.after)

    @property
    def sensitivity(self) -> tuple[Estimate, Estimate] | None:
        """Before and after, of the second of two classes; None for other numbers of classes."""
        return self._both(1)

    @property
    def specificity(self) -> tuple[Estimate, Estimate] | None:
        """Before and after: the recall of the first of two classes; None for other numbers of classes."""
        return self._both(0)

    # -- how -----------------------------------------------------------------------------------------------

    def _share(self, hits: np.ndarray, of: np.ndarray | None = None) -> Estimate:
        """Of the images ``of``, the share of hits."""
        of = np.ones(self.n, bool) if of is None else of
        return stats.proportion(hits[of], stats.members(self.groups, of))

    def _per_class(self, hits: np.ndarray, of: np.ndarray) -> dict[str, Estimate]:
        return {name: self._share(hits, of == c) for c, name in enumerate(self.classes)}

    def at_target(self, decisions: np.ndarray) -> np.ndarray:
        """bool (n,): the decision is the target."""
        assert self.target is not None
        if not self.multilabel:
            return np.asarray(decisions == self.target)
        absent, finding = divmod(self.target, len(self.classes))
        return np.asarray(decisions[:, finding] == 1 - absent)

    @property
    def target_name(self) -> str:
        """What every image is to be decided as."""
        assert self.target is not None
        return HEADS["multilabel" if self.multilabel else "softmax"]().targets(self.classes)[self.target]

    def _per_finding(self, hits: np.ndarray) -> dict[str, Estimate]:
        """hits: (n, k). Of the images in which a finding is known."""
        known = np.ones_like(hits, bool) if self.labels is None else self.labels != UNKNOWN
        return {name: self._share(hits[:, c], known[:, c]) for c, name in enumerate(self.classes)}

    def _right(self, decisions: np.ndarray) -> Estimate | None:
        return None if self.labels is None else self._share(~_differ(self.labels, decisions))

    def _recall(self, decisions: np.ndarray) -> dict[str, Estimate]:
        if self.labels is None:
            return {}
        if self.multilabel:
            return self._per_finding(decisions == self.labels)
        return self._per_class(decisions == self.labels, self.labels)

    def _both(self, c: int) -> tuple[Estimate, Estimate] | None:
        if self.labels is None or self.multilabel or len(self.classes) != 2:
            return None
        name = self.classes[c]
        return self.recall_before[name], self.recall_after[name]


def _differ(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """bool (n,): ``b`` is another decision than ``a``, at a finding that is known in ``a``."""
    return np.asarray(((a != b) & (a != UNKNOWN)).any(1) if a.ndim > 1 else a != b)
