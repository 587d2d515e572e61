"""search.html: what a comparison of searches found, on one page that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from medrobust import json_files
from medrobust.errors import InputError
from medrobust.report import run_line
from medrobust.report import search_charts as charts
from medrobust.report import search_words as words
from medrobust.report.search_tables import apart, robust_table, scores
from medrobust.report.tables import Table
from medrobust.report.words import count, percent, whole

COLUMNS = ("question", "method", "metric", "value", "low", "high", "q1", "q3", "seeds", "n")
"""Of results.csv."""


@dataclass(frozen=True)
class Section:
    """One question: its paragraph, tables and figures."""

    name: str
    title: str
    free: str
    tone: str
    headline: str
    verdict: str
    tables: list[Table]
    figures: list[tuple[str, str]]
    """(SVG, caption)."""


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(results, times) of a run folder; InputError where they are missing or broken."""
    for name in ("results.json", "times.json"):
        if not (folder / name).is_file():
            raise InputError(f"{folder} holds no {name}: it is no run of medrobust search, or it was stopped")
    return json_files.read_results(folder / "results.json"), json_files.read_object(folder / "times.json")


def html(results: dict[str, Any], times: dict[str, Any]) -> str:
    """The whole page. Same input, same bytes."""
    from jinja2 import Environment, StrictUndefined

    room = files("medrobust.report")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters |= {"count": count, "whole": whole}
    template = environment.from_string((room / "search.html").read_text(encoding="utf-8"))
    sections = [section(results, times, q) for q in words.TITLES if q in results["questions"]]
    attacked = results.get("robustness")
    return (
        "<!DOCTYPE html>\n"
        + template.render(
            made_by=run_line.line(results),
            css=(room / "page.css").read_text(encoding="utf-8"),
            facts=results["facts"],
            sections=sections,
            titles=words.TITLES,
            robust=words.robustness(attacked) if attacked else [],
            attacked=attacked,
            robust_table=robust_table(attacked) if attacked else None,
            synthetic=_synthetic(results),
        ).lstrip()
    )


def csv_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    return [{k: row[k] for k in COLUMNS} for row in results["rows"]]


def section(results: dict[str, Any], times: dict[str, Any], question: str) -> Section:
    tone, headline = words.short(results, question)
    return Section(
        question,
        words.TITLES[question],
        words.FREE[question],
        tone,
        headline,
        words.verdict(results, question),
        [scores(results, question), apart(results, times, question)],
        figures(results, times, question),
    )


def figures(results: dict[str, Any], times: dict[str, Any], question: str) -> list[tuple[str, str]]:
    told = results["questions"][question]
    methods = told["methods"]
    rows = [
        {**r, **methods[r["method"]]} | {"value": r["value"]}
        for r in results["rows"]
        if r["question"] == question and r["metric"] == "balanced_accuracy"
    ]
    rows.sort(key=lambda r: (-r["value"], r["method"]))
    alt = "Balanced accuracy of each method, best first: " + "; ".join(
        f"{r['title']} {percent(r['value'])}" for r in rows
    )
    out = [
        (
            charts.as_svg(
                partial(charts.spread, rows=rows, label="balanced accuracy (%)"),
                6.8,
                1.1 + 0.21 * len(rows),
                f"spread-{question}",
                alt + ".",
            ),
            "Median over seeds (dot), its 95 % interval (thin) and the quartiles (broad).",
        )
    ]
    if "friedman" in told:
        found = told["friedman"]
        ranks = {methods[n]["title"]: r for n, r in found["ranks"].items()}
        kinds = {m["title"]: m["kind"] for m in methods.values()}
        draw = partial(charts.critical_difference, ranks=ranks, kinds=kinds, difference=found["critical_difference"])
        alt = "Critical-difference diagram, mean ranks: " + ", ".join(
            f"{n} {r:.1f}" for n, r in sorted(ranks.items(), key=lambda i: i[1])
        )
        out.append(
            (
                charts.as_svg(draw, *charts.cd_size(len(ranks)), f"cd-{question}", alt + "."),
                f"Mean rank over {found['blocks']} seeds, 1 is best; methods under one bar are not told apart "
                f"(Nemenyi, α = 0.05). Friedman's test: p {words.p_value(found['p_f'])}. Seeds are draws of the same "
                "images: read it as an order, and let several data sets decide.",
            )
        )
    out += _curves(results, times, question)
    return out


def curves(results: dict[str, Any], times: dict[str, Any], question: str, axis: str) -> list[dict[str, Any]]:
    """Convergence of each method that searches, best end first. axis: "at" (evaluations) or "clock" (seconds)."""
    out = []
    for name, method in results["questions"][question]["methods"].items():
        if "curve" in method:
            x = method["curve"]["at"] if axis == "at" else times[question][name]["clock"]
            # time may begin at nothing, which a logarithmic axis does not have
            out.append({**method, **method["curve"], "x": [max(v, 1e-5) for v in x]})
    return sorted(out, key=lambda c: c["median"][-1])


def _curves(results: dict[str, Any], times: dict[str, Any], question: str) -> list[tuple[str, str]]:
    out = []
    for axis, label, caption in (
        ("at", "evaluations (a gradient counts as three)", "Convergence against evaluations"),
        ("clock", "seconds of one processor a network", "The same against time"),
    ):
        found = curves(results, times, question, axis)
        if not found:
            continue
        alt = f"{caption}: " + "; ".join(f"{c['title']} ends at {c['median'][-1]:.3f}" for c in found) + "."
        draw = partial(charts.convergence, curves=found, label=label)
        named = (
            f"the best {charts.SHOWN} searches and all that are more or less than a search are named, the rest is pale"
        )
        out.append(
            (
                charts.as_svg(draw, 6.8, 4.4, f"{axis}-{question}", alt),
                f"{caption}: median over all seeds and folds; {named}.",
            )
        )
    return out


def _synthetic(results: dict[str, Any]) -> bool:
    return str(results["facts"].get("data", "")).startswith("phantom")
