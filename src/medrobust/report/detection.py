"""Can the attack be seen, and evaded? What the detectors of an audit did, in sentences and a table."""

from __future__ import annotations

from dataclasses import dataclass

from medrobust.report.findings import Findings
from medrobust.report.run import DetectInfo, Row
from medrobust.report.sizes import short_size
from medrobust.report.tables import Cell, Table, share
from medrobust.report.words import NBSP, count, listing, of_hundred, plain, plural, with_interval

NAME = "detect"


@dataclass(frozen=True)
class Section:
    """What the page shows of it."""

    sentences: list[str]
    table: Table
    doubt: str = ""
    """Why some of its numbers are inconclusive."""


def section(f: Findings) -> Section | None:
    """None where the run did not ask for it, or comes from a version that could not."""
    told = f.run.conditions.detect
    if told is None or not any(r.attack == NAME for r in f.run.rows):
        return None
    notes = [r.note for r in f.run.rows if r.attack == NAME and not r.ok and r.note]
    return Section(sentences(f, told), table(f, told), listing(list(dict.fromkeys(notes))))


def sentences(f: Findings, told: DetectInfo) -> list[str]:
    """For a reader who wants to know what it means; every number has its interval and its n."""
    best = told.best
    if best is None:
        return ["Whether this attack can be seen could not be measured here. That is no sign that it can, or can not."]
    made = f"{plural(len(told.detectors), 'detector')} read the network's last features of "
    made += (
        f"{plural(told.n_clean, 'correctly classified image')} and of their {count(told.n_attacked)} attacked twins "
    )
    made += f"({told.attack}, {short_size(f, told.eps)}); each image was judged by a detector that had seen neither it "
    made += f"nor its patient. The alarm was set on {plural(told.n_apart, 'other clean image')}."
    return [made, *(s for s in (_seen(f, told, best), _alarms(f, best), _evaded(f, told, best)) if s)]


def _row(f: Findings, metric: str, name: str) -> Row | None:
    return f.run.find(NAME, f"{metric}:{name}")


def _title(told: DetectInfo, name: str) -> str:
    return next((d.title for d in told.detectors if d.name == name), name)


def _n(row: Row) -> str:
    return f"n{NBSP}={NBSP}{count(row.n)}"


def _seen(f: Findings, told: DetectInfo, best: str) -> str:
    seen, area = _row(f, "detect_tpr5", best), _row(f, "detect_auroc", best)
    if seen is None or not seen.ok or seen.value is None:
        return ""
    text = f"The best of them ({_title(told, best)}, AUROC {plain(area)}) raises an alarm on {of_hundred(seen.value)} "
    return text + f"of 100 attacked images ({with_interval(seen)}, {_n(seen)}) if nobody works against it."


def _alarms(f: Findings, best: str) -> str:
    row = _row(f, "detect_false_alarm", best)
    if row is None or not row.ok or row.value is None:
        return ""
    text = "Its threshold allows 5 false alarms in 100 clean images; on clean images that did not set it there were "
    text += f"{of_hundred(row.value)} ({with_interval(row)}, {_n(row)})."
    if row.low is not None and row.low > 0.05:
        text += " That is more than promised: the images that set the threshold differ from these."
    return text


def _evaded(f: Findings, told: DetectInfo, best: str) -> str:
    row = _row(f, "evade_success5", best)
    if row is None or row.value is None:
        return ""
    text = f"An attacker who knows the detector ({told.evasion.title}, changes of the same size) fools the model "
    text += f"without an alarm on {of_hundred(row.value)} of 100 images ({with_interval(row)}, {_n(row)}). "
    if not row.ok or (row.low or 0.0) < 0.5:
        return text + "The attempt was short; that it fails on an image does not show that a longer one would."
    return text + "So this detector is no protection against someone who knows it."


def table(f: Findings, told: DetectInfo) -> Table:
    """A detector a row."""

    def area(row: Row | None) -> Cell:
        return Cell(plain(row), row is not None and not row.ok and row.value is not None)

    body = [
        [
            Cell(d.title), area(_row(f, "detect_auroc", d.name)), share(_row(f, "detect_tpr5", d.name)),
            share(_row(f, "detect_false_alarm", d.name)), share(_row(f, "evade_success5", d.name)),
        ]
        for d in told.detectors
    ]  # fmt: skip
    head = ["Detector", "AUROC", "Seen at 5 % false alarms", "False alarms measured", "Fooled and not seen (evasion)"]
    caption = f"Detectors of {told.attack} ({short_size(f, told.eps)}), with 95 % intervals. "
    caption += "The evasion was tried on the best of them only."
    return Table(caption, [Cell(t) for t in head], body, "tab:detect")
