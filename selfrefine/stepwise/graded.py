"""A watched reward that has to return in time: one that hangs would hold a training for ever, without a word."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from textwrap import shorten
from typing import Any

from rewards.contract import Reward, RewardError, raising_row
from rewards.watch import Watched


class Graded(Watched):
    """`Watched`, with `seconds` for each call. Raises `RewardError` where they were not enough."""

    def __init__(self, reward: Reward, name: str, group: int, warn: Callable[[str], None], seconds: float) -> None:
        super().__init__(reward, name, group, warn)
        self._seconds = seconds

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        try:
            with _alarm(self._seconds):
                return super().__call__(prompts, completions, **columns)
        except _Late:
            raise RewardError(
                f"reward `{self.__name__}` did not return within {self._seconds:g} seconds for {len(completions)} "
                "completions; make it faster, or raise reward_timeout"
            ) from None
        except RewardError as error:
            if error.__cause__ is None:
                raise
            raise RewardError(f"{error}{self._told(prompts, completions, columns)}") from error

    def _told(self, prompts: Sequence[Any], completions: Sequence[Any], columns: dict[str, Any]) -> str:
        """Which completion the reward raises at, in words; empty where it cannot be found, or not in time."""
        try:
            with _alarm(self._seconds):
                row = raising_row(self._reward, prompts, completions, columns)
        except _Late:
            row = None
        return "" if row is None else f" (completion {row}: {shorten(str(completions[row]), 60)!r})"


class _Late(BaseException):
    """No `Exception`: a reward that catches those would go on."""


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raises `_Late` inside, after so long; by a signal, which reaches the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise _Late

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
