"""The nets here are tiny: one thread each is faster than two that wait for each other."""

from __future__ import annotations

import functools
import gc
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import seconds
from .network import WATCH
from .processes import Server

# What is imported and collected stays: looking through it for garbage took a fifth of the collection.
gc.disable()
# Nothing heavy is imported here: the process that hands out the tests (pytest-xdist) needs neither torch nor medrobust.
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
if sys.dont_write_bytecode:
    # Compiling torch and all others takes three times as long as loading them, in every process. The compiled files go
    # into the cache of pytest, and none beside a source, as was requested.
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parents[1] / ".pytest_cache/bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# no test writes into the home folder, and codes are the same in every process
os.environ.setdefault("MEDROBUST_SALT", "salt of the tests")

SERVER = pytest.StashKey[Server]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Images of patients leave this machine by no command: no test opens a connection that it is not marked for."""
    WATCH.loopback = item.get_closest_marker("loopback") is not None
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    result = yield
    refused, WATCH.refused = WATCH.refused, []
    assert not refused, f"opened a connection: {', '.join(refused)}"
    return result


@pytest.fixture(scope="session", autouse=True)
def _parsers_are_made_once() -> Iterator[None]:
    """Making those of all commands takes most of the time of a command that stops at once."""
    import typer.main
    import typer.testing

    once = functools.cache(typer.main.get_command)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(typer.main, "get_command", once)
        patched.setattr(typer.testing, "_get_command", once)
        yield


@pytest.fixture(scope="session", autouse=True)
def _phantoms_are_rendered_once() -> Iterator[None]:
    """An image of a phantom is a pure function of its arguments; rendering took a third of a small training."""
    from medrobust.data import phantom

    once = functools.cache(phantom.render)

    def render(*args: Any) -> Any:
        image, mask = once(*args)
        return image.copy(), mask.copy()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(phantom, "render", render)
        yield


@pytest.fixture(scope="session", autouse=True)
def _installed_packages_are_read_once() -> Iterator[None]:
    """Every page asks which of them have sections; reading the metadata of all took a tenth of its time."""
    from importlib import metadata

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(metadata, "entry_points", functools.cache(metadata.entry_points))
        yield


@pytest.fixture(scope="session", autouse=True)
def drawing() -> Iterator[set[str]]:
    """Figures are made, but drawn only while this set is not empty: drawing takes most of the time of a page."""
    from matplotlib.figure import Figure

    real, wanted = Figure.savefig, set[str]()

    def savefig(figure: Figure, out: Any, **options: Any) -> None:
        if options.get("format") == "svg" and not wanted:
            out.write('<svg viewBox="0 0 1 1"></svg>')
        else:
            real(figure, out, **options)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Figure, "savefig", savefig)
        yield wanted


@pytest.fixture
def drawn(drawing: set[str], request: pytest.FixtureRequest) -> Iterator[None]:
    """Figures as a reader sees them, for tests of what is drawn."""
    drawing.add(request.node.nodeid)
    yield
    drawing.clear()


@pytest.fixture(scope="session")
def processes(request) -> Server:
    """Starts processes in milliseconds."""
    if SERVER not in request.config.stash:
        pytest.skip("forks of pytest need fork(2)")
    return request.config.stash[SERVER]


def pytest_addoption(parser) -> None:
    group = parser.getgroup("medrobust")
    group.addoption("--fast", action="store_true", help="the cheapest tests of every room")
    group.addoption("--write-seconds", action="store_true", help="write what every test took to tests/seconds.csv")


def pytest_configure(config) -> None:
    if config.getoption("--write-seconds") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(seconds.Writer())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items) -> None:
    """Files that take longest come first, so that no process of pytest-xdist is left alone with one at the end.

    Files that were not measured count by their slow tests. The server begins before the first test, where a test needs
    it.
    """
    measured = seconds.read()
    if config.getoption("--fast"):
        quick = [item for item in items if not item.get_closest_marker("slow")]
        chosen = seconds.fast((seconds.function(item.nodeid) for item in quick), measured)
        kept = [item for item in quick if seconds.function(item.nodeid) in chosen]
        dropped = set(items) - set(kept)
        config.hook.pytest_deselected(items=[item for item in items if item in dropped])
        items[:] = kept
    slow, by_file = {item.path for item in items if item.get_closest_marker("slow")}, seconds.by_file(measured)
    items.sort(key=lambda item: (-by_file.get(item.nodeid.partition("::")[0], 0.0), item.path not in slow))
    if hasattr(os, "fork") and any("processes" in getattr(item, "fixturenames", ()) for item in items):
        config.stash[SERVER] = Server()


def pytest_collection_finish(session) -> None:
    gc.freeze()
    gc.enable()


def pytest_unconfigure(config) -> None:
    gc.unfreeze()  # what libraries count at the end as leaked
    if SERVER in config.stash:
        config.stash[SERVER].close()


@pytest.fixture(scope="module")
def whole(request, tmp_path_factory) -> Path:
    """The finished audit of a test file's own ``spec()``."""
    from medrobust.experiments import audit

    folder = tmp_path_factory.mktemp("audits") / "whole"
    audit(request.module.spec(), folder, device="cpu")
    return folder


@pytest.fixture(scope="module")
def told(whole) -> dict[str, Any]:
    """Its results."""
    return json.loads((whole / "results.json").read_text())
