"""The exact conditions of a run as groups of (term, value), without what only a machine would read."""

from __future__ import annotations

from collections.abc import Mapping

from medrobust.report import tables, words
from medrobust.report.criteria_words import items as criteria_items
from medrobust.report.findings import Findings
from medrobust.report.patients import share_text
from medrobust.report.run_line import items as run_items
from medrobust.report.schema import Conditions
from medrobust.report.words import NOTHING, count, number, plural

Items = list[tuple[str, str]]

PARTS = {
    "clean": "Untouched images",
    "sweep": "Attacks over the grid",
    "noise": "Control with noise",
    "fixed": "Sanity checks",
    "probe": "Attacks without gradients",
    "headline": "The headline number",
    "saving": "Saving attacked images",
    "corruption": "Natural corruptions",
    "change": "Patches, rotations, intensity",
    "certified": "Bounds that are proved",
    "smoothed": "Randomized smoothing",
    "universal": "One change for every image",
    "universal random": "Random changes beside it",
    "features": "Images for detectors",
    "detector": "Detectors",
    "evade": "Evading a detector",
    "explain": "Why it breaks",
    "smallest stored": "The smallest change in whole levels",
    "sparsest": "The fewest pixels changed by one level",
    "survival": "Saving, compression, resizing",
    "search": "Training networks",
    "search features": "Reading features",
    "search network": "Networks that are kept",
    "search networks": "Networks to attack",
    "search attack": "Attacking networks",
    "gradient check": "Checking gradients",
}
"""An audit's pieces of work in words."""
SHOWN_ELSEWHERE = ("history", "record", "versions", "mean", "std", "eps")
"""Entries of a provenance or a spec that would bury the others, or that stand in another group."""
MOST = 8
"""Longer lists are counted instead of written out."""


def groups(f: Findings) -> list[tuple[str, Items]]:
    """(heading, its terms and values); what is not known is left out."""
    c = f.run.conditions
    machine = [*sorted(c.versions.items()), ("Hardware", c.hardware)]
    config = f.run.spec.get("config", f.run.spec)
    sections = [
        ("This run", [*run_items(f.run.run), *criteria_items(f.run.criteria)]),
        ("Data", _data(f)),
        ("Model", _model(c)),
        ("Where the model comes from", _flat(c.provenance)),
        ("Attacks", _threat(f)),
        ("Settings (spec.json)", _flat(config) if isinstance(config, dict) else []),
        ("Software and machine", machine),
        ("Time taken", [(PARTS.get(part, part), words.duration(s)) for part, s in f.run.seconds.items()]),
    ]
    return [(title, [(t, v) for t, v in items if v and v not in ("None", NOTHING)]) for title, items in sections]


def _data(f: Findings) -> Items:
    c = f.run.conditions
    named = ", ".join(c.classes[: tables.MOST_CLASSES])
    if len(c.classes) > tables.MOST_CLASSES:
        named = f"{count(len(c.classes))}, among them {named}"
    split = [("training", c.n_train), ("validation", c.n_val), ("test", c.n_test), ("attacked", c.n_attacked)]
    # a data set for testing only has no images on the other sides
    images = ", ".join(f"{name} {count(n)}" for name, n in split if n)
    side = f"{c.size} × {c.size} pixels"
    if c.shapes:
        side = f"{c.shapes[0][1]} × {c.shapes[0][0]} pixels"
        if len(c.shapes) > 1:
            side = f"{count(len(c.shapes))} sizes, up to {max(map(max, c.shapes))} pixels a side"
    size = f"{side}, {plural(c.channels or 1, 'channel')}, {c.bits} bits a channel"
    return [
        ("Data", c.data),
        ("SHA-256 of the data", c.data_digest),
        ("Classes", named),
        ("Regarded as disease", ", ".join(f.disease) or "no class"),
        ("Regarded as healthy", _healthy(f)),
        ("Prevalence in 1,000 studies", _prevalence(f)),
        ("Images", images[:1].upper() + images[1:]),
        ("Image size", size if c.size else ""),
    ]


def _healthy(f: Findings) -> str:
    """Which classes, and who says so."""
    if not f.directed:
        return "not known; name such classes with --healthy"
    config = f.run.spec.get("config")
    by_option = isinstance(config, dict) and config.get("healthy")
    return ", ".join(f.normal) + (
        " (as --healthy says)" if by_option else " (by their names; --healthy says otherwise)"
    )


def _prevalence(f: Findings) -> str:
    """Which shares the counts of patients rest on, and who says so."""
    shares = f.run.conditions.prevalence
    if f.run.command != "audit":
        return ""
    if not shares:
        return "that of the test images; --prevalence states another"
    return ", ".join(f"{name} {share_text(share)}" for name, share in shares.items()) + " (as --prevalence says)"


def _model(c: Conditions) -> Items:
    items = [
        ("Model", c.model),
        ("SHA-256 of the weights", c.model_digest),
        ("Head", c.head),
        ("Decision", _decision(c)),
        ("Parameters", count(c.parameters)),
    ]
    if c.mean and c.std:
        items.append(("Normalisation", f"mean {_short(c.mean)}, standard deviation {_short(c.std)} (pixels in [0, 1])"))
    if c.preprocessing:
        items.append(("Preprocessing", f"{c.preprocessing}, as a part of the classifier"))
    if c.trained_here is not None:
        items.append(("Origin", "trained for this audit" if c.trained_here else "supplied"))
    return items


def _decision(c: Conditions) -> str:
    if c.head == "softmax" and len(c.classes) > 2:
        return "the most probable class"
    if c.threshold is None:
        return ""
    rule = c.provenance.get("threshold_rule")
    how = (
        f" (by the rule {rule.get('rule')} on {rule.get('images')} validation images)" if isinstance(rule, dict) else ""
    )
    if isinstance(c.threshold, tuple):
        each = zip(c.classes, c.threshold, strict=True)
        return "from a probability of: " + ", ".join(f"{name} {number(value)}" for name, value in each) + how
    if len(c.classes) == 2 and c.head != "multilabel":
        return f"{c.classes[1]} from a probability of {number(c.threshold)}{how}"
    return f"{'each ' if c.head == 'multilabel' else ''}from a probability of {number(c.threshold)}{how}"


def _threat(f: Findings) -> Items:
    c = f.run.conditions
    items = [("Norm", c.norm), (tables.unit(f), ", ".join(tables.eps_text(f, e) for e in c.eps)), ("Seed", str(c.seed))]
    if c.on_grid:
        items.append(("Attacked images", "whole stored grey levels" + (", also beside the window" * (c.span > 1))))
    items += [(a.title, f"{a.settings.replace('_', ' ')}. {a.source}".strip(". ")) for a in c.attacks.values()]
    if (info := c.headline) is not None and f.run.ensemble is not None:
        size = f"at {tables.eps_text(f, info.eps)}"
        items.append((f"{info.title} (headline number)", f"{info.settings}, {size}. {info.source}".strip(". ")))
    if (made := c.universal) is not None:
        settings = ", ".join(f"{k.replace('_', ' ')} {_short(v)}" for k, v in made.settings.items())
        cost = plural(sum(g.gradients for g in made.goals), "gradient")
        origin = f"made from {count(made.n_made)} {made.made_from}, {plural(len(made.goals), 'goal')}, {cost}"
        items.append(("One change for every image", f"{made.title} ({settings}); {origin}. {made.source}".strip(". ")))
    for probe in f.run.probes:
        notes = ", ".join(dict.fromkeys(r.note for r in f.run.curve(probe) if r.note))
        items.append((f.run.title(probe), f"black-box probe{f', {notes}' if notes else ''}"))
    return items


def _flat(values: Mapping[str, object]) -> Items:
    """A provenance or a spec: one line an entry, what is empty or only for machines left out."""
    items = []
    for name, value in values.items():
        text = "" if name in SHOWN_ELSEWHERE else _short(value)
        if text:
            items.append((name.replace("_", " ").capitalize(), text))
    return items


def _short(value: object) -> str:
    """ "epochs 8, lr 0.001"; a long list only as its length; nothing for what is empty."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        parts = [(k, _short(v), isinstance(v, dict)) for k, v in value.items() if k not in SHOWN_ELSEWHERE]
        return ", ".join(f"{k.replace('_', ' ')} {f'({v})' if nested else v}" for k, v, nested in parts if v)
    if isinstance(value, (list, tuple)):
        if len(value) > MOST or any(isinstance(v, (dict, list)) for v in value):
            return plural(len(value), "entry", "entries")
        return ", ".join(_short(v) for v in value)
    return str(value)
