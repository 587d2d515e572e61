"""Black-box attacks: they use the scores of queried images only, within a budget of queries."""

from __future__ import annotations

from torch import Tensor

from medrobust.attacks.attack import Attack, Batch, State
from medrobust.errors import InputError
from medrobust.threat import margin


class BlackBox(Attack):
    """A query is one forward pass of one image whose scores come back; the same image queried twice counts twice.

    queries: how many each image may cost. It is never exceeded, and used up exactly where the attack fails. The look
    at the clean image that tells whether there is anything to attack is not among them.
    """

    uses_gradient = False
    loss = staticmethod(margin)

    def __init__(self, queries: int) -> None:
        if queries < 1:
            raise InputError(f"queries must be at least 1, got {queries}")
        self.steps = queries

    @property
    def queries(self) -> int:
        """The budget of each image."""
        return self.steps

    @property
    def settings(self) -> dict[str, object]:
        own = {k: v for k, v in super().settings.items() if k != "steps"}
        return {"queries": self.queries, **own}

    def budget_exhausted(self, batch: Batch, state: State) -> Tensor | None:  # noqa: ARG002
        return batch.index + 1 >= self.steps
