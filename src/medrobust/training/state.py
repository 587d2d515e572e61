"""An unfinished training on disk: one safetensors file, replaced whole after every epoch.

It holds the weights, the best weights so far, the optimiser's tensors, and in its header the epoch and the
history as JSON. No random state is kept, because none is needed: every draw is keyed by (seed, epoch).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from medrobust import atomic, own_files
from medrobust.errors import InputError
from medrobust.models.pretrained import difference

FILE = "training.safetensors"
KIND = "training"
"""The kind that the metadata of FILE states."""


@dataclass
class TrainingState:
    """Where a training stands. epoch: epochs done; best: the weights of the epoch ``best_epoch``, the one to keep.

    adversary: what the one who attacks during training has learnt, see Adversary.
    """

    epoch: int = 0
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    done: bool = False
    adversary: dict[str, Tensor] = field(default_factory=dict)

    def write(self, folder: Path, key: str, net: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Replace the file in ``folder``. key: names the training; a finished one keeps its best weights only."""
        from safetensors.torch import save

        tensors = {f"best/{name}": value for name, value in self.best.items()}
        tensors |= {f"adversary/{name}": value for name, value in self.adversary.items()}
        if not self.done:
            tensors |= {f"net/{name}": _own(value) for name, value in net.state_dict().items()}
            tensors |= {
                f"optimiser/{index}/{name}": _own(value)
                for index, parameter in enumerate(_parameters(optimiser))
                for name, value in optimiser.state.get(parameter, {}).items()
                if isinstance(value, Tensor)
            }
        header = {"epoch": self.epoch, "best_epoch": self.best_epoch, "history": self.history, "done": self.done}
        own_files.check_safetensors(folder / FILE, KIND)
        metadata = own_files.metadata(KIND, key=key, state=header)
        atomic.write_bytes(folder / FILE, save(tensors, metadata))

    @classmethod
    def read(cls, folder: Path, key: str, net: nn.Module, optimiser: torch.optim.Optimizer) -> TrainingState:
        """The state in ``folder``, its tensors put into ``net`` and ``optimiser``; a fresh one where there is none."""
        from safetensors import SafetensorError, safe_open

        file = folder / FILE
        if not file.exists():
            return cls()
        try:
            with safe_open(str(file), "pt") as opened:
                metadata = own_files.stated(opened.metadata(), KIND, str(file)) or {}
                if metadata.get("key") != key:
                    raise InputError(
                        f"{file} holds a training with other data or settings: delete it to start anew, "
                        "or give another folder"
                    )
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
            header = _header(metadata["state"])
        except InputError:
            raise
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file} is damaged ({error}): delete it to start the training anew") from error
        state = cls(best=_part(tensors, "best/"), adversary=_part(tensors, "adversary/"), **header)
        wanted = net.state_dict()
        for part in (state.best, *([] if state.done else [_part(tensors, "net/")])):
            wrong = difference(part, wanted)
            if wrong:
                raise InputError(f"{file} was written by another network: {wrong}; delete it to start anew")
        if not state.done:
            net.load_state_dict(_part(tensors, "net/"))
            try:
                _restore(optimiser, _part(tensors, "optimiser/"))
            except (ValueError, IndexError, RuntimeError) as error:
                raise InputError(f"{file} is damaged ({error}): delete it to start the training anew") from error
        return state


def _header(stated: Mapping[str, Any]) -> Mapping[str, Any]:
    """The fields of a State that are no tensors. KeyError, TypeError or ValueError where one is missing or wrong."""
    epoch, best, history, done = (stated[k] for k in ("epoch", "best_epoch", "history", "done"))
    if type(epoch) is not int or type(best) is not int or not isinstance(history, list) or type(done) is not bool:
        raise TypeError("a field of its header has the wrong type")
    if not 0 < best <= epoch == len(history) or not all(isinstance(h, dict) for h in history):
        raise ValueError("its epochs and its history disagree")
    return {"epoch": epoch, "best_epoch": best, "history": history, "done": done}


def snapshot(net: nn.Module) -> dict[str, Tensor]:
    """The weights as they are now, on the CPU and with memory of their own."""
    return {name: _own(value) for name, value in net.state_dict().items()}


def _own(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _parameters(optimiser: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _restore(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = _parameters(optimiser)
    for key, value in tensors.items():
        index, name = key.split("/")
        parameter = parameters[int(index)]
        # laid out in memory as the parameter is, so that the very same kernels run as before the interruption
        restored = torch.empty_like(parameter).copy_(value) if value.shape == parameter.shape else value
        optimiser.state[parameter][name] = restored.detach()
