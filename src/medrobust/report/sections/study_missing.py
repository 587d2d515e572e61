"""What a study lacks: cells that failed or are still to come, tables without a row."""

from __future__ import annotations

from medrobust.report.section import Content
from medrobust.report.study_page import StudyFindings

ORDER, COMMANDS = 10, ("study",)


def build(f: StudyFindings) -> list[Content]:
    return [Content({"lines": f.remarks}, anchor="missing", title="Missing")] if f.remarks else []
