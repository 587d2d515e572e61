"""What to do next, by the numbers of an audit: advice with its command, or none where the numbers call for none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from medrobust.report import advice_words as words
from medrobust.report import commands
from medrobust.report.advice_words import Advice
from medrobust.report.comparison import Share
from medrobust.report.detection_tables import DetectorRows
from medrobust.report.findings import Findings, Verdict, doubts_together
from medrobust.report.sections import detection, universal
from medrobust.report.sizes import greys, short_size
from medrobust.report.verdict import outputs_swapped
from medrobust.results import Kind

MOST = 4
"""Advice on one page; the first rules come first."""
HELD = (Verdict.WEAKENED, Verdict.WITHSTOOD)
ATTACKED = (Verdict.FOOLED, *HELD)


def of(f: Findings) -> list[Advice]:
    """The first MOST that apply."""
    if f.verdict is Verdict.CHANCE or outputs_swapped(f) is not None:
        rules: tuple[Callable[[Findings], Advice | None], ...] = (_order, _threshold)
    else:
        rules = RULES
    return [advice for rule in rules if (advice := rule(f)) is not None][:MOST]


def _with(advice: Advice | None, command: str) -> Advice | None:
    return None if advice is None else replace(advice, command=command)


def _order(f: Findings) -> Advice | None:
    classes = f.run.conditions.classes
    if outputs_swapped(f) is None or len(classes) != 2:
        return None
    text = "Another order of the outputs would make its answers right; no number here means what it says until then."
    order = ["--classes", ",".join(reversed(classes))]
    return Advice("Audit again with the other order", text, commands.command(f, "audit", *order, without=("classes",)))


def _threshold(f: Findings) -> Advice | None:
    area = Share.of(f.run.find(Kind.CLEAN, "auroc"))
    if area is None or not f.run.conditions.n_val or f.verdict is not Verdict.CHANCE:
        return None
    options = ["--threshold-rule", "youden"]
    return _with(words.threshold(area), commands.command(f, "audit", *options, without=("threshold", "threshold_rule")))


def _without_gradients(f: Findings) -> Advice | None:
    if f.run.conditions.answers is not None or not (f.verdict is Verdict.INCONCLUSIVE or f.decisive):
        return None
    # an inconclusive verdict, above this on the page, says why itself
    reasons = "" if f.verdict is Verdict.INCONCLUSIVE else "; ".join(doubts_together(f))
    # an attack of a single step is believed beside one of several; its gradient is not in doubt
    if not f.doubts and not f.decisive and not f.unproved and not f.shaken:
        command = commands.command(f, "audit", "--attacks", "pgd,apgd,fmn", without=("attacks",))
        return Advice("Attack with several steps", "Only a single-step attack was run: it shows no strength.", command)
    attacks = ["--attacks", "square,simba-dct,hopskipjump"]
    return _with(words.without_gradients(reasons), commands.command(f, "audit", *attacks, without=("attacks",)))


def _round_first(f: Findings) -> Advice | None:
    c, half = f.run.conditions, f.half(f.strongest) if f.strongest else None
    if f.verdict is not Verdict.FOOLED or c.bits != 8 or c.on_grid or f.grey is None or half is None:
        return None
    attack, size = f.saved_attack, f.reference
    if (below := greys(f, half.eps) < 0.5 - 1e-6) or attack is None or size is None:
        computed, saved, size = Share.of(half), None, half.eps
    else:
        computed = Share.of(f.run.at(attack, "accuracy_full", size))
        saved = Share.of(f.run.at(attack, "accuracy_saved", size, bits=8))
    if computed is None:
        return None
    advice = words.round_first(words.Rounding(computed, saved, short_size(f, size), below))
    at = ["--attacks", "pgd", "--eps", eps(f, max(size, f.grey)), "--save", "attacked"]
    return _with(advice, commands.command(f, "attack", *at))


def _harden(f: Findings) -> Advice | None:
    at, size = Share.of(f.at_reference), f.reference
    if f.verdict is not Verdict.FOOLED or at is None or size is None or f.run.conditions.answers is not None:
        return None
    norm = ["--norm", "l2"] if f.run.conditions.norm == "L2" else []
    if (text := eps(f, size)).endswith(("lv", "hu")):  # stored values are not trained on
        return None
    options = [*norm, "--eps", text, "--out", "runs/harden"]
    return _with(words.harden(at, short_size(f, size)), commands.command(f, "harden", *options))


def _one_change(f: Findings) -> Advice | None:
    strongest = universal.strongest_goal(f)
    if f.verdict not in ATTACKED or strongest is None:
        return None
    rate, control, target = strongest
    goal = f.run.labelled(target) if target else ""
    options = [*(["--target", _target(f, target)] if target else []), "--out", "runs/defend"]
    return _with(words.train_against_one_change(rate, control, goal), commands.command(f, "defend", *options))


def _target(f: Findings, name: str) -> str:
    """As --target takes it: a class, or "hide:" or "invent:" a finding."""
    info, k = f.run.conditions.universal, len(f.run.conditions.classes)
    if not f.several or info is None:
        return name
    goal = next(g.target for g in info.goals if g.target is not None and f.run.target_name(g.target) == name)
    absent, finding = divmod(goal or 0, k)
    return f"{'hide' if absent else 'invent'}:{f.run.class_name(finding)}"


def _guard(f: Findings) -> Advice | None:
    info, evasion = f.run.conditions.detection, f.run.conditions.evasion
    if info is None or f.verdict not in ATTACKED:
        return None
    rows, lead = DetectorRows(f), next(iter(info.detectors))
    for size in info.sizes:
        rates = detection.detection_rate(rows, info, lead, size)
        if rates is None:
            continue
        knowing = detection.evasion_rates(rows, info, lead, size, evasion)
        advice = words.guard(rates, knowing, info.detectors[lead].title)
        name, at = ("evade", ["--at", eps(f, size.eps)]) if knowing is None else ("detect", [])
        options = ["--eps", eps(f, size.eps), "--detectors", lead, *at, "--out", f"runs/{name}"]
        if advice is not None:
            return replace(advice, command=commands.command(f, name, *options))
    return None


def _more_images(f: Findings) -> Advice | None:
    c, at, size = f.run.conditions, Share.of(f.at_reference), f.reference
    if at is None or size is None or f.verdict not in ATTACKED:
        return None
    shares = f.beside_noise(f.at_reference)
    unused = (c.n_test or 0) - (f.attacked or 0)
    advice = words.more_images(at, None if shares is None else shares.noise, unused, short_size(f, size))
    options = ["--limit", "0", "--eps", eps(f, size), "--out", "runs/more"]
    return _with(advice, commands.command(f, "audit", *options))


def _larger(f: Findings) -> Advice | None:
    lowest = Share.of(f.largest)
    if f.verdict not in HELD or lowest is None or f.clean is None or f.largest is None:
        return None
    sizes = ",".join(eps(f, f.largest.eps * k) for k in (2, 4))
    options = ["--eps", sizes, "--out", "runs/larger"]
    return _with(
        words.larger(lowest, f.clean.value, short_size(f, f.largest.eps)), commands.command(f, "audit", *options)
    )


def _smaller(f: Findings) -> Advice | None:
    rows = [] if f.strongest is None else f.run.curve(f.strongest)
    first = Share.of(rows[0]) if rows else None
    if f.verdict is not Verdict.FOOLED or first is None or f.clean is None:
        return None
    options = ["--eps", ",".join(eps(f, rows[0].eps / k) for k in (8, 4, 2)), "--out", "runs/smaller"]
    advice = words.smaller(first, f.clean.value, short_size(f, rows[0].eps))
    return _with(advice, commands.command(f, "audit", *options))


def _full_ensemble(f: Findings) -> Advice | None:
    at, size, config = Share.of(f.at_reference), f.reference, f.run.spec.get("config")
    short = isinstance(config, Mapping) and config.get("auto") not in (None, "", "auto")
    if f.verdict not in HELD or f.run.conditions.headline is None or at is None or size is None or not short:
        return None
    options = ["--auto", "auto", "--out", "runs/full"]
    return _with(words.full_ensemble(at, short_size(f, size)), commands.command(f, "audit", *options))


def _detectors(f: Findings) -> Advice | None:
    if (
        f.verdict is not Verdict.FOOLED
        or f.run.conditions.detection is not None
        or f.run.conditions.answers is not None
    ):
        return None
    assert f.reference is not None
    text = "It is fooled, and whether a detector sees attacked images was not measured."
    options = ["--eps", eps(f, f.reference), "--norm", f.run.conditions.norm.lower(), "--out", "runs/detect"]
    return Advice("Try detectors of attacked images", text, commands.command(f, "detect", *options))


def _first_attack(f: Findings) -> Advice | None:
    if f.verdict is not Verdict.NOTHING:
        return None
    return Advice("Attack it", "No attack was measured in this run.", commands.command(f, "audit"))


RULES = (
    _first_attack,
    _without_gradients,
    _harden,
    _one_change,
    _guard,
    _detectors,
    _round_first,
    _smaller,
    _larger,
    _full_ensemble,
    _more_images,
)


def eps(f: Findings, size: float) -> str:
    """As --eps takes it: "1/255"."""
    c = f.run.conditions
    return c.grey_scale.size_text(size, c.norm)
