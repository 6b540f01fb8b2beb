"""A reward that knows nothing of the answer: for arms that show what reinforcement does by itself."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any


def coin(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
    """0 or 1 for each place in the batch, whatever stands there; the same for the same batch."""
    generator = random.Random(f"{prompts}{completions}")
    return [float(generator.random() < 0.5) for _ in completions]
