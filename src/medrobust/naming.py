"""How images and patients of a data set are called in what is written: by codes, or by name where that is asked for.

Cells always hold codes, so that what is computed does not depend on the choice; results are decoded where names are
kept. Images that a program drew (phantoms) have no private names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from medrobust import private_names

if TYPE_CHECKING:
    from medrobust.data import Dataset


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
    """Names of one data set in results. keep: as they are. Paths among the options are hidden for phantoms too."""

    def __init__(self, data: Dataset, keep: bool) -> None:
        self.data, self.keep, self.keep_paths = data, keep or public(data), keep
        self.decoded: dict[str, str] = {}
        if keep and not public(data):
            self.decoded = {private_names.code(name): name for name in data.ids}
            patients = () if data.patients is None else {str(p) for p in data.patients}
            self.decoded |= {private_names.code(p, "patient"): p for p in patients}

    def results(self, results: dict[str, Any]) -> dict[str, Any]:
        """results.json of an audit with codes for names, or with names for codes."""
        about = dict(results["conditions"])
        if not self.keep:
            names = [*self.data.ids, *(x.file for x in self.data.left_out)]
            about["data_notes"] = [private_names.text(note, names) for note in about["data_notes"]]
            about["left_out"] = [
                {"file": private_names.code(x["file"]), "reason": private_names.text(x["reason"], [x["file"]])}
                for x in about["left_out"]
            ]
            about["data"] = private_names.data_name(about["data"])
            about["model"] = private_names.place(about["model"])
            about["provenance"] = private_names.provenance(about["provenance"])
            about["asked"] = private_names.asked(about["asked"])
        if not self.keep_paths:
            given = about.get("options", {})
            about["options"] = private_names.asked(given)
            if about.get("universal") and given.get("source"):
                source = str(about["universal"]["made_from"])
                hidden = source.replace(given["source"], about["options"]["source"])
                about["universal"] = {**about["universal"], "made_from": hidden}
        if about.get("universal") and about["universal"].get("examples"):
            about["universal"] = {**about["universal"], "examples": self._examples(about["universal"]["examples"])}
        if about.get("explained"):
            about["explained"] = {k: self._explained(k, v, about) for k, v in about["explained"].items()}
        rows = [self._row(r, about) for r in results["rows"]]
        return {**results, "conditions": about, "rows": rows, "examples": self._examples(results["examples"])}

    def _row(self, row: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
        """A row beside those of other data keeps the name of its own."""
        if "beside" not in row:
            return row | {"data": about["data"], "model": about["model"]}
        if self.keep_paths:
            return row
        return row | {"data": private_names.data_name(row["data"]), "model": private_names.place(row["model"])}

    def _explained(self, place: str, info: dict[str, Any], about: dict[str, Any]) -> dict[str, Any]:
        """What is said of one classifier that was explained, the first being that of the run."""
        if not self.keep_paths:
            return private_names.found(info) | ({k: about[k] for k in ("data", "model")} if place == "0" else {})
        ids = {"ids": [self.decoded.get(i, i) for i in info.get("ids", [])]}
        gallery = info.get("gallery") or {}
        shown = {"ids": [self.decoded.get(i, i) for i in gallery["ids"]]} if gallery else {}
        return {**info, **ids, "gallery": {**gallery, **shown}}

    def _examples(self, examples: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {k: self.decoded.get(v, v) if k in ("id", "patient") and v is not None else v for k, v in e.items()}
            for e in examples
        ]
