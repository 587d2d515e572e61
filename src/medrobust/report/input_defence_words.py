"""What a defence is worth against three attackers, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from medrobust.report.comparison import Relation, Share, relation
from medrobust.report.run import Run
from medrobust.report.schema import InputDefenceInfo
from medrobust.report.words import NBSP, bounds, number, percent, plural
from medrobust.results import Kind

NONE = "none"
"""Name of the classifier without a defence."""
UNAWARE, ANOTHER, AWARE = "the classifier", "another classifier", "the classifier and the defence"
ATTACKERS = {UNAWARE: "not knowing it", ANOTHER: "from another classifier", AWARE: "knowing it"}
"""Values of the column ``knows``, and the heads of their columns."""


class Worth(Enum):
    HOLDS = "holds"
    HELPS = "helps"
    LESS = "helps, less than it looks"
    LITTLE = "helps, but most images fall"
    SEEMS = "looks safe, is not"
    NOT = "is not shown to help"
    UNKNOWN = "inconclusive"


HELPFUL = (Worth.HOLDS, Worth.HELPS, Worth.LESS)
HALF = 0.5
"""Share of images that must withstand who knows the defence, interval and all, for it to hold; where the whole interval
lies below, most images fall."""


class Defended(NamedTuple):
    """Share of images that withstand at one size: of the classifier alone, and with the defence under an attack that
    does not know it and under one that does. transferred, transferred_alone: under an attack from another classifier,
    with the defence and without; None where there was none."""

    title: str
    alone: Share
    unaware: Share
    aware: Share
    size: str
    transferred: Share | None = None
    transferred_alone: Share | None = None
    doubt: str = ""
    """Why it is inconclusive."""


def worth(one: Defended) -> Worth:
    """Told apart where intervals do not overlap. It looks safe where an attack by who does not know it leaves more than
    without it, and less is left by who does."""
    if not one.aware.ok or not one.alone.ok:
        return Worth.UNKNOWN
    tests = [(one.unaware, one.alone), (one.transferred, one.transferred_alone)]
    looks = any(
        test is not None and relation(test, before) is Relation.ABOVE and relation(one.aware, test) is Relation.BELOW
        for test, before in tests
    )
    helps = relation(one.aware, one.alone) is Relation.ABOVE
    if looks and (not helps or one.aware.surely_below(HALF)):
        return Worth.SEEMS
    if not helps:
        return Worth.NOT
    if one.aware.surely_below(HALF):
        return Worth.LITTLE
    if looks:
        return Worth.LESS
    return Worth.HOLDS if one.aware.surely_above(HALF) else Worth.HELPS


def sentence(one: Defended) -> str:
    """ "JPEG looks safe, is not: …"."""
    judged = worth(one)
    start = f"{one.title}: inconclusive" if judged is Worth.UNKNOWN else f"{one.title} {judged.value}"
    text = f"{start}: at {one.size}, {share(one.alone)} of {plural(one.alone.n, 'image')} withstand without it; with "
    text += f"it {share(one.unaware)} where the attacker does not know it, "
    if one.transferred is not None:
        text += f"{share(one.transferred)} where the attacker has another classifier, "
    text += f"{share(one.aware)} where the attacker knows it."
    return f"{text} Not believed: {one.doubt}." if one.doubt else text


def title(info: InputDefenceInfo, run: Run) -> str:
    """ "JPEG (quality 75)", "PGD adversarial training (ε 4/255)"."""
    if info.kind == "guard":
        return info.title
    if info.kind == "classifier":
        eps = info.settings.get("eps")
        return info.title if not isinstance(eps, float) else f"{info.title} (ε{NBSP}{size(run, eps)})"
    settings = ", ".join(f"{k} {v}" for k, v in info.settings.items() if v is not False)
    return f"{info.title} ({settings})" if settings else info.title


def titles(run: Run) -> Mapping[str, str]:
    """Of everything that was tried, by name; equal ones numbered."""
    info = run.conditions.input_defences
    if info is None:
        return {}
    given = {name: title(one, run) for name, one in info.defences.items()}
    every = list(given.values())
    repeated = {t for t in every if every.count(t) > 1}
    return {n: f"{t}, {every[:i].count(t) + 1}" if t in repeated else t for i, (n, t) in enumerate(given.items())}


def size(run: Run, eps: float) -> str:
    """ "4/255", or "L2 0.5"."""
    return run.conditions.grey_scale.text(eps) if run.conditions.norm == "Linf" else f"L2{NBSP}{number(eps)}"


def withstood(run: Run, name: str, knows: str, eps: float) -> Share | None:
    """Under one attacker."""
    return Share.of(run.find(Kind.DEFENCE, "accuracy_attacked", eps=eps, defence=name, knows=knows))


def of_run(run: Run, eps: float) -> dict[str, Defended]:
    """Every defence at one size, by name, in the order in which they were asked for."""
    every = {}
    for name, named in titles(run).items():
        alone = withstood(run, NONE, AWARE, eps)
        unaware, other, aware = (withstood(run, name, knows, eps) for knows in ATTACKERS)
        if alone is not None and unaware is not None and aware is not None:
            before = withstood(run, NONE, ANOTHER, eps)
            row = run.find(Kind.DEFENCE, "accuracy_attacked", eps=eps, defence=name, knows=AWARE)
            why = "" if row is None or row.ok else row.note
            every[name] = Defended(named, alone, unaware, aware, size(run, eps), other, before, why)
    return every


def telling(run: Run) -> float | None:
    """The size at which most defences differ in worth from nothing; of equals the smallest."""
    info = run.conditions.input_defences
    if info is None:
        return None
    return max(info.eps, key=lambda e: sum(worth(d) not in (Worth.NOT, Worth.UNKNOWN) for d in of_run(run, e).values()))


def told(run: Run) -> list[str]:
    """A sentence a defence."""
    eps = telling(run)
    return [] if eps is None else [sentence(one) for one in of_run(run, eps).values()]


def share(one: Share) -> str:
    """ "61.0 % (54.1–67.5)"."""
    return f"{percent(one.value)} {bounds(one.low, one.high)}".strip()
