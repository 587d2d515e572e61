"""The first page: what the findings mean, in sentences a doctor can read and a reviewer can check.

Every sentence is made from the numbers, and each case has its own: fooled, weakened, withstood, inconclusive,
no better than guessing, nothing measured; two classes or many; disease known or not; few images.
"""

from __future__ import annotations

import math
import re

from medrobust.grey_scale import EIGHT_BITS
from medrobust.report import advice, commands, finding_words, headline, noise_words, patients
from medrobust.report.check_lines import counted
from medrobust.report.comparison import Relation, Share, in_words, numbers, out_of, relation
from medrobust.report.findings import Findings, Verdict, in_doubt
from medrobust.report.first_page import Fact, FirstPage, checks_fact, clean_fact
from medrobust.report.paragraph import Paragraph
from medrobust.report.run import PROBES, WORST, same
from medrobust.report.saving import after_saving
from medrobust.report.sections.beyond import paragraph as changes_paragraph
from medrobust.report.sections.corruptions import paragraph as corruptions_paragraph
from medrobust.report.sections.universal import paragraph as universal_paragraph
from medrobust.report.sizes import short_size, size_words, visibility
from medrobust.report.tables import eps_text
from medrobust.report.verdict import few_images, verdict
from medrobust.report.words import NBSP, bounds, count, listing, percent, plural, with_interval
from medrobust.results import Check, Kind, Row
from medrobust.stats import Estimate

TESTED = "To test the comparison of gradients"
MANY = 20
"""With more classes than this an audit counts no directions."""


def first_page(f: Findings) -> FirstPage:
    title, text, tone = verdict(f)
    if f.few and f.verdict not in (Verdict.NOTHING, Verdict.CHANCE):
        text += " " + few_images(f)
    lines = patients.lines(f)
    tables_ = [patients.table(f, lines)] if lines else []
    return FirstPage(
        title,
        text,
        tone,
        facts(f),
        cautions(f),
        tables=tables_,
        meaning=patients.title(f),
        advice=advice.of(f),
        advice_note=commands.NOTE,
    )


def cautions(f: Findings) -> list[Paragraph]:
    """What takes belief from the numbers of the first page, where anything does."""
    parts = list(f.run.conditions.model_doubts)
    if f.verdict is not Verdict.INCONCLUSIVE:  # whose verdict names the checks that failed
        parts += [*_failed(f), *_inconclusive(f)]
    if not f.run.checks:
        parts.append("No sanity check was recorded: take every number with care.")
    return [Paragraph("How far to believe this", " ".join(parts), True)] if parts else []


def sentences(f: Findings) -> list[Paragraph]:
    """What was found, a paragraph a question."""
    paragraphs = [what_was_tested(f), before(f)]
    if f.verdict is not Verdict.CHANCE:  # what guesses can be neither fooled nor withstand anything
        if (summed := headline.paragraph(f)) is not None:
            paragraphs.append(summed)
        if f.strongest is not None:
            paragraphs += [how_small(f), *directions(f), against_noise(f), after_saving(f, first_page=True)]
            if (natural := corruptions_paragraph(f)) is not None:
                paragraphs.append(natural)
            if (larger := changes_paragraph(f)) is not None:
                paragraphs.append(larger)
        if (one := universal_paragraph(f)) is not None:
            paragraphs.append(one)
    return [*paragraphs, how_far(f)]


# the facts beside the verdict


def facts(f: Findings) -> list[Fact]:
    out = clean_fact(f)
    row = headline.row(f)
    if row is None or f.reference is None or not same(row.eps, f.reference):
        row = f.at_reference
    if f.strongest is not None and row is not None and row.value is not None:
        doubtful = f.verdict in (Verdict.INCONCLUSIVE, Verdict.CHANCE) or not row.ok
        info = f.run.conditions.headline
        summed = info is not None and same(row.eps, info.eps)
        alone = f"{f.run.inline_title(f.strongest)}, {short_size(f, row.eps)} {bounds(row.low, row.high)}".strip()
        note = headline.note(f, row) if summed else alone
        note += f", n{NBSP}={NBSP}{count(row.n)}"
        out.append(
            Fact("Accuracy under attack", percent(row.value), note + (", inconclusive" if doubtful else ""), doubtful)
        )
        median = f.median(f.strongest)
        if f.verdict is Verdict.INCONCLUSIVE:
            out.append(Fact("Change that fools half", "inconclusive", "the attacks cannot be believed", True))
        elif f.verdict is Verdict.CHANCE:
            out.append(Fact("Change that fools half", "inconclusive", "no better than guessing", True))
        elif (of_sets := finding_words.row(f, "min_eps_median", finding_words.ANY)) is not None:
            middle = of_sets.estimate._replace(value=math.inf if of_sets.value is None else of_sets.value)
            out.append(Fact("Change that turns half", *_median_fact(f, middle, "turned to another set of findings")))
        elif median is not None and median.n:
            out.append(Fact("Change that fools half", *_median_fact(f, median, "read correctly")))
    return out + checks_fact(f)


def _median_fact(f: Findings, median: Estimate, of_images: str) -> tuple[str, str]:
    n = plural(median.n, "image")
    if math.isinf(median.value):
        top = f.largest
        return (f"> {short_size(f, top.eps)}" if top else "not found"), f"most of {n} withstood the tested sizes"
    return short_size(f, median.value), f"median of {n} {of_images} ({_median_interval(f, median)})"


def _median_interval(f: Findings, median: Estimate) -> str:
    """ "95 % interval 2 to 3 grey levels"."""
    if math.isnan(median.low) or math.isnan(median.high):
        return "too few images for an interval"
    if math.isinf(median.high):
        return f"95{NBSP}% interval {short_size(f, median.low)} to more than was tested"
    return f"95{NBSP}% interval {eps_text(f, median.low)} to {short_size(f, median.high)}"


# the paragraphs


def what_was_tested(f: Findings) -> Paragraph:
    c = f.run.conditions
    what = f"{count(len(c.classes))} classes" if len(c.classes) > 8 else names_of(f, c.classes)
    training = "fine-tuned" if c.provenance.get("pretrained") else "trained"
    origin = {True: f", {training} for this audit", False: ", as supplied", None: ""}[c.trained_here]
    images = f"{'synthetic ' if c.synthetic else ''}images of {c.data or 'the given data'}"
    text = f"The classifier {c.model or 'under test'}{origin}, which "
    if f.several:
        what = f"{count(len(c.classes))} findings" if len(c.classes) > 8 else listing(c.classes)
        text += f"reports findings in {images}, several at once where there are: {what}. An image is read correctly "
        text += "where every finding of it is; accuracy is the share of such images (exact match)."
    else:
        text += f"sorts {images} into {what}."
    if f.directed:
        text += f" Healthy is {names_of(f, f.normal)} (see --healthy)."
    if f.attacked is not None and f.strongest is not None:
        whole = f" of the {count(c.n_test)}" if c.n_test and c.n_test > f.attacked else ""
        text += f" {count(f.attacked)}{whole} test {'image was' if f.attacked == 1 else 'images were'} altered by "
        names = [f.run.title(a) for a in f.run.attacks or f.run.probes]
        text += f"{'one attack' if len(names) == 1 else plural(len(names), 'attack')} ({listing(names)}). "
        if f.strongest == WORST:
            text += "This page goes by the worst case: for each image, the attack that needed the smallest change. "
        if c.norm == "Linf":
            text += "Each attack may shift every pixel by at most ε (epsilon), counted in grey levels: "
            levels_ = c.grey_scale.levels
            kind = "an 8-bit image has 256" if levels_ == EIGHT_BITS else f"these images store {count(levels_ + 1)}"
            text += f"{kind} of them, from 0 (black) to {count(levels_)} (white)."
            if c.on_grid:
                text += " Attacked images hold whole stored levels, as files do."
        else:
            text += f"The total size of the change, ε (epsilon), is limited in the {c.norm} norm."
        if c.answers is not None:
            had = "decisions" if c.answers == "labels" else "scores"
            text += f" Nothing but its {had} could be had: the attacker is assumed to ask for as many of them as each "
            text += "attack needs (“black box”). Who knows the model may need less."
        elif any(a not in PROBES for a in f.run.attacks):
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
    if f.run.probes and f.run.black_box:
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
        f"{tried}, was run beside them on {plural(row.n, 'image')} at {short_size(f, row.eps)} "
        f"and left {with_interval(row)} correct."
    )


def before(f: Findings) -> Paragraph:
    row = f.run.find(Kind.CLEAN, "accuracy")
    if row is None or row.value is None:
        return Paragraph("Before any attack", "The accuracy on untouched images was not measured.", True)
    whole = Share.of(row)
    if whole is None:
        return Paragraph("Before any attack", "No test image was read.", True)
    text = f"Untouched, it reads {in_words(whole, 'test images')} correctly{' in every finding' if f.several else ''}."
    balanced = f.run.find(Kind.CLEAN, "balanced_accuracy")
    if f.several and balanced is not None and balanced.value is not None:
        text += f" Finding by finding, the mean of sensitivity and specificity is {with_interval(balanced)}, "
        text += f"n{NBSP}={NBSP}{count(balanced.n)}."
    if f.directed and len(f.disease) == 1:
        sensitivity = Share.of(f.run.find(Kind.CLEAN, "sensitivity", class_name=f.disease[0]))
        specificity = Share.of(f.run.find(Kind.CLEAN, "specificity", class_name=f.disease[0]))
        if sensitivity is not None:
            text += f" It recognises {in_words(sensitivity)} labelled {f.disease[0]} (sensitivity)"
            text += (
                f" and {in_words(specificity)} of the others as such (specificity)." if specificity is not None else "."
            )
    return Paragraph("Before any attack", text, f.guessing)


def how_small(f: Findings) -> Paragraph:
    assert f.strongest is not None
    title = "How small a change is enough"
    if f.verdict is Verdict.INCONCLUSIVE:
        return Paragraph(title, "Inconclusive: the attacks that would measure it cannot be believed.", True)
    half, median, text = f.half(f.strongest), f.median(f.strongest), ""
    if median is not None and median.n:
        if math.isinf(median.value):
            text = "More than half of the images that it reads correctly withstood every size that was tried."
        else:
            text = "Half of the images that it reads correctly are misread after a change of "
            text += f"{size_words(f, median.value)} or less"
            text += f" ({_median_interval(f, median)}, n{NBSP}={NBSP}{count(median.n)})."
    if half is not None:
        text += f" At {size_words(f, half.eps)}, the smallest size tried that halves its accuracy, it is "
        text += f"{with_interval(half)}. Such a change is {visibility(f, half.eps)}."
    elif f.largest is not None:
        text += f" Its accuracy did not halve up to {size_words(f, f.largest.eps)}, the largest size tried."
    return Paragraph(title, text.strip(), in_doubt(f, f.strongest))


def frequency(f: Findings, row: Row | None, noise: Row | None, of: str, verb: str) -> str:
    """What the attack turns of the images labelled so that were read correctly, beside what noise of its size turns."""
    if row is None:
        return "Not measured in this run."
    turned, control = Share.of(row), Share.of(noise)
    if turned is None:
        return f"No image labelled {of} was read correctly before the attack, so none could be turned."
    part, whole = out_of(turned)
    kind = "synthetic image" if f.run.conditions.synthetic else "image"
    text = f"Of {whole} {kind}{'' if whole == '1' else 's'} labelled {of} that it had read correctly, {part} "
    text += f"{'is' if part in ('none', '1', 'fewer than 1') else 'are'} {verb} after the attack "
    text += f"({f.run.inline_title(row.attack)}, {short_size(f, row.eps)}; {numbers(turned)})"
    if control is None:
        return text + "; what random noise of that size does was not measured."
    text += f"; after random noise of that size {out_of(control)[0]} ({numbers(control)})"
    return text + (
        "."
        if relation(turned, control) is Relation.ABOVE
        else ", which is not shown to be less: the difference may be chance."
    )


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def directions(f: Findings) -> list[Paragraph]:
    assert f.strongest is not None
    if f.several:
        return finding_words.paragraphs(f)
    eps = f.reference
    if eps is None or not f.run.of_attacks("flip"):
        k = len(f.run.conditions.classes)
        text = "The direction of the errors was not measured in this run."
        if k > MANY:
            text = f"With {count(k)} classes the directions of the errors are not counted one by one."
        return [Paragraph("Which errors it makes", text)]
    warn = f.verdict is Verdict.INCONCLUSIVE
    caution = "Inconclusive. " if warn else ""
    if f.directed:
        disease, normal = (listing([f.run.labelled(c) for c in side], "or") for side in (f.disease, f.normal))
        missed, alarm = ((f.disease, f.normal, disease, normal), (f.normal, f.disease, normal, disease))
        return [
            Paragraph(title, caution + _turned(f, *side), warn)
            for title, side in (("Missed disease", missed), ("False alarm", alarm))
        ]
    text = caution + "No class is known to stand for health, so missed disease and false alarms are not told apart "
    text += "(name such classes with --healthy). "
    flips = [x for x in f.flips(f.strongest, eps) if x.row.value]
    if flips:
        pair = (flips[0].source, flips[0].target)
        source, target = (f.run.labelled(name) for name in pair)
        text += "The most frequent error: " + _lower(_turned(f, [pair[0]], [pair[1]], source, target))
    else:
        text += f"At {short_size(f, eps)} no image changed its class ({f.run.inline_title(f.strongest)})."
    return [Paragraph("Which errors it makes", text, warn)]


def _turned(f: Findings, sources: list[str], targets: list[str], of: str, into: str) -> str:
    """Images labelled ``sources`` that are read as ``targets`` at the reference, under the attack and under noise."""
    assert f.strongest is not None
    assert f.reference is not None
    row = f.turned(sources, targets, f.strongest, f.reference)
    noise = [f.turned(sources, targets, a, f.reference) for a in f.run.controls]
    measured = [r for r in noise if r is not None and r.value is not None]
    return frequency(f, row, max(measured, key=lambda r: r.value or 0.0, default=None), of, f"read as {into}")


def against_noise(f: Findings) -> Paragraph:
    title, shares = "Compared with random noise", f.beside_noise(f.at_reference)
    if shares is None or shares.noise is None or f.reference is None:
        return Paragraph(title, "No control with random noise of the same size was measured.", True)
    if f.verdict is Verdict.INCONCLUSIVE:
        return Paragraph(title, "Inconclusive: there is no believable attack to compare it with.", True)
    return Paragraph(title, *noise_words.against_noise(shares, short_size(f, f.reference)))


def how_far(f: Findings) -> Paragraph:
    """How many checks passed; what is inconclusive is said here, whatever the verdict."""
    checks, parts = f.run.checks, []
    failed, inconclusive = _failed(f), _inconclusive(f)
    if f.verdict is Verdict.CHANCE:
        parts.append("A classifier that does no better than guessing has no strength or weakness to measure.")
    if checks:
        parts.append(f"{counted(checks).text}.")
        parts += [_tested(c) for c in checks if c.decisive and TESTED in c.detail]
    else:
        parts.append("No sanity check was recorded: take every number with care.")
    parts += [*f.run.conditions.model_doubts, *failed, *inconclusive]
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
    if f.run.conditions.synthetic:
        parts.append("The images are synthetic: the numbers say nothing about patients.")
    warn = bool(
        f.run.conditions.model_doubts or failed or inconclusive or not checks or f.few or f.run.conditions.synthetic
    )
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
    for (name, consequence), attacks in names.items():
        meaning = re.sub(r"^if (this|it) fails,?\s*", "", consequence.strip(), flags=re.I).rstrip(".")
        out.append(f"FAILED: {name} ({listing(attacks)}). " + (f"That means: {meaning}." if meaning else ""))
    return [text.strip() for text in out]


def _inconclusive(f: Findings) -> list[str]:
    """A sentence for each reason that attacks could not do their work."""
    names: dict[str, list[str]] = {}
    for attack, reasons in f.unusable.items():
        for reason in reasons:
            names.setdefault(reason, []).append(f.run.title(attack))
    return [
        f"INCONCLUSIVE: {listing(who)}; {reason}. The accuracy that is left is no sign of strength."
        for reason, who in names.items()
    ]
