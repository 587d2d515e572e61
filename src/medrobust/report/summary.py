"""summary.md: a run in a few lines, for a pull request."""

from __future__ import annotations

from collections.abc import Iterable

from medrobust.report import criteria_words
from medrobust.report.findings import Findings
from medrobust.report.first_page import FirstPage, first_page, heading

_MARKS = str.maketrans({c: f"\\{c}" for c in "\\`*_[]<>|#"} | {"\n": " "})


def text(f: Findings) -> str:
    """Title, verdict, headline facts, failed checks, and where the report lies."""
    c = f.run.conditions
    failed = [f"{x.name} ({f.run.title(x.attack)}): {x.detail}" for x in f.run.checks if x.passed is False]
    title = f"{heading(f)}: {c.model or 'the classifier'} on {c.data or 'the given data'}"
    top = criteria_words.markdown(f.run.criteria, escaped)
    return written(title, first_page(f), [f"Failed: {check}" for check in failed], top)


def written(title: str, page: FirstPage, remarks: Iterable[str] = (), top: Iterable[str] = ()) -> str:
    """Of any page. remarks: further lines. top: lines of Markdown above the title."""
    lines = [*top, f"# {escaped(title)}", "", f"**{escaped(page.title)}** {escaped(page.text)}", ""]
    lines += [f"- {escaped(fact.label)}: {escaped(fact.value)} ({escaped(fact.note)})" for fact in page.facts]
    lines += [f"- {escaped(remark)}" for remark in remarks]
    return "\n".join([*lines, "", "Full report: [report.html](report.html)", ""])


def escaped(words: str) -> str:
    """Names come from data: no character of them is markup."""
    return words.translate(_MARKS)
