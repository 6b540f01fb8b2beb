"""Rewards by name. A name is a place to import from; nothing is imported before it is asked for."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class RewardError(ValueError):
    """A reward cannot be found, or broke its contract. The message is one line."""


class Reward(Protocol):
    """TRL's signature. `columns` are the data's own columns, one value per completion."""

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """`target` is `module:function`; `version` changes whenever the same completion may get another score."""

    name: str
    target: str
    version: int
    summary: str


_ENTRIES = {
    entry.name: entry
    for entry in (
        Entry("exact_match", "rewards.builtin:exact_match", 1, "1 where the normalised answer equals the gold, else 0"),
    )
}


def entries() -> list[Entry]:
    """Every registered reward, by name."""
    return [_ENTRIES[name] for name in sorted(_ENTRIES)]


def entry(name: str) -> Entry:
    """The entry of that name.

    Raises:
        RewardError: there is none; the message names the nearest one.
    """
    if name in _ENTRIES:
        return _ENTRIES[name]
    near = difflib.get_close_matches(name, _ENTRIES, n=1)
    hint = f"did you mean `{near[0]}`?" if near else f"there are: {', '.join(sorted(_ENTRIES))}"
    raise RewardError(f"no reward is called `{name}`; {hint}")


def load(name: str) -> Reward:
    """The reward function of that name."""
    module, _, attribute = entry(name).target.partition(":")
    function: Reward = getattr(importlib.import_module(module), attribute)
    return function


def score(reward: Reward, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
    """Calls a reward and holds it to its contract: one float or None per completion, no NaN, no infinity.

    Raises:
        RewardError: it returned another number of scores, or something that is no finite number.
    """
    name = getattr(reward, "__name__", "the reward")
    scores = list(reward(prompts, completions, **columns))
    if len(scores) != len(completions):
        raise RewardError(f"reward `{name}` returned {len(scores)} scores for {len(completions)} completions")
    for index, value in enumerate(scores):
        if value is not None and not (isinstance(value, int | float) and abs(value) < float("inf")):
            raise RewardError(f"reward `{name}` returned {value!r} for completion {index}; a score is a number or None")
    return [None if value is None else float(value) for value in scores]
