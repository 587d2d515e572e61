"""A study file: Python that says what it asks. It opens with its command, its duration and the numbers to expect."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from medrobust.errors import InputError
from medrobust.studies.grid import SIZES, Study


def load(path: Path, size: str) -> tuple[Study, str]:
    """What the file's ``study(size)`` declares, and its opening text. InputError where it declares nothing.

    Files beside it can be imported by their names, as with any script.
    """
    if size not in SIZES:
        raise InputError(f"--size must be {', '.join(SIZES[:-1])} or {SIZES[-1]}, got {size!r}")
    if not path.is_file():
        raise InputError(f"{path} is not a file; give a study file, such as studies/ma2020.py")
    spec = importlib.util.spec_from_file_location(f"study_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is no Python file; a study file ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
        if not callable(getattr(module, "study", None)):
            raise InputError(f"{path} has no function study(size) that returns a Study; see docs/studies.md")
        made = module.study(size)
    except InputError:
        raise
    except Exception as error:
        line = getattr(error, "lineno", None) or _line(error, path)
        where = f"{path}:{line}" if line else str(path)
        raise InputError(f"{where} can not be used: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))
    if not isinstance(made, Study):
        raise InputError(f"{path}: study({size!r}) must return a Study, got {type(made).__name__}")
    if not any(part.cells for part in made.parts):
        raise InputError(f"{path}: study({size!r}) asks for no cell")
    return made, (module.__doc__ or "").strip()


def _line(error: Exception, path: Path) -> int | None:
    """The last line of the file that the error came through."""
    found, trace = None, error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename) == path:
            found = trace.tb_lineno
        trace = trace.tb_next
    return found
