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
from medrobust.report import explanation_words as words
from medrobust.report import run_line
from medrobust.report.explained_run import Run
from medrobust.report.page import rendered
from medrobust.report.words import count, grey_levels, listing, plural
from medrobust.report.writing import write_files


def write(folder: Path) -> Path:
    """Write explain.html into a run folder; returns its path. The same input gives the same bytes. InputError: the
    folder's results.json or figures.safetensors is missing or broken, or the page cannot be written."""
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
                r["name"],
                r["facts"],
                r["rows"],
                r["gallery"],
                {k.partition(".")[2]: v for k, v in arrays.items() if k.startswith(f"{i}.")},
                _picture(folder / f"tsne-{i}.png"),
            )
            for i, r in enumerate(told["runs"])
        ]
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
        runs=runs,
        first=runs[0],
        figures=drawn,
        doubts=doubts,
        made_by=made_by,
        sentences=sentences(runs, comparison),
        measures=tables.measures(runs, comparison),
        saliency=tables.saliency(runs),
        cam=tables.cam(runs),
        lesion=tables.lesion(runs),
        layers=tables.layers(runs),
        landscape=tables.landscape(runs),
        embedding=tables.embedding(runs),
        facts=[(run.name, conditions(run)) for run in runs],
        sources=sources(runs),
        notes=[(run.name, run.facts["notes"]) for run in runs if run.facts["notes"]],
        doubtful=[(run.name, run.facts["doubt"]) for run in runs if run.facts.get("doubt")],
        galleries=[_gallery(run) for run in runs],
        medians=words.medians([run.facts["n"] for run in runs]),
        surfaces=words.medians([run.facts["surfaces"] for run in runs]),
        embedded=[words.embedded(run.name, run.facts["n"], run.facts["reached"], size(run)) for run in runs],
        phantom=any(run.facts["data"].startswith("phantom:") for run in runs),
    )


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

    def others(metric: str, word: str) -> str:
        return words.beside(_beside(runs, comparison, metric), word)

    asked = [
        ("How steep is the loss?", _steep(run), others("slope-l1", "steeper")),
        ("How widely does it look?", _wide(run), others("saliency-half", "wider")),
        ("How simple is what it sees?", _simple(run), others("relative-rank", "richer")),
        ("What does an attack move?", words.moved(_moved(run)), _lesion(run)),
    ]
    return [Claim(title, f"{text} {more}".strip()) for title, text, more in asked if text]


def _steep(run: Run) -> str:
    slope, clean = words.number(run.measure("slope-l1")), words.number(run.at("loss", 0))
    rise, random = words.number(run.at("loss-gradient", 1)), words.number(run.at("loss-random", 1))
    walk = words.Walk(clean, rise, random) if clean and rise and random else None
    return "" if slope is None else words.steep(slope, walk)


def _wide(run: Run) -> str:
    half = words.number(run.measure("saliency-half"))
    return "" if half is None else words.wide(half)


def _simple(run: Run) -> str:
    rank, share = words.number(run.measure("effective-rank")), words.number(run.measure("relative-rank"))
    return words.simple(run.facts["middle"], rank, share) if rank and share else ""


def _moved(run: Run) -> words.Moved:
    f = run.facts
    shift, asked = (words.number(run.find("cam", name, "change")) for name in ("cam-shift", "cam-shift-asked"))
    return words.Moved(f"{f['attack_title']} of {size(run)}", f["reached"], f["n"], shift, asked)


def _lesion(run: Run) -> str:
    """How much of Grad-CAM leaves the lesion, where it is known."""
    before, area = words.number(run.find("lesion", "lesion-share-cam")), words.number(run.find("lesion", "lesion-area"))
    change = words.number(run.find("lesion", "lesion-share-cam", "change"))
    return words.in_lesion(words.InLesion(before, area, change)) if before and area else ""


def _beside(runs: list[Run], comparison: list[dict[str, Any]], metric: str) -> list[words.Beside]:
    rows = [(run, tables.compared(comparison, k, metric)) for k, run in enumerate(runs[1:], start=1)]
    found = [(run.name, words.number(row), row["n_other"]) for run, row in rows if row is not None]
    return [words.Beside(name, larger, n) for name, larger, n in found if larger is not None]


def _gallery(run: Run) -> str:
    """What is said below its pictures."""
    shown, lesion = run.gallery["label"], "gallery.mask" in run.arrays
    return words.gallery(words.Gallery(run.name, size(run), len(shown), run.facts["n"], len(set(shown)), lesion))


# -- conditions ----------------------------------------------------------------------------------------------


def conditions(run: Run) -> list[tuple[str, str]]:
    f = run.facts
    classes = listing(f["classes"]) if len(f["classes"]) <= 8 else f"{count(len(f['classes']))} classes"
    images = f"{plural(f['n'], 'correctly classified test image')}"
    images += ", one a patient" if f["one_a_patient"] else ", patients not known"
    return [
        ("Data", f"{f['data']}, {f['size']} × {f['size']} px, {f['channels']} channel(s): {classes}"),
        ("Network", f"{f['architecture'] or 'own'}, {count(f['parameters'])} parameters, {f['model'][:12]}"),
        ("Images", f"{images}; the model reads {100 * f['accuracy']:.1f}\u00a0% of {count(f['n_test'])} correctly"),
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
