from pathlib import Path


def write(d: Path) -> Path:
    return d
