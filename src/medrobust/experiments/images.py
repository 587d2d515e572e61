"""The images of an ask: loaded as its classifier needs them, and what reading them dropped or changed, announced."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medrobust import data as data_room
from medrobust import json_files
from medrobust.data import Dataset
from medrobust.errors import InputError
from medrobust.experiments.config import AuditSpec
from medrobust.progress import Progress

NAMED = 5
"""How many of the images that were left out are named on the terminal."""


def load(spec: AuditSpec, progress: Progress) -> Dataset:
    """The Dataset of an ask, at the size and with the fit that its classifier states where the ask leaves them open.

    InputError where the classifier was trained on images that were made square in another way.
    """
    size, fit = (None, "none") if spec.preprocessing is not None else _stated(spec)
    if spec.size is not None and fit == "none":
        fit = None
    data = data_room.load(
        spec.data,
        size=spec.size or size,
        channels=spec.channels,
        seed=spec.seed,
        label=spec.label,
        findings=spec.findings,
        separator=spec.separator,
        patient=spec.patient,
        fit=spec.fit or fit,
        window=spec.window,
        frames=spec.frames,
        progress=_Verify(progress),
    )
    check_fit(data, fit)
    return data


def check_fit(data: Dataset, fit: str | None) -> None:
    """InputError where images that are not square were made so in another way than those of the classifier's training.

    fit: of the training; None where its images were square or it is not known.
    """
    if None not in (fit, data.fit) and "none" not in (fit, data.fit) and data.fit != fit:
        raise InputError(
            f"the classifier was trained on images made square by --fit {fit}, these are by --fit {data.fit}; "
            "leave --fit out, or train it anew"
        )


def fit_of(provenance: Mapping[str, object]) -> str | None:
    """The fit that a classifier's provenance states."""
    data = provenance.get("data")
    fit = data.get("fit") if isinstance(data, dict) else None
    return fit if fit in data_room.FITS else None


def announce(data: Dataset, progress: Progress, notes: tuple[str, ...] | None = None) -> None:
    """A line for each thing that was dropped, merged or reinterpreted; the first images that were left out, by name.

    notes: where they differ from those of ``data``.
    """
    for note in data.notes if notes is None else notes:
        progress.note(note)
    for left in data.left_out[:NAMED]:
        progress.note(f"Left out: {left.file}: {left.reason}.")
    if len(data.left_out) > NAMED:
        progress.note(f"Left out: {len(data.left_out) - NAMED} more.")


class _Verify:
    """Turns the data room's (done, total) into a progress line."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.done, self.started = progress, 0, False

    def __call__(self, done: int, total: int) -> None:
        if not self.started:
            self.progress.start("Reading images", total)
            self.started = True
        self.progress.advance(done - self.done)
        self.done = done
        if done >= total:
            self.progress.stop()


def _stated(spec: AuditSpec) -> tuple[int | None, str | None]:
    """The input size and the fit that a saved classifier states, so that the data is loaded to match.

    One with preprocessing of its own takes images of any size.
    """
    card = Path(spec.model) / "model.json"
    if not card.is_file():
        return None, None
    try:
        content = json_files.read_object(card)
    except InputError:
        return None, None  # reading the checkpoint itself will say what is wrong
    size, provenance = content.get("size"), content.get("provenance")
    if content.get("preprocessing"):
        return None, "none"
    valid = isinstance(size, int) and not isinstance(size, bool)
    return size if valid else None, fit_of(provenance) if isinstance(provenance, dict) else None
