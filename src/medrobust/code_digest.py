"""Digests of code: a finished piece of work is used again only while the code that made it is the same.

Of a module: its own bytecode and that of all modules that it imports, as far as they belong to medrobust or to the
user, at any depth. Comments, docstrings and where the files lie do not count. Of an object: the bytecode of its class
and of the classes above it as they are now, so that a method that was replaced at run time counts too.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import NamedTuple

PACKAGE = "medrobust"
ROOT = Path(__file__).resolve().parent

_IMPORT_NAME, _IMPORT_FROM, _EXTENDED = (dis.opmap[name] for name in ("IMPORT_NAME", "IMPORT_FROM", "EXTENDED_ARG"))

_NO_CODE = frozenset({"__doc__", "__firstlineno__", "__slotnames__"})
"""Entries of a class that say nothing of what it computes; the copy module adds the last to a class that it copies."""


def of_module(name: str) -> str:
    """sha256 (hex) of a module and of all own modules that it imports; that of nothing where there is no source."""
    return _of_part(name) if name.partition(".")[0] == PACKAGE else _of_files(_closure(name))


@functools.lru_cache(maxsize=1024)
def _of_part(name: str) -> str:
    """Digest of a module of medrobust: read once, for the code of a running process stays as it was loaded."""
    return _of_files(_closure(name))


@functools.cache
def of_package() -> str:
    """sha256 (hex) of all source files of medrobust: that of what ``sha256sum`` prints of them, sorted by name."""
    files = sorted(ROOT.rglob("*.py"), key=lambda file: file.relative_to(ROOT).as_posix())
    lines = (f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.relative_to(ROOT).as_posix()}\n" for f in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def of_function(function: Callable[..., object]) -> str:
    """sha256 (hex) of the module that defines a function (a lambda, a method, a partial) and all that it imports.

    Functions that it closes over count with their modules; without a source file (a notebook) the bytecode
    counts.
    """
    parts: set[str] = set()
    if not isinstance(function, (FunctionType, MethodType, functools.partial)):
        parts.add(of_class(type(function)))
    for one in _functions(function, 4):
        parts.add(of_module(one.__module__) if _file(one.__module__) is not None else of_code(one))
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()


def of_class(cls: type) -> str:
    """sha256 (hex) of a class as it is now, of the own classes above it, and of the modules that define them."""
    digest = hashlib.sha256()
    for one in cls.__mro__:
        if not is_own(one.__module__):
            continue
        digest.update(f"class {one.__qualname__}\n".encode())
        for name, value in sorted(vars(one).items()):
            if name in _NO_CODE:
                continue
            digest.update(f"{name} {_of_attribute(value)}\n".encode())
        digest.update(of_module(one.__module__).encode())
    return digest.hexdigest()


def of_object(value: object) -> str:
    """sha256 (hex) of an object's class, and of the classes of what it holds, as an ensemble holds its members."""
    held = [item for v in vars(value).values() for item in (v if isinstance(v, (list, tuple)) else [v])]
    kinds = [type(value), *(type(item) for item in held)]
    return hashlib.sha256("\n".join(of_class(kind) for kind in kinds).encode()).hexdigest()


def described(value: object) -> str:
    """An object for a key: its repr, which must hold its settings, and the digest of its code."""
    return f"{value!r} [code {of_object(value)[:16]}]"


def of_code(function: FunctionType) -> str:
    """sha256 (hex) of a function's bytecode without its docstring."""
    digest = hashlib.sha256()
    _feed(digest, function.__code__, function.__doc__)
    digest.update(repr([_plain(v) for v in function.__defaults__ or ()]).encode())
    return digest.hexdigest()


def is_own(module: str) -> bool:
    """Whether a module belongs to medrobust or to the user: not to Python and not to an installed package."""
    return module.partition(".")[0] == PACKAGE or module == "__main__" or _file(module) is not None


class _Unit(NamedTuple):
    """One source file: the digest of its bytecode, and the names that it imports."""

    digest: str
    imports: tuple[str, ...]


def _functions(value: object, depth: int) -> Iterator[FunctionType]:
    """A function and the functions in its closure."""
    if isinstance(value, functools.partial):
        yield from _functions(value.func, depth)
    elif isinstance(value, MethodType):
        yield from _functions(value.__func__, depth)
    elif isinstance(value, FunctionType):
        yield value
        if depth:
            for cell in value.__closure__ or ():
                with contextlib.suppress(ValueError):  # a variable that has no value yet
                    yield from _functions(cell.cell_contents, depth - 1)
            for default in value.__defaults__ or ():
                yield from _functions(default, depth - 1)


def _of_files(files: tuple[Path, ...]) -> str:
    return hashlib.sha256("\n".join(sorted(_unit(f).digest for f in files)).encode()).hexdigest()


def _closure(name: str) -> tuple[Path, ...]:
    """The source files of a module and of all own modules that it imports, at any depth."""
    first = _file(name)
    if first is None:
        return ()
    files, left = {first}, [first]
    while left:
        for imported in _unit(left.pop()).imports:
            file = _file(imported)
            if file is not None and file not in files:
                files.add(file)
                left.append(file)
    return tuple(files)


def _unit(file: Path) -> _Unit:
    status = os.stat(file)
    return _read(file, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=4096)
def _read(file: Path, _time: int, _size: int) -> _Unit:
    try:
        # optimize=2 leaves docstrings out
        code = compile(file.read_bytes(), "", "exec", optimize=2, dont_inherit=True)
    except (SyntaxError, ValueError, OSError):
        return _Unit(hashlib.sha256(file.read_bytes()).hexdigest(), ())
    digest = hashlib.sha256()
    _feed(digest, code, None)
    return _Unit(digest.hexdigest(), tuple(dict.fromkeys(_imports(code))))


def _imports(code: CodeType) -> Iterator[str]:
    """Modules that a code object imports. A package counts only where something of its own is taken from it."""
    raw, extended, package, names = code.co_code, 0, "", list[str]()

    def ended() -> Iterator[str]:
        below = [f"{package}.{name}" for name in names]
        modules = [m for m in below if _file(m) is not None]
        yield from modules
        if package and (not names or len(modules) < len(names)):
            yield package

    for i in range(0, len(raw), 2):
        op, argument = raw[i], raw[i + 1] | extended
        extended = argument << 8 if op == _EXTENDED else 0
        if op == _IMPORT_NAME:
            yield from ended()
            package, names = code.co_names[argument], []
        elif op == _IMPORT_FROM:
            names.append(code.co_names[argument])
    yield from ended()
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _imports(constant)


def _file(module: str) -> Path | None:
    """The source file of a module of medrobust or of the user's; None of others, and of medrobust's lazy front."""
    first, _, rest = module.partition(".")
    if first == PACKAGE:
        return _part(rest) if rest else None
    # a user's module is looked up anew each time: another folder may hold one of the same name
    return _origin(module) if module == "__main__" or not _is_library(first) else None


@functools.lru_cache(maxsize=4096)
def _part(name: str) -> Path | None:
    place = ROOT.joinpath(*name.split("."))
    return next((p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()), None)


@functools.lru_cache(maxsize=1024)
def _is_library(package: str) -> bool:
    """Whether a top-level package is Python's or installed: nothing below it need be searched."""
    if package in sys.stdlib_module_names:
        return True
    loaded = sys.modules.get(package)
    origin = getattr(loaded, "__file__", None)
    if loaded is None:
        with contextlib.suppress(ImportError, ValueError):
            origin = getattr(importlib.util.find_spec(package), "origin", None)
    return origin is not None and _installed(Path(origin).resolve())


def _origin(module: str) -> Path | None:
    """Its source file, unless it is installed."""
    loaded = sys.modules.get(module)
    origin = getattr(loaded, "__file__", None)
    if loaded is None:
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError, AttributeError):
            return None
        origin = None if spec is None else spec.origin
    if not origin or not origin.endswith(".py"):
        return None
    file = Path(origin).resolve()
    return None if _installed(file) or not file.is_file() else file


def _installed(file: Path) -> bool:
    if {"site-packages", "dist-packages"} & set(file.parts):
        return True
    return any(file.is_relative_to(place) for place in _libraries())


@functools.lru_cache(maxsize=1)
def _libraries() -> tuple[Path, ...]:
    return tuple({Path(sysconfig.get_path(n)).resolve() for n in ("stdlib", "platstdlib", "purelib", "platlib")})


def _of_attribute(value: object) -> str:
    if isinstance(value, (staticmethod, classmethod)):
        return _of_attribute(value.__func__)
    if isinstance(value, property):
        return " ".join(_of_attribute(f) for f in (value.fget, value.fset) if f is not None)
    if isinstance(value, functools.cached_property):
        return _of_attribute(value.func)
    if isinstance(value, FunctionType):
        return of_code(value)
    return _plain(value)


def _plain(value: object) -> str:
    """A value for a digest where its repr is the same in every process; its type where it is not."""
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None))):
        return repr(value)
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_plain, value))})"
    return type(value).__qualname__


def _feed(digest: hashlib._Hash, code: CodeType, docstring: str | None) -> None:
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    digest.update(code.co_code)
    digest.update(repr((names, counts)).encode())
    for place, constant in enumerate(code.co_consts):
        if isinstance(constant, CodeType):
            _feed(digest, constant, None)
        elif isinstance(constant, frozenset):  # its order differs from process to process
            digest.update(repr(sorted(map(repr, constant))).encode())
        elif not (place == 0 and docstring is not None and constant == docstring):
            digest.update(repr(constant).encode())
    digest.update(b";")
