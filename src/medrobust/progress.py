"""How long work tells how far it is: floor 1 states the shape, the CLI draws it, everyone else stays silent."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told about one piece of work: ``start`` once, ``advance`` as often as one likes, ``stop`` at the end.

    The receiver owns the clock and the time left; the work only counts.
    """

    def start(self, name: str, total: int) -> None:
        """name: what is being done, for people; total: how many steps it will take."""

    def advance(self, n: int = 1, **shown: object) -> None:
        """n: steps done since the last call (0 to show something only); shown: what to print beside the bar."""

    def stop(self) -> None:
        """The work is over: done, failed or interrupted."""

    def note(self, text: str) -> None:
        """text: a sentence on what was dropped, merged or reinterpreted, for whoever waits for the result."""


class NoProgress:
    """Says nothing; the default of every function that reports progress."""

    def start(self, name: str, total: int) -> None:
        pass

    def advance(self, n: int = 1, **shown: object) -> None:
        pass

    def stop(self) -> None:
        pass

    def note(self, text: str) -> None:
        pass
