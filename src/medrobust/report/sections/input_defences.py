"""Defences at the input: what they cost, and what two kinds of attacker leave of them."""

from __future__ import annotations

from medrobust.report import input_defence_words as words
from medrobust.report.findings import Findings
from medrobust.report.first_page import FirstPage, checks_fact, clean_fact
from medrobust.report.input_defence_words import AWARE, UNAWARE, Worth
from medrobust.report.paragraph import Paragraph
from medrobust.report.section import Content
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table, TableCell, share
from medrobust.results import Kind

ANCHOR, TITLE, ORDER, NEEDS = "input-defences", "Every defence, by what the attacker knows", 8, ("input_defences",)
COMMANDS = ("input-defences",)


def build(f: Findings) -> Content | None:
    info = f.run.conditions.input_defences
    if info is None:
        return None
    body = []
    for name in ("none", *info.defences):
        title = info.defences[name].title if name in info.defences else "No defence"
        cells = [share(f.run.find(Kind.DEFENCE, "accuracy", defence=name, knows=AWARE))]
        for e in info.eps:
            for knows in (UNAWARE, AWARE):
                cells.append(share(f.run.find(Kind.DEFENCE, "accuracy_attacked", eps=e, defence=name, knows=knows)))
        body.append([TableCell(title), *cells])
    head = ["Defence", "Untouched"]
    for e in info.eps:
        head += [f"{short_size(f, e)}, not knowing it", f"{short_size(f, e)}, knowing it"]
    right = "Share of images with all findings right" if f.several else "Accuracy"
    caption = f"{right} with 95 % intervals, n = {f.attacked}. Not knowing it: images that Auto made against the "
    caption += "classifier alone. "
    caption += "Knowing it: Auto through the defence, its gradient where it has one, else straight through it; of a "
    caption += "random defence averaged over draws and counted on fresh ones."
    table = Table(caption, [TableCell(t) for t in head], body, "tab:input-defences")
    return Content({"table_": table}, [table])


def first_page(f: Findings) -> FirstPage:
    """Does any of them help against an attacker who knows it?"""
    eps = words.telling(f.run)
    every = [] if eps is None else words.of_run(f.run, eps)
    if not every:
        return FirstPage("Nothing was measured yet.", "", "warn")
    by: dict[Worth, list[words.Defended]] = {}
    for one in every:
        by.setdefault(words.worth(one), []).append(one)
    facts = [*clean_fact(f), *checks_fact(f)]
    told = [Paragraph(one.title, words.sentence(one), words.worth(one) is not Worth.HELPS) for one in every]
    text = (
        f"{len(every)} defences at the input were attacked at {every[0].size}, by an attacker who does not know them "
    )
    text += "and by one who does: "
    text += ", ".join(words.counted(w, len(by[w])) for w in Worth if w in by) + "."
    if helping := by.get(Worth.HELPS):
        best = max(helping, key=lambda one: one.aware.value)
        return FirstPage(f"{best.title} helps most.", text, "calm", facts, told)
    if Worth.SEEMS in by:
        return FirstPage("Looks safe, is not.", text, "bad", facts, told)
    return FirstPage("No defence is shown to help.", text, "warn", facts, told)
