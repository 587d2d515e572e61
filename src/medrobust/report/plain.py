"""The first page: what the findings mean, in sentences a doctor can read and a reviewer can check.

Every sentence is made from the numbers, and each case has its own: fooled, weakened, withstood, inconclusive,
no better than guessing, nothing measured; two classes or many; disease known or not; few images.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from medrobust.report import headline, universal
from medrobust.report.findings import Findings, Verdict, in_doubt
from medrobust.report.paragraph import Paragraph
from medrobust.report.run import PROBES, WORST, Check, Row
from medrobust.report.saving import after_saving
from medrobust.report.sizes import levels, short_size, size_words, visibility
from medrobust.report.verdict import few_images, verdict
from medrobust.report.words import NBSP, bounds, count, listing, number, of_hundred, percent, plural, with_interval

TESTED = "To test this check"
MANY = 20
"""With more classes than this an audit counts no directions."""


@dataclass(frozen=True)
class Fact:
    label: str
    value: str
    note: str
    warn: bool = False


@dataclass(frozen=True)
class FirstPage:
    title: str
    text: str
    tone: str
    """ "bad", "warn" or "calm": the colour of the verdict's edge, never its only sign."""
    facts: list[Fact]
    paragraphs: list[Paragraph]
    most_directions: int = MANY


def first_page(f: Findings) -> FirstPage:
    title, text, tone = verdict(f)
    if f.few and f.verdict not in (Verdict.NOTHING, Verdict.CHANCE):
        text += " " + few_images(f)
    paragraphs = [what_was_tested(f), before(f)]
    if (summed := headline.paragraph(f)) is not None:
        paragraphs.append(summed)
    if f.strongest is not None:
        paragraphs += [how_small(f), *directions(f), against_noise(f), after_saving(f)]
    if (one := universal.paragraph(f)) is not None:
        paragraphs.append(one)
    paragraphs.append(how_far(f))
    return FirstPage(title, text, tone, facts(f), paragraphs)


# the facts beside the verdict


def facts(f: Findings) -> list[Fact]:
    out = []
    if f.clean is not None:
        out.append(Fact("Accuracy before", percent(f.clean.value), f"{plural(f.clean.n, 'image')}, unattacked"))
    row = headline.row(f) or f.at_reference
    if f.strongest is not None and row is not None and row.value is not None:
        doubtful = f.verdict is Verdict.INCONCLUSIVE or not row.ok
        summed = f.run.conditions.headline is not None
        note = headline.note(f, row) if summed else f"{f.run.said(f.strongest)}, {short_size(f, row.eps)}"
        out.append(
            Fact("Accuracy under attack", percent(row.value), note + (", inconclusive" if doubtful else ""), doubtful)
        )
        median = f.median(f.strongest)
        if f.verdict is Verdict.INCONCLUSIVE:
            out.append(Fact("Change that fools half", "inconclusive", "the attacks can not be believed", True))
        elif median is not None and median.n:
            out.append(Fact("Change that fools half", *_median_fact(f, median.value)))
    if f.run.checks:
        passed, total = sum(c.passed is True for c in f.run.checks), sum(c.passed is not None for c in f.run.checks)
        failed = sum(c.passed is False for c in f.run.checks)
        note = "all sanity checks passed" if passed == total else f"sanity checks passed, {failed} failed"
        out.append(Fact("Checks", f"{passed} of {total}", note, failed > 0))
    return out


def _median_fact(f: Findings, eps: float) -> tuple[str, str]:
    if math.isinf(eps):
        top = f.largest
        return (f"> {short_size(f, top.eps)}" if top else "not found"), "most images withstood the tested sizes"
    return short_size(f, eps), "of the correctly read images (median)"


# the paragraphs


def what_was_tested(f: Findings) -> Paragraph:
    c = f.run.conditions
    what = f"{count(len(c.classes))} classes" if len(c.classes) > 8 else names_of(f, c.classes)
    made = "fine-tuned" if c.provenance.get("pretrained") else "trained"
    origin = {True: f", {made} for this audit", False: ", as supplied", None: ""}[c.trained_here]
    text = (
        f"The classifier {c.model or 'under test'}{origin}, which sorts {'synthetic ' if f.run.phantom else ''}images"
    )
    text += f" of {c.data or 'the given data'} into {what}."
    if f.attacked is not None and f.strongest is not None:
        whole = f" of the {count(c.n_test)}" if c.n_test and c.n_test > f.attacked else ""
        text += f" {count(f.attacked)}{whole} test {'image was' if f.attacked == 1 else 'images were'} altered by "
        names = [f.run.title(a) for a in f.run.attacks or f.run.probes]
        text += f"{'one attack' if len(names) == 1 else plural(len(names), 'attack')} ({listing(names)}). "
        if f.strongest == WORST:
            text += "This page goes by the worst case: for each image, the attack that needed the smallest change. "
        if c.norm == "Linf":
            text += "Each attack may shift every pixel by at most ε (epsilon), counted in grey levels: "
            text += "an 8-bit image has 256 of them, from 0 (black) to 255 (white)."
        else:
            text += f"The total size of the change, ε (epsilon), is limited in the {c.norm} norm."
        if any(a not in PROBES for a in f.run.attacks):
            text += " The attacker is assumed to know the model completely (“white box”)"
            text += "." if f.strongest == WORST else ", which is the worst case."
        if f.run.attacks:
            text += _probes(f)
    return Paragraph("What was tested", text)


def names_of(f: Findings, classes: list[str]) -> str:
    """ "normal and pneumonia", "the classes 0, 1 and 2"."""
    if all(f.run.labelled(c) != c for c in classes):
        return f"the classes {listing(classes)}"
    return listing([f.run.labelled(c) for c in classes])


def _probes(f: Findings) -> str:
    if f.run.probes and f.run.has("success_at:"):
        names = listing([f.run.title(a) for a in f.run.probes])
        return f" {names}, which see only the model's answers, were run beside them: see “Without gradients”."
    return "".join(f" {_probe(f, a)}" for a in f.run.probes)


def _probe(f: Findings, attack: str) -> str:
    """What a black-box probe beside the attacks was, and what it left."""
    rows = f.run.curve(attack)
    tried = f"{f.run.title(attack)}, a black-box probe that sees only the model's answers"
    if len(rows) != 1 or rows[0].value is None:
        return f"{tried}, was run beside them."
    row = rows[0]
    return (
        f"{tried}, was run beside them on {plural(row.n or 0, 'image')} at {short_size(f, row.eps)} "
        f"and left {with_interval(row)} correct."
    )


def before(f: Findings) -> Paragraph:
    row = f.run.find("none", "accuracy")
    if row is None or row.value is None:
        return Paragraph("Before any attack", "The accuracy on untouched images was not measured.", True)
    text = f"Of 100 untouched test images it reads {of_hundred(row.value)} correctly ({with_interval(row)}, "
    text += f"n{NBSP}={NBSP}{count(row.n)})."
    if f.directed and len(f.disease) == 1:
        sensitivity = f.run.find("none", f"sensitivity:{f.disease[0]}")
        if sensitivity is not None and sensitivity.value is not None:
            text += f" Of 100 images labelled {f.disease[0]} it recognises {of_hundred(sensitivity.value)}"
            text += f" (sensitivity {with_interval(sensitivity)})."
    return Paragraph("Before any attack", text, f.guessing)


def how_small(f: Findings) -> Paragraph:
    assert f.strongest is not None
    title = "How small a change is enough"
    if f.verdict is Verdict.INCONCLUSIVE:
        return Paragraph(title, "Inconclusive: the attacks that would measure it can not be believed.", True)
    half, median, text = f.half(f.strongest), f.median(f.strongest), ""
    if median is not None and median.n:
        if math.isinf(median.value):
            text = "More than half of the images that it reads correctly withstood every size that was tried."
        else:
            scale = 255 if f.run.conditions.norm == "Linf" else 1
            text = "Half of the images that it reads correctly are misread after a change of "
            text += f"{size_words(f, median.value)} or less"
            if math.isfinite(median.low) and median.low != median.high:
                text += f" (95{NBSP}% interval {number(median.low * scale)}–{number(median.high * scale)})"
            elif math.isnan(median.low):
                text += f" ({count(median.n)}{NBSP}of them: too few for an interval)"
            text += "."
    if half is not None:
        grey = levels(f, half.eps)
        if median is not None and math.isclose(median.value, half.eps, rel_tol=1e-5):
            text += f" At that size its accuracy, too, has halved. Such a change is {visibility(grey)}."
        else:
            text += f" Its accuracy has halved at {size_words(f, half.eps)}. Such a change is {visibility(grey)}."
    elif f.largest is not None:
        text += f" Its accuracy did not halve up to {size_words(f, f.largest.eps)}, the largest size tried."
    return Paragraph(title, text.strip(), in_doubt(f, f.strongest))


def frequency(f: Findings, row: Row | None, of: str, verb: str) -> str:
    """ "Of 100 images labelled pneumonia that it had read correctly, 98 are read as normal after the attack (…)."""
    kind = "synthetic images" if f.run.phantom else "images"
    if row is None:
        return "Not measured in this run."
    if row.value is None or not row.n:
        return f"No image labelled {of} was read correctly before the attack, so none could be turned."
    said = of_hundred(row.value)
    be = "is" if said in ("none", "1", "fewer than 1") else "are"
    text = f"Of 100 {kind} labelled {of} that it had read correctly, {said} {be} {verb} after the attack "
    text += f"({f.run.said(row.attack)}, {short_size(f, row.eps)}: {count(round(row.value * row.n))} of {count(row.n)}"
    interval = bounds(row.low, row.high, 0)
    return text + (f"; 95{NBSP}% interval {interval[1:-1]}{NBSP}%)." if interval else ").")


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def directions(f: Findings) -> list[Paragraph]:
    assert f.strongest is not None
    eps = f.reference
    if eps is None or not f.run.has("flip:"):
        k = len(f.run.conditions.classes)
        text = "The direction of the errors was not measured in this run."
        if k > MANY:
            text = f"With {count(k)} classes the directions of the errors are not counted one by one."
        return [Paragraph("Which errors it makes", text)]
    warn = f.verdict is Verdict.INCONCLUSIVE
    caution = "Inconclusive. " if warn else ""
    if f.directed:
        missed = f.turned(f.disease, f.normal, f.strongest, eps)
        alarm = f.turned(f.normal, f.disease, f.strongest, eps)
        disease, normal = (listing([f.run.labelled(c) for c in side], "or") for side in (f.disease, f.normal))
        return [
            Paragraph("Missed disease", caution + frequency(f, missed, disease, f"read as {normal}"), warn),
            Paragraph("False alarm", caution + frequency(f, alarm, normal, f"read as {disease}"), warn),
        ]
    text = caution + "No class is marked as disease, so missed disease and false alarms are not told apart. "
    flips = [x for x in f.flips(f.strongest, eps) if x.row.value]
    if flips:
        source, target = f.run.labelled(flips[0].source), f.run.labelled(flips[0].target)
        text += "The most frequent error: " + _lower(frequency(f, flips[0].row, source, f"read as {target}"))
    else:
        text += f"At {short_size(f, eps)} no image changed its class ({f.run.said(f.strongest)})."
    return [Paragraph("Which errors it makes", text, warn)]


def against_noise(f: Findings) -> Paragraph:
    title = "Compared with random noise"
    attack = f.at_reference
    controls = [f.run.find(a, "accuracy", f.reference) for a in f.run.controls]
    rows = [r for r in controls if r is not None and r.value is not None]
    if not rows or attack is None or attack.value is None or f.clean is None:
        return Paragraph(title, "No control with random noise of the same size was measured.", True)
    row = min(rows, key=lambda r: r.value or 0.0)
    assert row.value is not None
    left = "all" if row.value >= 1 else of_hundred(row.value)
    text = f"Random noise of the same size ({short_size(f, row.eps)}) leaves {left} of 100 images correct "
    text += f"({with_interval(row)}); before it was {percent(f.clean.value)}. "
    if f.verdict is Verdict.INCONCLUSIVE:
        return Paragraph(title, text + "Inconclusive: there is no believable attack to compare it with.", True)
    lost, attacked = f.clean.value - row.value, f.clean.value - attack.value
    if attacked < 0.02 and lost < 0.05:
        return Paragraph(title, text + "At this size neither noise nor the attack does harm.")
    if lost < 0.05 and attacked >= 0.10:
        return Paragraph(title, text + "So it is not the size of the change that does the harm, but its aim.")
    if lost >= attacked / 2:
        text += "Noise alone does much of the harm: this classifier is unsteady even without an attacker."
        return Paragraph(title, text, True)
    return Paragraph(title, text + "Most of the harm comes from the aim of the change, some of it from its size.")


def how_far(f: Findings) -> Paragraph:
    """How many checks passed; what is inconclusive is said here, whatever the verdict."""
    checks, parts = f.run.checks, []
    failed, inconclusive = _failed(f), _inconclusive(f)
    if checks:
        asked = [c for c in checks if c.passed is not None]
        parts.append(f"{sum(c.passed is True for c in asked)} of {len(asked)} sanity checks passed.")
        if len(asked) < len(checks):
            parts.append(f"{len(checks) - len(asked)} more could not have failed here and were not asked.")
        parts += [_tested(c) for c in checks if c.decisive and TESTED in c.detail]
    else:
        parts.append("No sanity check was recorded: take every number with care.")
    parts += failed + inconclusive
    if f.few:
        parts.append(few_images(f))
    elif f.attacked:
        parts.append(
            f"Ranges in brackets are 95{NBSP}% intervals: with {plural(f.attacked, 'attacked image')}, "
            "chance alone can move a number that far."
        )
    left_out = len(f.run.conditions.left_out)
    if left_out:
        parts.append(f"{plural(left_out, 'image')} {'was' if left_out == 1 else 'were'} left out.")
    if f.run.conditions.data_notes:
        parts.append("The data come with remarks that bear on this: see “Notes on the data”.")
    if f.run.phantom:
        parts.append("The images are synthetic: the numbers say nothing about patients.")
    warn = bool(failed or inconclusive or not checks or f.few or f.run.phantom)
    return Paragraph("How far to believe this", " ".join(parts), warn)


def _tested(check: Check) -> str:
    """How a check was tested itself, from its detail."""
    return f"{check.detail[check.detail.index(TESTED) :]}."


def _failed(f: Findings) -> list[str]:
    """A sentence for each failed check, its attacks named together."""
    names: dict[tuple[str, str], list[str]] = {}
    for c in f.run.checks:
        if c.passed is False:
            who = f.run.title(c.attack) if c.attack and c.attack != "none" else "all attacks"
            names.setdefault((c.name, c.consequence), []).append(who)
    out = []
    for (name, consequence), whose in names.items():
        meaning = re.sub(r"^if (this|it) fails,?\s*", "", consequence.strip(), flags=re.I).rstrip(".")
        out.append(f"FAILED: {name} ({listing(whose)}). " + (f"That means: {meaning}." if meaning else ""))
    return [text.strip() for text in out]


def _inconclusive(f: Findings) -> list[str]:
    """A sentence for each reason that an attack could not do its work, its attacks named together."""
    names: dict[str, list[str]] = {}
    for attack, why in f.doubts.items():
        for reason in why:
            if not reason.startswith("the check "):
                names.setdefault(reason, []).append(f.run.title(attack))
    return [
        f"INCONCLUSIVE: {listing(who)}; {reason}. The accuracy that is left is no sign of strength."
        for reason, who in names.items()
    ]
