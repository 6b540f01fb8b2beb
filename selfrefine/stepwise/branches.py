"""Completions that go on from a prefix of another completion, through the trainer's own generation."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from engines.shared_prompts import can_share, shared_rows
from selfrefine.instead import instead


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

    def sample(self, begun: Sequence[Branching], count: int, at_once: int) -> list[list[list[int]]]:
        """For each of `begun`, `count` whole completions: its prefix, and what was sampled after it.

        None is longer than a completion may be: a branch with more room than its parent had would succeed more often.
        No call samples more than `at_once`, the completions for which there is memory; so calls are as many wherever
        there are as many of `begun`. What is drawn depends on how rows fall into calls, as it does on their order.
        """
        repeated = [each for each in begun for _ in range(count)]
        # Rows that have much left to say go together: a call takes as many steps as the longest of its continuations.
        order = sorted(range(len(repeated)), key=lambda place: -len(repeated[place].prefix))
        size = max(1, len(order)) if self._queues else at_once
        whole: list[list[int]] = [[]] * len(repeated)
        for start in range(0, len(order), size):
            places = order[start : start + size]
            found = self._finished([repeated[place] for place in places], [place // count for place in places])
            for place, ids in zip(places, found, strict=True):
                whole[place] = ids
        return [whole[start : start + count] for start in range(0, len(whole), count)]

    @property
    def _queues(self) -> bool:
        """Whether the sampler makes rows wait until there is memory for them. Images are read for a whole call."""
        trainer = self._trainer
        return (trainer.use_vllm or trainer.use_transformers_continuous_batching) and not trainer._is_vlm

    def _finished(self, rows: Sequence[Branching], begun: Sequence[int]) -> list[list[int]]:
        """A whole completion of each, sampled in one call; rows of the same `begun` have all in common."""
        prompt_ids, images, fields = self._trainer._tokenize_prompts([each.prompt for each in rows])
        extended = [[*ids, *each.prefix] for ids, each in zip(prompt_ids, rows, strict=True)]
        fields = {name: _extended(values, rows) for name, values in fields.items()}
        with self._room(max(self._most - len(each.prefix) for each in rows)), self._read_once(begun, images):
            # A group of one: TRL would send the first prompt of each group to a server of vLLM's, and these differ.
            sampled, _ = self._trainer._generate_single_turn(extended, images, fields, 1)
        return [[*each.prefix, *ids[: self._most - len(each.prefix)]] for each, ids in zip(rows, sampled, strict=True)]

    def _read_once(self, begun: Sequence[int], images: Any) -> AbstractContextManager[None]:
        """What branches of one cut have in common goes through the model once, where the trainer samples by itself."""
        trainer = self._trainer
        model = trainer.accelerator.unwrap_model(trainer.model)
        numbers = {cut: number for number, cut in enumerate(dict.fromkeys(begun))}
        ours = not self._queues and not trainer.use_vllm and trainer.generation_config.cache_implementation is None
        if len(numbers) == len(begun) or images is not None or not ours or not can_share(model):
            return nullcontext()
        return shared_rows(model, [numbers[cut] for cut in begun])

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
