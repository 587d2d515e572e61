"""What adversarial training achieved and what it cost, and how it went, epoch by epoch."""

from __future__ import annotations

from typing import Any

from medrobust.report import charts, commands, hardening_words
from medrobust.report.advice_words import Advice
from medrobust.report.findings import Findings
from medrobust.report.first_page import FirstPage, checks_fact
from medrobust.report.section import Content
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table, TableCell, share
from medrobust.results import Kind

ANCHOR, TITLE, ORDER, NEEDS = "hardening", "Before and after", 8, ("hardening",)
COMMANDS = ("harden",)


def build(f: Findings) -> Content | None:
    info = f.run.conditions.hardening
    if info is None:
        return None

    def both(name: str, metric: str, **columns: Any) -> list[TableCell]:
        rows = [f.run.find(Kind.DEFENCE, metric, round=r, **columns) for r in (0, 1)]
        return [TableCell(name), *map(share, rows)]

    right = "All findings right" if f.several else "Accuracy"
    body = [both(f"{right}, untouched", "accuracy"), both("Balanced accuracy, untouched", "balanced_accuracy")]
    body += [both(f"{name}, untouched", "recall", class_name=name) for name in f.run.conditions.classes]
    body += [both(f"{right}, attacked at {short_size(f, e)}", "accuracy_attacked", eps=e) for e in info.sizes]
    caption = f"{info.title}, trained against {short_size(f, info.eps)}; attacked by Auto. With 95 % intervals; "
    caption += f"n = {f.run.conditions.n_test} untouched, {f.attacked} attacked."
    table = Table(caption, [TableCell(t) for t in ("", "Before", "After")], body, "tab:hardening")
    lines = {
        "Validation, untouched": [h["balanced_accuracy"] for h in info.history],
        "Validation, attacked (PGD-10)": [h["attacked_balanced_accuracy"] for h in info.history],
        "Training, attacked": [h["train_held"] for h in info.history],
    }
    alt = "Accuracy by epoch. " + " ".join(f"{name}: {100 * y[-1]:.0f} % in the last." for name, y in lines.items())
    figures = {"hardening": charts.by_epoch(lines, info.epoch_kept, alt)} if len(info.history) > 1 else {}
    return Content({"table_": table, "info": info, "epochs": hardening_words.epochs(info)}, [table], figures)


def first_page(f: Findings) -> FirstPage:
    """Is it harder to fool, and what did that cost?"""
    one = hardening_words.of_run(f.run)
    if one is None:
        return FirstPage("Nothing was measured yet.", "", "warn")
    title, text, tone = hardening_words.judged(one)
    before = commands.command(f, "audit", "--out", "runs/before", without=("attacks",))
    after = commands.command(f, "audit", "--out", "runs/after", without=("attacks",), model=f"{commands.FOLDER}/model")
    advice = [
        Advice("Audit the classifier as it was", "All attacks, checks and detectors.", before),
        Advice("Audit the hardened one", "The same on the same images.", after),
        Advice("Put both audits side by side", "Image by image.", "medrobust compare runs/before runs/after"),
    ]
    return FirstPage(f"{title}.", text, tone, checks_fact(f), advice=advice)
