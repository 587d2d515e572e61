"""Entries of a league table, read from the run folder of an audit or a study.

Reads what the run wrote; never a model. What keeps a run out of the table is an InputError of one line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from medrobust import json_files, verification, versions
from medrobust.errors import InputError
from medrobust.league import rules
from medrobust.league.commands import commands
from medrobust.league.table import Accuracy, Entry, ImageSet
from medrobust.report import run as runs
from medrobust.results import GRADIENT, OK, Check, Kind, Row

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    from medrobust.report.run import Run

PLAIN = "plain"
"""Training without an attack."""


class Found(NamedTuple):
    """What a run says: one classifier, and the images it was tested on. The set's name may be replaced."""

    entry: Entry
    image_set: ImageSet


class Refused(NamedTuple):
    """A classifier of a study that no table may hold, and why, in one line."""

    why: str


class Stated(NamedTuple):
    """What a person says of a classifier whose run does not. None: nothing."""

    architecture: str | None = None
    training: str | None = None
    name: str | None = None


def read(folder: Path, key: Ed25519PublicKey | None = None, stated: Stated | None = None) -> list[Found | Refused]:
    """Every classifier of a run. InputError for what is wrong with the run, or with the classifier of an audit.

    The run must be as it was left (``verification``), of this version of medrobust, an audit or a study. key: whose
    signature it must carry. stated: what the run does not say; name: of the image set.
    """
    verified = verification.verify(folder, key)
    if verified.findings:
        first = verified.findings[0]
        raise InputError(f"{folder} is not as its run left it: {first.file} {first.what}; {first.meaning}")
    results = json_files.read_results(folder / verification.RESULTS)
    run = results.get(json_files.RUN)
    if not isinstance(run, dict):
        raise InputError(f"{folder} does not say which run made it; give the run's command again")
    made, here = str((run.get("versions") or {}).get("medrobust")), versions.versions()["medrobust"]
    if made != here:
        raise InputError(f"{folder} was made with medrobust {made}, this is {here}; run it again with this version")
    signed = verified.signature == "valid"
    if verified.kind == "audit":
        return [_audit(runs.read(folder), folder, signed, stated or Stated())]
    if verified.kind == "study":
        return list(_study(results, folder, signed))
    raise InputError(f"{folder} is a run of medrobust {verified.kind}; an entry is an audit, or a study")


def _entry(folder: Path, **fields: Any) -> Entry:
    try:
        return Entry(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{folder}: {where}: {first['msg'].removeprefix('Value error, ')}") from None


def _image_set(folder: Path, **fields: Any) -> ImageSet:
    try:
        return ImageSet(**fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{folder}: image set: {first['loc'][0]}: {first['msg']}") from None


def _accuracies(clean: Row | None, attacked: Sequence[Row], who: str) -> tuple[Accuracy, ...]:
    """Without attack, then by growing size."""
    if clean is None:
        raise InputError(f"{who} has no accuracy without attack; add it to the run")
    rows = [clean, *sorted(attacked, key=lambda row: row.eps)]
    if len(rows) < 2:
        raise InputError(f"{who} was not attacked by {rules.ATTACK}; add --attacks {rules.ATTACK}")
    for row in rows:
        if row.value is None or row.low is None or row.high is None:
            raise InputError(f"{who} has no accuracy at eps {row.eps:.4g}: {row.note or 'it is undefined'}")
        if row is not clean and row.norm.lower() != rules.NORM:
            raise InputError(f"{who} was attacked in {row.norm}, the table is of Linf")
        if row is not clean and row.seed != rules.SEED:
            raise InputError(f"{who} was attacked with seed {row.seed}, the table wants {rules.SEED}")
    return tuple(
        Accuracy(
            eps=row.eps,
            value=row.value or 0.0,
            low=row.low or 0.0,
            high=row.high or 0.0,
            n=row.n,
            inconclusive="" if row.status == OK else row.note or row.status,
        )
        for row in rows
    )


def _check_attack(settings: str, who: str) -> None:
    """InputError where ``auto`` did not have its defaults."""
    numbers = {name: int(value) for name, value in re.findall(r"(\w+)[= ](\d+)\b", settings)}
    for name, wanted in rules.SETTINGS.items():
        if numbers.get(name) != wanted:
            raise InputError(
                f"{who} was attacked by {rules.ATTACK} with {name} {numbers.get(name)}, the table wants its default "
                f"{wanted}: give --attacks {rules.ATTACK} without options"
            )


def _passed(checks: Sequence[Check], who: str) -> int:
    """How many decisive checks passed. InputError where one failed, or the gradient was not checked."""
    decisive = [c for c in checks if c.decisive]
    for c in decisive:
        if c.passed is False:
            raise InputError(f"{who}: a decisive check failed: {c.name}: {c.detail}")
    if not any(c.attack == GRADIENT for c in decisive):
        raise InputError(f"{who}: the run holds no check of the gradient; make it again with this version")
    return sum(c.passed is True for c in decisive)


def _unasked(checks: Sequence[Check]) -> list[str]:
    """Decisive checks of the gradient that gave no answer."""
    return [f"{c.name}: {c.detail}" for c in checks if c.decisive and c.attack == GRADIENT and c.passed is None]


# -- an audit ------------------------------------------------------------------------------------------------------


def _audit(run: Run, folder: Path, signed: bool, stated: Stated) -> Found:
    c, who = run.conditions, str(folder)
    if rules.ATTACK not in c.attacks:
        asked = ", ".join(name for name in c.attacks if name != runs.WORST) or "nothing"
        raise InputError(f"{who} was attacked by {asked}, the table wants --attacks {rules.ATTACK}")
    if c.size is None or c.head == "multilabel":
        what = "has images of several sizes" if c.size is None else "is of several findings an image"
        raise InputError(f"{who} {what}; the table holds classifiers of images of one size and one class")
    if c.on_grid or c.span != 1 or c.levels not in (None, 255):
        raise InputError(f"{who} counts sizes in other units than 8-bit grey levels, which the table does not hold")
    _check_attack(c.attacks[rules.ATTACK].settings, who)
    attacked = [r for r in run.curve(rules.ATTACK) if not r.more]
    accuracy = _accuracies(run.find(Kind.CLEAN, "accuracy"), attacked, who)
    architecture, training, settings = _provenance(c.provenance)
    if architecture is None and stated.architecture is None:
        raise InputError(f"{who} does not say which architecture it is; give --architecture NAME")
    if training is None and stated.training is None:
        raise InputError(f"{who} does not say how the network was trained; give --training TEXT")
    image_set = _image_set(
        folder,
        name=stated.name or c.data or "images",
        digest=c.data_digest,
        px=c.size,
        n_test=c.n_test,
        synthetic=c.synthetic,
    )
    seed = c.provenance.get("seed")
    entry = _entry(
        folder,
        image_set=image_set.name,
        architecture=architecture or stated.architecture,
        training=training or stated.training,
        settings=settings,
        model=c.model_digest,
        seed=seed if isinstance(seed, int) else None,
        accuracy=accuracy,
        checks=_passed(run.checks, who),
        notes=[*c.model_doubts, *c.class_notes, *_unasked(run.checks)],
        commands=(run.run.command,),
        run=run.run.id,
        results=run.run.digest,
        code=run.run.code,
        versions=c.versions,
        signed=signed,
    )
    return Found(entry, image_set)


def _provenance(provenance: Mapping[str, Any]) -> tuple[str | None, str | None, str]:
    """Architecture, training and its settings, as a classifier that was trained here states them; None where not."""
    architecture = provenance.get("architecture")
    recipe = provenance.get("training")
    if not isinstance(architecture, str) or not isinstance(recipe, dict):
        return None, None, ""
    settings = [f"{recipe.get('epochs')} epochs"]
    training = PLAIN
    for record in provenance.get("further") or ():
        method, more = record.get("method"), record.get("training") or {}
        if isinstance(method, dict):
            training = str(method["title"])
            listed = ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in method.items())
            settings.append(f"{listed.removeprefix('title ')}, {more.get('epochs')} epochs")
        elif record.get("adversary") is not None:
            training = "against universal perturbations"
            settings.append(f"{more.get('epochs')} epochs")
        else:
            settings.append(f"{more.get('epochs')} more epochs")
    return architecture, training, "; then ".join(settings)


# -- a study -------------------------------------------------------------------------------------------------------


def _study(results: Mapping[str, Any], folder: Path, signed: bool) -> Iterator[Found | Refused]:
    """Each model that was attacked by ``auto``, in the order of the study."""
    by_model: dict[tuple[str, str], list[Row]] = {}
    for row in map(Row.read, results["rows"]):
        if row.metric == "accuracy" and row.get("class_name") is None:
            by_model.setdefault((row.data, row.model), []).append(row)
    models = [m for m in results["models"] if any(map(_of_attack, by_model.get((m["data"], m["name"]), ())))]
    if not models:
        raise InputError(f"{folder}: no model of the study was attacked by {rules.ATTACK}")
    for model in models:
        try:
            yield _model(results, model, by_model[model["data"], model["name"]], folder, signed)
        except InputError as error:
            yield Refused(str(error))


def _model(
    results: Mapping[str, Any], model: Mapping[str, Any], rows: Sequence[Row], folder: Path, signed: bool
) -> Found:
    who = f"{folder}: {model['name']}"
    declared = next(d for d in results["data"] if d["name"] == model["data"])
    if model["given"] or model["weights"]:
        raise InputError(f"{who} was not trained by the study; audit it, and add the audit")
    if declared["size"] is None:
        raise InputError(f"{who}: the study does not state the size of its images; give Data(…, size=…)")
    attacked = [row for row in rows if _of_attack(row)]
    _check_attack(str(attacked[0].get("settings")), who)
    accuracy = _accuracies(next((r for r in rows if r.kind == Kind.CLEAN), None), attacked, who)
    checks = [Check.read(c) for c in results["checks"] if (c["model"], c["data"]) == (model["name"], model["data"])]
    doubts = [d["text"] for d in results["doubts"] if d["model"] == model["name"]]
    image_set = _image_set(
        folder,
        name=declared["name"],
        digest=declared["digest"],
        px=declared["size"],
        n_test=accuracy[0].n,
        synthetic=str(declared["spec"]).startswith("phantom:"),
    )
    training, settings = _declared_training(model["options"])
    run = results[json_files.RUN]
    entry = _entry(
        folder,
        image_set=image_set.name,
        architecture=model["architecture"],
        training=training,
        settings=settings,
        model=model["digest"],
        seed=model["seed"],
        accuracy=accuracy,
        checks=_passed(checks, who),
        notes=[*doubts, *_unasked(checks)],
        commands=commands(declared, model, image_set) or (str(run.get("command")),),
        run=run.get("id"),
        results=run.get("digest"),
        code=run.get("code"),
        versions=results["versions"],
        signed=signed,
    )
    return Found(entry, image_set)


def _of_attack(row: Row) -> bool:
    return row.kind == Kind.ATTACK and row.attack == rules.ATTACK


def _declared_training(options: Mapping[str, Any]) -> tuple[str, str]:
    """The training of a study's model, and its settings in words."""
    settings = f"{options.get('epochs', 'default')} epochs"
    hardening = options.get("hardening")
    if hardening is None:
        return PLAIN, settings
    from medrobust.threat import Linf
    from medrobust.training import METHODS

    name, _, chosen = str(hardening["method"]).partition(":")
    title = METHODS[name](Linf(hardening["eps"])).title
    method = f"{title}{', ' + chosen.replace(':', ', ') if chosen else ''}"
    size = f"Linf {255 * hardening['eps']:.4g}/255"
    return title, f"{settings}; then {method}, {size}, {hardening.get('epochs', 'default')} epochs"
