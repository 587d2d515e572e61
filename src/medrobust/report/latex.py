"""Tables as LaTeX (package booktabs): every table of the page."""

from __future__ import annotations

from collections.abc import Iterable

from medrobust.report import tables
from medrobust.report.tables import Table

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "\u00a0": "~",
    "\u202f": r"\,",
    "–": "--",
    "→": r"$\rightarrow$",
    "ε": r"$\varepsilon$",
    "±": r"$\pm$",
    "∞": r"$\infty$",
    "“": "``",
    "”": "''",
    "½": r"$\frac12$",
    "…": r"\dots{}",
    "\n": " ",
    "\r": " ",
    "[": "{[}",
    "]": "{]}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
}


def escape(text: str) -> str:
    """Any text as LaTeX that prints it."""
    # a thin space before the sign, as SI typesetting has it; two hyphens of an option would print as a dash
    parts = text.replace("\u00a0%", "\u202f%").split("--")
    return "-{}-".join("".join(_ESCAPES.get(c, c) for c in part) for part in parts)


WIDEST = 6
"""Columns that fit across an A4 page of text; a wider table is set in parts, each with the first column."""


def document(tables: Iterable[Table], remarks: Iterable[str] = ()) -> str:
    """tables.tex: to be read in with \\input by a document that loads booktabs. remarks: comments at its head."""
    parts = [part for table in tables for part in _parts(table)]
    head = "% Made by medrobust from results.json. Needs the package booktabs, and T1 fonts for straight quotes.\n"
    if any(_doubtful(part) for part in parts):
        head += "% A dagger marks what the sanity checks leave inconclusive: do not quote it without saying so.\n"
    head += "".join(f"% {escape(remark)}\n" for remark in remarks)
    return head + "".join("\n" + _table(part) for part in parts)


def _parts(table: Table) -> list[Table]:
    """The table, or as many as its width needs, of about equal width."""
    columns, headings = range(table.headings, len(table.head)), list(range(table.headings))
    count = -(-len(columns) // max(WIDEST - table.headings, 2))
    if count <= 1 or table.widths:
        return [table]
    width = -(-len(columns) // count)
    chosen = [[*headings, *columns[i : i + width]] for i in range(0, len(columns), width)]
    return [
        Table(
            f"{table.caption} Part {n} of {len(chosen)}.",
            [table.head[i] for i in part],
            [[row[i] for i in part] for row in table.rows],
            table.label if n == 1 else f"{table.label}-{n}",
            headings=table.headings,
        )
        for n, part in enumerate(chosen, start=1)
    ]


def _doubtful(table: Table) -> bool:
    return any(cell.doubt for row in [table.head, *table.rows] for cell in row)


def _table(table: Table) -> str:
    caption = escape(table.caption) + (r" $^\dagger$Inconclusive." if _doubtful(table) else "")
    columns = "l" * table.headings + "r" * (len(table.head) - table.headings)
    if table.widths:
        columns = "".join(rf"p{{{width:g}\linewidth}}" for width in table.widths)
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\footnotesize",
        rf"\caption{{{caption}}}\label{{{table.label}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _row(table.head),
        r"\midrule",
        *(_row(row) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(cells: list[tables.TableCell]) -> str:
    return " & ".join(escape(c.whole) + (r"$^\dagger$" if c.doubt else "") for c in cells) + r" \\"
