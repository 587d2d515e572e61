"""Can the attack be seen, and evaded? What the detectors of an audit did, in sentences and a table."""

from __future__ import annotations

from dataclasses import dataclass

from medrobust.report import detection_words as words
from medrobust.report.comparison import Share
from medrobust.report.findings import Findings
from medrobust.report.run import DetectInfo
from medrobust.report.section import Content
from medrobust.report.sizes import short_size
from medrobust.report.tables import Cell, Table, share
from medrobust.report.words import count, listing, plain, plural
from medrobust.results import Kind, Row

ANCHOR, TITLE, ORDER, NEEDS = "detection", "Can the attack be seen, and evaded?", 70, ("detection",)


@dataclass(frozen=True)
class Section:
    """What the page shows of it."""

    sentences: list[str]
    tables: list[Table]
    doubt: str = ""
    """Why some of its numbers are inconclusive."""


def build(f: Findings) -> Content | None:
    found = section(f)
    return None if found is None else Content({"content": found}, found.tables)


def section(f: Findings) -> Section | None:
    """None where the run did not ask for it, or comes from a version that could not."""
    told = f.run.conditions.detect
    rows = [r for r in f.run.rows if r.kind in (Kind.DETECTOR, Kind.EVASION)]
    if told is None or not rows:
        return None
    notes = [r.note for r in rows if not r.ok and r.note]
    return Section(sentences(f, told, told.lead), tables(f, told), listing(list(dict.fromkeys(notes))))


def sentences(f: Findings, told: DetectInfo, lead: str) -> list[str]:
    """For a reader who wants to know what it means; every number has its interval and its n."""
    if not any(known(_alarms(f, d.name, told.attack_name)) for d in told.detectors):
        return ["Whether this attack can be seen could not be measured here. That is no sign that it can, or cannot."]
    made = f"{plural(len(told.detectors), 'detector')} read the network's last features of "
    made += (
        f"{plural(told.n_clean, 'correctly classified image')} and of their {count(told.n_attacked)} attacked twins "
    )
    made += f"({told.attack}, {short_size(f, told.eps)}); each image was judged by a detector that had "
    made += "seen neither it nor its patient. " if f.run.conditions.patients_known else "not seen it. "
    made += f"The alarm was set on {plural(told.n_apart, 'other clean image')}. "
    made += f"The sentences below are about the {_title(told, lead)} detector, which was chosen before anything was "
    made += "measured; the tables show all of them."
    return [made, *(s for s in (_seen(f, told, lead), _evaded(f, told, lead)) if s)]


def known(row: Row | None) -> bool:
    """There is a number to speak of."""
    return row is not None and row.value is not None


FPR = 0.05
"""False alarms that thresholds were set for."""


def _alarms(f: Findings, name: str, attack: str = "none") -> Row | None:
    """Share of images that raise an alarm: attacked ones, or clean ones."""
    return f.run.find(Kind.DETECTOR, "alarms", attack, detector=name, at_fpr=FPR)


def _area(f: Findings, name: str) -> Row | None:
    return f.run.find(Kind.DETECTOR, "auroc", detector=name)


def _evasion(f: Findings, metric: str, name: str, attack: str) -> Row | None:
    """fooled; detected, of these; success: fooled and not detected."""
    at = {} if metric == "fooled" else {"at_fpr": FPR}
    return f.run.find(Kind.EVASION, metric, attack, detector=name, **at)


def _title(told: DetectInfo, name: str) -> str:
    return next((d.title for d in told.detectors if d.name == name), name)


def _seen(f: Findings, told: DetectInfo, name: str) -> str:
    seen = Share.of(_alarms(f, name, told.attack_name))
    if seen is None or not seen.ok:
        return ""
    area = _area(f, name)
    return words.seen(words.Seen(seen, Share.of(_alarms(f, name)))) + (f" AUROC {plain(area)}." if known(area) else "")


def _evaded(f: Findings, told: DetectInfo, name: str) -> str:
    before, after = (Share.of(_evasion(f, "success", name, attack)) for attack in (told.attack_name, told.evasion.name))
    seen, alarms = Share.of(_alarms(f, name, told.attack_name)), Share.of(_alarms(f, name))
    if before is None or after is None or seen is None:
        return ""
    return words.evaded(words.Evaded(words.Seen(seen, alarms), before, after), told.evasion.title)


def tables(f: Findings, told: DetectInfo) -> list[Table]:
    """What detectors see; and what is left of them, a detector and an attack a row."""

    def area(row: Row | None) -> Cell:
        return Cell(plain(row), row is not None and not row.ok and row.value is not None)

    seen = [
        [Cell(d.title), area(_area(f, d.name)), share(_alarms(f, d.name, told.attack_name)), share(_alarms(f, d.name))]
        for d in told.detectors
    ]
    head = ["Detector", "AUROC", "Seen at 5 % false alarms", "False alarms measured"]
    caption = f"Detectors of {told.attack} ({short_size(f, told.eps)}), with 95 % intervals."
    found = [Table(caption, [Cell(t) for t in head], seen, "tab:detect")]
    left = [
        [Cell(d.title), Cell(title), *(share(_evasion(f, m, d.name, name)) for m in ("fooled", "detected", "success"))]
        for d in told.detectors
        for name, title in ((told.attack_name, told.attack), (told.evasion.name, told.evasion.title))
        if _evasion(f, "success", d.name, told.evasion.name) is not None
    ]
    if left:
        head = ["Detector", "Attack", "Model fooled", "Of these seen at 5 % false alarms", "Fooled and not seen"]
        caption = f"The attack that knows of no detector beside {told.evasion.title}, which knows it: the same images, "
        caption += "changes of the same size, the threshold fixed beforehand; with 95 % intervals."
        found.append(Table(caption, [Cell(t) for t in head], left, "tab:evade"))
    return found
