"""Rewards of a completion's form. They say nothing about whether it is right: combine them with one that does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewards.text import Completion, text_of


def answer_format(prompts: Sequence[Any], completions: Sequence[Completion], **columns: Any) -> list[float | None]:
    """1 for reasoning in `<think>` followed by one `<answer>` and nothing else, else 0.

    The opening `<think>` may be missing: chat templates open it in the prompt.
    """
    return [float(_well_formed(text_of(completion).strip())) for completion in completions]


def short(
    prompts: Sequence[Any],
    completions: Sequence[Completion],
    *,
    completion_ids: Sequence[Sequence[int]] | None = None,
    target: int = 256,
    **columns: Any,
) -> list[float | None]:
    """1 up to `target` tokens, falling in a straight line to 0 at twice as many; words where no tokens are given."""
    lengths = (
        [len(text_of(each).split()) for each in completions] if completion_ids is None else map(len, completion_ids)
    )
    return [min(1.0, max(0.0, 2.0 - length / target)) for length in lengths]


def _well_formed(text: str) -> bool:
    if any(text.count(tag) != 1 for tag in ("</think>", "<answer>", "</answer>")):
        return False
    thought, _, rest = text.partition("</think>")
    rest = rest.strip()
    framed = rest.startswith("<answer>") and rest.endswith("</answer>")
    return framed and "<think>" not in thought.removeprefix("<think>") and bool(rest[8:-9].strip())
