"""What is left of an attack after saving the image."""

from __future__ import annotations

from medrobust.report import charts, tables
from medrobust.report.findings import Findings
from medrobust.report.saving import after_saving
from medrobust.report.section import Content

ANCHOR, TITLE, ORDER, NEEDS = "saving", "What is left after saving the image", 90, ("sanity",)
FOLDED = True


def build(f: Findings) -> Content:
    table = tables.saving(f)
    figures = saving_figure(f, f.saved_attack) if f.saved_attack is not None else {}
    text = after_saving(f).text if f.strongest is not None else ""
    return Content({"saving": table, "n_text": tables.n_text, "text": text}, [table] if table else [], figures)


def saving_figure(f: Findings, attack: str) -> dict[str, str]:
    """Survival of saving against eps, for the attack whose examples were saved."""
    out: dict[str, str] = {}
    kept = [("as computed", f.run.curve(attack, "accuracy_full"))]
    kept += [(f"saved at {b} bit", f.run.curve(attack, "accuracy_saved", bits=b)) for b in reversed(tables.BITS)]
    kept = [(name, rows) for name, rows in kept if rows]
    if len(kept) > 1:
        alt = f"Accuracy under {f.run.title(attack)} against ε, as computed and after saving at 16, 12 and 8 bits."
        out["saving"] = charts.series(f, "saving", "accuracy", kept, alt, first_wide=True)
    return out
