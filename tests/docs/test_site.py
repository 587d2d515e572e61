"""The site of the documentation: every page can be reached, and it builds without a warning and without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import medrobust as mr

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
PAGES = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
PUBLIC = {*mr._ROOMS, "judging", "classifier", "results", "grid", "runner"} - {"report"}


def entries(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    return [page for item in (nav.values() if isinstance(nav, dict) else nav) for page in entries(item)]


def linked(page: Path) -> set[Path]:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    return {(page.parent / target).resolve() for target in targets if "://" not in target and target.endswith(".md")}


def test_every_page_stands_in_the_navigation_once():
    assert sorted(entries(CONFIG["nav"])) == sorted(PAGES)


@pytest.mark.parametrize("front", ["docs/index.md", "README.md"])
def test_every_page_is_reached_by_links_from_the_front_page(front):
    reached, new = set(), {ROOT / front}
    while new:
        reached |= new
        new = {target for page in new for target in linked(page)} - reached
    assert {DOCS / page for page in PAGES} <= reached


def test_every_public_room_has_its_reference():
    written = {
        name for page in (DOCS / "reference").glob("*.md") for name in re.findall(r"^::: (\S+)", page.read_text(), re.M)
    }
    assert {f"medrobust.{room}" for room in PUBLIC} <= written


def test_nothing_of_the_site_comes_from_elsewhere():
    assert CONFIG["theme"]["font"] is False
    assert "extra_css" not in CONFIG
    assert "extra_javascript" not in CONFIG
    assert "site_url" not in CONFIG
    assert CONFIG["strict"]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    pytest.importorskip("mkdocstrings", reason="needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    environment = os.environ | {
        "NO_MKDOCS_2_WARNING": "1",
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    return folder


def test_the_site_has_every_page_and_loads_nothing_from_a_network(site):
    for page in PAGES:
        html = (site / page).with_suffix(".html").read_text()
        loaded = re.findall(r'<(?:script|img|link|iframe)\b[^>]*\b(?:src|href)="([^"]+)"', html)
        assert loaded
        assert not [target for target in loaded if "//" in target], page


def test_the_reference_holds_what_the_tables_hold(site):
    html = (site / "reference/attacks.html").read_text()
    for attack in mr.attacks.ATTACKS.values():
        if not attack.__name__.startswith("_"):
            assert f'id="medrobust.attacks.{attack.__name__}"' in html
    assert "n × c × h × w" in (site / "reference/index.html").read_text()


def test_parameters_become_a_list():
    pytest.importorskip("griffe", reason="needs the extra docs")
    from tools.docstrings import as_markdown

    text = "Says what it does: all.\nsize, step: in pixels,\n    at least 1.\nnorm: of the ball.\n\nhttp://x.org: no."
    listed = "- **size, step**: in pixels,\n    at least 1.\n- **norm**: of the ball."
    assert as_markdown(text) == f"Says what it does: all.\n\n{listed}\n\nhttp://x.org: no."
