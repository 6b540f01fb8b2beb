"""What a plan can say about a stage's reward before anything is loaded."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from tasks.problem import OWN_COLUMNS, TaskError

if TYPE_CHECKING:
    from pipelines.recipe import Recipe


def check_file(reference: str, key: str, what: str) -> Iterator[str]:
    """A line on a function of a file that there is not."""
    from rewards.contract import RewardError
    from rewards.files import written

    try:
        written(reference, what)
    except RewardError as error:
        yield f"{key}: {error}"


def check_reward(
    recipe: Recipe, data: str, reward: str, key: str, options: Collection[str] = (), steps: bool = False
) -> Iterator[str]:
    """Lines on a reward that there is not, or wants a column that the problems of `data` surely lack.

    `steps`: it is to grade the steps of completions.
    """
    from rewards.contract import STEPS, RewardError, missing_column
    from rewards.registry import columns
    from rewards.steps import columns_beside_steps, no_step_reward

    try:
        wanted = columns(reward, options)
        section = recipe.data.get(data)
        there = section.columns() if section else None
    except RewardError as error:
        yield f"{key}: {error}"
        return
    except TaskError:
        return  # a line on the data says so already
    if wanted is not None and steps:
        if STEPS not in wanted:
            yield f"{key}: {no_step_reward(reward)}"
            return
        wanted = columns_beside_steps(wanted)
    if wanted is not None and there is not None and (line := missing_column(reward, wanted, OWN_COLUMNS | there)):
        yield f"{key}: {line} (data.{data})"
