"""The heartbeat of a run at work: `live.json`, one small file that is replaced every few seconds.

It says which process works on which stage, how far that is and how fast, and what memory it takes. It is gone when the
run has come to its end; where it stays without an end, the process died. `pipelines.live` reads it.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.base import first_line
from pipelines.errors import Interrupted
from pipelines.files import PARTIAL, remove
from pipelines.machine import gpus_in_use, memory_in_use
from pipelines.process import born

if TYPE_CHECKING:
    from engines.base import Engine, Generation, Request, Score, ScoreRequest
    from pipelines.progress import Progress

LIVE_FILE = "live.json"
TRAINING = "training"
"""What is done where steps are counted, and not rows."""
PERIOD = 2.0
"""Seconds between two beats."""
_BEATS_PER_LOOK = 5
"""Memory is looked at every so many beats: it takes a few milliseconds, or a process where there is a GPU."""
WINDOW = 300.0
"""Seconds that a rate is a mean over, or longer where things get done less often."""


class Rate:
    """How many a second, lately. Counts may come one by one or in heaps that are minutes apart."""

    def __init__(self) -> None:
        self.count = 0
        self._points = deque([(time.monotonic(), 0)])

    def add(self, count: int) -> None:
        self.count += count
        if len(self._points) > 1 and self._points[-1][0] - self._points[-2][0] < 1:
            self._points.pop()
        now = time.monotonic()
        self._points.append((now, self.count))
        while len(self._points) > 2 and self._points[1][0] < now - WINDOW:
            self._points.popleft()

    def value(self) -> float | None:
        """Between the first and the last that are remembered; None before the first."""
        (first, before), (last, after) = self._points[0], self._points[-1]
        return (after - before) / (last - first) if last > first else None


class Heartbeat:
    """What `live.json` of one run says. Its methods may be called from any thread.

    `stages` are all stages of the run, in order; `due` those that will run. `command` goes on with the run.
    """

    def __init__(self, path: Path, stages: Sequence[str], due: Sequence[str], command: str | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._due = list(due)
        self._said: dict[str, Any] = {
            "command": command,
            "folder": str(Path.cwd()),
            "process": os.getpid(),
            "born": born(os.getpid()),
            "host": socket.gethostname(),
            "stages": list(stages),
        }
        self._stage: dict[str, Any] = {}
        self._engine: Engine | None = None
        self._work: dict[str, Any] = {}
        self._skipped = 0
        self._rows, self._tokens = Rate(), Rate()
        self._memory: dict[str, Any] = {}

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Beats from a thread of its own until the block ends, well or not; where nothing is due, not at all."""
        if not self._due:
            yield
            remove(self._path)
            return
        over = threading.Event()
        thread = threading.Thread(target=self._beat_until, args=(over,), name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        except BaseException as error:
            over.set()
            thread.join()
            how = "interrupted" if isinstance(error, Interrupted) else "failed"
            self._beat({"ended": {"how": how, "why": first_line(error)}})
            raise
        over.set()
        thread.join()
        remove(self._path)

    def enter(self, stage: str) -> None:
        """`stage` begins."""
        with self._lock:
            self._stage = {"stage": stage, "began": time.time()}
            self._work = {}
            self._tokens = Rate()
        self._beat()

    def leave(self, stage: str) -> None:
        """`stage` is finished."""
        with self._lock:
            self._due = [each for each in self._due if each != stage]
            self._stage, self._work, self._engine = {}, {}, None

    def counting(self, bar: Progress, total: int, what: str) -> Progress:
        """`bar`, which from now on counts here as well: `total` things are to be done."""
        with self._lock:
            self._work = {"what": what, "total": total}
            self._skipped, self._rows = 0, Rate()
        return _Counted(bar, self)

    def counted(self, engine: Engine) -> Engine:
        """`engine`, whose tokens from now on count here. What it says of its `workers`, (alive, all), is told too."""
        with self._lock:
            self._engine = engine
        return _CountedEngine(engine, self)

    def add(self, rows: int = 0, tokens: int = 0, skipped: int = 0) -> None:
        """So many more are done; `skipped` were done by an earlier attempt."""
        with self._lock:
            self._skipped += skipped
            if rows:
                self._rows.add(rows)
            if tokens:
                self._tokens.add(tokens)

    def _beat_until(self, over: threading.Event) -> None:
        number = 0
        while True:
            if number % _BEATS_PER_LOOK == 0:
                memory = {"memory": memory_in_use(), "gpus": gpus_in_use()}
                with self._lock:
                    self._memory = memory
            self._beat()
            number += 1
            if over.wait(PERIOD):
                return

    def _beat(self, end: Mapping[str, Any] | None = None) -> None:
        with self._lock:
            said = {**self._said, "due": list(self._due), **self._stage, **self._work, **self._memory}
            if self._work:
                said |= {"done": self._skipped + self._rows.count, "rows_per_second": self._rows.value()}
            said |= {"tokens": self._tokens.count, "tokens_per_second": self._tokens.value()}
            workers = getattr(self._engine, "workers", None)
            if workers is not None:
                said["workers"] = {"alive": workers[0], "of": workers[1]}
            said |= {"time": time.time(), **(end or {})}
            temporary = self._path.with_name(PARTIAL + self._path.name)
            try:
                # Not flushed to the disk, as what a run keeps is: after a power failure nobody needs it.
                temporary.write_text(json.dumps(said) + "\n", encoding="utf-8")
                temporary.replace(self._path)
            except OSError:
                return  # A full disk stops a run where it loses something; this is only told to those who watch.


class _Counted:
    def __init__(self, bar: Progress, heart: Heartbeat) -> None:
        self._bar, self._heart = bar, heart

    def advance(self, count: int = 1) -> None:
        self._bar.advance(count)
        self._heart.add(rows=count)

    def skip(self, count: int) -> None:
        self._bar.skip(count)
        self._heart.add(skipped=count)


class _CountedEngine:
    def __init__(self, engine: Engine, heart: Heartbeat) -> None:
        self._engine, self._heart = engine, heart

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        for generation in self._engine.generate(requests):
            self._heart.add(tokens=len(generation.token_ids))
            yield generation

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Score]:
        for score in self._engine.score(requests):
            self._heart.add(tokens=len(score.logprobs))
            yield score

    def close(self) -> None:
        self._engine.close()
