"""Countdown made by a seed: numbers, and a target that they can be combined to.

A problem is of the split that a hash of its numbers says, in any order: no two splits have a set of numbers in common,
whatever their sizes, settings and seeds.
"""

from __future__ import annotations

import random
from functools import lru_cache
from itertools import count as naturals
from math import inf
from typing import Any

from tasks.draw import seed64, split_at, uniform
from tasks.problem import Problem, Rows, TaskError
from tasks.whole import is_whole

UNITS = "problems"
SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""The share of all sets of numbers that are of a split."""
NUMBERS = (3, 5)
"""How few and how many there may be: the search for a target goes through all ways to combine them."""
LEAST_TARGET, MOST = 10, 1000
FRUITLESS = 20_000
"""Draws in a row without a new problem of the split that end the search."""


def load(split: str, numbers: int = 3, largest: int = 100, size: int = 500, seed: int = 0) -> Rows:
    """`size` different problems of so many `numbers`, drawn from 1 to `largest`.

    The target is one of the whole numbers from 10 to `largest` that all of them can be combined to without leaving the
    whole numbers from 0 on, each as likely. The answer is one expression that does it. Problems of the same numbers are
    one cluster. `columns` have what the reward `countdown` needs. Raises `TaskError`.
    """
    check(split, numbers, largest, size, seed)
    return _load(split, numbers, largest, size, seed)


def check(split: str, numbers: int = 3, largest: int = 100, size: int = 500, seed: int = 0) -> str | None:
    """Raises `TaskError` for an unknown split or a value that cannot be."""
    if split not in SPLITS:
        raise TaskError(f"countdown has no split {split!r}; it has {', '.join(SPLITS)}")
    limits: tuple[tuple[str, int, int, float], ...] = (
        ("numbers", numbers, *NUMBERS),
        ("largest", largest, LEAST_TARGET, MOST),
        ("size", size, 1, inf),
        ("seed", seed, 0, inf),
    )
    for name, value, least, most in limits:
        if not is_whole(value) or not least <= value <= most:
            allowed = f"of {least} or more" if most == inf else f"from {least} to {most}"
            raise TaskError(f"countdown: {name} is a whole number {allowed}, not {value!r}")
    return None


def count(split: str, size: int = 500, **options: Any) -> int:
    """How many problems there are: as many as were asked for."""
    return size


def columns(split: str, **options: Any) -> frozenset[str]:
    """The names of its problems' `columns`."""
    return frozenset({"numbers", "target"})


def question(numbers: list[int], target: int) -> str:
    """What is asked: an expression of all numbers with the target's value."""
    return (
        f"Numbers: {', '.join(map(str, numbers))}. Target: {target}. Write an arithmetic expression that equals the "
        "target. Use each of the numbers exactly once, and nothing else but +, -, *, / and parentheses."
    )


@lru_cache(8)
def _load(split: str, numbers: int, largest: int, size: int, seed: int) -> Rows:
    from tasks.puzzles.expressions import Expressions

    found: dict[str, Problem] = {}
    repeated, last = 0, 0
    for number in naturals():
        generator = random.Random(seed64("countdown", numbers, largest, seed, number))
        given = [generator.randint(1, largest) for _ in range(numbers)]
        group = "-".join(map(str, sorted(given)))
        if split_at(uniform("countdown", group), SPLITS) == split:
            expressions = Expressions(given, whole=True)
            targets = [int(value) for value in expressions.values if LEAST_TARGET <= value <= largest]
            if targets:
                target = generator.choice(targets)
                name = f"{group}={target}"
                repeated += name in found
                if name not in found:
                    answer = expressions.written(target)
                    assert answer is not None
                    about = {"numbers": given, "target": target}
                    asked = question(given, target)
                    found[name] = Problem(name, asked, answer, cluster=group, kind=f"{numbers} numbers", columns=about)
                    last = number
        if len(found) == size:
            return Rows(list(found.values()), dropped=(("duplicate", repeated),) if repeated else ())
        if number - last >= FRUITLESS:
            break
    raise TaskError(
        f"countdown of {numbers} numbers up to {largest}, split {split}: {len(found)} problems found, then none in "
        f"{FRUITLESS:,} draws; {size} asked for: make size smaller or largest larger"
    )
