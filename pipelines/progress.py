"""Progress: a bar where someone watches, a few plain lines where not."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

SECONDS_BETWEEN_LINES = 30.0
SECONDS_BEFORE_A_LINE = 10.0


class Progress(Protocol):
    """Told how much is done."""

    def advance(self, count: int = 1) -> None:
        """`count` more are done."""
        ...

    def skip(self, count: int) -> None:
        """`count` more were done by an earlier attempt."""
        ...


@contextmanager
def progress(total: int, what: str) -> Iterator[Progress]:
    """Progress over `total` things, on the standard error."""
    if not sys.stderr.isatty():
        yield _Lines(total, what)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Bar(bars, bars.add_task(what, total=total))


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Says what is waited for, on the standard error: at once on a terminal; elsewhere in a line once it takes long."""
    if sys.stderr.isatty():
        from rich.console import Console

        with Console(stderr=True).status(what):
            yield
        return
    line = threading.Timer(SECONDS_BEFORE_A_LINE, lambda: print(what, file=sys.stderr, flush=True))
    line.daemon = True
    line.start()
    try:
        yield
    finally:
        line.cancel()


class _Lines:
    """A line at most every `SECONDS_BETWEEN_LINES`, and one at the end."""

    def __init__(self, total: int, what: str) -> None:
        self._total, self._what = total, what
        self._done = 0
        self._said = time.monotonic()

    def advance(self, count: int = 1) -> None:
        self._done += count
        now = time.monotonic()
        if self._done >= self._total or now - self._said >= SECONDS_BETWEEN_LINES:
            self._said = now
            print(f"{self._what} {self._done}/{self._total}", file=sys.stderr, flush=True)

    skip = advance


class _Bar:
    def __init__(self, bars: RichProgress, task: TaskID) -> None:
        self._bars, self._task = bars, task

    def advance(self, count: int = 1) -> None:
        self._bars.advance(self._task, count)

    skip = advance
