"""summary.md: a run in a few lines, for a pull request."""

from __future__ import annotations

from medrobust.report.findings import Findings
from medrobust.report.first_page import first_page, heading

_MARKS = str.maketrans({c: f"\\{c}" for c in "\\`*_[]<>|#"} | {"\n": " "})


def text(f: Findings) -> str:
    """Title, verdict, headline facts, failed checks, and where the report lies."""
    c, page = f.run.conditions, first_page(f)
    lines = [f"# {heading(f)}: {_escaped(c.model or 'the classifier')} on {_escaped(c.data or 'the given data')}", ""]
    lines += [f"**{_escaped(page.title)}** {_escaped(page.text)}", ""]
    lines += [f"- {fact.label}: {_escaped(fact.value)} ({_escaped(fact.note)})" for fact in page.facts]
    failed = [x for x in f.run.checks if x.passed is False]
    lines += [f"- Failed: {_escaped(x.name)} ({_escaped(f.run.title(x.attack))}): {_escaped(x.detail)}" for x in failed]
    return "\n".join([*lines, "", "Full report: [report.html](report.html)", ""])


def _escaped(words: str) -> str:
    """Names come from data: no character of them is markup."""
    return words.translate(_MARKS)
