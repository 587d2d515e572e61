"""Answers that were paid for are kept on disk by a digest of the image, so that none is asked for twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from medrobust.errors import InputError
from medrobust.models.black_box import as_scores
from medrobust.models.http_endpoint import HttpEndpoint

LARGEST = 64
"""Images in one request."""


class KeptAnswers:
    """``endpoint``, asked once for each image. path: of the file; None keeps answers in memory only.

    classes, several: as in ``BlackBoxModel``. max_queries: of this file's images, those of earlier runs included;
    InputError beyond them. An answer is on disk before it is used, where it is one: InputError else.
    """

    def __init__(
        self,
        endpoint: HttpEndpoint,
        classes: Sequence[str],
        path: Path | None = None,
        max_queries: int | None = None,
        *,
        several: bool = False,
    ) -> None:
        if max_queries is not None and max_queries < 1:
            raise InputError(f"--max-queries must be at least 1, got {max_queries}")
        self.endpoint, self.path, self.max_queries = endpoint, path, max_queries
        self._classes, self._several = classes, several
        self._memory: dict[bytes, object] = {}
        self._known_as = f"{endpoint.url} {endpoint.send}".encode()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(path)) as file, file:
                file.execute("CREATE TABLE IF NOT EXISTS answers (image BLOB PRIMARY KEY, answer TEXT) WITHOUT ROWID")
                self._memory = {image: json.loads(answer) for image, answer in file.execute("SELECT * FROM answers")}

    @property
    def queries(self) -> int:
        """Images asked about so far, those of earlier runs included."""
        return len(self._memory)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        names = [self._name(pixels) for pixels in self.endpoint.sent(images)]
        new = {name: k for k, name in enumerate(names) if name not in self._memory}
        if self.max_queries is not None and self.queries + len(new) > self.max_queries:
            raise InputError(
                f"{self.endpoint.url} was asked {self.queries} times, and --max-queries allows {self.max_queries}: "
                "give more, and the same command goes on from here"
            )
        rows = list(new.items())
        for first in range(0, len(rows), LARGEST):
            self._ask(dict(rows[first : first + LARGEST]), images)
        answers = [self._memory[name] for name in names]
        return np.asarray(answers)

    def _ask(self, new: dict[bytes, int], images: np.ndarray) -> None:
        answers = self.endpoint(images[list(new.values())])
        as_scores(answers, len(new), self._classes, self._several)
        plain = dict(zip(new, answers.tolist(), strict=True))
        if self.path is not None:
            with closing(sqlite3.connect(self.path)) as file, file:
                lines = [(name, json.dumps(answer)) for name, answer in plain.items()]
                file.executemany("INSERT OR IGNORE INTO answers VALUES (?, ?)", lines)
        self._memory |= plain

    def _name(self, pixels: np.ndarray) -> bytes:
        digest = hashlib.sha256(self._known_as)
        digest.update(repr(pixels.shape).encode())
        digest.update(np.ascontiguousarray(pixels).tobytes())
        return digest.digest()
