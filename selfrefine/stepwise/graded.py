"""Watched rewards that have to return in time: one that hangs would hold a training for ever, without a word."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import shorten
from typing import Any

from rewards.contract import STEPS, Reward, RewardError, raising_row
from rewards.steps import StepReward, score_steps
from rewards.watch import PATIENCE, Watched


class Graded(Watched):
    """`Watched`, with `seconds` for each call. Raises `RewardError` where they were not enough."""

    def __init__(self, reward: Reward, name: str, group: int, warn: Callable[[str], None], seconds: float) -> None:
        super().__init__(reward, name, group, warn)
        self._seconds = seconds

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        with _held(f"reward `{self.__name__}`", self._reward, prompts, completions, columns, self._seconds):
            return super().__call__(prompts, completions, **columns)


class GradedSteps:
    """A step reward under its contract, with `seconds` for each call.

    Raises `RewardError` where they were not enough, or where nothing could be learnt from `PATIENCE` batches in a row.
    """

    def __init__(self, reward: StepReward, name: str, seconds: float) -> None:
        self.__name__ = name
        self._reward, self._seconds = reward, seconds
        self._silent = 0

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], steps: Sequence[Sequence[str]], **columns: Any
    ) -> list[list[float | None]]:
        name = f"step reward `{self.__name__}`"
        with _held(name, self._reward, prompts, completions, {**columns, STEPS: steps}, self._seconds):
            found = score_steps(self._reward, prompts, completions, steps, **columns)
        self._look(name, [value for values in found for value in values[:-1]])
        return found

    def _look(self, name: str, values: Sequence[float | None]) -> None:
        """`values` at cuts; what stands at the end of a completion is not used."""
        if values:
            self._silent = self._silent + 1 if all(value is None for value in values) else 0
        if self._silent == PATIENCE:
            raise RewardError(
                f"{name} has given every part but the last ones None for {PATIENCE} batches ({len(values)} in this "
                "one); try it: trivium rewards check"
            )


@contextmanager
def _held(
    name: str,
    reward: Callable[..., Any],
    prompts: Sequence[Any],
    completions: Sequence[Any],
    columns: Mapping[str, Any],
    seconds: float,
) -> Iterator[None]:
    """A call inside has so long, and where it raises the message says at which completion."""
    try:
        with _alarm(seconds):
            yield
    except _Late:
        raise RewardError(
            f"{name} did not return within {seconds:g} seconds for {len(completions)} completions; make it faster, or "
            "raise reward_timeout"
        ) from None
    except RewardError as error:
        if error.__cause__ is None:
            raise
        told = _told(reward, prompts, completions, columns, seconds)
        raise RewardError(f"{error}{told}") from error


def _told(
    reward: Callable[..., Any],
    prompts: Sequence[Any],
    completions: Sequence[Any],
    columns: Mapping[str, Any],
    seconds: float,
) -> str:
    """Which completion the reward raises at, in words; empty where it cannot be found, or not in time."""
    try:
        with _alarm(seconds):
            row = raising_row(reward, prompts, completions, columns)
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
