"""Weights in the dictionaries that training scripts save, under the names that training wraps around a network."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from medrobust.errors import InputError

StateDict = dict[str, Tensor]

PLAIN = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
"""Keys under which training scripts keep the weights."""
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "ema_model")
"""Keys of their running average; used where there are no others."""
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "ema_model.")
"""Prefixes that DataParallel, torch.compile, Lightning and common wrappers put before every name."""
NO_WEIGHT = re.compile(
    r"(^|[._])(criterion|criteria|loss|losses|loss_fn|loss_func|metrics?|pos_weight|class_weights?|n_averaged"
    r"|total_ops|total_params)([._]|$)|_(loss|criterion|metrics?)([._]|$)"
)
"""Names of tensors that belong to the training: losses and their weights, metrics, counters."""


def unwrapped(raw: Any, file: str) -> tuple[StateDict, str]:
    """The dictionary of tensors in what a file holds, and a sentence where there was a choice; else ""."""
    if _is_state(raw):
        return _named(raw), ""
    if not isinstance(raw, Mapping):
        raise _nothing(file)
    keys = [key for key in (*PLAIN, *AVERAGED) if isinstance(raw.get(key), Mapping)]
    for key in keys:
        inner = raw[key]
        if _is_state(inner):
            others = [k for k in keys if k in AVERAGED and k != key]
            note = f"{file}: the weights under {key!r} are used"
            if key in AVERAGED:
                return _named(inner), f"{note}, a running average: there are no others."
            if not others:
                return _named(inner), ""
            other = f"the running average under {others[0]!r} is not: to use that one, give {file}:{others[0]}"
            return _named(inner), f"{note}, {other}."
        if any(isinstance(inner.get(k), Mapping) for k in (*PLAIN, *AVERAGED)):
            return unwrapped(inner, file)
    raise _nothing(file)


def fitted(raw: Any, wanted: Mapping[str, Tensor], file: str) -> tuple[StateDict, tuple[str, ...]]:
    """The weights under the names that a network wants, as far as taking prefixes away gets there, and a sentence for
    whatever was renamed or dropped. Names that still do not fit are left for the caller to refuse.

    First the file as it is; else without the one chain of prefixes under which most names and shapes fit.
    """
    state, choice = unwrapped(raw, file)
    notes = [choice] if choice else []
    chain = max(_chains(state), key=lambda c: (_fitting(state, c, wanted), -len(c)))
    matched: StateDict = {}
    renamed, dropped = 0, []
    for key, value in state.items():
        bare = key.removeprefix(chain)
        # DataParallel and compile may sit around a part of the network too
        names = [n for n in dict.fromkeys((bare, _without_inner(bare), key)) if n not in matched]
        name = next((n for n in names if n in wanted), None)
        if name is None and NO_WEIGHT.search(key):
            dropped.append(key)
            continue
        name = name or next(iter(names), key)
        matched[name] = value
        renamed += name != key
    if renamed:
        what = f"without {chain!r} before the names" if chain else "without what wraps parts of the network"
        notes.append(f"{file}: {renamed} of {len(state)} weights are taken {what}.")
    if dropped:
        examples = ", ".join(dropped[:3]) + (", …" if len(dropped) > 3 else "")
        notes.append(f"{file}: {len(dropped)} tensors of the training are dropped: {examples}.")
    return matched, tuple(notes)


def _chains(state: StateDict) -> list[str]:
    """Every chain of prefixes that some name begins with, the empty one first."""
    counts: Counter[str] = Counter()
    for key in state:
        chain = ""
        while prefix := next((p for p in PREFIXES if key[len(chain) :].startswith(p)), None):
            chain += prefix
            counts[chain] += 1
    return ["", *counts]


def _fitting(state: StateDict, chain: str, wanted: Mapping[str, Tensor]) -> int:
    """How many names fit, and again how many shapes."""
    names = [(key, key[len(chain) :]) for key in state if key.startswith(chain)]
    return sum(1 + (state[k].shape == wanted[n].shape) for k, n in names if n in wanted)


def _without_inner(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in ("module", "_orig_mod"))


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(v, Tensor) for v in value.values())


def _named(state: Mapping[Any, Tensor]) -> StateDict:
    return {str(key): value for key, value in state.items()}


def _nothing(file: str) -> InputError:
    return InputError(f"{file} holds no state dict (names to tensors): save net.state_dict()")
