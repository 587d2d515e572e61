"""report.html: the sections gathered and set in the template, everything inline."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from medrobust.report import (
    charts,
    check_lines,
    conditions,
    detection,
    pictures,
    plain,
    tables,
    universal,
    why,
    without_gradients,
    words,
)
from medrobust.report.findings import Findings, Verdict, doubts_together, in_doubt
from medrobust.report.glossary import GLOSSARY
from medrobust.report.run import PROBES, Example
from medrobust.report.saving import after_saving
from medrobust.report.sizes import short_size, size_words
from medrobust.report.words import count, percent, plural, with_interval
from medrobust.results import Row

MOST_LINES = 6
"""Directions drawn in the flip figure; the table holds the others."""


CONTENTS = (
    ("summary", "Summary"),
    ("clean", "Performance without attack"),
    ("accuracy", "Accuracy under attack"),
    ("smallest", "How small a change is enough"),
    ("flips", "Which errors the attack makes"),
    ("universal", "One change for every image"),
    ("without", "Without gradients"),
    ("detection", "Can the attack be seen, and evaded?"),
    ("why", "Why it breaks"),
    ("saving", "What is left after saving the image"),
    ("examples", "Examples"),
    ("checks", "Sanity checks"),
    ("conditions", "Exact conditions"),
    ("limits", "What this audit does not show"),
    ("words", "Words used here"),
)


@dataclass(frozen=True)
class Picture:
    """One row of examples: three images and what the model said of them."""

    name: str
    clean: str
    change: str
    attacked: str
    factor: str
    true: str
    before: str
    after: str
    confidence_before: str
    confidence_after: str
    attack: str
    eps: str
    width: int


def html(f: Findings) -> str:
    """The whole page. Same findings, same bytes."""
    shown = examples(f)
    return rendered(
        "page.html",
        f=f,
        run=f.run,
        c=f.run.conditions,
        page=plain.first_page(f),
        tables=tables,
        glossary=GLOSSARY,
        doubts=doubts_together(f),
        figures=figures(f),
        confusion=tables.confusion(f),
        examples=shown,
        after_saving=after_saving,
        limits=limits(f),
        lead=lead(f, shown),
        contents=CONTENTS,
        facts=conditions.groups(f),
        checks=check_lines.lines(f.run.checks, f.run.title),
        counted=check_lines.counted(f.run.checks),
        universal=universal.section(f),
        detection=detection.section(f),
        why=why.section(f),
        without=without_gradients.section(f),
    )


def rendered(template: str, **values: Any) -> str:
    """A page of this room: the template after the macros that all of them share, the style inline."""
    from jinja2 import Environment, StrictUndefined

    room = files("medrobust.report")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters |= {"count": count, "whole": words.whole}
    text = "".join((room / name).read_text(encoding="utf-8") for name in ("macros.html", template))
    css = (room / "page.css").read_text(encoding="utf-8")
    return "<!DOCTYPE html>\n" + environment.from_string(text).render(css=css, **values).lstrip()


def figures(f: Findings) -> dict[str, str]:
    """Name -> SVG, for those whose numbers were measured."""
    out: dict[str, str] = {}
    attacks, model = f.run.measured, f.run.conditions.model
    if (pair := tables.tested(f)) is not None:
        n = plural(pair[1].size, "test image")
        alt = f"Reliability diagram of {model}: confidence against share read correctly, {n}."
        out["reliability"] = charts.reliability(*pair, alt)
    if any(f.run.curve(a) for a in attacks):
        out["curves"] = charts.accuracy_curves(f, curves_alt(f))
    drawn = [a for a in attacks if (v := f.eps_star(a)) is not None and v.size]
    if drawn:
        alt = "Share of images fooled by a change of at most ε, one line an attack. "
        alt += " ".join(
            f"{f.run.title(a)}: {percent(float(np.isfinite(f.eps_star(a)).mean()))} on the grid."  # type: ignore[arg-type]
            for a in drawn
        )
        out["eps_star"] = charts.eps_star(f, alt)
    if f.strongest is not None and f.reference is not None:
        out |= flip_figure(f, f.strongest, f.reference)
    if f.saved_attack is not None:
        out |= saving_figure(f, f.saved_attack)
    return out


def flip_figure(f: Findings, attack: str, reference: float) -> dict[str, str]:
    """The most frequent directions against eps, for the strongest attack."""
    out: dict[str, str] = {}
    pairs = [(x.source, x.target) for x in f.flips(attack, reference)][:MOST_LINES]
    lines = [(f"{a} → {b}", f.run.curve(attack, "flip", class_name=a, target=b)) for a, b in pairs]
    if lines:
        alt = f"Share of correctly read images turned to another class ({f.name(attack)}), against ε. "
        alt += f"At {short_size(f, reference)}: "
        alt += "; ".join(
            f"{name} {percent(_turned(f, attack, a, b))}" for (name, _), (a, b) in zip(lines, pairs, strict=True)
        )
        out["flips"] = charts.series(f, "flips", "share turned", lines, alt + ".")
    return out


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


def _turned(f: Findings, attack: str, source: str, target: str) -> float | None:
    row = f.run.at(attack, "flip", f.reference, class_name=source, target=target)
    return None if row is None else row.value


def curves_alt(f: Findings) -> str:
    """The accuracy figure in words: where each line starts and ends."""
    parts = ["Accuracy against ε, one line an attack, with 95 % intervals."]
    if f.clean is not None:
        parts.append(f"All start at {percent(f.clean.value)} without attack.")
    for attack in f.run.measured + f.run.controls:
        rows: list[Row] = [r for r in f.run.curve(attack) if r.value is not None]
        if rows:
            mark = " (inconclusive)" if in_doubt(f, attack) else ""
            parts.append(f"{f.run.title(attack)}{mark}: {percent(rows[-1].value)} at {short_size(f, rows[-1].eps)}.")
    for attack in f.run.probes:
        parts += [
            f"{f.run.title(attack)}, a black-box probe: {with_interval(r)} at {short_size(f, r.eps)}."
            for r in f.run.curve(attack)
        ]
    return " ".join(parts)


def examples(f: Findings) -> list[Picture]:
    clean, attacked = f.run.arrays.get("examples.clean"), f.run.arrays.get("examples.attacked")
    if clean is None or attacked is None or clean.shape != attacked.shape or clean.ndim != 4:
        return []
    factor = pictures.magnification(attacked - clean)
    return [_picture(f, e, clean[i], attacked[i], factor) for i, e in enumerate(f.run.examples[: clean.shape[0]])]


def lead(f: Findings, shown: list[Picture]) -> Picture | None:
    """The example of the first page: a disease turned normal if there is one, else any image turned."""
    if f.verdict in (Verdict.INCONCLUSIVE, Verdict.CHANCE, Verdict.NOTHING):
        return None
    turned = [p for p in shown if p.true == p.before != p.after]
    missed = [p for p in turned if f.directed and p.true in f.disease and p.after in f.normal]
    return next(iter(missed or turned), None)


def _named(f: Findings, index: int) -> str:
    return f.run.labelled(f.run.class_name(index))


def _picture(f: Findings, e: Example, clean: np.ndarray, attacked: np.ndarray, factor: float) -> Picture:
    return Picture(
        name=e.id + (f" (patient {e.patient})" if e.patient else ""),
        clean=pictures.data_uri(clean),
        attacked=pictures.data_uri(attacked),
        change=pictures.data_uri(pictures.magnified(attacked - clean, factor)),
        factor=f"{factor:g}",
        true=_named(f, e.label),
        before=_named(f, e.before),
        after=_named(f, e.after),
        confidence_before=percent(e.confidence_before, 0),
        confidence_after=percent(e.confidence_after, 0),
        attack=f.run.title(e.attack) if e.attack else "attack",
        eps=short_size(f, e.eps) if e.eps is not None else "",
        width=int(clean.shape[-1]),
    )


def limits(f: Findings) -> list[str]:
    """What this audit does not show."""
    c, out = f.run.conditions, []
    if f.run.phantom:
        out.append(
            "The images are synthetic. The numbers describe a model on drawings; they say nothing about patients."
        )
    out.append(
        "An attack that fails proves nothing: the numbers under attack are upper bounds "
        "on the accuracy that a better attack would leave."
    )
    if f.largest is not None:
        out.append(f"Nothing is known beyond the tested sizes ({size_words(f, f.largest.eps)} at most).")
    if any(a not in PROBES for a in f.run.attacks):
        out.append(
            "The attacker was taken to know the model completely. "
            "One without the model would need more effort or larger changes."
        )
    out += [
        "The attacker changes pixels after the image was taken. "
        "Objects put into the scene, patches, other devices and poor images are other questions.",
        "How visible a change is was judged by its size alone; no reader was asked.",
    ]
    if c.n_test is not None:
        out.append(f"All numbers come from {plural(c.n_test, 'test image')} of one source. Others may differ.")
    if c.size is not None and c.size < 200:
        far = ", far below diagnostic resolution" if f.directed else ""
        out.append(f"Images were {c.size} pixels wide{far}. At another resolution the numbers may differ.")
    pooled = f.directed and (len(f.disease) > 1 or len(f.normal) > 1)
    if pooled:
        out.append("Shares pooled over several classes treat the images as independent of each other.")
    if f.run.of_attacks("accuracy_saved"):
        out.append(
            "Saving means rounding to a bit depth. JPEG compression and resizing after the attack were not tried."
        )
    return out
