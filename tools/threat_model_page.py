"""Write docs/threat-model.md from the crosswalk.

python tools/threat_model_page.py
"""

from __future__ import annotations

from pathlib import Path

from medrobust.crosswalk import NOTHING, Crosswalk, NamedKind, ThreatKind, crosswalk

PAGE = Path(__file__).resolve().parent.parent / "docs" / "threat-model.md"
INTRODUCTION = """\
# Threat model

Every attack and defence in the terms of {frameworks}.
A report shows what its run tested, and lists the rest as not tested. Its table of questions says where evidence stands
for the FDA's draft, AI Act Art. 15, ISO/IEC 24029 and Team-NB 6.2.4.6, and what stays open; `model-card.md` of an audit
has the layout of the FDA's example. None of it is a claim of conformity. Crosswalk version {version}, {date}.

| kind | members | attacker knows: has | NIST, ATLAS | FDA's draft |
|---|---|---|---|---|
"""


def page(table: Crosswalk) -> str:
    """The whole page."""
    frameworks = ", ".join(f"{one.title} ({one.basis})" for one in table.frameworks.values())
    head = INTRODUCTION.format(frameworks=frameworks, version=table.version, date=table.date)
    lines = [_line(threat, _titles(table, key)) for key, threat in table.threats.items()]
    return head + "".join([*lines, *(_absent(kind) for kind in table.not_tested)])


def _titles(table: Crosswalk, key: str) -> str:
    return ", ".join(dict.fromkeys(member.title for member in table.members() if member.threat == key))


def _line(threat: ThreatKind, titles: str) -> str:
    return f"| {threat.title} | {titles} | {threat.attacker} | {_identifiers(threat)} | {threat.fda} |\n"


def _absent(kind: NamedKind) -> str:
    return f"| {kind.title} | **not tested**: no test in medrobust | – | {_identifiers(kind)} | {kind.fda} |\n"


def _identifiers(kind: NamedKind) -> str:
    return ", ".join(kind.identifiers) or NOTHING


if __name__ == "__main__":
    PAGE.write_text(page(crosswalk()), encoding="utf-8")
