"""Several chunks of a stage in work at once, for engines that can do more than one of them.

Stages, methods and rewards are written for one thread, so one thread at a time runs them: it keeps the turn until it
waits for the engine, and takes it again once there is an answer. So a stage sees another chunk go on nowhere but at
its own calls of the engine.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from engines.base import Generation, Request, Score, ScoreRequest

if TYPE_CHECKING:
    from engines.replicated.engine import ReplicatedEngine

_Result = TypeVar("_Result")


class Turns:
    """Whose turn it is. `at_once` chunks may be in work; with 1 there is nothing to take turns about."""

    def __init__(self, at_once: int = 1) -> None:
        self.at_once = at_once
        self._lock = threading.Lock()
        self._whose: int | None = None

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Waits for the turn and keeps it."""
        with self._lock:
            self._whose = threading.get_ident()
            try:
                yield
            finally:
                self._whose = None

    @contextmanager
    def left(self) -> Iterator[None]:
        """Lets others have the turn; a thread that has none just goes on."""
        if self._whose != threading.get_ident():
            yield
            return
        self._whose = None
        self._lock.release()
        try:
            yield
        finally:
            self._lock.acquire()
            self._whose = threading.get_ident()


class TurnTaking:
    """An engine of several workers, whose callers leave the turn to others while it works for them."""

    def __init__(self, engine: ReplicatedEngine, turns: Turns) -> None:
        self._engine = engine
        self._turns = turns

    @property
    def workers(self) -> tuple[int, int]:
        """How many are ready or at work, of how many wanted."""
        return self._engine.workers

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        return self._results(self._engine.generate(requests))

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Score]:
        return self._results(self._engine.score(requests))

    def reopen(self, checkpoint: str) -> None:
        """Opens another checkpoint on the same workers."""
        self._engine.reopen(checkpoint)

    def close(self) -> None:
        self._engine.close()

    def _results(self, found: Iterator[_Result]) -> Iterator[_Result]:
        while True:
            with self._turns.left():
                result = next(found, None)
            if result is None:
                return
            yield result
