"""A study file: a Python program that declares a study. It opens with its command, duration and expected numbers."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import NamedTuple

from medrobust import own_code
from medrobust.errors import InputError
from medrobust.grid import SIZES, Study
from medrobust.runner.garbage import no_collection


class StudyFile(NamedTuple):
    """A study file that was run. opening: its docstring. folder: where it lies, absolute.

    files: sha256 by name, of the file and of the modules beside it that it imports.
    """

    study: Study
    opening: str
    folder: Path
    files: dict[str, str]


def load(path: Path, size: str) -> StudyFile:
    """Run a study file and call its ``study(size)``. A study file is a program: it can do whatever its reader can.

    Files beside it can be imported by their names, as with any script. InputError where it declares no study.
    """
    if size not in SIZES:
        raise InputError(f"--size must be {', '.join(SIZES[:-1])} or {SIZES[-1]}, got {size!r}")
    if not path.is_file():
        raise InputError(f"{path} is not a file; give a study file, such as studies/ma2020.py")
    folder = path.parent.resolve()
    spec = importlib.util.spec_from_file_location(f"study_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is no Python file; a study file ends in .py")
    module = importlib.util.module_from_spec(spec)
    own_code.forget()
    with own_code.importable(folder), no_collection():
        try:
            spec.loader.exec_module(module)
            if not callable(getattr(module, "study", None)):
                raise InputError(f"{path} has no function study(size) that returns a Study; see docs/studies.md")
            study = module.study(size)
        except InputError:
            raise
        except (Exception, SystemExit) as error:
            line = getattr(error, "lineno", None) or _line(error, path)
            where = f"{path}:{line}" if line else str(path)
            raise InputError(f"{where} cannot be used: {type(error).__name__}: {error}") from error
    if not isinstance(study, Study):
        raise InputError(f"{path}: study({size!r}) must return a Study, got {type(study).__name__}")
    if not any(part.cells for part in study.parts):
        raise InputError(f"{path}: study({size!r}) asks for no cell")
    files = {name: hashlib.sha256(text).hexdigest() for name, text in own_code.sources(path).items()}
    return StudyFile(study, (module.__doc__ or "").strip(), folder, files)


def _line(error: BaseException, path: Path) -> int | None:
    """The last line of the file that the error came through."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename) == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
