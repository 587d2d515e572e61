"""Which kinds of attack and defence a run measured, read from its rows alone, in the terms of the crosswalk.

What has no number in the rows was not tested, whatever the conditions or the command say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from medrobust.crosswalk import Crosswalk, Member, Members, NamedKind, ThreatKind, crosswalk, member
from medrobust.report.detection_tables import NO_DETECTOR
from medrobust.report.findings import Findings, in_doubt
from medrobust.report.run import Run
from medrobust.report.schema import InputDefenceInfo
from medrobust.results import Kind, Row

OUTCOMES: dict[str, tuple[str, ...]] = {
    Kind.ATTACK: ("accuracy", "success", "min_eps_median"),
    Kind.BLACK_BOX: ("accuracy", "success_at", "median_linf", "median_l2"),
    Kind.FINDING: ("success",),
    Kind.STORED: ("turned_within",),
    Kind.SURVIVAL: ("success",),
    Kind.UNIVERSAL: ("fooling_rate", "targeted_success"),
    Kind.DETECTOR: ("auroc", "seen"),
    Kind.EVASION: ("success",),
    Kind.DEFENCE: ("fooling_rate", "targeted_success", "accuracy_attacked"),
    Kind.CORRUPTION: ("accuracy",),
    Kind.CHANGE: ("success",),
    Kind.CERTIFIED: ("accuracy",),
}
"""By kind, the metrics that say what an attack, a defence or a corruption did; others are costs and baselines."""
NO_ATTACK = ("none", "noise", "random")
OPTIMISED = "optimised"
"""How an attack was made that knows the processing after it."""


@dataclass
class TestedKind:
    """One kind that was measured. threat: None for what the crosswalk does not hold. n: images; ok: by title, whether a
    number of it is believed. sizes: eps > 0."""

    threat: ThreatKind | None
    ok: dict[str, bool] = field(default_factory=dict)
    n: set[int] = field(default_factory=set)
    sizes: set[float] = field(default_factory=set)
    queries: int = 0

    @property
    def believed(self) -> bool:
        return any(self.ok.values())

    def add(self, title: str, row: Row, ok: bool) -> None:
        self.ok[title] = self.ok.get(title, False) or ok
        self.n.add(row.n)
        self.sizes |= {row.eps} if row.eps > 0 else set()
        self.queries = max(self.queries, row.get("queries") or 0)


@dataclass(frozen=True)
class Coverage:
    """measured: by the name of the kind, in the order of the crosswalk, then what it does not hold by title.

    unused: kinds that this version can test and this run did not. never: what it has no test for.
    """

    measured: dict[str, TestedKind]
    unused: dict[str, ThreatKind]
    never: tuple[NamedKind, ...]


def believed(f: Findings, row: Row) -> bool:
    """Whether neither the row nor a check of its attack leaves it in doubt."""
    return row.ok and (row.attack in NO_ATTACK or not in_doubt(f, row.attack))


def outcome(row: Row) -> bool:
    """Whether the row says what an attack, a defence or a corruption did: no cost, no baseline, no control."""
    if row.value is None or not row.n or row.metric not in OUTCOMES.get(row.kind, ()):
        return False
    if row.kind == Kind.CORRUPTION:
        return row.get("corruption") not in (None, "none")
    if row.kind == Kind.CERTIFIED:
        return row.eps > 0
    if row.kind == Kind.SURVIVAL and (row.get("made") != OPTIMISED or row.get("transformation") in (None, "none")):
        return False  # an attack that did not know the processing is no test of one that does
    if row.kind == Kind.EVASION and row.get("detector") in (None, NO_DETECTOR):
        return False
    return row.attack not in NO_ATTACK


def coverage(f: Findings) -> Coverage:
    """What a run tested and what it did not."""
    table, run = crosswalk(), f.run
    kinds: dict[str, TestedKind] = {}
    for row in filter(outcome, run.rows):
        for title, entry in _members(run, table, row):
            key = title if entry is None else _threat(run, entry)
            kinds.setdefault(key, TestedKind(table.threats.get(key))).add(title, row, believed(f, row))
    measured = {key: kinds[key] for key in (*table.threats, *kinds) if key in kinds}
    unused = {key: threat for key, threat in table.threats.items() if key not in kinds}
    return Coverage(measured, unused, table.not_tested)


def _threat(run: Run, entry: Member) -> str:
    answers = run.conditions.answers
    return entry.threat if answers is None else entry.black_box.get(answers, entry.threat)


def _members(run: Run, table: Crosswalk, row: Row) -> Iterator[tuple[str, Member | None]]:
    """Titles of the attacks and defences that an ``outcome`` is about, and their lines in the crosswalk."""
    c, name = run.conditions, row.attack
    if row.kind == Kind.CORRUPTION:
        yield run.corruption_title(str(row.get("corruption"))), table.images["corruptions"]
    elif row.kind == Kind.CHANGE:
        yield _named(name, c.changes[name].title if name in c.changes else "", table.attacks)
    elif row.kind == Kind.CERTIFIED:
        yield _named(str(row.get("bound")), "", table.proofs)
    elif row.kind == Kind.SURVIVAL:
        yield str(row.get("transformation")), table.images["transformations"]
    elif row.kind == Kind.UNIVERSAL:
        yield _named(name, c.universal.title if c.universal and c.universal.name == name else "", table.universal)
    elif row.kind == Kind.DEFENCE:
        yield _named(name, "", table.universal if c.defence is not None else table.attacks)
        if c.input_defences is not None and (info := c.input_defences.defences.get(str(row.get("defence")))):
            yield _tried(str(row.get("defence")), info, table)
        if c.hardening is not None:
            yield _named(c.hardening.method, c.hardening.title, table.hardening)
        if c.defence is not None:
            yield _named(c.defence.title, c.defence.title, table.defences)
    elif row.kind == Kind.DETECTOR:
        yield _detector(run, table, row)
    elif row.kind == Kind.EVASION:
        yield _detector(run, table, row)
        if c.evasion is not None and name == c.evasion.name:
            yield from (_named(key, info.title, table.evasions) for key, info in c.evasion.evasions.items())
    elif row.kind == Kind.FINDING:
        title = c.findings.title if c.findings is not None else name
        yield _named(title, title, table.attacks)
    elif row.kind != Kind.STORED or name in table.attacks:
        yield _named(name, run.title(name), table.attacks)


def _named(name: str, title: str, members: Members) -> tuple[str, Member | None]:
    entry = member(members, name, title)
    return (title or name if entry is None else entry.title), entry


def _tried(name: str, info: InputDefenceInfo, table: Crosswalk) -> tuple[str, Member | None]:
    """A filter, a detector as guard, or a classifier that was trained against attacks."""
    first, _, rest = name.partition(":")
    if info.kind == "guard":
        return _named(rest, info.title, table.detectors)
    if info.kind == "classifier":
        return _named("", info.title, table.hardening)
    return _named(first, info.title, table.input_defences)


def _detector(run: Run, table: Crosswalk, row: Row) -> tuple[str, Member | None]:
    name = str(row.get("detector"))
    return _named(name, run.detector_title(name), table.detectors)
