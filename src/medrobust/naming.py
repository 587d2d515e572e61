"""Names of the images and patients of a data set in files that are written: codes, or names with --keep-names.

Cells always hold codes, so that what is computed does not depend on the choice; results are decoded where names are
kept. Images that a program drew (phantoms) have no private names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from medrobust import private_names

if TYPE_CHECKING:
    from medrobust.data import Dataset
    from medrobust.results import ResultsFile


def public(data: Dataset) -> bool:
    """Whether the names of these images are no secret."""
    return data.name.startswith("phantom:")


def image_code(part: Dataset, i: int) -> str:
    """The name of image i in a cell."""
    return part.ids[i] if public(part) else private_names.code(part.ids[i])


def patient_code(part: Dataset, i: int) -> str | None:
    """The name of the patient of image i in a cell; "" where the patient is not known, None where none is."""
    if part.patients is None:
        return None
    patient = str(part.patients[i])
    return patient if public(part) or not patient else private_names.code(patient, "patient")


class Naming:
    """Names of one data set in results. keep: images, patients and paths by name.

    Images and patients of public data keep their names in any case; paths, of a model for one, do not.
    """

    def __init__(self, data: Dataset, keep: bool) -> None:
        self.data, self.keep = data, keep
        self.decoded: dict[str, str] = {}
        if keep and not public(data):
            self.decoded = {private_names.code(name): name for name in data.ids}
            patients = () if data.patients is None else {str(p) for p in data.patients}
            self.decoded |= {private_names.code(p, "patient"): p for p in patients}

    def results(self, results: ResultsFile) -> ResultsFile:
        """results.json with codes for names, or with names for codes."""
        info = dict(results["conditions"])
        if not self.keep:
            self._hide(info)
        if info.get("universal") and info["universal"].get("examples"):
            info["universal"] = {**info["universal"], "examples": self._examples(info["universal"]["examples"])}
        if info.get("explained"):
            info["explained"] = {k: self._explained(k, v, info) for k, v in info["explained"].items()}
        if self.decoded and info.get("test_images"):
            info["test_images"] = [self.decoded.get(i, i) for i in info["test_images"]]
        rows = [self._row(row, info) for row in results["rows"]]
        return {**results, "conditions": info, "rows": rows, "examples": self._examples(results["examples"])}

    def _hide(self, info: dict[str, Any]) -> None:
        """Replace names and paths in the conditions by codes."""
        names = () if public(self.data) else (*self.data.ids, *(x.file for x in self.data.left_out))
        info["data_notes"] = [private_names.text(note, names) for note in info["data_notes"]]
        info["left_out"] = [
            {"file": private_names.code(x["file"]), "reason": private_names.text(x["reason"], [x["file"]])}
            for x in info["left_out"]
        ]
        info["data"] = private_names.data_name(info["data"])
        info["model"] = private_names.place(info["model"])
        info["provenance"] = private_names.provenance(info["provenance"])
        info["config"] = private_names.config(info["config"])
        options = info.get("options", {})
        info["options"] = private_names.config(options)
        if info.get("universal") and options.get("source"):
            made_from = str(info["universal"]["made_from"]).replace(options["source"], info["options"]["source"])
            info["universal"] = {**info["universal"], "made_from": made_from}

    def _row(self, row: Mapping[str, Any], info: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row about other data keeps the name of its own data."""
        if "beside" not in row:
            return {**row, "data": info["data"], "model": info["model"]}
        if self.keep:
            return row
        hidden = {"data": private_names.data_name(row["data"]), "model": private_names.place(row["model"])}
        return {**row, **hidden}

    def _explained(self, place: str, explained: Mapping[str, Any], info: Mapping[str, Any]) -> Mapping[str, object]:
        """The conditions of one classifier that was explained, the first being that of the run."""
        if not self.keep:
            return private_names.found(explained) | ({k: info[k] for k in ("data", "model")} if place == "0" else {})
        ids = {"ids": [self.decoded.get(i, i) for i in explained.get("ids", [])]}
        gallery = explained.get("gallery") or {}
        images = {"ids": [self.decoded.get(i, i) for i in gallery["ids"]]} if gallery else {}
        return {**explained, **ids, "gallery": {**gallery, **images}}

    def _examples(self, examples: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [
            {k: self.decoded.get(v, v) if k in ("id", "patient") and v is not None else v for k, v in e.items()}
            for e in examples
        ]
