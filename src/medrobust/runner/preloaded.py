"""What workers of this machine compute with, imported by the process that they are forked from.

Imports alone: CUDA must not begin before the fork, nor torch's threads.
"""

import medrobust.experiments.suite
import medrobust.runner.executors  # noqa: F401
from medrobust.models import timm_network

timm_network.load()
