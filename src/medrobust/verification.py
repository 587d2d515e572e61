"""Whether a run folder is as its run left it: its manifest, its signature, and what its files say of each other.

Without a signature this finds what was changed by accident, or by somebody who left the manifest alone. Whoever writes
a new manifest for changed files is found by the signature only, and by what does not fit together.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from medrobust import json_files, manifest, store
from medrobust.criteria import Criterion, CriterionVerdict, language
from medrobust.criteria.judging import judged
from medrobust.errors import InputError, one_line
from medrobust.manifest import Manifest
from medrobust.report.writing import RENDERED, RESULTS_DIGEST
from medrobust.results import FIGURES, OK, Kind, group, withstands
from medrobust.run_folder import CELLS, MARK, read_mark
from medrobust.stats import Estimate

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

RESULTS, REPORT, PDF, SPEC = "results.json", "report.html", "report.pdf", "spec.json"
RENDERED_CHANGED = "what people read is not what the run wrote"
WORST = "worst"
"""For each image the attack that needed the smallest eps: computed from cells of several attacks."""


class Finding(NamedTuple):
    """One thing that is not as the run left it. file: path in the run folder. what: the difference. meaning: what
    follows for a reader."""

    file: str
    what: str
    meaning: str


@dataclass(frozen=True)
class Verification:
    """signature: valid, invalid, missing (all of a key that was given), "not checked" or "none"."""

    run: str
    kind: str
    files: int
    findings: tuple[Finding, ...]
    signature: str

    @property
    def passed(self) -> bool:
        """Whether nothing was found, in files or in the signature."""
        return not self.findings


def verify(folder: Path, key: Ed25519PublicKey | None = None) -> Verification:
    """Compare a run folder with its manifest. Writes nothing. key: whose signature the manifest must carry.

    InputError where the folder has no manifest, or a broken one.
    """
    written = _manifest(folder)
    signature = _signature(folder, key)
    changed = {f.file: f for f in _files(folder, written)}
    unchanged = written.files.keys() - changed.keys()
    contradictions = _signature_findings(signature)
    if MARK in unchanged and (mark := read_mark(folder)) and (mark.id, mark.kind) != (written.run, written.kind):
        meaning = "it was written by another program"
        contradictions.append(Finding(manifest.FILE, f"is of another run than {MARK}", meaning))
    contradictions += _contents(folder, written.files.keys(), unchanged)
    if RESULTS in unchanged and not contradictions:  # else a page rendered anew would hide that the results are others
        changed = {name: _with_remedy(f, _report(folder, written.kind)) for name, f in changed.items()}
    findings = (*_merged(changed), *contradictions)
    return Verification(written.run, written.kind, len(written.files), findings, signature)


def _manifest(folder: Path) -> Manifest:
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give a run folder, as --out named it")
    file = folder / manifest.FILE
    if not file.is_file():
        if not (folder / MARK).is_file():
            raise InputError(f"{folder} is no run folder of medrobust ({MARK} is missing)")
        raise InputError(
            f"{folder} has no {manifest.FILE}: the command that wrote it last was killed before its end or is running, "
            f"or the file was removed; {_missing_remedy(folder)}"
        )
    remedy = "restore it from a copy of the run; a manifest written now would hide what was changed before"
    if file.is_symlink():
        raise InputError(f"{file} is a link, no file of the run; {remedy}")
    try:
        return manifest.read(file)
    except InputError as error:
        raise InputError(f"{error}; {remedy}") from None


def _missing_remedy(folder: Path) -> str:
    """What writes a manifest where there is none, and what that one shows."""
    if not (folder / RESULTS).is_file():
        return "give the command of the run again, it goes on"
    report = _report(folder, read_mark(folder).kind)
    if (folder / manifest.EARLIER).is_file():
        return f"{report} writes it anew, and keeps what the manifest before it said of files that it does not write"
    return f"{report} writes one of the files as they are now, which hides any change made before"


def _report(folder: Path, kind: str) -> str:
    return f"medrobust {'study report' if kind == 'study' else 'report'} {folder}"


def _with_remedy(finding: Finding, report: str) -> Finding:
    """Of a rendered file that is changed or missing, also the command that writes it anew."""
    if finding.meaning != RENDERED_CHANGED:
        return finding
    command = f"{report} --pdf" if finding.file == PDF else report
    return finding._replace(meaning=f"{finding.meaning}; {command} writes it anew from {RESULTS}")


def _signature(folder: Path, key: Ed25519PublicKey | None) -> str:
    has_signature = (folder / manifest.SIGNATURE).is_file()
    if key is None:
        return "not checked" if has_signature else "none"
    if not has_signature:
        return "missing"
    from medrobust import signing

    return "valid" if signing.is_signed_by(folder, key) else "invalid"


def _signature_findings(signature: str) -> list[Finding]:
    if signature == "missing":
        return [Finding(manifest.SIGNATURE, "is missing", "nobody vouches for this run with that key")]
    if signature == "invalid":
        meaning = "the manifest was written anew after it was signed, or signed with another key"
        return [Finding(manifest.SIGNATURE, "is not the signature of manifest.json by that key", meaning)]
    return []


# -- the files as the manifest has them ------------------------------------------------------------------


def _files(folder: Path, written: Manifest) -> Iterator[Finding]:
    """Files that are changed, missing or added."""
    for name, expected in written.files.items():
        place = folder / name
        if place.is_symlink() or not place.is_file():
            what = "is a link, no file of the run" if place.is_symlink() else "is missing"
            yield Finding(name, what, _meaning(name))
            continue
        size = place.stat().st_size
        if size != expected.bytes:
            yield Finding(name, f"has changed: {size} bytes instead of {expected.bytes}", _meaning(name))
        elif manifest.digest(place) != expected:
            yield Finding(name, "has changed: its SHA-256 is another one", _meaning(name))
    entries = sorted(p.name for p in folder.iterdir() if p.name not in manifest.LEFT_OUT)
    added = dict.fromkeys(manifest.files(folder, entries), "was added")
    added |= dict.fromkeys(_links_and_devices(folder, entries), "was added: a link or no file")
    for name, what in added.items():
        if name not in written.files:  # else it is named above
            yield Finding(name, what, "no file of this run: it is no part of what was measured")


def _links_and_devices(folder: Path, entries: Sequence[str]) -> Iterator[str]:
    """Links below these entries of a folder, and whatever else is neither file nor folder."""
    for entry in entries:
        if (folder / entry).is_symlink() or not (folder / entry).is_dir():
            below = iter([folder / entry])
        else:
            below = (Path(root) / name for root, dirs, names in os.walk(folder / entry) for name in (*dirs, *names))
        for place in below:
            if place.is_symlink() or not (place.is_file() or place.is_dir()):
                yield place.relative_to(folder).as_posix()


def _meaning(name: str) -> str:
    top = name.partition("/")[0]
    if name in RENDERED:
        return RENDERED_CHANGED
    return {
        RESULTS: "the numbers, criteria or conditions are not those that the run wrote",
        SPEC: "the configuration is not the one that was run",
        FIGURES: "the arrays behind figures and numbers are not those that the run wrote",
        CELLS: "a finished piece of work is not what was computed: numbers can no longer be traced to it",
        "model": "the network is not the one that was measured",
        MARK: "the list of what the run made is not what it was",
    }.get(top, "it is not what the run wrote")


def _merged(changed: Mapping[str, Finding]) -> list[Finding]:
    """A line for all cells where all are missing: they are taken out where a run is passed on without images."""
    cells = [f for f in changed.values() if f.file.startswith(f"{CELLS}/")]
    if len(cells) > 2 and all(f.what == "is missing" for f in cells):
        others = [f for f in changed.values() if f not in cells]
        return [*others, Finding(f"{CELLS}/", f"{len(cells)} files are missing", _meaning(CELLS))]
    return list(changed.values())


# -- what the files say of each other --------------------------------------------------------------------


def _contents(folder: Path, listed: Set[str], unchanged: Set[str]) -> Iterator[Finding]:
    """What does not fit together among files that are as the manifest has them."""
    specs: dict[str, Mapping[str, object]] = {}
    cells = sorted({file.split("/")[1] for file in listed if file.startswith(f"{CELLS}/")})
    for name in cells:
        if not {f"{CELLS}/{name}/{part}" for part in (store.ROWS, store.ARRAYS)} <= unchanged:
            continue
        try:
            specs[name] = store.examined(folder / CELLS / name)
        except ValueError as error:
            yield Finding(f"{CELLS}/{name}/{store.ROWS}", f"contradicts itself: {error}", _meaning(CELLS))
    if RESULTS not in unchanged:
        return
    try:
        results = json_files.read_object(folder / RESULTS)
    except InputError as error:
        yield Finding(RESULTS, one_line(error), _meaning(RESULTS))
        return
    yield from _record(results)
    yield from _criteria(folder, results.get("criteria"), SPEC in unchanged)
    yield from _verdicts(results)
    if REPORT in unchanged:
        yield from _rendered(folder, json_files.digest(results))
    if FIGURES in unchanged:
        yield from _traced(folder, results, specs if len(specs) == len(cells) else {})


def _record(results: Mapping[str, Any]) -> Iterator[Finding]:
    """What results.json says of itself."""
    record, conditions = results.get(json_files.RUN), results.get("conditions")
    if isinstance(record, dict) and record.get("digest") != json_files.digest(results):
        yield Finding(RESULTS, "was edited: the digest in it is that of other numbers", _meaning(RESULTS))
    if isinstance(conditions, dict) and conditions.get("pending"):
        what = f"is not complete: {', '.join(map(str, conditions['pending']))} are still to be done"
        yield Finding(RESULTS, what, "the run was stopped; give its command again, it goes on")


def _criteria(folder: Path, criteria: object, with_spec: bool) -> Iterator[Finding]:
    """Acceptance criteria that are not those of their SHA-256, or not those that stood when the run began.

    with_spec: spec.json, which holds the latter, is as the manifest has it.
    """
    if not isinstance(criteria, dict):
        return
    sha256, began = criteria.get("sha256") or "", criteria.get("begun_with") or ""
    if _sha256(criteria) != sha256:
        yield Finding(RESULTS, "holds criteria that are not those of their SHA-256", "a criterion was edited")
    if began and began != sha256:
        meaning = "the verdict is no answer to criteria that stood before the run"
        yield Finding(RESULTS, "was judged by criteria that were changed after the run began", meaning)
    if with_spec:
        opening = json_files.read_object(folder / SPEC).get("criteria")
        opening = opening if isinstance(opening, dict) else {}
        if (opening.get("sha256") or "") != began:
            yield Finding(SPEC, "holds other criteria than results.json says the run began with", _meaning(SPEC))
        elif _sha256(opening) != began:
            yield Finding(SPEC, "holds criteria that are not those of their SHA-256", "a criterion was edited")


def _sha256(criteria: Mapping[str, object]) -> str:
    """Of criteria and baseline as a file holds them; empty where there are none."""
    texts, baseline = criteria.get("texts"), criteria.get("baseline")
    against = str(baseline.get("digest") or "") if isinstance(baseline, dict) else ""
    return language.digest(map(str, texts), against) if isinstance(texts, list) and texts else ""


def _verdicts(results: Mapping[str, Any]) -> Iterator[Finding]:
    """Criteria that pass or fail although their interval does not say so, or although no row holds it."""
    numbers = ("value", "low", "high", "n")
    criteria = results.get("criteria")
    for entry in criteria.get("judged") or () if isinstance(criteria, dict) else ():
        text, verdict = str(entry.get("criterion")), entry.get("verdict")
        if verdict == CriterionVerdict.INCONCLUSIVE:
            continue
        try:
            criterion, meaning = Criterion.read(text), "the verdict was edited, or its number was"
            value, low, high = (math.nan if entry[name] is None else float(entry[name]) for name in numbers[:3])
            if judged(criterion, Estimate(value, low, high, entry["n"]), "").verdict != verdict:
                yield Finding(RESULTS, f"says {verdict} of {text!r}, which does not follow from its interval", meaning)
        except (InputError, KeyError, TypeError, ValueError) as error:
            yield Finding(RESULTS, f"holds a verdict that cannot be read: {one_line(error)}", _meaning(RESULTS))
            continue
        rows = (row for row in results.get("rows", ()) if row.get("status") == OK)
        if not criterion.drop and not any(all(row.get(name) == entry[name] for name in numbers) for row in rows):
            yield Finding(RESULTS, f"says {verdict} of {text!r} by a number that no row holds", meaning)


def _rendered(folder: Path, digest: str) -> Iterator[Finding]:
    results = RESULTS_DIGEST.search((folder / REPORT).read_text(encoding="utf-8", errors="replace"))
    if results is None:
        yield Finding(REPORT, "does not say which results it was made of", _meaning(REPORT))
    elif results[1] != digest:
        yield Finding(REPORT, "was made of other results", _meaning(REPORT))


def _traced(folder: Path, results: Mapping[str, Any], specs: Mapping[str, Mapping[str, object]]) -> Iterator[Finding]:
    """Accuracies under attack that do not follow from the smallest eps of each image, or these not from a cell.

    specs: of all cells; empty where one of them is not what it was.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        figures = load_file(folder / FIGURES)
        smallest, shares = group(figures, "min_eps"), group(figures, "right")
    except (OSError, SafetensorError):
        yield Finding(FIGURES, "holds no arrays that can be read", _meaning(FIGURES))
        return
    sizes = list((results.get("conditions") or {}).get("eps") or ())
    for row in results.get("rows", ()):
        eps, values = row.get("eps"), smallest.get(row.get("attack"))
        overall = row.get("kind") in (Kind.ATTACK, Kind.WORST) and row.get("metric") == "accuracy"
        if values is None or not eps or not overall or row.get("class_name") is not None:
            continue
        share = shares.get(row["attack"])  # of a random network's answers
        held = float(withstands(values, eps).mean())
        if share is not None and eps in sizes:
            held = float(share[:, sizes.index(eps)].astype(float).mean())
        if not math.isclose(row.get("value") or 0.0, held, abs_tol=1e-9):
            what = f"accuracy under {row['attack']} at eps {eps:.4g} is {row.get('value')}; its images give {held:.6g}"
            yield Finding(RESULTS, what, _meaning(RESULTS))
    cells = _sweeps(folder, specs)
    if cells and isinstance(conditions := results.get("conditions"), dict):
        for attack in conditions.get("attacks") or ():
            values = smallest.get(attack) if attack != WORST else None
            if values is not None and not any(np.array_equal(np.sort(values), cell) for cell in cells):
                what = f"the smallest eps of images under {attack} are those of no cell"
                yield Finding(FIGURES, what, _meaning(FIGURES))


def _sweeps(folder: Path, specs: Mapping[str, Mapping[str, object]]) -> list[np.ndarray]:
    """For each attack over the grid the smallest eps of all of its images, sorted; its shards are put together."""
    from safetensors.numpy import load_file

    parts: dict[str, list[np.ndarray]] = defaultdict(list)
    for name, spec in specs.items():
        if spec.get("kind") == "sweep":
            whole = store.key({k: v for k, v in spec.items() if k != "images"})
            arrays = load_file(folder / CELLS / name / store.ARRAYS)
            parts[whole] += [arrays["min_eps"]] if "min_eps" in arrays else []
    return [np.sort(np.concatenate(p)) for p in parts.values() if p]
