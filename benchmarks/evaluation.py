"""What grading adds to generation: `eval.evaluate` around an engine, against the engine alone."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from engines.base import Decoding, Engine, Generation, Request, Score, ScoreRequest
from engines.settings import TransformersSettings
from engines.transformers import TransformersEngine
from eval.evaluate import Asked, evaluate
from eval.grading import Grader
from eval.suite import Suite
from selfrefine.build import BuildSpec, build_model
from tasks.problem import Problem

PROBLEMS = 256
# Equal as they stand, equal only after computation, and wrong.
ANSWERS = (r"\frac{1}{2}", r"\frac{2}{4}", r"\frac{2}{3}")
DECODING = Decoding(max_new_tokens=64)


class Retold:
    """An engine that takes its time and then says what there is to grade: a random model says nothing."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def generate(self, requests: Sequence[Request]) -> Iterator[Generation]:
        for number, generation in enumerate(self._engine.generate(requests)):
            yield replace(generation, text=ANSWERS[number % len(ANSWERS)], finish="stop")

    def score(self, requests: Sequence[ScoreRequest]) -> Iterator[Score]:
        return self._engine.score(requests)

    def close(self) -> None:
        self._engine.close()


def ratios(directory: Path, rounds: int = 4) -> dict[str, float]:
    """Reward -> wall time of evaluation over that of generation alone, median of `rounds`; each goes first in turn."""
    problems = [Problem(f"p{i}", f"What is half of {i} over {i}? " * 8, ANSWERS[0]) for i in range(1, PROBLEMS + 1)]
    spec = BuildSpec(architecture="llama", hidden_size=256, layers=4, heads=4, max_length=256)
    build_model(spec, [problem.question for problem in problems], directory / "model", seed=0)
    engine = Retold(TransformersEngine.open(TransformersSettings(batch_size=64), str(directory / "model")))
    found = {}
    for reward in ("exact_match", "maths"):
        suite = Suite("benchmark", reward, DECODING)
        grader = Grader.of(suite)
        _evaluation(problems[:64], engine, grader, suite)  # starts the workers
        taken = []
        for number in range(rounds):
            if number % 2:
                alone = _generation(problems, engine, suite)
            graded = _evaluation(problems, engine, grader, suite)
            if not number % 2:
                alone = _generation(problems, engine, suite)
            taken.append(graded / alone)
        found[reward] = statistics.median(taken)
    engine.close()
    return found


def _generation(problems: Sequence[Problem], engine: Engine, suite: Suite) -> float:
    began = time.perf_counter()
    requests = [Request(problem.id, suite.messages(problem), None, DECODING) for problem in problems]
    for _ in engine.generate(requests):
        pass
    return time.perf_counter() - began


def _evaluation(problems: Sequence[Problem], engine: Engine, grader: Grader, suite: Suite) -> float:
    began = time.perf_counter()
    for _ in evaluate(list(map(Asked, problems)), engine, grader, suite, label="model", suite_digest="none"):
        pass
    return time.perf_counter() - began
