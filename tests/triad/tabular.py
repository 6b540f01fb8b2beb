"""A model whose every probability is known in a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from engines.base import Generation, Request, Score, ScoreRequest
from selfrefine.triad.templates import ANSWER_LABEL, Prompts, render_pair

PROMPTS = Prompts(propose=["Write a pair."], invert=["Write the question."])


def question(q: int) -> str:
    return f"what about thing {q}?"


def answer(a: int) -> str:
    return f"value{a}"


class Tabular:
    """An engine with p(question, answer | image) in a table [image, question, answer]; draws by inverse transform."""

    def __init__(self, joint: np.ndarray, *, broken: Sequence[str] = ()) -> None:
        self.joint = joint
        self.broken = broken

    def probabilities(self, image: str, prompt: str) -> dict[str, float]:
        """Completion → probability, for the prompt of one of the three tasks."""
        table = self.joint[int(Path(image).stem[1:])]
        if prompt == PROMPTS.propose[0]:
            cells = np.ndindex(table.shape)
            return {render_pair(question(q), answer(a)): float(table[q, a]) for q, a in cells}
        if prompt.startswith(PROMPTS.invert[0]):
            a = int(prompt.partition(f"{ANSWER_LABEL} value")[2])
            return {f"Instruction: {question(q)}": float(p) for q, p in enumerate(table[:, a] / table[:, a].sum())}
        row = table[int(prompt.rstrip("?").rpartition(" ")[2])]
        return {answer(a): float(p) for a, p in enumerate(row / row.sum())}

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        for request in requests:
            if request.image in self.broken:
                yield Generation(request.id, "", (), "error", 0, "no image")
                continue
            options = self.probabilities(str(request.image), request.messages[-1]["content"])
            if request.decoding.temperature == 0:
                text = max(options, key=lambda option: options[option])
            else:
                weights = np.array(list(options.values())) ** (1 / request.decoding.temperature)
                text = np.random.default_rng(request.seed).choice(list(options), p=weights / weights.sum())
            yield Generation(request.id, str(text), (0,), "stop", 1)

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Score]:
        for request in requests:
            if request.image in self.broken:
                yield Score(request.id, (), "no image")
            else:
                options = self.probabilities(str(request.image), request.messages[-1]["content"])
                yield Score(request.id, (math.log(options[request.target]),))

    def close(self) -> None: ...
