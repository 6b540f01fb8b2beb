"""What it is worth to run a prompt once for all samples of its problem, in the transformers engine.

Both ways take turns in one process, on the same requests. Seconds are the processor's.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from unittest import mock

from benchmarks.engines_compared import transformers_settings
from benchmarks.models import QUESTIONS, build, pictures
from engines.base import Decoding, Engine, Request
from engines.open import open_engine

PROBLEMS = 8
SAMPLES = 8
_REPEATS = 3


def gains(directory: Path) -> Iterator[tuple[str, float, float]]:
    """For text and for images: what was asked, and the seconds with each prompt for itself and shared."""
    images, checkpoint = pictures(directory, PROBLEMS), build(directory)
    with closing(open_engine(transformers_settings(), checkpoint)) as engine:
        for image in (False, True):
            for words, new_tokens in ((2, 64), (40, 8), (40, 64)):
                asked = [
                    Request(
                        f"{problem}/{sample}",
                        [{"role": "user", "content": f"{problem} " + f"{QUESTIONS[problem]} " * words}],
                        images[problem] if image else None,
                        Decoding(new_tokens, temperature=1.0),
                        seed=SAMPLES * problem + sample,
                    )
                    for problem in range(PROBLEMS)
                    for sample in range(SAMPLES)
                ]
                plain, shared, tokens = _seconds(engine, asked)
                yield f"{'image and text' if image else 'text'}, {tokens} and {new_tokens} tokens", plain, shared


def _seconds(engine: Engine, asked: list[Request]) -> tuple[float, float, int]:
    """The least of some repetitions, each way."""
    least = {False: float("inf"), True: float("inf")}
    made = {}
    for _ in range(_REPEATS):
        for share in least:
            alone = nullcontext() if share else mock.patch("engines.transformers.can_share", lambda model: False)
            with alone:
                start = time.process_time()
                made[share] = list(engine.generate(asked))
                least[share] = min(least[share], time.process_time() - start)
    assert made[False] == made[True] and not any(each.error for each in made[True])
    return least[False], least[True], made[True][0].prompt_tokens
