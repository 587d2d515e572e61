"""explain.html: why a classifier breaks, from a finished run of `medrobust explain`; readable offline, no script."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medrobust import json_files
from medrobust.errors import InputError
from medrobust.report import explanation_figures as figures
from medrobust.report import explanation_tables as tables
from medrobust.report import run_line
from medrobust.report.explained_run import Run
from medrobust.report.page import rendered
from medrobust.report.words import count, grey_levels, listing, plural
from medrobust.report.writing import write_files


def write(folder: Path) -> Path:
    """Write explain.html into a run folder; returns its path. The same input gives the same bytes. InputError: the
    folder's results.json or figures.safetensors is missing or broken, or the page can not be written."""
    runs, comparison, made_by = read(folder)
    write_files(folder, {"explain.html": html(runs, comparison, made_by)})
    return folder / "explain.html"


def read(folder: Path) -> tuple[list[Run], list[dict[str, Any]], str]:
    """The classifiers of a run, how the first differs from the others, and which run it was."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        told = json_files.read_results(folder / "results.json")
        arrays = load_file(folder / "figures.safetensors")
        runs = [
            Run(
                r["name"], r["facts"], r["rows"], r["gallery"],
                {k.partition(".")[2]: v for k, v in arrays.items() if k.startswith(f"{i}.")},
                _picture(folder / f"tsne-{i}.png"),
            )
            for i, r in enumerate(told["runs"])
        ]  # fmt: skip
        comparison = list(told["comparison"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise InputError(f"{folder} holds no finished run of medrobust explain ({error}); run it again") from None
    return runs, comparison, run_line.line(told)


def html(runs: list[Run], comparison: list[dict[str, Any]], made_by: str = "") -> str:
    """The whole page. made_by: which run it was."""
    doubts = [f"{run.name} is {run.facts['guesses']}" for run in runs if run.facts.get("guesses")]
    drawn = {f"gallery-{k}": svg for k, svg in enumerate(figures.galleries(runs))}
    drawn |= {"measures": figures.measures(runs), "layers": figures.layers(runs), "profile": figures.profile(runs)}
    drawn |= {"contours": figures.contours(runs), "surface": figures.surface(runs), "single": figures.single(runs)}
    return rendered(
        "explanation.html",
        runs=runs, first=runs[0], figures=drawn, doubts=doubts, made_by=made_by, sentences=sentences(runs, comparison),
        measures=tables.measures(runs, comparison), saliency=tables.saliency(runs), cam=tables.cam(runs),
        lesion=tables.lesion(runs), layers=tables.layers(runs), landscape=tables.landscape(runs),
        embedding=tables.embedding(runs), facts=[(run.name, conditions(run)) for run in runs], sources=sources(runs),
        notes=[(run.name, run.facts["notes"]) for run in runs if run.facts["notes"]],
        doubtful=[(run.name, run.facts["doubt"]) for run in runs if run.facts.get("doubt")],
        phantom=any(run.facts["data"].startswith("phantom:") for run in runs), size=size(runs[0]),
    )  # fmt: skip


def size(run: Run) -> str:
    """ "1 grey level"."""
    return grey_levels(round(run.facts["eps"] * 255, 6))


# -- in words ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """A sentence of the first page under the question that it answers."""

    title: str
    text: str


def sentences(runs: list[Run], comparison: list[dict[str, Any]]) -> list[Claim]:
    """What was seen of the first classifier, and beside the others; every number has its interval and its n."""
    run = runs[0]
    out = [Claim("How steep is the loss?", _steep(run) + _beside(runs, comparison, "slope-l1", "steeper"))]
    out.append(Claim("How widely does it look?", _wide(run) + _beside(runs, comparison, "saliency-half", "wider")))
    out.append(
        Claim("How simple is what it sees?", _simple(run) + _beside(runs, comparison, "relative-rank", "richer"))
    )
    out.append(Claim("What does an attack move?", _moved(run)))
    return [c for c in out if c.text]


def _steep(run: Run) -> str:
    row, clean = run.measure("slope-l1"), run.at("loss", 0)
    rise, noise = run.at("loss-gradient", 1), run.at("loss-random", 1)
    if row is None or row["value"] is None:
        return ""
    text = f"Moving every pixel of an image by one grey level the worst way raises the loss by {tables.told(row)} nats "
    text += f"to first order (median of {plural(row['n'], 'image')})."
    if rise and noise and clean:
        text += f" At one grey level along that direction the loss has gone from {tables.told(clean)} to "
        text += f"{tables.told(rise)} nats, along a random direction to {tables.told(noise)} "
        text += f"(n\u00a0=\u00a0{count(rise['n'])})."
    return text


def _wide(run: Run) -> str:
    row = run.measure("saliency-half")
    if row is None or row["value"] is None:
        return ""
    text = f"Half of the input gradient lies on {tables.told(row, percent=True)} of the pixels (median of "
    return text + f"{plural(row['n'], 'image')}; 50\u00a0% would be a flat map)."


def _simple(run: Run) -> str:
    row, share = run.measure("effective-rank"), run.measure("relative-rank")
    if row is None or share is None or row["value"] is None:
        return ""
    text = f"Halfway ({run.facts['middle']}) an image has an effective rank of {tables.told(row)}, "
    return text + f"{tables.told(share, percent=True)} of the largest possible (n\u00a0=\u00a0{count(row['n'])})."


def _moved(run: Run) -> str:
    turned = f"{run.facts['attack_title']} of {size(run)} turned {count(run.facts['reached'])} of "
    turned += f"{plural(run.facts['n'], 'image')}. "
    row, asked = run.find("cam", "cam-shift", "change"), run.find("cam", "cam-shift-asked", "change")
    if row is None or row["value"] is None:
        return turned
    text = f"The centre of Grad-CAM, asked about the decision, moves by {tables.told(row, percent=True)} of the "
    text += f"diagonal (n\u00a0=\u00a0{count(row['n'])})"
    if asked is not None and asked["value"] is not None:
        text += f"; asking the untouched image about the new class moves it by {tables.told(asked, percent=True)}"
    return turned + text + "." + _left(run)


def _left(run: Run) -> str:
    """How much of Grad-CAM leaves the lesion, where it is known."""
    area, change = run.find("lesion", "lesion-area"), run.find("lesion", "lesion-share-cam", "change")
    before = run.find("lesion", "lesion-share-cam")
    if area is None or change is None or before is None or change["value"] is None or before["value"] is None:
        return ""
    text = f" Of its mass {tables.told(before, percent=True)} lay in the lesion (n\u00a0=\u00a0{count(before['n'])}), "
    text += f"which takes {tables.told(area, percent=True)} of the image; under the attack that changed by "
    return text + f"{tables.told(change, percent=True)} (n\u00a0=\u00a0{count(change['n'])})."


def _beside(runs: list[Run], comparison: list[dict[str, Any]], metric: str, word: str) -> str:
    parts = []
    for k, other in enumerate(runs[1:], start=1):
        row = tables.compared(comparison, k, metric)
        if row is not None and row["low"] is not None:
            verdict = "no clear difference" if row["low"] <= 0.5 <= row["high"] else word
            if row["high"] < 0.5:
                verdict = f"not {word}, on the contrary"
            parts.append(f"beside {other.name}: {verdict} (larger in {tables.told(row, percent=True)} of pairs)")
    return f" {listing(parts).capitalize()}." if parts else ""


# -- conditions ----------------------------------------------------------------------------------------------


def conditions(run: Run) -> list[tuple[str, str]]:
    f = run.facts
    classes = listing(f["classes"]) if len(f["classes"]) <= 8 else f"{count(len(f['classes']))} classes"
    images = f"{plural(f['n'], 'correctly classified test image')}"
    images += ", one a patient" if f["one_a_patient"] else ", patients not known"
    return [
        ("Data", f"{f['data']}, {f['size']} × {f['size']} px, {f['channels']} channel(s): {classes}"),
        ("Network", f"{f['architecture'] or 'own'}, {count(f['parameters'])} parameters, {f['model'][:12]}"),
        ("Images", f"{images}; the model reads {100 * f['accuracy']:.1f}\u00a0% of the test images correctly"),
        ("Attack", f"{f['attack']}, {size(run)} ({f['norm']}), full strength; turned {f['reached']} of {f['n']}"),
        ("Layers", f"middle: {f['middle']}; Grad-CAM: {f['cam_layer']}; simplicity: {listing(f['layers'])}"),
        ("Landscape", _landscape_facts(run)),
        ("Randomness", f"seed {f['seed']}, keyed by image"),
        ("Versions", ", ".join(f"{k} {v}" for k, v in f["versions"].items())),
    ]


def _landscape_facts(run: Run) -> str:
    f = run.facts
    text = f"{plural(f['surfaces'], 'image')}, {len(f['grid'])} × {len(f['grid'])} points, 0 to 8/255 each way, cut to "
    text += "[0, 1]; first axis: sign of the model's gradient; second: random signs"
    return text + (", and the sign gradient of a second model" if f["second"] else " (no second model was given)")


def sources(runs: list[Run]) -> list[tuple[str, str]]:
    """What each measure is, and where it comes from."""
    told: dict[str, dict[str, Any]] = {}
    for run in runs:
        told |= run.facts["measures"]
    out = []
    for m in told.values():
        text = m["unit"] + (f"; {m['source']}" if m["source"] else "")
        out.append((m["title"], text))
    return out


def _picture(path: Path) -> str:
    """The file as a data URI; empty where there is none."""
    return "data:image/png;base64," + b64encode(path.read_bytes()).decode("ascii") if path.is_file() else ""
