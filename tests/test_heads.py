"""Heads: an unknown finding takes part in nothing."""

from __future__ import annotations

import pytest
import torch

from medrobust import InputError
from medrobust.heads import MultiLabel


def test_an_unknown_finding_changes_no_gap_loss_gradient_or_decision() -> None:
    head = MultiLabel()
    logits = (3 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0))).requires_grad_()
    labels = (torch.rand(40, 3, generator=torch.Generator().manual_seed(1)) > 0.5).long()
    hidden = labels.clone()
    hidden[:, 1] = -1
    assert torch.equal(head.gap(logits, hidden), head.gap(logits[:, [0, 2]], labels[:, [0, 2]]))
    assert torch.equal(head.wrong(logits, hidden), head.wrong(logits[:, [0, 2]], labels[:, [0, 2]]))
    assert torch.equal(head.wrong(logits, hidden), head.gap(logits, hidden) < 0)
    loss = head.log_cross_entropy(logits, hidden)
    assert torch.allclose(loss, head.log_cross_entropy(logits[:, [0, 2]], labels[:, [0, 2]]))
    loss.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[:, 1] == 0).all()
    assert (logits.grad[:, 0] != 0).all()


@pytest.mark.parametrize("labels", [[[2, 0]], [[-2, 0]], [[-1, -1]], [[0, 1, 0]]])
def test_labels_of_findings_are_0_1_or_unknown_and_one_is_known(labels: list[list[int]]) -> None:
    with pytest.raises(InputError):
        MultiLabel().check_labels(torch.tensor(labels), 2)
