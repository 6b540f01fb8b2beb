"""Rewards for the parts of a completion: how good a trace is after each of its steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, cast

from rewards.contract import STEPS, RewardError, called, columns_of, missing_column, name_of, value_of
from rewards.registry import load


class StepReward(Protocol):
    """`steps[i]`: the texts of the parts of completion i, which joined are the completion.

    Returns a value for each part, in the unit of the outcome: how good the trace is once that part has been written.
    """

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], steps: Sequence[Sequence[str]], **columns: Any
    ) -> list[list[float | None]]: ...


def takes_steps(reward: Callable[..., Any]) -> bool:
    """Whether a function is a step reward: it has a parameter `steps` without a default."""
    return STEPS in columns_of(reward)


def columns_beside_steps(wanted: Sequence[str]) -> list[str]:
    """The data columns among what a step reward cannot do without."""
    return [name for name in wanted if name != STEPS]


def no_step_reward(reference: str) -> str:
    """A line on a reward that stands where a step reward belongs."""
    return (
        f"`{reference}` takes no `{STEPS}`: it grades whole completions, and belongs in rewards; a step reward is "
        f"called with (prompts, completions, {STEPS}, **columns)"
    )


def load_steps(reference: str, options: Mapping[str, Any] | None = None) -> StepReward:
    """As `registry.load`. Raises `RewardError` also where what is there grades no steps."""
    reward = load(reference, options)
    if not takes_steps(reward):
        raise RewardError(no_step_reward(reference))
    return cast(StepReward, reward)


def score_steps(
    reward: StepReward,
    prompts: Sequence[Any],
    completions: Sequence[Any],
    steps: Sequence[Sequence[str]],
    **columns: Any,
) -> list[list[float | None]]:
    """Calls a step reward, or awaits it, and holds it to its contract: a finite number or None for each step.

    Raises:
        RewardError: a column is missing; it raised; it returned another number of lists, or of values in one of them,
            or something that is no finite number.
    """
    name = f"step reward `{name_of(reward)}`"
    if line := missing_column(name_of(reward), columns_beside_steps(columns_of(reward)), columns):
        raise RewardError(line)
    returned, _ = called(name, reward, prompts, completions, {**columns, STEPS: [list(parts) for parts in steps]})
    if len(returned) != len(completions):
        raise RewardError(f"{name} returned {len(returned)} lists for {len(completions)} completions")
    return [_values(name, row, each, len(parts)) for row, (each, parts) in enumerate(zip(returned, steps, strict=True))]


def _values(name: str, row: int, returned: Any, count: int) -> list[float | None]:
    try:
        values = list(returned)
    except TypeError:
        shown = " ".join(repr(returned).split())[:200]
        raise RewardError(
            f"{name} returned {shown} for completion {row}; a list with a value for each of its {count} steps belongs "
            "there"
        ) from None
    if len(values) != count:
        raise RewardError(f"{name} returned {len(values)} values for the {count} steps of completion {row}")
    return [value_of(name, value, f"step {k} of completion {row}") for k, value in enumerate(values)]
