"""Maps of one finding beside its own mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import medrobust as mr
from medrobust.experiments.adversarial_pairs import Shard
from medrobust.experiments.explanation_cells import finding_maps
from tests.nets import bumpy


def test_the_gradient_of_a_findings_logit_is_laid_over_the_mask_of_that_finding():
    data = mr.data.load("phantom:chest-findings@16:n=20")
    net = bumpy(5)
    clf = mr.Classifier(net.net, data.classes, head="multilabel")
    images, labels = data.tensors()
    held = np.arange(20) % 2 == 0
    attacked = Shard(images.flip(3), np.zeros(20, np.int64), ~held)
    _, arrays = finding_maps(clf, data, attacked, labels, ("effusion", "nodule"), "body.3")
    for name in ("effusion", "nodule"):
        k = data.classes.index(name)
        has = (labels[:, k] == 1).numpy()
        masks = data.masks(range(20), name)[:, 0] >= 0.5
        area = arrays[f"lesion-area@{name}.clean"]
        assert np.array_equal(np.isfinite(area), has)
        assert area[has] == pytest.approx(masks[has].double().mean((1, 2)).numpy())
        pixels = images.clone().requires_grad_()
        (slope,) = torch.autograd.grad(clf(pixels)[:, k].sum(), pixels)
        inside = (slope[:, 0].abs() * masks).sum((1, 2)) / slope[:, 0].abs().sum((1, 2))
        seen = has & (area > 0)
        share = arrays[f"lesion-share-gradient@{name}.clean"]
        assert share[seen] == pytest.approx(inside[seen].numpy(), rel=1e-3)
        after = arrays[f"lesion-share-gradient@{name}.attacked"]
        assert np.array_equal(np.isfinite(after), seen & ~held)
        assert np.isfinite(arrays[f"lesion-auroc-cam@{name}.clean"]).any()
