"""Most tests here read words and tables: figures are made, but not drawn, which takes most of the time of a page."""

from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def drawn() -> None:
    """Figures as a reader sees them, for tests of what is drawn. The pages of a module's fixture are always drawn."""


@pytest.fixture(autouse=True)
def _not_drawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Figure.savefig

    def savefig(figure: Figure, out: Any, **options: Any) -> None:
        if options.get("format") == "svg":
            out.write('<svg viewBox="0 0 1 1"></svg>')
        else:
            real(figure, out, **options)

    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(Figure, "savefig", savefig)
