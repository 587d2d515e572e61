"""The file of a league table, LEAGUE.json: image sets, and an entry for each classifier tested on one of them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from medrobust import atomic, json_files
from medrobust.errors import InputError
from medrobust.league import rules

FORMAT = 1
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Text = Annotated[str, Field(min_length=1, max_length=400)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    """Fields that are not known are an error: nothing in the file goes unchecked."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class Accuracy(_Part):
    """Share of n images that are read correctly, with its 95 % interval.

    eps: Linf size of the attack, as a fraction of the pixel range; 0: no attack. inconclusive: why the number is not
    believed; empty where it is.
    """

    eps: Annotated[float, Field(ge=0, le=1)]
    value: Share
    low: Share
    high: Share
    n: Annotated[int, Field(ge=1)]
    inconclusive: str = ""

    @model_validator(mode="after")
    def _in_its_interval(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"accuracy {self.value:g} at eps {self.eps:.4g} is outside of its interval")
        return self


class ImageSet(_Part):
    """Images with their split. digest: SHA-256 of images, labels and split at that size (``Dataset.digest``).

    px: pixels a side. n_test: test images. synthetic: drawn by a program.
    """

    name: Text
    digest: Sha256
    px: Annotated[int, Field(ge=8)]
    n_test: Annotated[int, Field(ge=1)]
    synthetic: bool = False

    @property
    def attacked(self) -> int:
        """Images under attack."""
        return min(rules.IMAGES, self.n_test)


class Entry(_Part):
    """One classifier on one image set.

    training: "plain", or how it was hardened. settings: of its training, in words. model: SHA-256 of its weights and of
    what it answers on a fixed image. seed: of its training; None where that is not known. accuracy: without attack,
    then at each size of the rule. checks: decisive ones that passed. notes: whatever limits its numbers.
    commands: repeat it, one a line. run: id of the run; results: SHA-256 of its numbers; code: of medrobust's source
    files. signed: whether the signature of the run was checked.
    """

    image_set: Text
    architecture: Text
    training: Text
    settings: str = ""
    model: Sha256
    seed: int | None
    accuracy: Annotated[tuple[Accuracy, ...], Field(min_length=2)]
    checks: Annotated[int, Field(ge=0)]
    notes: tuple[str, ...] = ()
    commands: Annotated[tuple[Text, ...], Field(min_length=1)]
    run: Text
    results: Sha256
    code: Sha256
    versions: dict[str, str]
    signed: bool = False

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.architecture}, {self.training} on {self.image_set} ({self.model[:12]})"

    def at(self, eps: float) -> Accuracy | None:
        """The accuracy at that size; None where it was not attacked at it."""
        return next((a for a in self.accuracy if math.isclose(a.eps, eps, rel_tol=1e-6, abs_tol=1e-9)), None)

    @property
    def inconclusive(self) -> str:
        """Why its accuracies under attack are not believed; empty where they are."""
        return next((a.inconclusive for a in self.accuracy if a.inconclusive), "")


RULES: dict[str, object] = {
    "attack": rules.ATTACK,
    "settings": rules.SETTINGS,
    "norm": rules.NORM,
    "images": rules.IMAGES,
    "seed": rules.SEED,
}
"""By field of a League, what every entry of this version follows."""


class League(_Part):
    """The whole file. attack, settings, norm, images, seed: the rule that every entry follows."""

    league: Literal["medrobust league"] = "medrobust league"
    format: Literal[1] = 1
    attack: str = rules.ATTACK
    settings: dict[str, int] = rules.SETTINGS
    norm: str = rules.NORM
    images: int = rules.IMAGES
    seed: int = rules.SEED
    sets: tuple[ImageSet, ...] = ()
    entries: tuple[Entry, ...] = ()

    @model_validator(mode="after")
    def _keeps_the_rules(self) -> Self:
        for field, rule in RULES.items():
            if getattr(self, field) != rule:
                raise ValueError(f"{field} must be {rule}, the file says {getattr(self, field)}")
        for field in ("name", "digest"):
            values = [getattr(s, field) for s in self.sets]
            if len(set(values)) < len(values):
                raise ValueError(f"two image sets have the same {field}")
        named = [(e.image_set, e.model) for e in self.entries]
        if len(set(named)) < len(named):
            raise ValueError("a classifier has two entries on the same image set")
        for entry in self.entries:
            check(entry, self.named(entry.image_set))
        return self

    def named(self, name: str) -> ImageSet:
        """The image set of that name. ValueError where there is none."""
        for image_set in self.sets:
            if image_set.name == name:
                return image_set
        raise ValueError(f"no image set {name!r} among {', '.join(s.name for s in self.sets) or 'none'}")

    def ordered(self) -> list[Entry]:
        """By image set, then falling by accuracy at the reference size of the set."""
        places = {s.name: i for i, s in enumerate(self.sets)}
        px = {s.name: s.px for s in self.sets}

        def rank(entry: Entry) -> tuple[float, ...]:
            held, clean = entry.at(rules.reference(px[entry.image_set])), entry.accuracy[0]
            return places[entry.image_set], -(held.value if held else 0.0), -clean.value

        return sorted(self.entries, key=rank)


def check(entry: Entry, image_set: ImageSet) -> None:
    """ValueError, in one line, where an entry does not follow the rule of its image set."""
    wanted = (0.0, *rules.sizes(image_set.px))
    given = tuple(a.eps for a in entry.accuracy)
    if len(given) != len(wanted) or any(entry.at(eps) is None for eps in wanted):
        raise ValueError(
            f"{entry.name}: attacked at {_greys(given[1:])}; images of {image_set.px} px want {_greys(wanted[1:])}"
        )
    for accuracy, n in zip(entry.accuracy, (image_set.n_test, *[image_set.attacked] * len(given)), strict=False):
        if accuracy.n != n:
            what = "tested" if accuracy.eps == 0 else "attacked"
            raise ValueError(f"{entry.name}: {accuracy.n} images were {what}, {image_set.name} wants {n}")


def _greys(sizes: tuple[float, ...]) -> str:
    return ", ".join(f"{255 * eps:.4g}" for eps in sizes) + " of 255 grey levels"


def read(path: Path) -> League:
    """A league table. InputError, in one line, where the file is damaged or an entry breaks a rule."""
    raw = json_files.read_object(path)
    if raw.get("league") != "medrobust league" or raw.get("format") != FORMAT:
        raise InputError(f"{path} is no league table that this version reads (format {raw.get('format')!r})")
    try:
        return League.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{path}: {where + ': ' if where else ''}{message}") from None


def write(path: Path, league: League) -> None:
    """Equal tables give equal bytes."""
    atomic.write_text(path, json.dumps(league.model_dump(mode="json"), indent=1, allow_nan=False) + "\n")
