"""vLLM against transformers on the same prompts, and what it is worth to ask all questions of an image together.

Seconds are the processor's: with one thread they are what the clock shows on an idle machine, and another job beside
does not stretch them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.models import QUESTIONS, TARGETS, build, pictures
from engines.base import Decoding, Engine, Request, ScoreRequest
from engines.open import open_engine
from engines.settings import EngineSettings, TransformersSettings, VllmSettings

BATCH = 64
NEW_TOKENS = 32


def why_no_vllm() -> str | None:
    """The reason that vLLM cannot be measured here, or None."""
    try:
        import vllm  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        return f"vLLM does not import here: {error}"
    return None


def generate_and_score(
    directory: Path, settings: EngineSettings, sizes: Sequence[tuple[int, int]], images: int
) -> list[tuple[float, float]]:
    """Seconds to generate, and to score, for `images` pictures with four questions each; the engine is warm.

    One pair for each of `sizes`, which are hidden size and layers.
    """
    paths = pictures(directory, 2 * images)
    taken = []
    for hidden_size, layers in sizes:
        checkpoint = build(directory, hidden_size=hidden_size, layers=layers)
        with closing(open_engine(settings, checkpoint)) as engine:
            _answer(engine, paths[images:], QUESTIONS[:4])
            _score(engine, paths[images:], QUESTIONS[:4])
            asked = paths[:images]
            taken.append((_answer(engine, asked, QUESTIONS[:4]), _score(engine, asked, QUESTIONS[:4])))
    return taken


def orders(directory: Path, images: int) -> dict[str, float]:
    """Seconds for the same number of vLLM's answers: grouped by image, shuffled, and with a picture for each."""
    checkpoint = build(directory, hidden_size=256, layers=8)
    paths = pictures(directory, 4 * images + images * len(QUESTIONS), side=64)
    fresh = iter(paths)

    def take(count: int) -> list[str]:
        return [next(fresh) for _ in range(count)]

    with closing(open_engine(VllmSettings(max_num_seqs=BATCH), checkpoint)) as engine:
        _answer(engine, take(images), QUESTIONS)
        grouped = _answer(engine, take(images), QUESTIONS)
        with _no_grouping():
            shuffled = _answer(engine, take(images), QUESTIONS, shuffle=True)
            alone = _timed(engine.generate, [_request(p, q) for p, q in zip(fresh, QUESTIONS * images, strict=False)])
    return {"grouped": grouped, "shuffled": shuffled, "one picture each": alone}


def transformers_settings() -> TransformersSettings:
    return TransformersSettings(batch_size=BATCH, dtype="float32")


def vllm_settings() -> VllmSettings:
    return VllmSettings(max_num_seqs=BATCH, dtype="float32")


@contextmanager
def _no_grouping() -> Iterator[None]:
    with mock.patch("engines.vllm.grouped_by_image", lambda requests: list(range(len(requests)))):
        yield


def _request(path: str, question: str) -> Request:
    return Request(f"{path} {question}", [{"role": "user", "content": question}], path, Decoding(NEW_TOKENS))


def _answer(engine: Engine, paths: Sequence[str], questions: Sequence[str], shuffle: bool = False) -> float:
    requests = [_request(path, question) for path in paths for question in questions]
    if shuffle:
        random.Random(0).shuffle(requests)
    return _timed(engine.generate, requests)


def _score(engine: Engine, paths: Sequence[str], questions: Sequence[str]) -> float:
    asked = [(path, question) for path in paths for question in questions]
    return _timed(
        engine.score,
        [
            ScoreRequest(str(n), [{"role": "user", "content": question}], TARGETS[n % len(TARGETS)], path)
            for n, (path, question) in enumerate(asked)
        ],
    )


def _timed(call: Callable[[Sequence[Any]], Iterator[Any]], requests: Sequence[Any]) -> float:
    start = time.process_time()
    results = list(call(requests))
    taken = time.process_time() - start
    assert all(getattr(result, "error", None) is None for result in results)
    return taken
