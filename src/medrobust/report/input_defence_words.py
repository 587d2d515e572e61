"""What a defence at the input is worth, in a sentence."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from medrobust.report.comparison import Relation, Share, relation
from medrobust.report.run import Run
from medrobust.report.words import NBSP, bounds, number, percent, plural
from medrobust.results import Kind

UNAWARE, AWARE = "the classifier", "the classifier and the defence"


class Worth(Enum):
    HELPS = "helps"
    SEEMS = "looks safe, is not"
    NOT = "is not shown to help"
    UNKNOWN = "inconclusive"


class Defended(NamedTuple):
    """Accuracy at one size: of the classifier alone, and behind the defence under an attack that does not know it and
    under one that does."""

    title: str
    alone: Share
    unaware: Share
    aware: Share
    size: str


def worth(one: Defended) -> Worth:
    """Told apart where intervals do not overlap."""
    if not one.aware.ok or not one.alone.ok:
        return Worth.UNKNOWN
    if relation(one.aware, one.alone) is Relation.ABOVE:
        return Worth.HELPS
    if relation(one.unaware, one.alone) is Relation.ABOVE and relation(one.aware, one.unaware) is Relation.BELOW:
        return Worth.SEEMS
    return Worth.NOT


def counted(judged: Worth, n: int) -> str:
    """ "2 are not shown to help"."""
    if n == 1:
        return f"1 {judged.value}" if judged is not Worth.UNKNOWN else "1 is inconclusive"
    many = {
        Worth.HELPS: "help",
        Worth.SEEMS: "look safe, and are not",
        Worth.NOT: "are not shown to help",
        Worth.UNKNOWN: "are inconclusive",
    }
    return f"{n} {many[judged]}"


def sentence(one: Defended) -> str:
    """ "JPEG looks safe, is not: …"."""
    judged = worth(one)
    start = f"{one.title}: inconclusive" if judged is Worth.UNKNOWN else f"{one.title} {judged.value}"
    return (
        f"{start}: at {one.size}, {_share(one.alone)} of {plural(one.alone.n, 'image')} are read rightly without it, "
        f"{_share(one.unaware)} behind it under an attack that does not know it, "
        f"{_share(one.aware)} under one that does."
    )


def of_run(run: Run, eps: float) -> list[Defended]:
    """Of every defence at one size, in the order in which they were asked for."""
    info = run.conditions.input_defences
    if info is None:
        return []
    size = run.conditions.grey_scale.text(eps) if run.conditions.norm == "Linf" else f"L2{NBSP}{number(eps)}"

    def share(name: str, knows: str) -> Share | None:
        return Share.of(run.find(Kind.DEFENCE, "accuracy_attacked", eps=eps, defence=name, knows=knows))

    every = []
    for name, defence in info.defences.items():
        alone, unaware, aware = share("none", AWARE), share(name, UNAWARE), share(name, AWARE)
        if alone is not None and unaware is not None and aware is not None:
            settings = ", ".join(f"{k} {v}" for k, v in defence.settings.items() if v is not False)
            title = f"{defence.title} ({settings})" if settings else defence.title
            every.append(Defended(title, alone, unaware, aware, size))
    return every


def telling(run: Run) -> float | None:
    """The size at which most defences differ in worth from nothing; of equals the smallest."""
    info = run.conditions.input_defences
    if info is None:
        return None
    return max(info.eps, key=lambda e: sum(worth(d) in (Worth.HELPS, Worth.SEEMS) for d in of_run(run, e)))


def told(run: Run) -> list[str]:
    """A sentence a defence."""
    eps = telling(run)
    return [] if eps is None else [sentence(one) for one in of_run(run, eps)]


def _share(share: Share) -> str:
    return f"{percent(share.value)} {bounds(share.low, share.high)}"
