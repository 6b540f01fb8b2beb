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
    with pytest.raises(RewardError, match="raised ValueError: no"):
        graded(refuses, 5)(["a"], ["b"])


def refuses(prompts: Any, completions: Any, **columns: Any) -> list[float]:
    raise ValueError("no")
