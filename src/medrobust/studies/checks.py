"""How far can the numbers be believed? Checks that an attack must pass, after Carlini et al. 2019 (arXiv:1902.06705).

A check that fails is shown in the report beside what it touches; nothing is hidden and nothing is repaired.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np

TOLERATED = 0.02
"""Share of images that may prove nothing without putting the whole attack in doubt; they are counted either way."""


@dataclass(frozen=True)
class Check:
    """One question about one attack. passed: None where it could not be asked."""

    name: str
    attack: str
    passed: bool | None
    detail: str
    consequence: str

    def plain(self) -> dict[str, object]:
        return asdict(self)


def zero_eps(attack: str, reached: np.ndarray, before: np.ndarray) -> Check:
    return Check(
        "eps 0 equals clean",
        attack,
        bool((reached == before).all()),
        f"{int((reached != before).sum())} of {reached.size} decisions changed at eps 0",
        "if this fails, attacked and clean images are not treated alike and no number can be believed",
    )


def grows_with_eps(attack: str, eps: list[float], success: list[np.ndarray]) -> Check:
    """success: (n,) at each eps, each attacked from nothing."""
    rates = [float(s.mean()) for s in success]
    # an attack is a search: one image in twenty may be lost by chance, a falling curve may not
    slack = max(1, success[0].size // 20) / success[0].size
    passed = all(b >= a - slack for a, b in pairwise(rates))
    return Check(
        "success grows with eps",
        attack,
        passed,
        " → ".join(f"{r:.0%} at {e * 255:.3g}/255" for e, r in zip(eps, rates, strict=True)),
        "if this fails, the attack does not search well and the accuracy under attack is too high",
    )


def grows_with_steps(attack: str, steps: list[int], success: list[np.ndarray]) -> Check:
    """The last entry has many more steps than the audit uses: it must not find much that the audit missed."""
    rates = [float(s.mean()) for s in success]
    n = success[0].size
    slack = max(1, n // 20) / n
    passed = all(b >= a - slack for a, b in pairwise(rates)) and rates[-1] - rates[-2] <= 0.1
    return Check(
        "success grows with steps, then settles",
        attack,
        passed,
        " → ".join(f"{r:.0%} with {s} steps" for s, r in zip(steps, rates, strict=True)),
        "if this fails, the attack was stopped too early (or goes astray) and the accuracy under attack is too high",
    )


def huge_eps(attack: str, eps: float, reached: np.ndarray) -> Check:
    return Check(
        "a huge eps reaches 100 %",
        attack,
        bool(reached.all()),
        f"{reached.mean():.0%} of {reached.size} images fooled at {eps * 255:.3g}/255",
        "if this fails, the attack can not reach what is certainly reachable: its gradients mislead it",
    )


def usable_gradients(attack: str, blind: np.ndarray) -> Check:
    return Check(
        "gradients are not zero",
        attack,
        bool(blind.mean() < TOLERATED),
        f"{int(blind.sum())} of {blind.size} images were never fooled and gave no usable gradient",
        "if this fails, those images prove nothing: they read inconclusive, not robust",
    )


def confirmed(attack: str, unconfirmed: int, n: int) -> Check:
    return Check(
        "every success is confirmed by the judge",
        attack,
        unconfirmed == 0,
        f"{unconfirmed} of {n} claimed successes were not legal or not seen again in float32",
        "if this fails, the classifier does not give the same answer twice; unconfirmed successes are not counted",
    )


def noise_is_weaker(attack: str, eps: tuple[float, ...], star: np.ndarray, noise_wrong: np.ndarray) -> Check:
    """noise_wrong: bool (n, len(eps))."""
    attacked = np.stack([star <= np.float32(e) for e in eps], 1).mean(0)
    excess = noise_wrong.mean(0) - attacked
    worst = int(excess.argmax())
    return Check(
        "random noise of the same size is weaker",
        attack,
        bool(excess.max() <= 0.02),
        f"worst at {eps[worst] * 255:.3g}/255: wrong under noise {noise_wrong.mean(0)[worst]:.0%}, "
        f"under attack {attacked[worst]:.0%}",
        "if this fails, the attack is not better than chance",
    )


def single_step_is_weaker(many: str, eps: tuple[float, ...], one: np.ndarray, star: np.ndarray) -> Check:
    """one, star: eps* of the single-step and of the many-step attack on the same images."""
    single = np.stack([(one <= np.float32(e)).mean() for e in eps])
    several = np.stack([(star <= np.float32(e)).mean() for e in eps])
    worst = int((single - several).argmax())
    return Check(
        "many steps are not weaker than one",
        many,
        bool((single - several).max() <= 0.02),
        f"closest at {eps[worst] * 255:.3g}/255: one step fools {single[worst]:.0%}, many {several[worst]:.0%}",
        "if this fails, the many-step attack is caught by masked gradients",
    )


def black_box_is_weaker(
    attack: str, eps: float, probe: np.ndarray, white: np.ndarray, queries: int, title: str
) -> Check:
    """probe, white: reached (n,) on the same images at the same eps."""
    only = int((probe & ~white).sum())
    return Check(
        "a black-box probe is not stronger",
        attack,
        only <= max(1, probe.size // 20),
        f"at {eps * 255:.3g}/255: white box {white.mean():.0%}, {title} with {queries} queries {probe.mean():.0%} of "
        f"{probe.size} images; {only} fell to the black box alone",
        "if this fails, gradients are masked and the white-box numbers are too high",
    )


def finds_what_others_find(attack: str, eps: float, missed: int, n: int) -> Check:
    """missed: images that another attack broke at that eps and this one did not."""
    return Check(
        "the ensemble finds what the others find",
        attack,
        missed <= max(1, n // 50),
        f"at {eps * 255:.3g}/255: {missed} of {n} images fell to other attacks alone",
        "if this fails, the ensemble was too short; the headline counts what the others broke all the same",
    )


def square_is_not_needed(attack: str, eps: float, alone: int, n: int) -> Check:
    """alone: images that held against every gradient and fell to the member that sees none."""
    return Check(
        "gradients find what queries find",
        attack,
        alone <= max(1, n // 20),
        f"at {eps * 255:.3g}/255: {alone} of {n} images held against all gradients and fell to Square",
        "if this fails, gradients are masked, and the numbers of attacks that follow them are too high",
    )
