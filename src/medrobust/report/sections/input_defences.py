"""Defences: what three kinds of attacker leave of them, what they cost, and which to take."""

from __future__ import annotations

from medrobust.report import charts, defence_advice_words
from medrobust.report import input_defence_words as words
from medrobust.report.findings import Findings
from medrobust.report.first_page import FirstPage, checks_fact, clean_fact
from medrobust.report.input_defence_words import ANOTHER, ATTACKERS, NONE
from medrobust.report.paragraph import Paragraph
from medrobust.report.section import Content
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table, TableCell, share
from medrobust.report.words import NOTHING, bounds, number, plain
from medrobust.results import Kind, Row

ANCHOR, TITLE, ORDER, NEEDS = "input-defences", "Every defence, by what the attacker knows", 8, ("input_defences",)
COMMANDS = ("input-defences",)


def build(f: Findings) -> Content | None:
    info = f.run.conditions.input_defences
    if info is None:
        return None
    titles = {NONE: "No defence", **words.titles(f.run)}
    shown = [knows for knows in ATTACKERS if knows != ANOTHER or info.surrogate]
    attacked = [_attacked(f, e, titles, shown) for e in info.eps]
    costs = _costs(f, titles)
    guards = [name for name, one in info.defences.items() if one.kind == "guard"]
    referrals = [_referrals(f, guards, titles, shown)] if guards else []
    eps = words.telling(f.run)
    every = [] if eps is None else defence_advice_words.of_run(f.run, eps)
    figures, best = {}, defence_advice_words.front(every)
    if len(every) > 1 and eps is not None:
        named = [one.title for one in every if one.name in best]
        alt = f"Accuracy on untouched images against the share that withstands. On the front: {', '.join(named)}."
        points = [(one.title, one.clean, one.robust, one.name in best) for one in every]
        figures["pareto"] = charts.pareto(points, alt)
    values = {
        "content": attacked,
        "costs": costs,
        "referrals": referrals,
        "size": "" if eps is None else short_size(f, eps),
        "front": [titles[name] for name in best],
        "n": f.attacked,
        "n_test": f.run.conditions.n_test,
    }
    return Content(values, [*attacked, costs, *referrals], figures)


def _attacked(f: Findings, eps: float, titles: dict[str, str], shown: list[str]) -> Table:
    """Which share withstands each attacker at one size, and what that makes of the defence."""
    judged, info = words.of_run(f.run, eps), f.run.conditions.input_defences
    assert info is not None
    body = []
    for name, title in titles.items():
        cells = [share(_find(f, "accuracy_attacked", name, eps, knows)) for knows in shown]
        verdict = words.worth(judged[name]).value if name in judged else ""
        body.append([TableCell(title), *cells, TableCell(verdict)])
    caption = f"Share of images that withstand at {short_size(f, eps)}, with 95 % intervals, n = {f.attacked}: "
    caption += (
        "answered rightly untouched, and under attack rightly or by a person. Not knowing it: images that Auto made "
    )
    caption += "against the classifier alone. "
    if ANOTHER in shown:
        caption += f"From another classifier: made on {info.surrogate}. "
    caption += "Knowing it: the worse of these and of an attack through the defence: Auto along its gradient, or "
    caption += "straight through it where it has none; of a random defence averaged over draws and counted on fresh "
    caption += "ones; of a guard on classifier and detector together."
    head = ["Defence", *(f"Attacker {ATTACKERS[knows]}" for knows in shown), "Verdict"]
    return Table(caption, [TableCell(t) for t in head], body, f"tab:input-defences-{number(eps * 255)}")


def _find(f: Findings, metric: str, name: str, eps: float, knows: str) -> Row | None:
    return f.run.find(Kind.DEFENCE, metric, eps=eps, defence=name, knows=knows)


def _costs(f: Findings, titles: dict[str, str]) -> Table:
    """What each costs where nobody attacks."""
    body = []
    for name, title in titles.items():

        def of(metric: str, name: str = name) -> Row | None:
            return f.run.find(Kind.DEFENCE, metric, defence=name)

        seconds = of("seconds_per_image")
        time = NOTHING if seconds is None or seconds.value is None else f"{number(1000 * seconds.value)} ms"
        cells = [share(of(metric)) for metric in ("accuracy", "balanced_accuracy", "sensitivity")]
        cells += [TableCell(plain(of(metric))) for metric in ("ece", "brier")]
        body.append(
            [
                TableCell(title),
                *cells,
                TableCell(time),
                TableCell(plain(of("times_as_long"), 1)),
                TableCell(_thousand(of("referred"))),
            ]
        )
    head = ["Defence", "Accuracy", "Balanced accuracy", "Sensitivity at the same specificity", "ECE", "Brier score"]
    head += ["Time an image", "Times as long", "Referred of 1,000"]
    caption = f"Untouched test images, n = {f.run.conditions.n_test}, with 95 % intervals. Accuracy counts a referred "
    caption += "image as not answered rightly; the other columns are those of the images that are answered. "
    caption += "Sensitivity: at a threshold whose specificity is no less than the classifier's own. Of a random "
    caption += "defence one draw. Time: on a CPU the processor's."
    return Table(caption, [TableCell(t) for t in head], body, "tab:input-defences-costs")


def _referrals(f: Findings, guards: list[str], titles: dict[str, str], shown: list[str]) -> Table:
    """What guards refer, and what is left wrong among the images that they answer."""
    info = f.run.conditions.input_defences
    assert info is not None
    body = []
    for name in guards:
        pairs = {"untouched": [f.run.find(Kind.DEFENCE, m, defence=name) for m in ("referred", "wrong_answered")]}
        for e in info.eps:
            for knows in shown:
                both = [_find(f, m, name, e, knows) for m in ("referred", "wrong_answered")]
                pairs[f"{short_size(f, e)}, {ATTACKERS[knows]}"] = both
        for what, (referred, wrong) in pairs.items():
            body.append([TableCell(titles[name]), TableCell(what), TableCell(_thousand(referred)), share(wrong)])
    head = ["Guard", "Attack", "Referred of 1,000", "Wrong among those answered"]
    caption = "Images that a guard sends to a person, and the share of wrong answers among the others, with 95 % "
    caption += f"intervals. Its threshold refers {100 * info.referrals:g} % of the validation images. Not knowing it: "
    caption += "images that Auto made against the classifier alone."
    return Table(caption, [TableCell(t) for t in head], body, "tab:referrals", headings=2)


def _thousand(row: Row | None) -> str:
    if row is None or row.value is None:
        return "none" if row is None else NOTHING
    return f"{1000 * row.value:.0f} {bounds(row.low, row.high, 0, 1000)}".strip()


def first_page(f: Findings) -> FirstPage:
    """Does any of them help against an attacker who knows it, and which is to be taken?"""
    eps = words.telling(f.run)
    every = [] if eps is None else list(words.of_run(f.run, eps).values())
    advice = defence_advice_words.recommendation(f.run)
    if not every or advice is None:
        return FirstPage("Nothing was measured yet.", "", "warn")
    facts = [*clean_fact(f), *checks_fact(f)]
    told = [Paragraph(one.title, words.sentence(one), words.worth(one) not in words.HELPFUL) for one in every]
    return FirstPage(advice.title, advice.text, advice.tone, facts, told)
