"""`medrobust doctor`."""

from __future__ import annotations

from medrobust.cli.text import table


def doctor() -> None:
    """What this installation can do: versions, devices, optional extras."""
    import importlib.util
    import os

    import torch

    from medrobust.versions import versions

    rows = [[name, version] for name, version in versions().items()]
    rows.append(["device", torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU only"])
    rows.append(["cores", f"{os.cpu_count()}, torch uses {torch.get_num_threads()} threads"])
    extras = {
        "medmnist": "medmnist",
        "dicom": "pydicom",
        "nifti": "nibabel",
        "onnx": "onnx2pytorch",
        "hf": "transformers",
        "monai": "monai",
        "xrv": "torchxrayvision",
        "peers (ART)": "art",
        "peers (foolbox)": "foolbox",
    }
    for extra, module in extras.items():
        there = importlib.util.find_spec(module) is not None
        rows.append([f"extra {extra}", "installed" if there else "not installed (optional)"])
    table(["part", "found"], rows, "medrobust doctor")
