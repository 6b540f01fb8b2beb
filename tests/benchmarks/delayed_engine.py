"""An engine that knows nothing and takes a fixed time for it, so that what is left of a stage's time is the stage's."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TypeVar

from engines.base import Generation, Request, Score, ScoreRequest
from selfrefine.triad.templates import ANSWER_LABEL, Prompts, render_pair, render_question
from tasks.draw import seed64

_Item = TypeVar("_Item", Request, ScoreRequest)
QUESTIONS = ("what shape is in the image?", "is there a red shape?", "what color is the circle?")
ANSWERS = ("circle", "yes", "red")


class DelayedEngine:
    """Waits `delay` seconds per batch, then answers each request in the form that its prompt asks for.

    `waited` adds up the seconds that were really spent waiting, `requests` counts what was asked.
    """

    def __init__(self, prompts: Prompts, delay: float, batch_size: int) -> None:
        self._prompts = prompts
        self._delay = delay
        self._batch_size = batch_size
        self.waited = 0.0
        self.requests = 0

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        for request in self._after_a_while(requests):
            yield Generation(request.id, self._text(request), (1, 2), "stop", 8)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Score]:
        for request in self._after_a_while(requests):
            yield Score(request.id, (-1.0 - seed64(request.image, request.target) % 100 / 100,))

    def close(self) -> None:
        """There is nothing to give back."""

    def _text(self, request: Request) -> str:
        place = seed64(request.image, request.seed) % len(QUESTIONS)
        asked = str(request.messages[-1]["content"])
        if asked in self._prompts.propose:
            return render_pair(QUESTIONS[place], ANSWERS[place])
        if ANSWER_LABEL in asked:
            return render_question(QUESTIONS[place])
        return ANSWERS[place]

    def _after_a_while(self, requests: Sequence[_Item]) -> Iterator[_Item]:
        for start in range(0, len(requests), self._batch_size):
            began = time.perf_counter()
            time.sleep(self._delay)
            self.waited += time.perf_counter() - began
            for request in requests[start : start + self._batch_size]:
                self.requests += 1
                yield request
