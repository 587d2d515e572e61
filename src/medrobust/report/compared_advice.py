"""What to do next after a comparison: advice with its command, or none where the numbers call for none."""

from __future__ import annotations

from collections.abc import Sequence

from medrobust.report.advice import eps
from medrobust.report.advice_words import Advice
from medrobust.report.compared import APART, BEFORE, ComparedAudits, Difference, PairedVerdict, points
from medrobust.report.sizes import short_size
from medrobust.report.words import NBSP, count

NOTE = "OPTIONS are those of the run's own audit; its report states its command under “Exact conditions”. RUN is the "
NOTE += "folder of that audit."
AUDIT = "medrobust audit OPTIONS"


def of(c: ComparedAudits, primary: Sequence[Difference]) -> list[Advice]:
    """primary: the comparison of every pair under attack."""
    made = [_in_doubt(primary), _more_images(c, primary), _harder(c, primary), _limit(c, primary)]
    return [advice for advice in made if advice is not None]


def _first(primary: Sequence[Difference], *verdicts: PairedVerdict) -> Difference | None:
    return next((d for d in primary if d.verdict in verdicts), None)


def _in_doubt(primary: Sequence[Difference]) -> Advice | None:
    d = _first(primary, PairedVerdict.INCONCLUSIVE)
    if d is None:
        return None
    text = f"{d.second} less {d.first} is inconclusive ({d.row.note}). Attacks that see only the answers depend on no "
    text += "gradient: audit both runs with them, and compare again."
    command = f"{AUDIT} --attacks square,simba-dct,hopskipjump --out runs/without-gradients"
    return Advice("Attack without gradients", text, command)


def _more_images(c: ComparedAudits, primary: Sequence[Difference]) -> Advice | None:
    """Where a pair is not told apart, and images are left."""
    d, n = _first(primary, PairedVerdict.NOT_TOLD_APART), c.f.run.conditions
    unused = (n.n_test or 0) - (n.n_attacked or 0)
    if d is None or unused <= 0:
        return None
    text = f"{d.second} less {d.first} is {points(d.row)} on {count(d.row.n)} images: too uncertain for a verdict. "
    text += f"{count(unused)} further test images were not attacked. Audit both runs on all of them, and compare again."
    return Advice("Attack more images", text, f"{AUDIT} --limit 0 --out runs/more-images")


def _harder(c: ComparedAudits, primary: Sequence[Difference]) -> Advice | None:
    d = _first(primary, *APART)
    if d is None:
        return None
    name = d.second if d.verdict is PairedVerdict.BETTER else d.first
    text = f"{c.titles[name]} withstands these attacks better. Attacks that were not tried may still fool it: try the "
    text += "full ensemble, which also attacks without gradients, before relying on the difference."
    return Advice(f"Attack {name} harder", text, f"{AUDIT} --auto auto --out runs/full")


def _limit(c: ComparedAudits, primary: Sequence[Difference]) -> Advice | None:
    """An acceptance criterion, so that the next version is not worse than the better run."""
    d = _first(primary, *APART)
    if d is None:
        return None
    name = d.second if d.verdict is PairedVerdict.BETTER else d.first
    text = f"An audit with {name} as its baseline fails where the accuracy under attack at "
    text += f"{short_size(c.f, c.info.reference)} drops by more than 5{NBSP}%"
    cost = c.difference((d.first, d.second), BEFORE)
    if cost.verdict in APART:
        text += f"; without an attack {d.second} less {d.first} is {points(cost.row)}, so hold that too"
    required = [f"drop[accuracy]@{eps(c.f, c.info.reference)} <= 5 %"]
    required += ["drop[accuracy] <= 5 %"] if cost.verdict in APART else []
    options = " ".join(f"--require '{criterion}'" for criterion in required)
    return Advice("Hold the next version to the better run", text + ".", f"{AUDIT} --baseline RUN {options}")
