"""Progress: a bar where someone watches, a few plain lines where not."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

SECONDS_BETWEEN_LINES = 30.0


class Progress(Protocol):
    """Told how much is done."""

    def advance(self, count: int = 1) -> None:
        """`count` more are done."""
        ...


class PlainProgress:
    """A line at most every `SECONDS_BETWEEN_LINES`, and one at the end."""

    def __init__(self, total: int, what: str, console: Console) -> None:
        self._total, self._what, self._console = total, what, console
        self._done = 0
        self._said = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self._done += count
        now = time.monotonic()
        if self._done >= self._total or now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            self._console.print(f"{self._what} {self._done}/{self._total}", highlight=False, soft_wrap=True)


@contextmanager
def progress(total: int, what: str, console: Console | None = None) -> Iterator[Progress]:
    """Progress over `total` things, on the standard error unless a console is given."""
    from rich.console import Console

    console = console or Console(file=sys.stderr)
    if not console.is_terminal:
        yield PlainProgress(total, what, console)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        yield _Bar(bars, bars.add_task(what, total=total))


class _Bar:
    def __init__(self, bars: RichProgress, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, count: int = 1) -> None:
        self._bars.advance(self._task, count)
