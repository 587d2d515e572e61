"""Digests of data and models, remembered by what their files look like: a study of known images is planned at once.

A file that was written again has another size or time, and is then read again. Digests themselves are of contents.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import medrobust
from medrobust import atomic, json_files
from medrobust.errors import InputError
from medrobust.experiments.declared import load, place_of
from medrobust.grid import Data
from medrobust.progress import Progress

FILE = "digests.json"


class DigestCache:
    """Digests that were made for this run folder. root: the folder of --data. keep: write what is new."""

    def __init__(self, folder: Path, root: Path, progress: Progress, keep: bool = True) -> None:
        self.file, self.root, self.progress, self.keep = Path(folder) / FILE, Path(root), progress, keep
        self.digests: dict[str, str] = {}
        with contextlib.suppress(InputError):  # it is read anew
            content = json_files.read_object(self.file)
            self.digests = {k: v for k, v in content.items() if isinstance(v, str)}

    def data(self, data: Data) -> str | None:
        """sha256 of these images as they are read; None where they are not there."""
        place = place_of(data, self.root)
        if place is not None and not place.exists():
            return None
        # phantoms are drawn by code, so that their files are the code
        state = file_state(place or Path(medrobust.__file__).parent / "data")
        return self._kept([*asdict(data).values(), state], lambda: self._read(data))

    def model(self, folder: Path, trust_code: bool | str) -> str:
        """sha256 of a saved classifier: weights and everything else that shapes its answers."""

        from medrobust import models

        def read() -> str:
            from medrobust.classifier import Classifier

            return Classifier.load(folder, trust_code=trust_code).digest()

        models.check_trusted(folder, trust_code)
        return self._kept(["model", file_state(folder)], read)

    def file_of(self, path: Path) -> str:
        """sha256 of a file's bytes."""
        return self._kept(["file", file_state(path)], lambda: hashlib.sha256(path.read_bytes()).hexdigest())

    def _read(self, data: Data) -> str:
        self.progress.start(f"Reading {data.name}, once", 1)
        try:
            images = load(data, self.root)
        finally:
            self.progress.stop()
        for note in images.notes:
            self.progress.note(f"{data.name}: {note}")
        return str(images.digest())

    def _kept(self, identity: list[Any], read: Callable[[], str]) -> str:
        name = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]
        if name not in self.digests:
            self.digests[name] = read()
            if self.keep:
                atomic.write_text(self.file, json.dumps(self.digests, indent=1))
        return self.digests[name]


def file_state(place: Path) -> str:
    """Names, sizes and times of a file, of all files under a folder, or of those beside a table."""
    digest = hashlib.sha256()
    for name, size, time in sorted(_stats(place)):
        digest.update(os.fsencode(f"{name}\x1f{size}\x1f{time}\n"))  # a name may hold bytes that are not UTF-8
    return digest.hexdigest()


def _stats(place: Path) -> Iterator[tuple[str, int, int]]:
    if place.is_file():
        stat = place.stat()
        yield place.name, stat.st_size, stat.st_mtime_ns
        if place.suffix.lower() not in (".csv", ".tsv"):
            return
        place = place.parent
    walked: set[tuple[int, int]] = set()
    for folder, below, files in os.walk(place, followlinks=True):  # as folder: reads them
        stat = os.stat(folder)
        if (stat.st_dev, stat.st_ino) in walked:
            below.clear()
            continue
        walked.add((stat.st_dev, stat.st_ino))
        for name in files:
            try:
                stat = os.stat(os.path.join(folder, name))
            except OSError:
                continue
            yield os.path.relpath(os.path.join(folder, name), place), stat.st_size, stat.st_mtime_ns
