"""A reward that says nothing is noticed, with its cause; one that is only slow to start is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rewards.contract import RewardError, note
from rewards.watch import Watched


def watched(batches: Sequence[Sequence[float | None]], patience: int = 3) -> tuple[list[str], dict[str, list[float]]]:
    """The warnings, and what was logged, over batches of two prompts with two completions each."""
    warnings: list[str] = []
    logged: dict[str, list[float]] = {}
    given = iter(batches)

    def reward(prompts: Any, completions: Any, **columns: Any) -> list[float | None]:
        values = list(next(given))
        for row, value in enumerate(values):
            if value is None:
                note(row, "no gold")
        return values

    watch = Watched(reward, "mine", 2, warnings.append, patience)
    for _ in batches:
        watch([""] * 4, ["a"] * 4, log_metric=lambda name, value: logged.setdefault(name, []).append(value))
    return warnings, logged


def test_a_reward_that_varies_is_left_alone() -> None:
    assert watched([[0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [None, None, None, None]] * 4)[0] == []


def test_nothing_but_none_ends_the_training_with_its_cause() -> None:
    with pytest.raises(RewardError, match=r"`mine` scored none of the completions of 3 batches \(12 no gold\)"):
        watched([[None] * 4] * 3)
    assert watched([[None] * 4, [None] * 4, [1, 0, None, 0]] * 3)[0] == [], "a batch now and then is no end"


def test_a_constant_is_warned_of_once() -> None:
    warnings, _ = watched([[0.0] * 4] * 9)
    assert len(warnings) == 1 and "gave every completion 0 for 3 batches" in warnings[0]
    assert watched([[0.0] * 4, [1.0] * 4] * 4)[0] != [], "level groups"
    assert "every completion" not in watched([[0.0] * 4, [1.0] * 4] * 4)[0][0]


def test_level_groups_are_warned_of() -> None:
    warnings, _ = watched([[0, 0, 1, 1]] * 5)
    assert len(warnings) == 1 and "all completions of each prompt the same" in warnings[0]


def test_notes_are_logged_as_shares_also_where_they_are_gone() -> None:
    _, logged = watched([[None, 1, 0, None], [1, 0, 1, 0]])
    assert logged == {"rewards/mine/no gold": [0.5, 0.0], "rewards/mine/None": [0.5, 0.0]}
    assert watched([[1, 1, 0, 0]])[1] == {}
