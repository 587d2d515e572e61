"""Where the making of a perturbation stands, on disk after each pass: killed, it goes on from there to the same bytes.

One safetensors file, replaced whole. It holds the tensors that the next pass needs, and in its header the history and
what was counted so far. No random state is kept, because none is needed: every draw is keyed by (seed, pass).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from medrobust import atomic, own_files

KIND = "unfinished universal perturbation"
"""The kind that the metadata of the file states."""


@dataclass
class Stand:
    """After a pass. history: one entry a pass; counted: numbers of the whole making up to here."""

    tensors: dict[str, Tensor]
    history: list[dict[str, float]]
    counted: dict[str, int] = field(default_factory=dict)


class Checkpoint:
    """The stored states of one run, by name of its part; a run may have several parts, one after another.

    path: the file. about: names the work; a file about other work, or one that cannot be read, counts for nothing and
    is replaced if it is ours.
    """

    def __init__(self, path: str | Path, config: str) -> None:
        self.path, self.config = Path(path), config
        self.stands = self._read()

    def keep(self, part: str, stand: Stand) -> None:
        """Put ``stand`` in place of what was kept of that part.

        InputError where a file of others is there, or the disk takes no more.
        """
        from safetensors.torch import save

        self.stands[part] = stand
        tensors = {
            f"{name}/{key}": value.detach().cpu().contiguous().clone()  # safetensors refuses shared memory
            for name, kept in self.stands.items()
            for key, value in kept.tensors.items()
        }
        states = {name: {"history": kept.history, "counted": kept.counted} for name, kept in self.stands.items()}
        own_files.check_safetensors(self.path, KIND)
        metadata = own_files.metadata(KIND, config=self.config, stands=states)
        atomic.write_bytes(self.path, save(tensors, metadata))

    def _read(self) -> dict[str, Stand]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(self.path), "pt") as opened:
                header = own_files.stated(opened.metadata(), KIND, str(self.path)) or {}
                if header.get("config") != self.config:
                    return {}
                kept = header["stands"]
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError, ValueError, KeyError):
            return {}
        stands = {}
        for part, facts in kept.items() if isinstance(kept, dict) else ():
            own = {name.removeprefix(f"{part}/"): v for name, v in tensors.items() if name.startswith(f"{part}/")}
            history, counted = (facts.get(k) if isinstance(facts, dict) else None for k in ("history", "counted"))
            if not isinstance(history, list) or not isinstance(counted, dict) or not own:
                return {}
            stands[part] = Stand(own, history, counted)
        return stands
