"""A training step in float32 and in bfloat16."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal

from benchmarks.models import QUESTIONS, TARGETS, build, pictures
from selfrefine.sft import Example, SftSettings, fine_tune


def seconds_per_step(
    directory: Path, precision: Literal["float32", "bfloat16"], *, batch_size: int = 16, steps: int = 6
) -> float:
    """Median of an optimiser step of the quickstart's model, in processor seconds; the first two are left out."""
    checkpoint = build(directory)
    examples = [
        Example([{"role": "user", "content": QUESTIONS[n % len(QUESTIONS)]}], TARGETS[n % len(TARGETS)], path)
        for n, path in enumerate(pictures(directory, batch_size * 2))
    ]
    settings = SftSettings(steps=steps, batch_size=batch_size, learning_rate=1e-3, precision=precision)
    marks: list[float] = []

    def note(row: Any) -> None:
        if "loss" in row:
            marks.append(time.process_time())

    fine_tune(
        examples,
        str(checkpoint),
        directory / precision,
        directory / f"{precision}-saves",
        settings,
        seed=0,
        on_log=note,
    )
    return median(b - a for a, b in pairwise(marks[1:]))
