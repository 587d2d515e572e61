"""What the documents show must run, and what they claim must be there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import medrobust as mr
from tests.nets import bumpy

ROOT = Path(__file__).parents[2]


def blocks(file: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / file).read_text(), flags=re.DOTALL)


def test_the_attack_of_the_guide_runs():
    scope: dict = {}
    exec(blocks("docs/add-an-attack.md")[0], scope)
    clf, images = bumpy(), torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = clf.predict(images)
    adv = scope["NormalisedDescent"]()(clf, images, mr.Untargeted(labels), mr.Linf(0.1))
    assert mr.judge(clf, images, adv, mr.Untargeted(labels), mr.Linf(0.1)).reached.any()


def test_the_readme_s_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for code in blocks("README.md"):
        exec(code.replace("phantom:chest", "phantom:chest@32:n=60").replace('"resnet18"', '"small_cnn", epochs=1'), {})


@pytest.mark.parametrize("file", ["README.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))])
def test_links_between_documents_lead_somewhere(file):
    text = (ROOT / file).read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert ((ROOT / file).parent / target).exists(), f"{file} links to {target}"


def test_the_optimiser_of_the_guide_runs():
    scope: dict = {}
    for code in blocks("docs/add-an-optimiser.md"):
        exec(code, scope)
    assert scope["result"].best_f.max() < 0.1
    assert scope["result"].history.shape == (20, 2000)
