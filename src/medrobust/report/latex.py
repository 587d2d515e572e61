"""The tables as LaTeX (package booktabs): clean performance, accuracy against eps, survival of saving."""

from __future__ import annotations

from medrobust.report import tables
from medrobust.report.findings import Findings
from medrobust.report.tables import Table

_ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "\u00a0": "~", "\u202f": r"\,", "–": "--", "→": r"$\rightarrow$", "ε": r"$\varepsilon$", "±": r"$\pm$",
    "∞": r"$\infty$", "“": "``", "”": "''", "½": r"$\frac12$", "…": r"\dots{}", "\n": " ", "\r": " ",
    "[": "{[}", "]": "{]}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip


def escape(text: str) -> str:
    """Any text as LaTeX that prints it."""
    return "".join(_ESCAPES.get(c, c) for c in text)


def document(f: Findings) -> str:
    """tables.tex: to be read in with \\input by a document that loads booktabs."""
    made = [tables.overall(f), tables.per_class(f), tables.accuracy(f), tables.saving(f)]
    head = (
        "% Made by medrobust from results.json. Needs \\usepackage{booktabs} and, for ``straight'' quotes, T1 fonts.\n"
    )
    if any(cell.doubt for t in made if t for row in [t.head, *t.rows] for cell in row):
        head += "% A dagger marks what the sanity checks leave inconclusive: do not quote it without saying so.\n"
    return head + "".join("\n" + _table(t) for t in made if t is not None)


def _table(table: Table) -> str:
    caption = escape(table.caption)
    if any(cell.doubt for row in [table.head, *table.rows] for cell in row):
        caption += r" $^\dagger$Inconclusive."
    lines = [
        r"\begin{table}[htbp]", r"\centering\small", rf"\caption{{{caption}}}\label{{{table.label}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}", r"\toprule",
        _row(table.head), r"\midrule", *(_row(row) for row in table.rows),
        r"\bottomrule", r"\end{tabular}", r"\end{table}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _row(cells: list[tables.Cell]) -> str:
    return " & ".join(escape(c.text) + (r"$^\dagger$" if c.doubt else "") for c in cells) + r" \\"
