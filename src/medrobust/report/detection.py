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
    tables: list[Table]
    doubt: str = ""
    """Why some of its numbers are inconclusive."""


def section(f: Findings) -> Section | None:
    """None where the run did not ask for it, or comes from a version that could not."""
    told = f.run.conditions.detect
    if told is None or told.lead is None or not any(r.attack == NAME for r in f.run.rows):
        return None
    notes = [r.note for r in f.run.rows if r.attack == NAME and not r.ok and r.note]
    return Section(sentences(f, told, told.lead), tables(f, told), listing(list(dict.fromkeys(notes))))


def sentences(f: Findings, told: DetectInfo, lead: str) -> list[str]:
    """For a reader who wants to know what it means; every number has its interval and its n."""
    if not any(known(_row(f, "detect_tpr5", d.name)) for d in told.detectors):
        return ["Whether this attack can be seen could not be measured here. That is no sign that it can, or can not."]
    made = f"{plural(len(told.detectors), 'detector')} read the network's last features of "
    made += (
        f"{plural(told.n_clean, 'correctly classified image')} and of their {count(told.n_attacked)} attacked twins "
    )
    made += f"({told.attack}, {short_size(f, told.eps)}); each image was judged by a detector that had seen neither it "
    made += f"nor its patient. The alarm was set on {plural(told.n_apart, 'other clean image')}. "
    made += f"The sentences below are about the {_title(told, lead)} detector, which was chosen before anything was "
    made += "measured; the tables show all of them."
    return [made, *(s for s in (_seen(f, lead), _alarms(f, lead), _evaded(f, told, lead)) if s)]


def known(row: Row | None) -> bool:
    """There is a number to speak of."""
    return row is not None and row.value is not None


def _row(f: Findings, metric: str, name: str) -> Row | None:
    return f.run.find(NAME, f"{metric}:{name}")


def _title(told: DetectInfo, name: str) -> str:
    return next((d.title for d in told.detectors if d.name == name), name)


def _n(row: Row) -> str:
    return f"n{NBSP}={NBSP}{count(row.n)}"


def _of_hundred(row: Row) -> str:
    assert row.value is not None
    return f"{of_hundred(row.value)} of 100 images ({with_interval(row)}, {_n(row)})"


def _seen(f: Findings, name: str) -> str:
    seen, area = _row(f, "detect_tpr5", name), _row(f, "detect_auroc", name)
    if seen is None or not seen.ok or seen.value is None:
        return ""
    text = f"It raises an alarm on {of_hundred(seen.value)} of 100 attacked images ({with_interval(seen)}, {_n(seen)}) "
    return text + f"if nobody works against it (AUROC {plain(area)})."


def _alarms(f: Findings, name: str) -> str:
    row = _row(f, "detect_false_alarm", name)
    if row is None or not row.ok or row.value is None:
        return ""
    text = "Its threshold allows 5 false alarms in 100 clean images; on clean images that did not set it there were "
    text += f"{of_hundred(row.value)} ({with_interval(row)}, {_n(row)})."
    if row.low is not None and row.low > 0.05:
        text += " That is more than promised: the images that set the threshold differ from these."
    return text


def _evaded(f: Findings, told: DetectInfo, name: str) -> str:
    row, before = _row(f, "evade_success5", name), _row(f, "plain_success5", name)
    if row is None or row.value is None or before is None or before.value is None:
        return ""
    text = f"The plain attack fools the model without an alarm on {_of_hundred(before)}; an attacker who knows the "
    text += f"detector ({told.evasion.title}, changes of the same size) does so on {_of_hundred(row)}. "
    if not row.ok or (row.low or 0.0) < 0.5:
        return text + "The attempt was short; that it fails on an image does not show that a longer one would."
    return text + "So this detector is no protection against someone who knows it."


def tables(f: Findings, told: DetectInfo) -> list[Table]:
    """What detectors see; and what is left of them, a detector and an attack a row."""

    def area(row: Row | None) -> Cell:
        return Cell(plain(row), row is not None and not row.ok and row.value is not None)

    seen = [
        [
            Cell(d.title), area(_row(f, "detect_auroc", d.name)), share(_row(f, "detect_tpr5", d.name)),
            share(_row(f, "detect_false_alarm", d.name)),
        ]
        for d in told.detectors
    ]  # fmt: skip
    head = ["Detector", "AUROC", "Seen at 5 % false alarms", "False alarms measured"]
    caption = f"Detectors of {told.attack} ({short_size(f, told.eps)}), with 95 % intervals."
    found = [Table(caption, [Cell(t) for t in head], seen, "tab:detect")]
    left = [
        [Cell(d.title), Cell(title), *(share(_row(f, f"{kind}_{m}", d.name)) for m in ("fooled", "seen5", "success5"))]
        for d in told.detectors
        for kind, title in (("plain", told.attack), ("evade", told.evasion.title))
        if _row(f, "evade_success5", d.name) is not None
    ]
    if left:
        head = ["Detector", "Attack", "Model fooled", "Of these seen at 5 % false alarms", "Fooled and not seen"]
        caption = f"The attack that knows of no detector beside {told.evasion.title}, which knows it: the same images, "
        caption += "changes of the same size, the threshold fixed beforehand; with 95 % intervals."
        found.append(Table(caption, [Cell(t) for t in head], left, "tab:evade"))
    return found
