"""Which run made a page: its id, when, by which command, on which machine. Every page has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medrobust.report.schema import RunInfo


def items(info: RunInfo) -> list[tuple[str, str]]:
    """As terms and values; what is not known is left out."""
    entries = [
        ("Run", info.id),
        ("Begun", moment(info.begun)),
        ("Finished", moment(info.finished)),
        ("Operator", info.operator),
        ("Command", info.command),
        ("Git commit", f"{info.commit}, with changes" if info.commit and info.modified else info.commit),
        ("SHA-256 of the results", info.digest),
        ("SHA-256 of medrobust's code", info.code),
    ]
    machine = [(k.replace("_", " ").capitalize(), str(v)) for k, v in info.machine.items() if v not in ("", None)]
    return [(t, v) for t, v in [*entries, *machine] if v]


def line(results: Mapping[str, Any]) -> str:
    """In a line, from the key "run" of results; empty where they have none, or one that is not readable."""
    raw = results.get("run")
    if not isinstance(raw, Mapping):
        return ""
    fields = {k: str(raw.get(k) or "") for k in ("id", "begun", "finished", "command")}
    machine = raw.get("machine")
    text = f"Run {fields['id']}, begun {moment(fields['begun'])}, finished {moment(fields['finished'])}."
    text += f" Command: {fields['command']}." if fields["command"] else ""
    if isinstance(machine, Mapping):
        text += (
            f" Machine: {machine.get('processor')}, {machine.get('cores')} cores, {machine.get('threads')} threads, "
        )
        text += f"GPU {machine.get('gpu')}, {machine.get('system')}."
    return text


def moment(text: str) -> str:
    """ "2026-11-29 16:26:43 UTC" from ISO 8601."""
    return text.replace("T", " ").replace("Z", " UTC")
