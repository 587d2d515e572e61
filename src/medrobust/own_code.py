"""Code of one's own beside a study file: cells and networks named ``module:function``, imported in every process.

The folder of the study file is on Python's path while its cells are computed, in this process, in worker processes and
on a cluster. A cell's name holds a digest of its source, so that it is computed anew after an edit.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from medrobust import code_digest
from medrobust.errors import InputError

_imported: dict[str, tuple[Path, str]] = {}
"""In this process: modules that came from a study's folder, their file and its sha256 at import."""


@contextlib.contextmanager
def importable(folder: Path | None) -> Iterator[None]:
    """Modules in ``folder`` can be imported by their names, before all others, as with a script. None: no change.

    What was imported before from another such folder, or has changed on disk, is imported anew. No bytecode is written
    there: Python would take it for current after an edit within the same second.
    """
    if folder is None:
        yield
        return
    folder = folder.resolve()
    # a worker may compute for one study after another, whose modules have the same names
    if any(not file.is_relative_to(folder) or _sha256(file) != digest for file, digest in _imported.values()):
        forget()
    before, written = set(sys.modules), sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        importlib.invalidate_caches()  # a file may be newer than the last reading of its folder
        yield
    finally:
        sys.dont_write_bytecode = written
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            file = Path(getattr(sys.modules[name], "__file__", None) or "/").resolve()
            if file.is_relative_to(folder) and not _is_installed(file):
                _imported[name] = (file, _sha256(file))


def forget() -> None:
    """Drop modules that came from a study's folder: they are imported anew, as they are on disk now."""
    for name in _imported:
        sys.modules.pop(name, None)
    _imported.clear()


def sources(path: Path, root: Path | None = None) -> dict[str, bytes]:
    """The bytes of a Python file, and of all files below ``root`` that it imports, by their path there.

    root: by default the folder of the file. The imports are read from the source, so that nothing is run; a file that
    cannot be parsed imports nothing.
    """
    root = (root or path.parent).resolve()
    top = path.resolve().relative_to(root).parts[0]
    contents: dict[str, bytes] = {}
    waiting = [path.resolve()]
    while waiting:
        file = waiting.pop()
        name = file.relative_to(root).as_posix()
        if name in contents:
            continue
        contents[name] = file.read_bytes()
        for module in _imports(contents[name], file, root):
            # of an installed package only its own files: the others have versions
            if not _is_installed(file) or module.partition(".")[0] == top:
                waiting += _files(root, module)
    return dict(sorted(contents.items()))


def digest(folder: Path | None, name: str) -> str | None:
    """sha256 of the source of ``module:function``: its file, all files beside it that this imports, and the code of the
    modules of medrobust that these import.

    folder: that of the study file. None for a module that has no Python source, or is not there.
    """
    module = name.partition(":")[0]
    root, paths = folder, _files(folder.resolve(), module) if folder is not None else []
    if not paths:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):
            return None
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            return None
        paths = [Path(spec.origin)]
        root = paths[0].resolve().parents[module.count(".") + (spec.submodule_search_locations is not None)]
    assert root is not None
    made, ours = hashlib.sha256(), set[str]()
    for file, content in sources(paths[-1], root).items():
        made.update(f"{file}\x1f{len(content)}\x1f".encode() + content)
        ours |= {m for m in _imports(content, root.resolve() / file, root.resolve()) if m.startswith("medrobust.")}
    for module in sorted(ours):
        made.update(code_digest.of_module(module).encode())
    return made.hexdigest()


def callable_named(name: str, folder: Path | None) -> Callable[..., Any]:
    """The object that ``module:function`` names; for a class, an instance made without arguments. InputError where
    there is none.

    folder: that of the study file, whose modules come before all others.
    """
    module_name, _, attribute = name.partition(":")
    target: Any
    with importable(folder):
        try:
            module = target = importlib.import_module(module_name)
            for part in attribute.split("."):
                target = getattr(target, part)
            target = target() if inspect.isclass(target) else target
        except (ImportError, AttributeError, TypeError) as error:
            where = "put its folder on PYTHONPATH" if folder is None else f"{folder} is where it is searched first"
            raise InputError(f"task {name!r} cannot be imported: {error}; {where}") from None
    if not callable(target):
        raise InputError(f"task {name!r} is {type(target).__name__}; it must be a function of a Work, or such a class")
    expected = [] if folder is None else _files(folder.resolve(), module_name)
    imported = getattr(module, "__file__", None)
    if expected and (imported is None or Path(imported).resolve() != expected[-1]):
        raise InputError(f"{expected[-1]} has the name of another module ({imported or 'built in'}); rename the file")
    function: Callable[..., Any] = target
    return function


def _files(folder: Path, module: str) -> list[Path]:
    """The files in ``folder`` that are run to import ``a.b.c``: packages first; empty where it is not there."""
    files: list[Path] = []
    place = folder
    for part in module.split("."):
        if (place / part / "__init__.py").is_file():
            files.append((place / part / "__init__.py").resolve())
        elif (place / f"{part}.py").is_file():
            return [*files, (place / f"{part}.py").resolve()]
        elif not (place / part).is_dir():
            break
        place = place / part
    return files


def _imports(source: bytes, file: Path, root: Path) -> set[str]:
    """Names of modules that a source may import, those of ``from a import b`` both as ``a`` and ``a.b``."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return set()
    package = list(file.parent.relative_to(root).parts)
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" if module else alias.name for alias in node.names}
            names |= {module} if module else set()
    return names


def _is_installed(file: Path) -> bool:
    return bool({"site-packages", "dist-packages"} & set(file.parts))


def _sha256(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""
