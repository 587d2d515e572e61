"""Harmony search (Geem, Kim & Loganathan 2001, doi:10.1177/003754970107600201).

For real numbers as in Lee & Geem (2005, doi:10.1016/j.cma.2004.09.007).
"""

from __future__ import annotations

import torch

from medrobust.search.optimiser import Optimiser, Search, SearchRun


class HS(Optimiser):
    """One new harmony at a time, tone by tone from memory, perhaps retuned, or by chance; it replaces the worst.

    population: the memory. remember: HMCR, share of tones from memory. retune: PAR, share of those that are shifted.
    width: bw, how far, as a share of the box's.
    """

    title = "Harmony search"
    source = "Lee & Geem 2005, doi:10.1016/j.cma.2004.09.007"

    def __init__(self, population: int = 32, remember: float = 0.9, retune: float = 0.3, width: float = 0.01) -> None:
        self.population, self.remember, self.retune, self.width = population, remember, retune, width

    def search(self, run: SearchRun) -> Search:
        s, P, D = run.state, self.population, run.space.dims
        s.x, s.f = yield run.first(P)
        while True:
            tone = s.x.gather(1, run.draws.below(P, 1, D))
            recalled, retuned, by = run.draws.uniform(3, 1, D).unbind(1)
            shift = torch.where(retuned < self.retune, (2 * by - 1) * self.width * run.width, 0.0)
            x, f = yield torch.where(recalled < self.remember, tone + shift, run.anywhere(1))
            worst = s.f.argmax(1, keepdim=True)
            wins = f < s.f.gather(1, worst)
            at = worst[:, :, None].expand(-1, -1, D)
            s.x = s.x.scatter(1, at, torch.where(wins[:, :, None], x, s.x.gather(1, at)))
            s.f = s.f.scatter(1, worst, torch.where(wins, f, s.f.gather(1, worst)))
