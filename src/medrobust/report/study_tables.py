"""The tables of a study, from its results: measured figures, and published ones beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medrobust.grid import matches
from medrobust.report import column_words
from medrobust.report.tables import Table, TableCell
from medrobust.report.words import number
from medrobust.results import Kind

Row = Mapping[str, Any]

GREYS = "min_eps_median"
"""A size, shown in 8-bit grey levels where the norm is Linf."""
BEYOND = ("above the grid", "not by one level")
"""Notes of numbers that are infinite: shown in their place."""
COSTS = ("gradients_per_image", "forwards_per_image", "queries_per_image")
COUNTED = (
    "gradients",
    "queries",
    "queries_median",
    "pixels_median",
    "pixels_turned",
    "steps",
    "gradients_lost",
    "evaluations",
    "alarms_per_1000",
    "images",
)
COUNT = (*COSTS, *COUNTED, "better", "worse")
DECIMALS = {"auroc": 3, "auroc_paired": 3, "probe-auroc": 3, "lesion-auroc": 3, "ece": 3, "brier": 3}
DECIMALS |= {"rank_correlation": 2, "balanced_error": 2, "relative_balanced_error": 2}
PLAIN = ("network_mean", "rank", "friedman_p", "ratio")
"""Numbers with three significant digits; those of explanations are, but for the shares among them."""
LESIONS = ("lesion-point", "lesion-share", "lesion-area")
SHARES = ("probe", "larger", "larger_than_noise", "cam-shift", "cam-shift-asked", "relative-rank", *LESIONS)
VERDICTS = ("larger", "difference", "ratio")
"""Metrics whose note (a verdict, a p) is shown beside the number."""
POOLS = {"old": "of the round before", "first": "of the start"}
"""Perturbations that a defence is tried with."""


@dataclass(frozen=True)
class Figure:
    """One number of a table. text: with its unit; interval: "1.0 to 2.0", or empty; n: images behind it, or None.

    doubt: why it is not to be believed. verdict: what it says of a claim.
    """

    text: str
    interval: str = ""
    n: int | None = None
    doubt: str = ""
    verdict: str = ""

    def __str__(self) -> str:
        text = f"{self.text} ({self.interval})" if self.interval else self.text
        text = ": ".join(t for t in (text, self.verdict) if t)
        return f"{text} ?" if self.doubt else text

    @property
    def cell(self) -> TableCell:
        """As a cell of a table; the reason for doubt stands below the table."""
        return TableCell(str(replace(self, doubt="")), bool(self.doubt))


NOTHING = Figure("–")


MOST_REASONS = 4
"""Reasons for doubt that a caption names; results.csv holds all."""


@dataclass(frozen=True)
class Sheet:
    """A table ready to be set: as many leading texts as ``labels``, then a figure for each of ``columns``."""

    title: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    lines: tuple[tuple[tuple[str, ...], tuple[Figure, ...]], ...]
    note: str = ""
    attacks: tuple[str, ...] = ()
    """Of the attacks behind the figures: name, norm and all settings."""

    @property
    def counts(self) -> str:
        """ "n = 60" or "n = 20 to 60": images behind a figure."""
        ns = {f.n for _, figures in self.lines for f in figures if f.n is not None}
        if not ns:
            return ""
        return f"n = {min(ns)}" if len(ns) == 1 else f"n = {min(ns)} to {max(ns)}"

    def table(self, label: str) -> Table:
        """As every page and tables.tex show it. label: its name in LaTeX."""
        head = [TableCell(text) for text in (*self.labels, *self.columns)]
        rows = [[*map(TableCell, labels), *(f.cell for f in figures)] for labels, figures in self.lines]
        return Table(self.caption, head, rows, label, headings=len(self.labels))

    @property
    def caption(self) -> str:
        """Title, n, note, attacks, and why numbers are inconclusive."""
        text = f"{self.title}, 95 % interval{', ' + self.counts if self.counts else ''}."
        reasons = list(dict.fromkeys(f.doubt for _, figures in self.lines for f in figures if f.doubt))
        more = f"; and {len(reasons) - MOST_REASONS} more" if len(reasons) > MOST_REASONS else ""
        parts = [text, self.note, f"Attacks: {'; '.join(self.attacks)}." if self.attacks else ""]
        parts += [f"Inconclusive: {'; '.join(reasons[:MOST_REASONS])}{more}."] if reasons else []
        return " ".join(filter(None, parts))


def sheet(rows: Iterable[Row], view: Mapping[str, Any], titles: Mapping[str, str] | None = None) -> Sheet:
    """The rows that ``view`` asks for: a line for each combination of its ``lines``, a column for each ``across``.

    titles: of metrics, by name.
    """
    chosen = [r for r in rows if matches(r, view["where"])]
    lines, across = tuple(view["lines"]), str(view["across"])
    columns = list(dict.fromkeys(_key(r, (across,)) for r in chosen))
    by_line: dict[tuple[Any, ...], dict[tuple[Any, ...], Figure]] = {}
    for r in chosen:
        by_line.setdefault(_key(r, lines), {})[_key(r, (across,))] = figure(r)
    return Sheet(
        view["title"],
        tuple(map(column_words.column, lines)),
        tuple(named(across, c[0], titles) for c in columns),
        tuple(
            (
                tuple(named(k, v, titles) for k, v in zip(lines, name, strict=True)),
                tuple(figures.get(c, NOTHING) for c in columns),
            )
            for name, figures in by_line.items()
        ),
        view.get("note", ""),
        tuple(dict.fromkeys(attack_words(r) for r in chosen if r.get("settings"))),
    )


def sheets(results: Mapping[str, Any], part: str) -> list[Sheet]:
    """All tables of one part that have a line."""
    own_rows = [r for r in results["rows"] if r["part"] == part]
    views = next(p["show"] for p in results["parts"] if p["name"] == part)
    tables = [sheet(own_rows, view, results.get("titles")) for view in views if view["kind"] == "table"]
    return [s for s in tables if s.lines]


def incomplete(results: Mapping[str, Any]) -> list[str]:
    """A line for each table or chart that got no row, and for each table in which rows fall in one place."""
    lines = []
    for part in results["parts"]:
        own_rows = [r for r in results["rows"] if r["part"] == part["name"]]
        for view in part["show"]:
            name = f"{view['kind']} {view['title']!r} of part {part['name']!r}"
            chosen = [r for r in own_rows if matches(r, view["where"])]
            if not chosen:
                lines.append(f"{name} has no row")
            elif view["kind"] == "table":
                merged = len(chosen) - len({_key(r, (*view["lines"], view["across"])) for r in chosen})
                if merged:
                    lines.append(f"{name} does not show {merged} rows, because other rows fall in the same places")
    return lines


def attack_words(row: Row) -> str:
    """The attack of a row with its norm and settings, as a caption names it."""
    norm = f" {named('norm', row['norm'])}" if row.get("norm") else ""
    return f"{row['attack']}{norm} ({row['settings']})"


def figure(row: Row) -> Figure:
    """One row's number with its interval, in the unit of its metric."""
    doubt = "" if row.get("status", "ok") == "ok" else str(row.get("note") or "inconclusive")
    verdict = str(row.get("note") or "") if row["metric"] in VERDICTS else ""
    if row["value"] is None and verdict:
        return Figure("", "", row.get("n"), doubt, verdict)
    if row["value"] is None:
        beyond = str(row.get("note") or "")
        return Figure(beyond if beyond in BEYOND else "–", "", row.get("n"), doubt)
    show = formatter(row)
    low, high = row.get("low"), row.get("high")
    # without an upper end: it lies beyond all that was tried
    end = "or more" if high is None else f"to {show(high)}"
    interval = "" if low is None else f"{show(low)} {end}"
    return Figure(show(row["value"]) + unit(row), interval, row.get("n"), doubt, verdict)


def unit(row: Row) -> str:
    metric = row["metric"]
    if metric == GREYS:
        return "/255" if row.get("norm") == "linf" else ""
    return "" if metric in (*COUNT, *DECIMALS, *PLAIN, "objective") or _measure(row) else " %"


def formatter(row: Row) -> Callable[[float], str]:
    """How numbers of this metric are written, without their unit."""
    metric = row["metric"]
    if metric in DECIMALS:
        return lambda v: f"{v:.{DECIMALS[metric]}f}"
    if metric in PLAIN or _measure(row):
        return number
    if metric == GREYS:
        scale = 255 if row.get("norm") == "linf" else 1
        return lambda v: number(v * scale)
    if metric == "objective":
        return lambda v: f"{v:.2g}"
    if metric in COUNT:
        return lambda v: f"{v:,.0f}"
    return lambda v: f"{100 * v:.1f}"


def _measure(row: Row) -> bool:
    """A number of an explanation that is no share."""
    return row.get("kind") == Kind.EXPLANATION and row["metric"] not in (*SHARES, *DECIMALS)


def compared(results: Mapping[str, Any], part: str) -> list[tuple[dict[str, object], list[Figure]]]:
    """Published figures of one part, each with ours."""
    return [(p, [figure(r) for r in p["rows"]]) for p in results["published"] if p["part"] == part]


CAUTION = (
    "Published figures come from other images, networks and splits; the column says which difference is known, and a "
    "figure that is only recalled is nothing to be graded against."
)
MOST_BESIDE = 4
"""Measured figures that stand beside one published; the rest are in the tables above."""


def published_table(figures: Sequence[tuple[Row, list[Figure]]], label: str, title: str) -> Table | None:
    """Published figures of one part, each with ours; None where there is none."""
    if not figures:
        return None
    head = ("figure", "published", "there", "measured here", "why they may differ")
    rows = []
    for p, ours in figures:
        beside = [f"{f}{'' if f.n is None else f', n = {f.n}'}" for f in ours[:MOST_BESIDE]]
        more = f"; and {len(ours) - MOST_BESIDE} more above" if len(ours) > MOST_BESIDE else ""
        texts = (p["what"], f"{p['text']} [{p['source']}; {p['known']}]", p["setting"], "; ".join(beside) + more)
        rows.append([*map(TableCell, (*texts, p["reason"]))])
    caption = f"{title}: published and measured. {CAUTION}"
    return Table(caption, [*map(TableCell, head)], rows, label, (0.17, 0.2, 0.15, 0.25, 0.17))


def published_rows(results: Mapping[str, Any]) -> list[dict[str, object]]:
    """Published figures with every measured one beside them, for published.csv."""
    rows: list[dict[str, object]] = []
    for p in results["published"]:
        about = {k: p[k] for k in ("part", "what", "text", "source", "known", "setting", "reason")}
        measured = [{k: r.get(k) for k in ("metric", "value", "low", "high", "n", "status", "note")} for r in p["rows"]]
        rows += [about | row for row in measured or [{}]]
    return rows


def _key(row: Row, columns: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(row.get(k) for k in columns)


def named(column: str, value: Any, titles: Mapping[str, str] | None = None) -> str:
    """A value as a person reads it; column "": the name of a column itself. titles: of metrics, by name."""
    if column == "":
        return column_words.column(str(value))
    if value is None:
        return "–"
    if column == "eps":
        return number(value * 255)
    if column == "zeta":
        return f"{100 * value:g}\u00a0%"
    if column == "norm":
        return {"linf": "Linf", "l2": "L2"}.get(value, str(value))
    if column in ("metric", "measure") and titles and value in titles:
        return str(titles[value])
    if column == "at":
        return number(value * 255)
    if column == "pool":
        return str(POOLS.get(value, value))
    if column == "metric":
        return column_words.metric(str(value))
    return str(value)
