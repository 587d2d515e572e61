"""What training against universal perturbations achieved, round by round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medrobust.report.findings import Findings
from medrobust.report.first_page import FirstPage, checks_fact, clean_fact
from medrobust.report.schema import DefenceInfo
from medrobust.report.section import Content
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table, TableCell, share
from medrobust.report.verdict import outputs_swapped
from medrobust.report.words import plural, whole
from medrobust.results import Kind

ANCHOR, TITLE, ORDER, NEEDS = "defence", "After every round", 60, ("defence",)
COMMANDS = ("defend",)


def build(f: Findings) -> Content | None:
    info = f.run.conditions.defence
    if info is None:
        return None
    rate, what = (
        ("fooling_rate", "another answer") if info.target is None else ("targeted_success", "read as the target")
    )
    if f.several:
        what = "another set of findings" if info.target is None else f"the answer “{f.run.target_name(info.target)}”"
    columns = [("accuracy", None), (rate, "fresh"), ("strongest", "fresh"), ("accuracy_strongest", "fresh")]
    columns += [(rate, pool) for pool in ("old", "first", "random")]
    body = []
    for number in info.rounds:
        cells = []
        for metric, pool in columns:
            more: Mapping[str, Any] = {"round": number, **({} if pool is None else {"pool": pool})}
            cells.append(share(f.run.find(Kind.DEFENCE, metric, **more)))
        body.append([TableCell(str(number)), *cells])
    right = "All findings right" if f.several else "Accuracy"
    head = ["Round", f"{right}, untouched", "Fresh", "Strongest fresh", f"{right} under it", "Of the round before"]
    caption = (
        f"{info.title}, {short_size(f, info.eps)}: share of {plural(info.n_judged, 'test image')} with {what}, with "
    )
    caption += (
        f"95 % intervals. Fresh: mean of {plural(info.pool, 'perturbation')} made against the classifier of that "
    )
    caption += "round; strongest: the one that did best where it was made; first: those made before any training."
    table = Table(caption, [TableCell(t) for t in [*head, "First", "Random"]], body, "tab:defence")
    tables = [table, *([_each(f, info)] if f.several and len(info.rounds) > 1 else [])]
    return Content({"content": tables, "info": info}, tables)


def _each(f: Findings, info: DefenceInfo) -> Table:
    """Each finding on untouched images, before and after."""
    first, last = info.rounds[0], info.rounds[-1]
    body = [
        [TableCell(name), *(share(f.run.find(Kind.DEFENCE, "recall", class_name=name, round=n)) for n in (first, last))]
        for name in f.run.conditions.classes
    ]
    caption = (
        "Share of the untouched images in which a finding is read correctly, present or absent, with 95 % intervals."
    )
    head = ["Finding", "Before", f"After round {last}"]
    return Table(caption, [TableCell(t) for t in head], body, "tab:defence-findings")


def first_page(f: Findings) -> FirstPage:
    """Does a fresh perturbation work again?"""
    info = f.run.conditions.defence
    if (swapped := outputs_swapped(f)) is not None:
        return FirstPage(*swapped)
    if info is None:
        return FirstPage("Nothing was measured yet.", "", "warn")
    facts = [*clean_fact(f), *checks_fact(f)]
    if f.guessing:
        text = (
            "The classifier was no better than guessing before the defence; what it does with a change has no meaning."
        )
        return FirstPage("Nothing follows from this run.", text, "warn", facts)
    first, _, rest = info.verdict.partition(": ")
    if info.target is not None:
        rest += f" The perturbations aim at the answer “{f.run.target_name(info.target)}”."
    tone = "warn" if first == "Inconclusive" else "calm" if info.protects else "bad"
    return FirstPage(f"{first}.", whole(rest), tone, facts)
