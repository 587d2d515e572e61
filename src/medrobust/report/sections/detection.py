"""Can the attack be detected, and the detector evaded? In sentences and tables."""

from __future__ import annotations

from dataclasses import dataclass

from medrobust.report import detection_words as words
from medrobust.report.comparison import Share
from medrobust.report.detection_tables import FPR, NO_ATTACK, DetectorRows, tables
from medrobust.report.findings import Findings
from medrobust.report.run import same
from medrobust.report.schema import DetectionInfo, DetectionSize, EvasionInfo
from medrobust.report.section import Content
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table
from medrobust.report.words import count, listing, plain, plural
from medrobust.results import Kind, Row

ANCHOR, TITLE, ORDER = "detection", "Can the attack be seen, and evaded?", 70
NEEDS = ("detection", "evasion")
COMMANDS = ("audit", "detect", "evade")


@dataclass(frozen=True)
class DetectionSection:
    """What the page shows of it."""

    sentences: list[str]
    tables: list[Table]
    doubt: str = ""
    """Why some of its numbers are inconclusive."""


def build(f: Findings) -> Content | None:
    content = section(f)
    return None if content is None else Content({"content": content}, content.tables)


def section(f: Findings) -> DetectionSection | None:
    """None where the run did not measure it."""
    info, rows = f.run.conditions.detection, DetectorRows(f).rows
    if info is None or not rows:
        return None
    notes = [r.note for r in rows if not r.ok and r.note]
    return DetectionSection(sentences(f, info), tables(f, info), listing(list(dict.fromkeys(notes))))


def sentences(f: Findings, info: DetectionInfo) -> list[str]:
    """For a reader who wants to know what it means; every number has its interval and its n."""
    rows, lead = DetectorRows(f), next(iter(info.detectors))
    if not any(_known(_alarms(rows, info, name, size)) for name in info.detectors for size in info.sizes):
        return ["Whether this attack can be seen could not be measured here. That is no sign that it can, or cannot."]
    texts = []
    for size in info.sizes:
        setup = f"{plural(len(info.detectors), 'detector')} read features of the network "
        setup += f"({listing(info.layers)}) of {plural(size.n_clean, 'correctly classified image')} and of their "
        setup += f"{count(size.n_attacked.get(info.guarded, 0))} attacked copies ({info.title(info.guarded)}, "
        setup += f"{short_size(f, size.eps)}); each image was judged by a detector that had "
        setup += "seen neither it nor its patient. " if f.run.conditions.patients_known else "not seen it. "
        setup += f"The alarm was set on {plural(size.n_held_out, 'other clean image')}. "
        setup += f"The sentences below are about the {info.detectors[lead].title} detector, which was chosen before "
        setup += "anything was measured; the tables show all of them."
        texts += [setup, _detected(rows, info, lead, size), _evaded(rows, info, lead, size, f.run.conditions.evasion)]
    return [s for s in texts if s]


def _known(row: Row | None) -> bool:
    """There is a number to speak of."""
    return row is not None and row.value is not None


def _alarms(rows: DetectorRows, info: DetectionInfo, name: str, size: DetectionSize) -> Row | None:
    """Share of attacked images that raise an alarm."""
    return rows.fitted("alarms", name, info.guarded, size.eps, at_fpr=FPR)


def detection_rate(
    rows: DetectorRows, info: DetectionInfo, name: str, size: DetectionSize
) -> words.DetectionRate | None:
    """Alarms on attacked images beside those on clean ones."""
    rate = Share.of(_alarms(rows, info, name, size))
    if rate is None:
        return None
    return words.DetectionRate(rate, Share.of(rows.alone("alarms", name, NO_ATTACK, size.eps, at_fpr=FPR)))


def _detected(rows: DetectorRows, info: DetectionInfo, name: str, size: DetectionSize) -> str:
    rates = detection_rate(rows, info, name, size)
    if rates is None or not rates.rate.ok:
        return ""
    area = rows.fitted("auroc", name, info.guarded, size.eps)
    return words.seen(rates) + (f" AUROC {plain(area)}." if _known(area) else "")


def _evaded(
    rows: DetectorRows, info: DetectionInfo, name: str, size: DetectionSize, evasion: EvasionInfo | None
) -> str:
    shares = evasion_rates(rows, info, name, size, evasion)
    return "" if shares is None or evasion is None else words.evaded(shares, evasion.title)


def evasion_rates(
    rows: DetectorRows, info: DetectionInfo, name: str, size: DetectionSize, evasion: EvasionInfo | None
) -> words.EvasionRates | None:
    """Images fooled without an alarm, by the plain attack and by one that knows the detector; None: not tried."""
    if evasion is None or not same(evasion.eps, size.eps):
        return None
    at = {"detector": name, "eps": size.eps, "at_fpr": FPR}
    before, after = (
        Share.of(rows.find(Kind.EVASION, "success", attack=attack, **at)) for attack in (evasion.attack, evasion.name)
    )
    rates = detection_rate(rows, info, name, size)
    if before is None or after is None or rates is None:
        return None
    return words.EvasionRates(rates, before, after)
