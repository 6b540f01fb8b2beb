"""The rewards that ship with Trivium.

Each is a function `reward(prompts, completions, **columns) -> list[float | None]`, the signature of TRL's trainers, so
that the same function trains and evaluates. None means "could not be scored" and is never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewards.normalise import normalise
from rewards.text import Completion, text_of


def exact_match(
    prompts: Sequence[Any], completions: Sequence[Completion], *, answer: Sequence[str | None], **columns: Any
) -> list[float | None]:
    """1 where the completion equals the gold answer after `rewards.normalise`, else 0.

    Args:
        completions: one per prompt.
        answer: the gold answers; None, or one that normalises to nothing, cannot be scored and gives None.

    Raises:
        ValueError: `completions` and `answer` differ in length.
    """
    return [
        None if gold is None or not (wanted := normalise(gold)) else float(normalise(text_of(completion)) == wanted)
        for completion, gold in zip(completions, answer, strict=True)
    ]
