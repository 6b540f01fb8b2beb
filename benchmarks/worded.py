"""The reward of benchmarks/worded-step-credit.yaml: a sudoku whose cells are written as digits or as letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewards.puzzles import sudoku as digits
from rewards.text import Completion, text_of

_DIGITS = str.maketrans("abcd", "1234")


def sudoku(
    prompts: Sequence[Any], completions: Sequence[Completion], *, puzzle: Sequence[str], **columns: Any
) -> list[float | None]:
    """1 where the answer, its letters read as digits, solves the puzzle."""
    return digits(prompts, [text_of(completion).translate(_DIGITS) for completion in completions], puzzle=puzzle)
