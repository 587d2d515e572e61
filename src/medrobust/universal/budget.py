"""Methods that see nothing but answers: how many they may ask for is part of what they are."""

from __future__ import annotations

from abc import abstractmethod

from medrobust.errors import InputError
from medrobust.universal.method import UniversalMethod


class QueryMethod(UniversalMethod):
    """A black-box method. A query is one forward pass of one image; asked twice, it counts twice.

    queries: how many there may be in all, those for the clean predictions among them; never exceeded.
    """

    queries: int
    opens = False

    @abstractmethod
    def least(self, n: int) -> int:
        """Queries without which nothing can be done for n images."""

    def work(self, n: int) -> int:  # noqa: ARG002 - the budget is the same for any number of images
        return self.queries

    def check(self, n: int) -> None:
        if n and self.queries < self.least(n):
            raise InputError(
                f"{self.queries} queries are too few for {n} images; give at least {self.least(n)}, or fewer images"
            )

    def why_still(self) -> str:
        """Why the perturbation stayed zero, where no answer ever got better."""
        return (
            f"nothing that was tried within {self.queries} queries changed the answers for the better, so the "
            "perturbation stayed zero: this says nothing about robustness; give more queries or longer steps"
        )
