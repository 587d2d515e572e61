"""criteria.xml: acceptance criteria as a JUnit report, which continuous integration shows as tests."""

from __future__ import annotations

from xml.etree import ElementTree

from medrobust.criteria import CriterionVerdict
from medrobust.report.criteria_words import CriteriaInfo

OUTCOMES = {CriterionVerdict.FAIL: "failure", CriterionVerdict.INCONCLUSIVE: "error"}


def text(info: CriteriaInfo, command: str) -> str:
    """XML: a criterion a test case; one that fails is a failure, one that cannot be judged an error."""
    verdicts = [j.verdict for j in info.judged]
    counts = {f"{outcome}s": str(verdicts.count(verdict)) for verdict, outcome in OUTCOMES.items()}
    counts |= {"tests": str(len(verdicts)), "skipped": "0"}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "acceptance criteria", **counts})
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("sha256", info.sha256), ("sha256 when the run began", info.begun_with)):
        ElementTree.SubElement(properties, "property", {"name": name, "value": value})
    for j in info.judged:
        case = ElementTree.SubElement(
            suite, "testcase", {"classname": f"medrobust.{command}", "name": _legal(j.criterion)}
        )
        words = _legal(". ".join(part for part in (j.reason, j.measured, j.of) if part))
        if j.verdict in OUTCOMES:
            ElementTree.SubElement(case, OUTCOMES[j.verdict], {"message": words})
        else:
            ElementTree.SubElement(case, "system-out").text = words
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _legal(words: str) -> str:
    """Without control characters, which XML cannot hold."""
    return "".join(c if c.isprintable() else "\ufffd" for c in words)
