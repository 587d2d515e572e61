"""Whether the hub of pretrained weights answers: asked once, with a time limit, before anything is downloaded.

The download itself tries again and again and has no limit of its own where no packet comes back.
"""

from __future__ import annotations

import contextlib
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

PATIENCE = 10.0
"""Seconds to wait for any answer."""


def answers(patience: float = PATIENCE) -> bool:
    """Whether the hub can be reached, through the proxy that the environment names, if any. Takes ``patience`` s."""
    from huggingface_hub import constants

    if constants.is_offline_mode():
        return False
    reached = threading.Event()

    def probe() -> None:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=patience):
                reached.set()
        except urllib.error.HTTPError:  # it answered
            reached.set()
        except (OSError, ValueError):
            return

    # looking a name up has no time limit of its own, so that the probe runs beside
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(patience)
    return reached.is_set()


@contextlib.contextmanager
def only_the_cache() -> Iterator[None]:
    """Weights are taken from the hub's cache on this machine; what is not there is an OSError at once."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
