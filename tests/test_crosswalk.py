"""Every attack and defence of the package stands in the crosswalk, and nothing else does."""

from __future__ import annotations

import re
from collections.abc import Collection

import pytest
from tools import threat_model_page

from medrobust.attacks import ATTACKS, CHANGES, DecisionBased
from medrobust.certified import METHODS
from medrobust.crosswalk import FILE, Members, crosswalk, missing
from medrobust.defences import INPUT_DEFENCES
from medrobust.detectors import DETECTORS, Guard
from medrobust.evasion import EVASIONS
from medrobust.training import METHODS as HARDENING
from medrobust.universal import DEFENCES, UNIVERSAL

TABLE = crosswalk()
WITHOUT_NAME = {"transfer", "sparsest"}
"""Attacks that need more than a name: a second network, or a classifier of stored images."""
TABLES: dict[str, tuple[Members, Collection[str]]] = {
    "attacks": (TABLE.attacks, {*ATTACKS, *CHANGES, *WITHOUT_NAME}),
    "universal": (TABLE.universal, UNIVERSAL),
    "evasions": (TABLE.evasions, EVASIONS),
    "detectors": (TABLE.detectors, {*DETECTORS, Guard.__name__.lower()}),
    "defences": (TABLE.defences, DEFENCES),
    "hardening": (TABLE.hardening, HARDENING),
    "input_defences": (TABLE.input_defences, INPUT_DEFENCES),
    "proofs": (TABLE.proofs, {*METHODS, "smoothing"}),
    "images": (TABLE.images, {"corruptions", "transformations"}),
}


@pytest.mark.parametrize("name", TABLES)
def test_every_registered_attack_and_defence_has_its_row(name):
    assert missing(*TABLES[name]) == ""


def test_a_new_attack_without_a_row_is_told_in_one_line_where_to_add_it():
    line = missing(TABLE.attacks, {*ATTACKS, *CHANGES, *WITHOUT_NAME, "mine"})
    assert line == f"{FILE} has no row for mine: add a line for each to src/medrobust/{FILE}"
    assert (
        missing(TABLE.attacks, set(TABLE.attacks) - {"pgd"})
        == f"{FILE} has a row for pgd, which does not exist: remove it"
    )


def test_titles_are_those_of_the_classes():
    """Attacks with options ("pgd:steps=100") are found by their title."""
    attacks = (TABLE.attacks, ATTACKS | CHANGES)
    for members, registry in (attacks, (TABLE.universal, UNIVERSAL), (TABLE.evasions, EVASIONS)):
        assert {name: registry[name]().title for name in registry} == {n: members[n].title for n in registry}
    assert {name: DETECTORS[name]().title for name in DETECTORS} == {n: TABLE.detectors[n].title for n in DETECTORS}
    assert {name: DEFENCES[name]().title for name in DEFENCES} == {n: TABLE.defences[n].title for n in DEFENCES}
    assert {name: HARDENING[name].title for name in HARDENING} == {n: m.title for n, m in TABLE.hardening.items()}
    for members, _ in TABLES.values():
        kinds = {(m.title, m.threat) for m in members.values()}
        assert len(kinds) == len({title for title, _ in kinds}), "attacks of one title are of one kind"


def test_what_the_attacker_has_is_what_the_attack_uses():
    for name, make in ATTACKS.items():
        kind = TABLE.threats[TABLE.attacks[name].threat]
        assert kind.needs_network == (make().uses_gradient or name == "auto"), name
        assert (TABLE.attacks[name].threat == "decisions") == isinstance(make(), DecisionBased), name
    for name, make in UNIVERSAL.items():
        assert TABLE.threats[TABLE.universal[name].threat].needs_network == make().opens, name


def test_identifiers_are_well_formed_and_every_kind_has_its_attack():
    used = {key for m in TABLE.members() for key in (m.threat, *m.black_box.values())}
    assert used == set(TABLE.threats)
    for kind in (*TABLE.threats.values(), *TABLE.not_tested):
        assert all(re.fullmatch(r"NISTAML\.0\d\d", i) for i in kind.nist)
        assert all(re.fullmatch(r"AML\.[TM]\d{4}(\.\d{3})?", i) for i in kind.atlas)
    attacks = [t for t in TABLE.threats.values() if t.role == "attack"]
    assert all(t.nist and t.atlas and "model evasion" in t.fda for t in attacks)
    missing_kinds = " ".join(kind.title.lower() for kind in TABLE.not_tested)
    for word in ("poisoning", "backdoors", "extraction", "inversion", "membership", "physical"):
        assert word in missing_kinds


def test_the_page_of_the_documentation_is_what_the_table_gives():
    assert threat_model_page.PAGE.read_text("utf-8") == threat_model_page.page(TABLE), "run tools/threat_model_page.py"
