"""The methods: the optimisers of medrobust.search, and the baselines that each question has to beat."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

import medrobust.training.evolved.hyper as hyper
import medrobust.training.evolved.linear as linear
from medrobust import code_digest, options, search
from medrobust.errors import InputError
from medrobust.search import Optimiser
from medrobust.training.evolved.fitted import Fitted
from medrobust.training.evolved.folds import inner
from medrobust.training.evolved.hyper import Hyper
from medrobust.training.evolved.masks import Masks
from medrobust.training.evolved.problem import INNER, Problem, prepared
from medrobust.training.evolved.thresholds import Thresholds
from medrobust.training.evolved.weights import Weights

SMALL = 8
"""Population where a budget has no room for the usual one."""
MARKS = 60
"""Points at which a convergence curve is kept."""
STARTS = 10
"""Starts of multi-start Adam; each gets a tenth of the budget."""


@dataclass
class EvolvedResult:
    """The result of a method for S tasks.

    fitted: the networks, one a task. best (S, D), worth (S,): None and empty for methods that search no space.
    evaluations: spent by each task, a gradient counted as three; None where the method does not evaluate candidates.
    seconds: of one processor for all tasks together, fitting and searching, not judging.
    at (m,), curve (S, m), clock (m,): best worth after so many evaluations, and seconds till then, all tasks together.
    """

    fitted: list[Fitted]
    best: Tensor | None = None
    worth: np.ndarray = field(default_factory=lambda: np.empty(0))
    evaluations: int | None = None
    seconds: float = 0.0
    at: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    curve: np.ndarray = field(default_factory=lambda: np.empty((0, 0)))
    clock: np.ndarray = field(default_factory=lambda: np.empty(0))
    facts: Mapping[str, object] = field(default_factory=dict)


Method = Callable[[Any, int], EvolvedResult]
"""Called with the problem and the budget of evaluations a task."""


def searched(optimiser: Optimiser) -> Method:
    """The method that lets ``optimiser`` search the problem's space."""

    def find(problem: Problem, budget: int) -> EvolvedResult:
        begin = time.process_time()
        result = search.minimise(optimiser, problem, problem.space, problem.seeds, budget)
        seconds = time.process_time() - begin
        at = np.unique(np.geomspace(1, result.evaluations, MARKS).round().astype(np.int64))
        # the clock on the wall also ran while others had the processor: its shape is kept, its length is not
        clock = np.interp(at, result.totals, result.seconds) / max(result.seconds[-1], 1e-9) * seconds
        return EvolvedResult(
            problem.settle(result.best_x),
            result.best_x,
            result.best_f.numpy(),
            result.evaluations,
            seconds,
            at,
            result.history[:, at - 1].numpy(),
            clock,
            problem.facts(result.best_x),
        )

    return find


def logistic(problem: Weights, budget: int) -> EvolvedResult:  # noqa: ARG001 - it stops by itself
    """Logistic regression on the same inputs and objective: the network without its hidden layer."""
    begin = time.process_time()
    fitted = [linear.logistic(p.fitted, problem.decay) for p in problem.prepared]
    seconds = time.process_time() - begin
    return EvolvedResult(
        [Fitted.linear(p.reduction, m) for m, p in zip(fitted, problem.prepared, strict=True)], seconds=seconds
    )


def all_features(problem: Masks, budget: int) -> EvolvedResult:  # noqa: ARG001 - nothing is searched
    """Logistic regression on everything that is offered."""
    begin = time.process_time()
    masks = np.ones((len(problem.tasks), problem.features), dtype=bool)
    fitted = problem.judged(masks)
    facts = {"kept": masks.sum(1).tolist(), "offered": problem.features}
    return EvolvedResult(fitted, seconds=time.process_time() - begin, facts=facts)


def sparse(problem: Masks, budget: int) -> EvolvedResult:  # noqa: ARG001 - a grid of strengths, whatever the budget
    """Logistic regression with an L1 penalty, its strength chosen in the inner folds."""
    begin, fitted, kept = time.process_time(), [], []
    for task, p in zip(problem.tasks, problem.prepared, strict=True):
        folds = [prepared(problem.table, a, b, problem.inputs) for a, b in inner(problem.table, task, INNER)]
        model = linear.sparse(p.fitted, [(f.fitted, f.held) for f in folds])
        fitted.append(Fitted.linear(p.reduction, model))
        kept.append(int((np.abs(model.coef_) > 0).any(0).sum()))
    return EvolvedResult(fitted, seconds=time.process_time() - begin, facts={"kept": kept, "offered": problem.features})


def by_default(problem: Hyper, budget: int) -> EvolvedResult:  # noqa: ARG001 - nothing is searched
    """The values one would take without searching."""
    begin = time.process_time()
    fitted = problem.judged(hyper.defaults(problem))
    return EvolvedResult(fitted, seconds=time.process_time() - begin)


def tpe(problem: Hyper, budget: int) -> EvolvedResult:
    """Tree-structured Parzen estimators through optuna (Bergstra et al. 2011), one study a task, in step."""
    import optuna
    from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

    ranges: dict[str, BaseDistribution] = {}
    space = problem.space
    assert isinstance(space, search.Space)
    for name, part in space.parts.items():
        if isinstance(part, search.Real):
            ranges[name] = FloatDistribution(part.low, part.high, log=part.log)
        elif isinstance(part, search.Integer):
            ranges[name] = IntDistribution(part.low, part.high)
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    begin, clock, worth = time.process_time(), [], []
    try:
        samplers = [optuna.samplers.TPESampler(seed=1_000 * seed + fold) for seed, fold in problem.seeds]
        studies = [optuna.create_study(sampler=sampler) for sampler in samplers]
        for _ in range(budget):
            trials = [study.ask(ranges) for study in studies]
            values = {name: torch.tensor([[t.params[name]] for t in trials]) for name in ranges}
            f = problem(values)[:, 0].tolist()
            for study, trial, value in zip(studies, trials, f, strict=True):
                study.tell(trial, value)
            worth.append(f)
            clock.append(time.process_time() - begin)
    finally:
        optuna.logging.set_verbosity(before)
    best = {name: [study.best_params[name] for study in studies] for name in ranges}
    chosen = {name: torch.tensor(values) for name, values in best.items()}
    curve = np.minimum.accumulate(np.asarray(worth).T, 1)
    return EvolvedResult(
        problem.judged(chosen),
        None,
        curve[:, -1],
        budget,
        clock[-1],
        np.arange(1, budget + 1),
        curve,
        np.asarray(clock),
        best,
    )


def unmoved(problem: Thresholds, budget: int) -> EvolvedResult:  # noqa: ARG001 - nothing is searched
    """The largest probability decides."""
    return EvolvedResult(problem.settle(torch.zeros(len(problem.tasks), problem.space.dims, dtype=torch.float64)))


def scanned(problem: Thresholds, budget: int) -> EvolvedResult:  # noqa: ARG001 - it looks at every image once
    """Every threshold that decides differently, looked at: the exact optimum on the same scores."""
    begin = time.process_time()
    best = problem.scanned()
    seconds = time.process_time() - begin
    worth = np.array([float(problem.value(i, b[None])[0]) for i, b in enumerate(best)])
    return EvolvedResult(problem.settle(best), best, worth, seconds=seconds, facts=problem.facts(best))


@dataclass(frozen=True)
class Question:
    """One thing that is optimised.

    title: for people. share: of the whole budget; one evaluation costs more where networks are trained in it.
    baselines: name -> what has to be beaten. reference: the baseline that the verdict compares with.
    """

    title: str
    problem: type[Problem]
    share: float
    baselines: dict[str, Method]
    reference: str


WEIGHTS: dict[str, Method] = {
    "logistic": logistic,
    "adam": searched(search.Adam()),
    "multi-start-adam": searched(search.Adam(population=STARTS)),
}
QUESTIONS = {
    "weights": Question("weights of the network", Weights, 1.0, WEIGHTS, "adam"),
    "masks": Question("which features to keep", Masks, 1 / 10, {"all": all_features, "l1": sparse}, "all"),
    "hyper": Question(
        "hyper-parameters and hidden size", Hyper, 1 / 150, {"defaults": by_default, "tpe": tpe}, "random"
    ),
    "threshold": Question("decision threshold", Thresholds, 1 / 30, {"unmoved": unmoved, "scan": scanned}, "unmoved"),
}


TITLES = {
    "logistic": "logistic regression",
    "adam": "Adam",
    "multi-start-adam": f"Adam, {STARTS} starts",
    "all": "all features",
    "l1": "L1 penalty",
    "defaults": "usual values",
    "tpe": "TPE (optuna)",
    "unmoved": "largest probability",
    "scan": "every threshold",
}


def method(question: str, name: str) -> Method:
    """A baseline of the question; an optimiser of medrobust.search by its name, ``gwo:population=16``; with "+adam"
    behind it, followed by gradient descent for the second half of the budget."""
    description = QUESTIONS[question]
    if name in description.baselines:
        return description.baselines[name]
    first, plus, second = name.partition("+")
    if first.partition(":")[0] not in search.OPTIMISERS or (plus and second != "adam"):
        names = ", ".join([*description.baselines, *search.OPTIMISERS, "NAME+adam"])
        raise InputError(f"method {name!r} is not known; choose from {names}")
    if plus and not description.problem.differentiable:
        raise InputError(f"{name!r} needs gradients, and there are none for {description.title}; leave it out there")
    options.parse(first, search.OPTIMISERS, "method")
    return lambda problem, budget: searched(optimiser(name, budget))(problem, budget)


def optimiser(name: str, budget: int) -> Optimiser:
    """The search of that name for that budget. A usual population would be most of a small budget: SMALL is taken
    where it would leave fewer than four generations."""
    first, plus, _ = name.partition("+")
    kind, values = options.parse(first, search.OPTIMISERS, "method")
    make: Callable[..., Optimiser] = search.OPTIMISERS[kind]
    made = make(**values)
    if (
        "population" in inspect.signature(make).parameters
        and "population" not in values
        and budget < 4 * made.population
    ):
        made = make(**values, population=SMALL)
    return search.Then(made, search.Adam()) if plus else made


def code(question: str, name: str) -> str:
    """Digest of the code of the optimiser of that name; "" for baselines."""
    return "" if name in QUESTIONS[question].baselines else code_digest.of_object(optimiser(name, 10**9))


def needs_gradient(name: str) -> bool:
    """Whether a method of this name descends along gradients."""
    return "adam" in name


def method_info(question: str, name: str) -> dict[str, str]:
    """title, for people; kind: "baseline", "random", "search", or "both" (a search and gradient descent after it)."""
    if name in QUESTIONS[question].baselines:
        return {"title": TITLES[name], "kind": "baseline"}
    first, plus, _ = name.partition("+")
    base, _, settings = first.partition(":")
    title = search.OPTIMISERS[base].title + (f" ({settings})" if settings else "")
    if plus:
        return {"title": f"{title}, then Adam", "kind": "both"}
    return {"title": title, "kind": "random" if base == "random" else "search"}
