"""Progress with time left, on the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from medrobust.cli.text import Screen
from medrobust.errors import visible

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress


class Bars:
    """Progress with time left on stderr; a plain line each where that is not a terminal."""

    def __init__(self) -> None:
        self._bars: RichProgress | None = None
        self._task: Any = None
        self._noted: set[str] = set()

    def __enter__(self) -> Bars:
        if sys.stderr.isatty() and not Screen.still:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
            from rich.table import Column

            self._bars = Progress(
                TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
                BarColumn(bar_width=12),
                MofNCompleteColumn(),
                TimeRemainingColumn(compact=True, elapsed_when_finished=True),
                TextColumn("{task.fields[shown]}", markup=False),
                console=Console(stderr=True),
            )
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def start(self, name: str, total: int) -> None:
        if Screen.still:
            return
        if self._bars is None:
            print(f"{visible(name)} ({total})", file=sys.stderr, flush=True)
        else:
            self._task = self._bars.add_task(visible(name), total=total, shown="")

    def advance(self, n: int = 1, **values: object) -> None:
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, advance=n)
            if values:
                words = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in values.items())
                self._bars.update(self._task, shown="  ".join(words))

    def stop(self) -> None:
        if self._bars is not None and self._task is not None:
            # what was shown beside a finished bar would take the room of the next one's time left
            self._bars.update(self._task, shown="")
            self._bars.stop_task(self._task)
            self._task = None

    def note(self, text: str, once: str = "") -> None:
        """A line on stderr, above the bars; the same one is printed once, or one of all that have the same ``once``."""
        if (once or text) in self._noted:
            return
        self._noted.add(once or text)
        line = f"note: {visible(text)}"
        if self._bars is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._bars.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)
