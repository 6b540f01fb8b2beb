"""An engine without a model, for workers: it takes its time, notes what it does, and fails where a file says so."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from engines.base import Engine, EngineError, Generation, Request, Score, ScoreRequest
from engines.settings import EngineSettings
from tasks.draw import seed64

_Item = TypeVar("_Item", Request, ScoreRequest)


class ScriptedEngine:
    """`checkpoint` is a folder: `script.json` in it says what to do, `diary` in it gets a line for what was done.

    Script, all optional: `seconds` for each batch; `refuses`, an error on opening; `fault` ("kill" or "stop", of its
    own process) once it comes to the request `at`, so many `times` over all workers; "kill while loading".
    """

    def __init__(self, settings: Any, checkpoint: str) -> None:
        self._folder = Path(checkpoint)
        self._script = json.loads((self._folder / "script.json").read_text())
        self._batch_size = settings.batch_size
        self._weights = "loaded"
        self._note("open", [])
        if self._script.get("refuses"):
            raise EngineError(self._script["refuses"])
        if self._script.get("fault") == "kill while loading":
            os.kill(os.getpid(), signal.SIGKILL)

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        for request in self._done(requests):
            text = f"{self._weights} {seed64(request.seed, request.image or '', request.messages[-1]['content']) % 997}"
            yield Generation(request.id, text, (1, 2), "stop", 8)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Score]:
        for request in self._done(requests):
            yield Score(request.id, (-float(seed64(request.target, request.image or "") % 100),))

    def update_weights(self, named: Any) -> None:
        self._weights = ",".join(f"{name}={tensor.float().sum().item():g}" for name, tensor in named)

    def close(self) -> None:
        self._note("close", [])

    def _done(self, requests: Sequence[_Item]) -> Iterator[_Item]:
        for start in range(0, len(requests), self._batch_size):
            batch = requests[start : start + self._batch_size]
            self._note("begin", [request.id for request in batch])
            if self._script.get("at") in [request.id for request in batch]:
                self._fail()
            time.sleep(self._script.get("seconds", 0))
            self._note("end", [request.id for request in batch])
            yield from batch

    def _fail(self) -> None:
        for number in range(self._script.get("times", 1)):
            try:
                (self._folder / f"failed-{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[self._script["fault"]])

    def _note(self, what: str, ids: Sequence[str]) -> None:
        with (self._folder / "diary").open("a") as diary:
            diary.write(
                json.dumps({"pid": os.getpid(), "what": what, "ids": ids, "threads": os.environ.get("OMP_NUM_THREADS")})
                + "\n"
            )


def open_scripted(settings: EngineSettings, checkpoint: str) -> Engine:
    return ScriptedEngine(settings, checkpoint)
