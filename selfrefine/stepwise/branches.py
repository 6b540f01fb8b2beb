"""Completions that go on from a prefix of another completion, through the trainer's own generation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from selfrefine.stepwise.instead import instead


@dataclass(frozen=True, slots=True)
class Branching:
    """Where a branch begins: a prompt as the trainer was given it, images included, and the tokens that are kept."""

    prompt: Any
    prefix: list[int]


class Branches:
    """Samples from a `GRPOTrainer`. Prefixes stay tokens: decoding and tokenising anew would move them."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._most = int(trainer.max_completion_length)

    def sample(self, begun: Sequence[Branching], count: int) -> list[list[list[int]]]:
        """For each of `begun`, `count` whole completions: its prefix, and what was sampled after it.

        None is longer than a completion may be: a branch with more room than its parent had would succeed more often.
        """
        if not begun:
            return []
        trainer = self._trainer
        repeated = [each for each in begun for _ in range(count)]
        prompt_ids, images, fields = trainer._tokenize_prompts([each.prompt for each in repeated])
        extended = [[*ids, *each.prefix] for ids, each in zip(prompt_ids, repeated, strict=True)]
        fields = {name: _extended(values, repeated) for name, values in fields.items()}
        with self._room(max(self._most - len(each.prefix) for each in begun)):
            sampled, _ = trainer._generate_single_turn(extended, images, fields, count)
        whole = [
            [*each.prefix, *ids[: self._most - len(each.prefix)]] for each, ids in zip(repeated, sampled, strict=True)
        ]
        return [whole[start : start + count] for start in range(0, len(whole), count)]

    def _room(self, tokens: int) -> AbstractContextManager[None]:
        """No more than `tokens` new tokens are sampled inside."""
        if self._trainer.use_vllm:
            return instead(self._trainer.vllm_generation, "max_completion_length", tokens)
        return instead(self._trainer.generation_config, "max_new_tokens", tokens)


def _extended(values: Any, rows: Sequence[Branching]) -> Any:
    """A field with a number for each token gets zeros for the prefix, which is text; others are as they were."""
    if isinstance(values, list) and values and isinstance(values[0], list):
        return [[*numbers, *[0] * len(row.prefix)] for numbers, row in zip(values, rows, strict=True)]
    return values
