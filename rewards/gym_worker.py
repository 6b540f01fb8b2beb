"""What runs in the killable workers: reasoning-gym's own scorers."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import reasoning_gym

from tasks.gym_entry import unpacked


def judge(dataset: str, settings: str, entry: Any, answer: str) -> float | None:
    """The scorer's own number for an answer to an entry that a dataset of these settings (JSON) made.

    None where it stumbles over the answer and would not over the gold one; else what it raises is raised.
    """
    source = _source(dataset, settings)
    try:
        return float(source.score_answer(answer, entry=unpacked(entry)))
    except MemoryError:
        raise
    except Exception:
        gold = entry["answer"]
        if gold is None or source.score_answer(gold, entry=unpacked(entry)) != 1:
            raise
        return None


@lru_cache(32)
def _source(dataset: str, settings: str) -> Any:
    # Scorers look at tolerances, word lists and formats of the dataset that they belong to; none at its problems.
    return reasoning_gym.create_dataset(dataset, **json.loads(settings), seed=0, size=1)
