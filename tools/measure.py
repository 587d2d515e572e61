"""The measures of the code: size, circles and direction of imports, words, types.

    python tools/measure.py                  # of this checkout
    python tools/measure.py ../other         # of another one, beside it

Prints a line a measure. Circles and arrows are those of imports at the top of modules; a subject's files are those
outside its own room whose names or imports speak of it.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

SUBJECTS = {
    "detection": ("detectors",),
    "evasion": ("evasion",),
    "explanation": ("explain",),
    "universal": ("universal",),
    "search": ("search", "training.evolved"),
}
"""A subject and the rooms that are its own."""
APPARATUS = {"experiments", "studies", "runner", "report", "cli"}


def files(root: Path, folder: str) -> list[Path]:
    return sorted((root / folder).rglob("*.py"))


def lines(paths: list[Path]) -> int:
    return sum(len(path.read_text("utf-8").splitlines()) for path in paths)


def module_of(path: Path, src: Path) -> str:
    return ".".join(path.relative_to(src).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path, modules: set[str]) -> set[str]:
    """Own modules that are imported when this one is; not those inside functions or for type checkers only."""
    found: set[str] = set()

    def visit(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
            elif (isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test)) or isinstance(node, ast.Try):
                visit(node.body)

    visit(ast.parse(path.read_text("utf-8")).body)
    return found & modules


def circles(graph: dict[str, set[str]]) -> int:
    """Groups of modules that import each other (strongly connected components of more than one module)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    count = 0

    def connect(node: str) -> None:
        nonlocal count
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph[node]:
            if other not in index:
                connect(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            size = 0
            while stack.pop() != node:
                size += 1
            count += size > 0

    sys.setrecursionlimit(10_000)
    for node in graph:
        if node not in index:
            connect(node)
    return count


def public_names(paths: list[Path], src: Path) -> dict[str, set[str]]:
    """Public classes by name, and the modules that define one."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].add(module_of(path, src))
    return found


def count(paths: list[Path], pattern: str) -> int:
    return sum(len(re.findall(pattern, path.read_text("utf-8"))) for path in paths)


NAMES = {"attack", "data", "k", "kind", "metric", "n", "name", "title", "wanted"}
"""Identifiers of what is a name, not text to be parsed."""


def prefix_decisions(path: Path) -> int:
    """Calls of ``startswith`` on a variable or attribute that holds a name."""
    receivers = [
        node.func.value
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "startswith"
    ]
    identifiers = [getattr(receiver, "attr", getattr(receiver, "id", "")) for receiver in receivers]
    return sum(identifier in NAMES for identifier in identifiers)


def outside(paths: list[Path], src: Path, subject: str, rooms: tuple[str, ...]) -> int:
    """Files of the apparatus (experiments, runner, report, command line) that import a subject's rooms."""
    found = 0
    for path in paths:
        module = module_of(path, src)
        if module.split(".")[1:2] and module.split(".")[1] in APPARATUS:
            text = path.read_text("utf-8")
            speaks = any(
                re.search(rf"from medrobust\.{room}\b|from medrobust import .*\b{room}\b", text) for room in rooms
            )
            found += speaks or subject in path.stem or subject[:6] in path.stem
    return found


def strict_errors(root: Path) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict"], cwd=root, capture_output=True, text=True, check=False
    )
    last = (ran.stdout.strip().splitlines() or [ran.stderr.strip()])[-1]
    found = re.search(r"Found (\d+) error", last)
    return found[1] if found else ("0" if "Success" in last else last)


def measures(root: Path) -> dict[str, str]:
    src = root / "src"
    paths = files(root, "src")
    modules = {module_of(path, src) for path in paths}
    graph = {module_of(path, src): imports(path, modules) - {module_of(path, src)} for path in paths}
    several = {name: places for name, places in public_names(paths, src).items() if len(places) > 1}
    studies = files(root, "studies")
    out = {
        "lines in src": str(lines(paths)),
        "files in src": str(len(paths)),
        "files of src above 400 lines": str(sum(lines([path]) > 400 for path in paths)),
        "lines in tests": str(lines(files(root, "tests"))),
        "lines of scripts in studies": str(lines(studies)),
        "scripts in studies with an argparse of their own": str(
            sum("argparse" in p.read_text("utf-8") for p in studies)
        ),
        "lines of docs (markdown)": str(
            sum(len(p.read_text("utf-8").splitlines()) for p in (root / "docs").rglob("*.md"))
        ),
        "circles of imports": str(circles(graph)),
        "class names defined in several modules": f"{len(several)} ({', '.join(sorted(several)[:12])})",
        "fmt: skip": str(count(paths, r"# fmt: (?:skip|off)")),
        "dict[str, Any]": str(count(paths, r"dict\[str, Any\]")),
        "decisions by the prefix of a name": str(
            sum(prefix_decisions(p) for p in paths if {"report", "cli", "experiments", "runner"} & set(p.parts))
        ),
        "mypy --strict": strict_errors(root),
    }
    for subject, rooms in SUBJECTS.items():
        out[f"files of the apparatus about {subject}"] = str(outside(paths, src, subject, rooms))
    return out


def main() -> None:
    roots = [Path(argument) for argument in sys.argv[1:]] or [Path(__file__).resolve().parent.parent]
    columns = [measures(root.resolve()) for root in roots]
    width = max(len(name) for name in columns[0])
    for name in columns[0]:
        print(f"{name:<{width}}  " + "  |  ".join(column[name] for column in columns))


if __name__ == "__main__":
    main()
