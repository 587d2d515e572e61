"""A folder as Hugging Face's ``save_pretrained`` writes it: config.json, model.safetensors, preprocessor_config.json.

Weights are read from safetensors only, nothing is downloaded, and code in the folder is never run.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from medrobust import json_files
from medrobust.errors import InputError, one_line
from medrobust.models.delivered.network import Delivered, NetworkRequest, needed

EXTRA = "hf"
MODULES = ("transformers",)
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
ELSEWHERE = re.compile(
    r'"(attn_implementation|experts_implementation|architecture)": ("[^"]*[/:]|\{)|"(quantization_config)": [^n]'
)
"""Kernels of the Hub for attention, networks of the Hub for timm's wrapper, and quantisers, anywhere in a config."""
RESAMPLING = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers."""


def is_folder(source: str) -> bool:
    """Whether it is such a folder."""
    folder = Path(source)
    return (folder / CONFIG).is_file() and not (folder / "model.json").is_file()


def load(request: NetworkRequest) -> Delivered:
    """InputError where the folder is not whole, needs code of its own or is no classifier of images."""
    folder = Path(request.source)
    config = json_files.read_object(folder / CONFIG)
    if "auto_map" in config:
        raise InputError(f"{folder} needs code of its own (auto_map), which is never run: export the network as ONNX")
    if elsewhere := ELSEWHERE.search(json.dumps(config)):
        what = elsewhere[1] or elsewhere[3]
        raise InputError(f"{folder}: {what} would be fetched from elsewhere: refused; export the network as ONNX")
    if not any((folder / name).is_file() for name in WEIGHTS):
        raise InputError(
            f"{folder} holds no model.safetensors: save it again with save_pretrained(FOLDER), which writes one"
        )
    (transformers,) = needed(EXTRA, request.source, *MODULES)
    net, missing = _net(transformers, folder)
    if missing:
        raise InputError(f"{folder} lacks weights of its classifier, {missing[0]} for one: is it trained?")
    classes = _classes(config)
    several = config.get("problem_type") == "multi_label_classification"
    mean, std = _normalisation(folder)
    return Delivered(
        net,
        classes=classes,
        head="multilabel" if several else None,
        outputs="logits",
        mean=mean,
        std=std,
        channels=config.get("num_channels") if config.get("num_channels") in (1, 3) else None,
        preprocessing=preprocessing(request.source),
    )


def _net(transformers: Any, folder: Path) -> tuple[nn.Module, list[str]]:
    """The network, and the names of weights that the folder lacks."""
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about settings of other versions; what matters is compared below
            net, info = transformers.AutoModelForImageClassification.from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # whatever its many classes raise
        raise InputError(f"{folder} cannot be loaded by transformers: {one_line(error)}") from error
    finally:
        transformers.utils.logging.set_verbosity(before)
    return net.float() if next(net.parameters()).dtype.itemsize < 4 else net, sorted(info["missing_keys"])


def _classes(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Names of the outputs; None for the placeholders that stand there by default."""
    named = config.get("id2label") or {}
    names = tuple(str(named[key]) for key in sorted(named, key=int))
    return None if not names or all(n == f"LABEL_{i}" for i, n in enumerate(names)) else names


def _processor(source: str) -> Mapping[str, Any]:
    file = Path(source) / PROCESSOR
    return json_files.read_object(file) if file.is_file() else {}


def _normalisation(folder: Path) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and standard deviation on the [0, 1] scale: the processor scales grey levels of 0 to 255 by a factor."""
    settings = _processor(str(folder))
    if not settings:
        return None, None
    scale = 255 * float(settings.get("rescale_factor", 1 / 255)) if settings.get("do_rescale", True) else 255.0
    if not settings.get("do_normalize", True):
        return (0.0,), (1 / scale,)
    mean, std = ([float(v) for v in settings.get(key, [0.5] * 3)] for key in ("image_mean", "image_std"))
    return tuple(m / scale for m in mean), tuple(s / scale for s in std)


def preprocessing(source: str) -> str | None:
    """The processor's resizing and cropping, as ``models.preprocessing`` writes it; None where there is none."""
    settings = _processor(source)
    steps = []
    if settings.get("do_resize", bool(settings)) and (size := settings.get("size")):
        kind = RESAMPLING.get(int(settings.get("resample") or 2))
        if kind is None:
            raise InputError(f"{source}: resample {settings['resample']} is not covered; it takes 0, 2 or 3")
        size = size if isinstance(size, dict) else {"height": size, "width": size}
        shorter, crop = size.get("shortest_edge"), None
        if shorter and (share := settings.get("crop_pct")) and shorter < 384:  # ConvNeXt's
            shorter, crop = int(shorter / share), shorter
        steps.append(f"resize={shorter}:{kind}" if shorter else f"resize={size['height']}x{size['width']}:{kind}")
        steps += [f"crop={crop}"] if crop else []
    if settings.get("do_center_crop") and (crop := settings.get("crop_size")):
        steps.append(f"crop={crop['height'] if isinstance(crop, dict) else crop}")
    return ",".join(steps) or None
