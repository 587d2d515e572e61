"""Do nature-inspired searches find more than chance? After Jindal & Kumar 2022, a review of such training.

    medrobust study run studies/jindal2022.py --size small

What is asked here is the part of the comparison that needs no classifier: optimisers at an equal number of evaluations,
on functions whose optimum is known, at the centre of the box and shifted away from it. Training classifiers by search
is not part of this file. smoke: seconds. small: every optimiser, 10 dimensions, 5,000 evaluations, 20 seeds, about 5
minutes on one core. paper: 30 dimensions, 50,000 evaluations, 30 seeds.

To expect: grey wolf and whale are drawn to the centre: near 0 where the optimum lies there, far from it where it does
not; CMA-ES and DE find both.
"""

from __future__ import annotations

from collections.abc import Sequence

from medrobust.studies.grid import Node, Part, Published, Study, Table

TITLE, SOURCE = "After Jindal & Kumar 2022", "a review; its own tables are not at hand"
ALL = (
    "random", "ga", "pso", "de", "shade", "cma-es", "gwo", "woa", "abc", "aco-r", "cs", "fa", "ba", "sa", "hs", "gsa",
    "bbo", "tlbo", "mfo", "pso-ga", "gwo-pso", "pso-abc",
)  # fmt: skip


def study(size: str) -> Study:
    return {
        "smoke": lambda: whole(("random", "de", "gwo"), 4, 300, 5),
        "small": lambda: whole(ALL, 10, 5000, 20),
        "paper": lambda: whole(ALL, 30, 50_000, 30),
    }[size]()


def whole(optimisers: Sequence[str], dims: int, budget: int, seeds: int) -> Study:
    cells = []
    for optimiser in optimisers:
        for function in ("sphere", "rastrigin"):
            for shifted in (False, True):
                about = {"optimiser": optimiser, "function": function, "shifted": shifted, "dims": dims}
                where = "shifted" if shifted else "at the centre"
                labels = {"data": function, "model": optimiser, "optimum": where}
                cells.append(Node("minimised", {**about, "budget": budget, "seeds": seeds}, labels=labels, seconds=4))
    part = Part(
        "search", "Optimisers at equal evaluations", cells,
        about=f"Median over {seeds} seeds of the best value after {budget:,} evaluations, {dims} dimensions; 0 is the "
        "optimum.",
        show=[Table(f"Best value, {f}", {"metric": "objective", "data": f}, ("model",), "optimum")
              for f in ("sphere", "rastrigin")],
        published=[
            Published("Grey wolf on the sphere, optimum at 0 / shifted", "7e-5 / 0.79", "a pilot of this project",
                      "recalled", "other dimensions and budget", {"model": "gwo", "data": "sphere"},
                      "another implementation, number of dimensions and budget"),
        ],
    )  # fmt: skip
    return Study(TITLE, SOURCE, [part])
