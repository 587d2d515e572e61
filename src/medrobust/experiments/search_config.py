"""Settings of a comparison of searches, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass

from medrobust import search
from medrobust.errors import InputError
from medrobust.training import evolved
from medrobust.training.evolved import QUESTIONS

COMMON = ("random", "ga", "pso", "de", "cma-es", "gwo", "woa", "gwo+adam")
"""Compared unless others are named."""


@dataclass(frozen=True)
class SearchConfig:
    """What is compared.

    questions: names of QUESTIONS. methods: names of medrobust.search.OPTIMISERS, "NAME+adam" for one of them followed
    by gradient descent, or "all"; the baselines of each question are always there. budget: evaluations a network for
    weights; the other questions, whose evaluations cost more or whose spaces are smaller, get a share of it.
    """

    questions: tuple[str, ...] = ("weights",)
    methods: tuple[str, ...] = COMMON
    budget: int = 6000
    seeds: int = 20
    folds: int = 3

    def __post_init__(self) -> None:
        for name in self.questions:
            if name not in QUESTIONS:
                raise InputError(f"{name!r} cannot be searched; choose from {', '.join(QUESTIONS)}")
        if not self.questions or not self.methods:
            raise InputError("name at least one method, and one thing to search")
        if self.seeds < 2:
            raise InputError(f"seeds must be 2 or more, got {self.seeds}: one run says nothing about a random search")
        if self.folds < 2:
            raise InputError(f"folds must be 2 or more, got {self.folds}")
        for question in self.questions:
            chosen = QUESTIONS[question]
            for name in self.names(question):
                evolved.method(question, name)
                least = 1 if name in chosen.baselines else evolved.optimiser(name, self.evaluations(question)).least(1)
                if self.evaluations(question) < least:
                    raise InputError(
                        f"a budget of {self.budget} leaves {self.evaluations(question)} evaluations for "
                        f"{chosen.title}, and {name} needs {least}; raise it to {round(least / chosen.share)} or more"
                    )

    def names(self, question: str) -> list[str]:
        """The methods compared on one question: its baselines, then the searches that can be used on it."""
        chosen = QUESTIONS[question]
        named = [n for m in self.methods for n in (everything(question) if m == "all" else (m,))]
        able = [n for n in named if chosen.problem.differentiable or not evolved.needs_gradient(n)]
        wanted = [*chosen.baselines, *able]
        if chosen.reference not in wanted:
            wanted.append(chosen.reference)
        return list(dict.fromkeys(wanted))

    def evaluations(self, question: str) -> int:
        """Of one network."""
        return max(1, round(self.budget * QUESTIONS[question].share))


def everything(question: str) -> tuple[str, ...]:
    """Every optimiser; where there are gradients, five of them followed by gradient descent too."""
    names = tuple(search.OPTIMISERS)
    if not QUESTIONS[question].problem.differentiable:
        return names
    return (*names, *(f"{name}+adam" for name in ("ga", "pso", "de", "gwo", "woa")))
