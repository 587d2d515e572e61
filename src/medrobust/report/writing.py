"""How the report writes its files: each whole or not at all, and never over a file that is not ours."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path

from medrobust import atomic, own_files
from medrobust.run_folder import RunFolder, read_mark

RENDERED = (
    *("report.html", "report.pdf", "results.csv", "images.csv", "published.csv", "tables.tex", "summary.md"),
    *("model-card.md", "criteria.xml"),
)
"""Files that are made of results.json alone."""
RESULTS_DIGEST = re.compile(r'<meta name="medrobust-results" content="sha256:([0-9a-f]{64})">')
"""Where report.html says which results it was made of: ``json_files.digest``."""


def write_files(folder: Path, files: Mapping[str, str | bytes | None], *, locked: bool = False) -> None:
    """Write files of RENDERED, content by name, into a run; one of content None is removed, where a run made it.

    locked: the caller holds the lock of the folder, and still computes. InputError where the folder is no run folder,
    or is in use by another.
    """
    assert files.keys() <= set(RENDERED), files.keys()
    read_mark(folder)
    with contextlib.nullcontext(RunFolder.join(folder)) if locked else RunFolder(folder, None) as run:
        for name, content in files.items():
            if content is None:
                run.remove(name)
                continue
            run.write_bytes(name, content.encode("utf-8") if isinstance(content, str) else content)


def write_export(path: Path, content: bytes, sign: bytes) -> None:
    """Write a file that the user names. InputError where a file is there that does not hold the sign of an export."""
    own_files.check_sign(path, sign, "export of this kind")
    atomic.write_bytes(path, content)
