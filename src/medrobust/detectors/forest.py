"""A random forest (Breiman 2001), grown by scikit-learn, kept and asked as arrays."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medrobust.detectors.rule import Rule


class Forest(Rule):
    """Share of the trees' votes for "attacked", less one half.

    Arrays, the nodes of all trees behind one another: ``left``, ``right`` (the next node; a leaf is its own),
    ``feature``, ``threshold`` (left where the feature is at most that), ``vote`` (share attacked at the node),
    ``root`` (of each tree), ``depth`` (of the deepest).
    """

    name = "forest"

    def __init__(self, trees: int = 30) -> None:
        super().__init__()
        self.trees = trees

    def fit(self, numbers: Tensor, attacked: Tensor, *, seed: int, scale_on: Tensor | None = None) -> None:  # noqa: ARG002
        from sklearn.ensemble import RandomForestClassifier

        model = RandomForestClassifier(self.trees, class_weight="balanced", random_state=seed, n_jobs=1)
        model.fit(numbers.numpy().astype(np.float32), attacked.numpy())
        self.arrays = arrays_of(model)

    def decide(self, numbers: Tensor) -> Tensor:
        # scikit-learn rounds features to float32 and compares them with float64 thresholds
        x = numbers.float().double()
        left, right, feature = (self.on(name, x) for name in ("left", "right", "feature"))
        threshold, vote = self.on("threshold", x), self.on("vote", x)
        node = self.on("root", x)[None].expand(len(x), -1)
        for _ in range(int(self.arrays["depth"])):
            goes_left = x.gather(1, feature[node]) <= threshold[node]
            node = torch.where(goes_left, left[node], right[node])
        return vote[node].mean(1) - 0.5


def arrays_of(model: object) -> dict[str, Tensor]:
    """The nodes of a fitted ``RandomForestClassifier`` of two classes."""
    left, right, feature, threshold, vote, root = [], [], [], [], [], []
    depth, offset = 0, 0
    for tree in (estimator.tree_ for estimator in model.estimators_):  # type: ignore[attr-defined]
        own = np.arange(tree.node_count)
        leaf = tree.children_left < 0
        left.append(np.where(leaf, own, tree.children_left) + offset)
        right.append(np.where(leaf, own, tree.children_right) + offset)
        feature.append(np.where(leaf, 0, tree.feature))
        threshold.append(np.where(leaf, 0.0, tree.threshold))
        counts = tree.value[:, 0, :]
        vote.append(counts[:, 1] / counts.sum(1))
        root.append(offset)
        offset += tree.node_count
        depth = max(depth, tree.max_depth)

    def whole(parts: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.concatenate(parts).astype(np.int64))

    return {
        "left": whole(left),
        "right": whole(right),
        "feature": whole(feature),
        "threshold": torch.from_numpy(np.concatenate(threshold).astype(np.float64)),
        "vote": torch.from_numpy(np.concatenate(vote).astype(np.float64)),
        "root": torch.tensor(root),
        "depth": torch.tensor(depth),
    }
