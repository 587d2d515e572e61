"""Who may import whom (downwards only), who may print, and what an import may cost."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import medrobust

ROOT = Path(medrobust.__file__).parent

FLOORS = (
    ("code_digest", "crosswalk", "errors", "formats", "progress", "seeds", "versions"),
    ("grid", "grey_scale", "limits", "atomic", "prevalence"),
    ("json_files",),
    ("devices", "images", "layout", "options", "own_files", "own_code", "manifest", "private_names", "ranks", "stats"),
    ("run_folder", "signing"),
    ("draws", "heads", "guessing", "results", "run_info", "store"),
    ("threat", "data", "models", "search", "criteria"),
    ("inspection", "naming"),
    ("classifier",),
    ("layer_probe", "operating_points", "transformations"),
    ("attacks", "certified", "defences", "detectors", "judging"),
    ("explain",),
    ("training",),
    ("universal", "evasion"),
    ("experiments",),
    ("runner",),
    ("report",),
    ("paired", "verification"),
    ("league",),
    ("interactive",),
    ("cli",),
)
"""From the ground up. A room imports from the floors below its own, never from its own or from above."""

NEVER = {
    "attacks": {"data", "models", "training"},
    "data": {"models", "threat", "classifier"},
    "search": {"data", "models", "threat", "classifier"},
    "explain": {"data", "models"},
    "report": {"torch", "models", "attacks", "classifier", "data", "experiments", "runner"},
    "paired": {"torch", "models", "attacks", "classifier", "data", "experiments", "runner"},
    "experiments": {"report"},
    "runner": {"report"},
}
"""What floors alone would allow, or what must stay said should a room move."""

HEAVY = ("torch", "torchvision", "timm", "matplotlib", "sklearn", "pandas", "medmnist", "captum")

LOUD = ("print", "exit", "quit", "sys.exit", "os._exit", "sys.stdout.write", "sys.stderr.write")

FILES = sorted(ROOT.rglob("*.py"))


def room(file: Path) -> str:
    return file.relative_to(ROOT).parts[0].removesuffix(".py")


@cache
def parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text("utf-8"))


def imported(file: Path) -> Iterator[str]:
    """Every module that the file imports anywhere, inside functions too; our own as the room's name."""
    for node in ast.walk(parsed(file)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively; write medrobust.…"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            yield rest.partition(".")[0] if first == "medrobust" and rest else first


def test_every_room_stands_on_a_floor():
    rooms = {room(f) for f in FILES} - {"__init__"}
    assert rooms == {name for floor in FLOORS for name in floor}


@pytest.mark.parametrize("mine", sorted({room(f) for f in FILES} - {"__init__"}))
def test_imports_go_downwards_only(mine):
    height = {name: i for i, floor in enumerate(FLOORS) for name in floor}
    for file in (f for f in FILES if room(f) == mine):
        names = set(imported(file))
        wrong = {n for n in names if n in height and n != mine and height[n] >= height[mine]}
        assert not wrong, f"{mine} stands too low to import {', '.join(sorted(wrong))} in {file}"
        assert not NEVER.get(mine, set()) & names, file


def imported_at_top(file: Path) -> Iterator[str]:
    """Own modules that are imported when this one is: not those inside functions or under TYPE_CHECKING."""
    waiting: list[ast.stmt] = list(parsed(file).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            waiting += node.body + node.orelse
        elif isinstance(node, ast.Try):
            waiting += node.body + [statement for handler in node.handlers for statement in handler.body]


def test_no_module_imports_itself_through_others():
    """A module of a package imports from the module that defines a name, never from its own package."""
    names = {
        ".".join(("medrobust", *f.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): f for f in FILES
    }
    graph = {name: set(imported_at_top(file)) & names.keys() - {name} for name, file in names.items()}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_only_the_command_line_prints_or_exits():
    loud = []
    for file in FILES:
        for node in ast.walk(parsed(file)) if room(file) != "cli" else ():
            if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
                last = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                called = ast.unparse(node.func) if last in {name.rpartition(".")[2] for name in LOUD} else ""
                if called in LOUD:
                    loud.append(f"{file.relative_to(ROOT)}:{node.lineno} {called}")
            # code of the user's that exits may be caught, but nothing here may exit
            if isinstance(node, ast.Raise) and node.exc is not None and "SystemExit" in ast.unparse(node.exc):
                loud.append(f"{file.relative_to(ROOT)}:{node.lineno} SystemExit")
    assert not loud


def python(code: str, folder: Path) -> str:
    """What a fresh interpreter prints, started in an empty folder that is its home too."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
        env={name: value for name, value in os.environ.items() if name == "PYTHONPYCACHEPREFIX"}
        | {"HOME": str(folder), "PATH": "", "PYTHONPATH": str(ROOT.parent), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_light_import_stays_light(tmp_path):
    """`medrobust --help` must not wait for torch, and the report never needs it."""
    code = f"""
import importlib, sys
for module in ("medrobust", "medrobust.cli", "medrobust.report", "medrobust.report.run"):
    importlib.import_module(module)
    print(*(f"{{module}} imports {{m}}" for m in {HEAVY} if m in sys.modules), end="")
"""
    assert python(code, tmp_path) == ""


@pytest.mark.slow  # imports torch in a new interpreter
def test_importing_everything_writes_nothing_and_leaves_the_heavy_parts_out(tmp_path):
    code = """
import sys
written = []
def watch(event, args):
    if event == "open" and isinstance(args[0], str) and args[1] and set(args[1]) & set("wax+"):
        written.append(args[0])
    elif event in ("os.mkdir", "os.rename", "os.remove"):
        written.append(str(args[0]))
import torch, numpy, scipy.stats, pydantic, PIL.Image
sys.addaudithook(watch)
import importlib, pkgutil, medrobust
before = torch.random.get_rng_state()
for found in pkgutil.walk_packages(medrobust.__path__, "medrobust."):
    if not found.name.endswith(("__main__", "runner.preloaded")):  # the latter is there to import the heavy parts
        importlib.import_module(found.name)
print(written, [m for m in ("timm", "matplotlib", "sklearn", "medmnist", "captum") if m in sys.modules],
      torch.equal(before, torch.random.get_rng_state()))
"""
    assert python(code, tmp_path) == "[] [] True"
    assert not list(tmp_path.iterdir())


def test_the_package_s_face_is_what_it_lists():
    for name in medrobust.__all__:
        assert getattr(medrobust, name) is not None
    assert set(medrobust.__all__) <= set(dir(medrobust))
    with pytest.raises(AttributeError, match="medrobust has no 'Attack'"):
        medrobust.Attack  # noqa: B018  # asking is the test
