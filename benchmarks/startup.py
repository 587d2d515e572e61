"""How long `medrobust --help` takes, and importing each library: the smallest of several fresh processes.

python benchmarks/startup.py
"""

from __future__ import annotations

import subprocess
import sys
import time

TASKS = {
    "medrobust --help": [sys.executable, "-m", "medrobust.cli", "--help"],
    "import medrobust": [sys.executable, "-c", "import medrobust"],
    "import torch": [sys.executable, "-c", "import torch"],
    "import torchattacks": [sys.executable, "-c", "import torchattacks"],
    "import foolbox": [sys.executable, "-c", "import foolbox"],
    "import art.attacks.evasion": [sys.executable, "-c", "import art.attacks.evasion"],
}


def main() -> None:
    print("| what | seconds, smallest and median of 7 |")
    print("|---|---|")
    for name, command in TASKS.items():
        times = []
        for _ in range(7):
            begin = time.perf_counter()
            done = subprocess.run(command, capture_output=True, check=False)
            times.append(time.perf_counter() - begin)
        shown = f"{min(times):.2f}, {sorted(times)[3]:.2f}" if done.returncode == 0 else "not installed"
        print(f"| {name} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
