"""A reward that hangs ends a training in one line; one that is merely slow does not."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from typing import Any

import pytest

from rewards.contract import RewardError
from selfrefine.stepwise.graded import Graded


def graded(reward: Any, seconds: float) -> Graded:
    return Graded(reward, "mine", 2, lambda line: None, seconds)


def sleeps(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    time.sleep(60)
    return [0.0] * len(completions)


def spins_and_catches(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    while True:
        with contextlib.suppress(Exception):
            sum(range(1000))


async def awaits(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    await asyncio.sleep(60)
    return [0.0] * len(completions)


@pytest.mark.parametrize("reward", [sleeps, spins_and_catches, awaits])
def test_a_reward_that_never_returns_is_one_line(reward: Any) -> None:
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(RewardError, match=r"^reward `mine` did not return within 0\.2 seconds for 2 completions; make"):
        graded(reward, 0.2)(["a", "a"], ["b", "c"])
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_reward_in_time_is_left_alone() -> None:
    assert graded(lambda prompts, completions, **columns: [1, None], 5)(["a", "a"], ["b", "c"]) == [1.0, None]
    with pytest.raises(RewardError, match=r"raised ValueError in test_graded.py, line \d+: no \(completion 1: 'b'\)$"):
        graded(refuses, 5)(["a", "a"], ["a", "b"])


def refuses(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    if "b" in completions:
        raise ValueError("no")
    return [1.0] * len(completions)


def test_a_search_for_the_completion_that_a_reward_raises_at_ends_in_time() -> None:
    def broken(prompts: Any, completions: Any, **columns: Any) -> list[float]:
        if len(completions) > 1:
            raise ValueError("no")
        time.sleep(3600)
        return []

    with pytest.raises(RewardError, match=r"^reward `broken` raised ValueError in test_graded.py, line \d+: no$"):
        graded(broken, 0.2)(["a", "a"], ["b", "c"])


def test_columns_go_along_and_what_is_no_column_is_handed_on() -> None:
    def picky(prompts: Any, completions: Any, *, answer: Any, log: Any) -> list[float]:
        assert len(answer) == len(completions) and log == "log"
        return [1 / float(each) for each in answer]

    with pytest.raises(RewardError, match=r"division by zero \(completion 2: 'c'\)$"):
        graded(picky, 5)(["a"] * 3, ["a", "b", "c"], answer=["1", "2", "0"], log="log")
