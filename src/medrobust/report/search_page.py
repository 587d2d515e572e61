"""The first page of `medrobust search`: does a nature-inspired search beat the reference, and how was it compared?"""

from __future__ import annotations

from medrobust.report import search_words as words
from medrobust.report.findings import Findings
from medrobust.report.first_page import Fact, FirstPage
from medrobust.report.paragraph import Paragraph
from medrobust.report.schema import SearchInfo
from medrobust.report.searched import Searched, attacked, searched
from medrobust.report.words import count, whole


def first_page(f: Findings) -> FirstPage:
    """The verdict on the first question; the others, robustness and the protocol in paragraphs."""
    result, info = searched(f.run), f.run.conditions.search
    if not result or info is None:
        return FirstPage("Nothing was compared yet.", "", "warn")
    tone, headline = words.short(result[0])
    paragraphs = []
    for one in result[1:]:
        its_tone, its_headline = words.short(one)
        paragraphs.append(Paragraph(one.title, f"{its_headline}. {words.verdict(one)}", its_tone == "warn"))
    if sentences := words.robustness(attacked(f.run)):
        paragraphs.append(Paragraph("Robustness", " ".join(sentences)))
    paragraphs.append(Paragraph("How it was compared", protocol(info)))
    return FirstPage(headline, whole(words.verdict(result[0])), tone, facts(f, info, result[0]), paragraphs)


def facts(f: Findings, info: SearchInfo, first: Searched) -> list[Fact]:
    """Beside the verdict."""
    whose = f"of {count(info.patients)} patients" if info.patients else "patients not known"
    classes = ", ".join(f"{c} {count(n)}" for c, n in zip(f.run.conditions.classes, info.counts, strict=False))
    source = f", {info.source}" if info.source not in (None, info.features_kind) else ""
    return [
        Fact("Images", count(info.n), f"{whose}, {classes}"),
        Fact("Features", count(info.features), f"{info.features_kind}{source}"),
        Fact("Draws", f"{info.seeds} × {info.folds}", "seeds × outer folds"),
        Fact("Budget", count(first.info.budget), f"evaluations a network ({first.title.lower()})"),
    ]


def protocol(info: SearchInfo) -> str:
    """What all methods had in common."""
    folds = (
        "Patients were dealt into folds as a whole"
        if info.patients
        else "It is not known which images belong to one patient; images with the same features were dealt into folds "
        "together"
    )
    text = (
        "Every method had the same number of evaluations (a step along a gradient counts as three), the same bounds, "
    )
    text += f"first points, penalty and stopping rule. {folds}; scaling, principal components, masks, thresholds and "
    return f"{text}hyper-parameters were fitted on training folds only. {info.note}".strip()
