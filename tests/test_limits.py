"""Limits: the table of the documents is that of the code; each moves with its variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from medrobust import formats, limits
from medrobust.errors import InputError

DOCS = Path(__file__).parents[1] / "docs"


def amount(limit: limits.Limit) -> str:
    if limit.unit == "bytes":
        gib = limit.default / 2**30
        return f"{gib:g} GiB" if gib >= 1 else f"{limit.default / 2**20:g} MiB"
    return f"{limit.default:,} {limit.unit}"


def test_the_document_lists_every_limit_as_it_is() -> None:
    head = "| variable | limit | of what |\n|---|---|---|\n"
    rows = [f"| `{limit.variable}` | {amount(limit)} | {limit.meaning} |" for limit in limits.LIMITS]
    assert head + "\n".join(rows) + "\n" in (DOCS / "limits.md").read_text(encoding="utf-8")


def test_every_limit_of_the_module_is_listed() -> None:
    made = [value for value in vars(limits).values() if isinstance(value, limits.Limit)]
    assert sorted(made) == sorted(limits.LIMITS)
    assert len({limit.variable for limit in made}) == len(made)


@pytest.mark.parametrize("limit", limits.LIMITS, ids=lambda limit: limit.variable)
def test_a_limit_moves_with_its_variable(limit: limits.Limit, monkeypatch: pytest.MonkeyPatch) -> None:
    limits.check(limit, limit.default, "x")
    with pytest.raises(InputError, match=f"{limit.default + 1:,} {limit.unit}.*{limit.variable}={limit.default + 1}"):
        limits.check(limit, limit.default + 1, "x")
    monkeypatch.setenv(limit.variable, str(limit.default + 1))
    limits.check(limit, limit.default + 1, "x")
    for wrong in ("0", "-1", "many", "nan", "inf", ""):
        monkeypatch.setenv(limit.variable, wrong)
        with pytest.raises(InputError, match=f"{limit.variable} must be a positive number"):
            limits.value(limit)


@pytest.mark.parametrize("file", ["data.md", "limits.md"])
def test_documents_name_the_formats_that_are_read(file: str) -> None:
    assert formats.TITLES in " ".join((DOCS / file).read_text(encoding="utf-8").split())
