"""Ctrl-C with manners: the first finishes the batch, the second stops at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Whether someone asked to stop. Long loops look at `requested` between batches and raise `Interrupted`."""

    def __init__(self) -> None:
        self.requested = False
        self.immediate = False

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a request raises `KeyboardInterrupt` where the work stands: for work of which nothing is lost."""
        self.immediate = True
        try:
            yield
        finally:
            self.immediate = False


@contextmanager
def polite_signals(stop: Stop, said: bool = True) -> Iterator[None]:
    """Makes the first SIGINT or SIGTERM set `stop`, and say so if `said`, and lets the next one kill the process.

    The second signal gets the system's own handler, not an exception: an exception would wait for the end of a long
    call into native code. Nothing is lost by it, since files are whole or absent.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Only the main thread may set handlers; elsewhere (a notebook's worker) signals keep their meaning.
        return
    signals = (signal.SIGINT, signal.SIGTERM)

    def request(number: int, frame: FrameType | None) -> None:
        stop.requested = True
        for each in signals:
            signal.signal(each, signal.SIG_DFL)
        if stop.immediate:
            raise KeyboardInterrupt
        if not said:
            return
        # Straight to the descriptor: the signal may have come in the middle of a buffered write. The escape sequence
        # brings back the cursor that a progress bar hid and, killed, would not show again.
        cursor = b"\x1b[?25h" if os.isatty(2) else b""
        os.write(2, cursor + b"\nstopping after this batch; once more stops at once\n")

    before = {each: signal.signal(each, request) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
